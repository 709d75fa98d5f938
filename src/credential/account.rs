//! One identity within a credential: its token in force, its machine, and what is known of both.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::lease::Token;
use super::machine::Machine;
use super::source::TokenSource;
use crate::header::AuthHeader;

/// Index into [`TokenPool::accounts`].
pub(super) type AccountId = usize;

/// One identity within a credential.
pub(super) struct Account {
    pub(super) name: Arc<str>,
    pub(super) source: Arc<dyn TokenSource>,
    pub(super) current: ArcSwapOption<Token>,
    pub(super) machine: Mutex<Machine>,
    /// Has the keeper been told to look, and has not looked yet?
    pub(super) kicked: AtomicBool,
    /// Was there a lease since the keeper last asked? Written by leases only when it is not set.
    pub(super) used: AtomicBool,
    /// No leases before this moment (nanoseconds): the upstream asked this client to slow down.
    pub(super) resting_until: AtomicU64,
    /// The number of the last lease that was given in turn: the least is the least recently used.
    pub(super) last_turn: AtomicU64,
    /// The header that was given out last, in force or not.
    pub(super) newest: ArcSwapOption<Token>,
    /// Leases of this generation and earlier ones are void: somebody has logged out since.
    pub(super) void_until: AtomicU64,
    /// Does nothing help but a login?
    pub(super) login_required: AtomicBool,
    /// What the last fetch failed with, for the record.
    pub(super) last_error: Mutex<Option<Arc<str>>>,
    /// Fetches that brought a new token.
    pub(super) fetches: AtomicU64,
    /// Fetches that failed.
    pub(super) failures: AtomicU64,
    /// Leases that upstreams refused.
    pub(super) refusals: AtomicU64,
}

impl Account {
    pub(super) fn new(name: Arc<str>, source: Arc<dyn TokenSource>, margin: Option<Duration>) -> Self {
        Self {
            name,
            source,
            current: ArcSwapOption::empty(),
            machine: Mutex::new(Machine::new(margin)),
            kicked: AtomicBool::new(false),
            used: AtomicBool::new(false),
            resting_until: AtomicU64::new(0),
            last_turn: AtomicU64::new(0),
            newest: ArcSwapOption::empty(),
            void_until: AtomicU64::new(0),
            login_required: AtomicBool::new(false),
            last_error: Mutex::default(),
            fetches: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
        }
    }

    /// The header that was given out last, in force or not.
    pub(super) fn newest(&self) -> Option<AuthHeader> {
        self.newest.load().as_ref().map(|token| token.header.clone())
    }

    /// Makes every lease void that was given so far; `generation`: the newest.
    pub(super) fn void(&self, generation: u64) {
        self.void_until.store(generation, Ordering::Relaxed);
    }

    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        // A panic while it was held left a state that is a state: each transition is one assignment at a time.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what the machine holds what leases see; `header` comes with a new generation.
    pub(super) fn publish(&self, machine: &Machine, header: Option<AuthHeader>) {
        match (machine.held(), header) {
            (None, _) => self.current.store(None),
            (Some(held), Some(header)) => {
                let token = Arc::new(Token {
                    header,
                    generation: held.generation,
                    expires: held.expires,
                    accepted: AtomicBool::new(false),
                });
                self.newest.store(Some(Arc::clone(&token)));
                self.current.store(Some(token));
            }
            (Some(_), None) => {}
        }
    }

    /// Is this the header in force?
    pub(super) fn holds(&self, header: &AuthHeader) -> bool {
        self.current.load().as_ref().is_some_and(|token| token.header == *header)
    }

    pub(super) fn last_error(&self) -> Option<Arc<str>> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
