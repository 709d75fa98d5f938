//! How the store does, and what became of grants: for the log, for status and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::{Clock, Moment};
use crate::store::{Remedy, StoreError};
use crate::telemetry::chain;

/// How often a store that stays out of order is told of in the log.
const REMINDER: Duration = Duration::from_secs(60);

/// The vault's state as data, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct VaultRecord {
    /// Did the last call to the store succeed?
    pub writable: bool,
    /// What it failed with.
    pub error: Option<Arc<str>>,
    /// Grants that are in memory alone.
    pub unsaved: usize,
    /// Refresh tokens that were presented without a known outcome.
    pub uncertain: u64,
    /// Those of them that a second try brought back.
    pub recovered: u64,
    /// Those that were lost for good.
    pub lost: u64,
    /// Grants that the store had lost or had an older version of, and was given back.
    pub restored: u64,
}

/// How the store does.
pub(in crate::credential) struct Health {
    clock: Clock,
    state: Mutex<State>,
    pub(in crate::credential) counts: Counts,
}

#[derive(Default)]
struct State {
    failure: Option<Arc<str>>,
    told: Option<Moment>,
}

/// What became of grants; as in [`VaultRecord`].
#[derive(Default)]
pub(in crate::credential) struct Counts {
    pub(in crate::credential) uncertain: AtomicU64,
    pub(in crate::credential) recovered: AtomicU64,
    pub(in crate::credential) lost: AtomicU64,
    pub(super) restored: AtomicU64,
}

impl Health {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default(), counts: Counts::default() }
    }

    pub(super) fn record(&self, unsaved: usize) -> VaultRecord {
        let error = self.state().failure.clone();
        VaultRecord {
            writable: error.is_none(),
            error,
            unsaved,
            uncertain: self.counts.uncertain.load(Ordering::Relaxed),
            recovered: self.counts.recovered.load(Ordering::Relaxed),
            lost: self.counts.lost.load(Ordering::Relaxed),
            restored: self.counts.restored.load(Ordering::Relaxed),
        }
    }

    /// Did the last call that tells fail?
    pub(super) fn fails(&self) -> bool {
        self.state().failure.is_some()
    }

    /// A call to the store failed.
    pub(super) fn failed(&self, error: &StoreError) {
        // What is wrong with one entry is its account's error, not the store's.
        if error.remedy() == Remedy::Entry {
            return;
        }
        let now = self.clock.now();
        let mut state = self.state();
        let text = chain(error);
        let is_new = state.failure.as_deref() != Some(&*text);
        if is_new || state.told.is_none_or(|told| now.since(told) >= REMINDER) {
            warn!("the store is out of order; tokens serve on from memory: {text}");
            state.told = Some(now);
        }
        state.failure = Some(text.into());
    }

    /// It could be written.
    pub(super) fn is_well(&self) {
        let mut state = self.state();
        if state.failure.take().is_some() {
            state.told = None;
            info!("the store works again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
