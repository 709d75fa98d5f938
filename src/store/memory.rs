//! The store in this process's memory: gone when it ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::{Backend, Key, Kind, Lock, Pending, StoreError, Stored};
use crate::clock::{Clock, Moment};

/// Entries and locks in memory.
#[derive(Debug)]
pub(super) struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    locks: HashMap<Key, Hold>,
    /// Counts the locks given out: each holder's name.
    holders: u64,
    epoch: u64,
}

struct Entry {
    revision: u64,
    content: Zeroizing<Vec<u8>>,
    ends: Option<Moment>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({}, …)", self.revision)
    }
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    holder: u64,
    ends: Moment,
}

impl MemoryStore {
    pub(super) fn new(clock: Clock) -> Self {
        Self { shared: Arc::new(Shared { clock, state: Mutex::default() }) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        key: &Key,
        expected: u64,
        content: &[u8],
        lifetime: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let mut state = self.state();
        let now = self.clock.now();
        let current = state.entries.get(key).filter(|entry| entry.is_there(now));
        if current.map_or(0, |entry| entry.revision) != expected {
            return Err(StoreError::Conflict);
        }
        let revision = expected.saturating_add(1);
        let entry = Entry {
            revision,
            content: Zeroizing::new(content.to_vec()),
            ends: lifetime.map(|lifetime| now + lifetime),
        };
        state.entries.insert(key.clone(), entry);
        Ok(revision)
    }

    fn lock(&self, key: &Key, span: Duration) -> Option<u64> {
        let mut state = self.state();
        let now = self.clock.now();
        if state.locks.get(key).is_some_and(|hold| hold.ends > now) {
            return None;
        }
        state.holders += 1;
        let holder = state.holders;
        state.locks.insert(key.clone(), Hold { holder, ends: now + span });
        Some(holder)
    }
}

impl Entry {
    fn is_there(&self, now: Moment) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

impl Backend for MemoryStore {
    fn read<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Stored>> {
        Box::pin(async move {
            let now = self.shared.clock.now();
            let state = self.shared.state();
            let entry = state.entries.get(key).filter(|entry| entry.is_there(now));
            Ok(entry.map(|entry| Stored { revision: entry.revision, content: entry.content.clone() }))
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        expected: u64,
        content: &'a [u8],
        lifetime: Option<Duration>,
    ) -> Pending<'a, u64> {
        Box::pin(async move { self.shared.write(key, expected, content, lifetime) })
    }

    fn lock<'a>(&'a self, key: &'a Key, span: Duration) -> Pending<'a, Option<Box<dyn Lock>>> {
        Box::pin(async move {
            Ok(self.shared.lock(key, span).map(|holder| {
                let shared = Arc::clone(&self.shared);
                Box::new(MemoryLock { shared, key: key.clone(), holder }) as Box<dyn Lock>
            }))
        })
    }

    fn accounts<'a>(&'a self, credential: &'a str, issuer: &'a str) -> Pending<'a, Vec<Arc<str>>> {
        Box::pin(async move {
            let state = self.shared.state();
            let is_asked = |key: &&Key| {
                key.kind == Kind::Grant && &*key.credential == credential && &*key.issuer == issuer
            };
            Ok(state.entries.keys().filter(is_asked).map(|key| Arc::clone(&key.account)).collect())
        })
    }

    fn epoch(&self) -> Pending<'_, u64> {
        Box::pin(async { Ok(self.shared.state().epoch) })
    }

    fn announce(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.shared.state().epoch += 1;
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A lock of this process.
#[derive(Debug)]
struct MemoryLock {
    shared: Arc<Shared>,
    key: Key,
    holder: u64,
}

impl MemoryLock {
    fn own(&self) -> Option<Hold> {
        self.shared.state().locks.get(&self.key).copied().filter(|hold| hold.holder == self.holder)
    }
}

impl Lock for MemoryLock {
    fn left(&self) -> Duration {
        self.own().map_or(Duration::ZERO, |hold| hold.ends.since(self.shared.clock.now()))
    }

    fn is_held(&self) -> Pending<'_, bool> {
        Box::pin(async { Ok(!self.left().is_zero()) })
    }

    fn release(self: Box<Self>) -> Pending<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.locks.get(&self.key).is_some_and(|hold| hold.holder == self.holder) {
            state.locks.remove(&self.key);
        }
    }
}
