//! A store that several instances of a test share, and that fails as the test says.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sidekey::store::{Backend, Key, Kind, Lock, Pending, StoreError, Stored};

/// What a store holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copy(HashMap<Key, (u64, Vec<u8>)>);

impl Copy {
    pub(crate) fn empty() -> Self {
        Self::default()
    }
}

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Faulty {
    entries: Mutex<Copy>,
    locks: Arc<Mutex<HashMap<Key, u64>>>,
    tickets: AtomicU64,
    epoch: AtomicU64,
    /// Writes that still succeed; negative: all.
    writes_left: AtomicI64,
    locks_are_lost: Arc<AtomicBool>,
    reads_fail: AtomicBool,
    announcements_fail: AtomicBool,
    looks: AtomicU64,
}

impl Faulty {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { writes_left: AtomicI64::new(-1), ..Self::default() })
    }

    /// So many writes succeed from here on, and no more.
    pub(crate) fn fail_writes_after(&self, count: i64) {
        self.writes_left.store(count, Ordering::SeqCst);
    }

    pub(crate) fn works(&self) {
        self.writes_left.store(-1, Ordering::SeqCst);
    }

    pub(crate) fn fail_reads(&self, fail: bool) {
        self.reads_fail.store(fail, Ordering::SeqCst);
    }

    pub(crate) fn fail_announcements(&self, fail: bool) {
        self.announcements_fail.store(fail, Ordering::SeqCst);
    }

    /// How often somebody has asked for the epoch.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    /// Does somebody else take every lock at once?
    pub(crate) fn lose_locks(&self, lost: bool) {
        self.locks_are_lost.store(lost, Ordering::SeqCst);
    }

    pub(crate) fn copy(&self) -> Copy {
        self.entries().clone()
    }

    pub(crate) fn replace(&self, copy: Copy) {
        *self.entries() = copy;
    }

    fn entries(&self) -> MutexGuard<'_, Copy> {
        self.entries.lock().expect("no test panics while it holds this")
    }

    fn may_write(&self) -> bool {
        let one_less =
            |left: i64| if left < 0 { Some(left) } else { left.checked_sub(1).filter(|left| *left >= 0) };
        self.writes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

impl Backend for Faulty {
    fn read<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Stored>> {
        Box::pin(async move {
            if self.reads_fail.load(Ordering::SeqCst) {
                return Err(out_of_order("read"));
            }
            let entries = self.entries();
            let stored = entries.0.get(key);
            Ok(stored
                .map(|(revision, content)| Stored { revision: *revision, content: content.clone().into() }))
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        expected: u64,
        content: &'a [u8],
        _: Option<Duration>,
    ) -> Pending<'a, u64> {
        Box::pin(async move {
            if !self.may_write() {
                return Err(out_of_order("write"));
            }
            let mut entries = self.entries();
            if entries.0.get(key).map_or(0, |(revision, _)| *revision) != expected {
                return Err(StoreError::Conflict);
            }
            entries.0.insert(key.clone(), (expected + 1, content.to_vec()));
            Ok(expected + 1)
        })
    }

    fn lock<'a>(&'a self, key: &'a Key, span: Duration) -> Pending<'a, Option<Box<dyn Lock>>> {
        Box::pin(async move {
            let mut locks = self.locks.lock().expect("no test panics while it holds this");
            if locks.contains_key(key) {
                return Ok(None);
            }
            let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
            locks.insert(key.clone(), ticket);
            let (all, lost) = (Arc::clone(&self.locks), Arc::clone(&self.locks_are_lost));
            let lock = Taken { key: key.clone(), ticket, until: Instant::now() + span, all, lost };
            Ok(Some(Box::new(lock) as Box<dyn Lock>))
        })
    }

    fn accounts<'a>(&'a self, credential: &'a str, issuer: &'a str) -> Pending<'a, Vec<Arc<str>>> {
        Box::pin(async move {
            let entries = self.entries();
            let of_it = entries.0.keys().filter(|key| {
                key.kind == Kind::Grant && &*key.credential == credential && &*key.issuer == issuer
            });
            Ok(of_it.map(|key| Arc::clone(&key.account)).collect())
        })
    }

    fn epoch(&self) -> Pending<'_, u64> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(self.epoch.load(Ordering::SeqCst)) })
    }

    fn announce(&self) -> Pending<'_, ()> {
        if self.announcements_fail.load(Ordering::SeqCst) {
            return Box::pin(async { Err(out_of_order("announce")) });
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn out_of_order(action: &'static str) -> StoreError {
    StoreError::Io { action, path: "grant".into(), source: std::io::ErrorKind::StorageFull.into() }
}

#[derive(Debug)]
struct Taken {
    key: Key,
    ticket: u64,
    until: Instant,
    all: Arc<Mutex<HashMap<Key, u64>>>,
    lost: Arc<AtomicBool>,
}

impl Lock for Taken {
    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn is_held(&self) -> Pending<'_, bool> {
        Box::pin(async { Ok(!self.lost.load(Ordering::SeqCst)) })
    }

    fn release(self: Box<Self>) -> Pending<'static, ()> {
        drop(self);
        Box::pin(async { Ok(()) })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.all.lock().expect("no test panics while it holds this");
        if all.get(&self.key) == Some(&self.ticket) {
            all.remove(&self.key);
        }
    }
}
