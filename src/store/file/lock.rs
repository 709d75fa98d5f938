//! The lock on an entry, between processes of one machine.
//!
//! The holder keeps `NAME.lock` `flock`ed, so that the kernel ends the lock with the process, however it ends. The file
//! also says until when, so that the lock of a process that is stopped ends too: whoever finds that time over puts
//! another file, which it has `flock`ed, in its place. The former holder then finds somebody else's name there.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guard::{try_flock, unlock};
use super::{Place, directory};
use crate::clock::{Clock, Moment};
use crate::store::{Lock, Pending, StoreError, name};

/// What takes locks for one process.
#[derive(Debug)]
pub(super) struct Locks {
    clock: Clock,
    machine: String,
    /// Who was first seen when as the holder of a lock.
    seen: Mutex<HashMap<PathBuf, (String, Moment)>>,
}

/// What a lock file says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Whose the lock is: a random name for each time it is taken.
    holder: String,
    /// Whose clock `until` is of.
    machine: String,
    /// When it is over, in nanoseconds of the clock that runs through suspend.
    until: u64,
    /// How long it may last at all, in nanoseconds.
    span: u64,
}

impl Locks {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, machine: machine(), seen: Mutex::default() }
    }

    /// Takes the lock if nobody has it. Only under the guard.
    pub(super) fn take(&self, place: &Place, span: Duration) -> Result<Option<FileLock>, StoreError> {
        let path = place.lock();
        let file = directory::open_or_create(&path)?;
        if try_flock(&file, &path)? {
            return self.hold(file, path, span).map(Some);
        }
        if !self.is_over(&path)? {
            return Ok(None);
        }
        let draft = place.draft();
        let file = directory::create_anew(&draft)?;
        if !try_flock(&file, &draft)? {
            return Ok(None);
        }
        let mut lock = self.hold(file, draft.clone(), span)?;
        std::fs::rename(&draft, &path).map_err(|source| StoreError::Io {
            action: "rename",
            path: draft,
            source,
        })?;
        tracing::debug!(file = %path.display(), "took over a lock whose time was over");
        lock.path = path;
        lock.taken_over = true;
        Ok(Some(lock))
    }

    /// Enters who holds the file from now on.
    fn hold(&self, mut file: File, path: PathBuf, span: Duration) -> Result<FileLock, StoreError> {
        let mut holder = [0; 16];
        aws_lc_rs::rand::fill(&mut holder).map_err(|_| StoreError::Randomness)?;
        let holder = name::hex(&holder);
        let ends = self.clock.now() + span;
        let record = Record {
            holder: holder.clone(),
            machine: self.machine.clone(),
            until: nanos(ends.since(Moment::default())),
            span: nanos(span),
        };
        let text = serde_json::to_vec(&record).unwrap_or_default();
        file.set_len(0).and_then(|()| file.write_all(&text)).map_err(|source| StoreError::Io {
            action: "write",
            path: path.clone(),
            source,
        })?;
        Ok(FileLock { file, path, holder, ends, clock: self.clock.clone(), taken_over: false })
    }

    /// Is the time over of whoever holds the file?
    fn is_over(&self, path: &Path) -> Result<bool, StoreError> {
        // Written under the guard, so it is whole; made by something else, it is left to whoever holds it.
        let Some(record) = read(path)? else { return Ok(false) };
        let now = self.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.entry(path.to_owned()).or_insert_with(|| (record.holder.clone(), now));
        if known.0 != record.holder {
            *known = (record.holder.clone(), now);
        }
        Ok(is_over(&record, &self.machine, now, now.since(known.1)))
    }
}

/// `watched`: for how long this holder has been seen. It began before that, so its span is over when that is.
fn is_over(record: &Record, machine: &str, now: Moment, watched: Duration) -> bool {
    let is_same_clock = !machine.is_empty() && record.machine == machine;
    (is_same_clock && now >= Moment::from_nanos(record.until)) || watched >= Duration::from_nanos(record.span)
}

fn read(path: &Path) -> Result<Option<Record>, StoreError> {
    Ok(directory::read(path)?.and_then(|text| serde_json::from_slice(&text).ok()))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// What processes have in common whose clocks agree: this boot of this kernel, and the time namespace, which may
/// shift the clock. Empty where the system does not say.
fn machine() -> String {
    let Ok(boot) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") else { return String::new() };
    let namespace = std::fs::read_link("/proc/self/ns/time").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// A lock that this process has.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
    path: PathBuf,
    holder: String,
    ends: Moment,
    clock: Clock,
    taken_over: bool,
}

impl Lock for FileLock {
    /// Its `flock` was there: the kernel would have ended it with the process.
    fn former_holder_lives(&self) -> bool {
        self.taken_over
    }

    fn left(&self) -> Duration {
        self.ends.since(self.clock.now())
    }

    fn is_held(&self) -> Pending<'_, bool> {
        Box::pin(async {
            let path = self.path.clone();
            let found = tokio::task::spawn_blocking(move || read(&path));
            let record = match tokio::time::timeout(super::LIMIT, found).await {
                Ok(done) => done.map_err(|_| StoreError::CutOff)??,
                Err(_) => {
                    return Err(StoreError::Slow { path: self.path.clone(), limit: super::LIMIT });
                }
            };
            // Asked last: reading takes time.
            Ok(record.is_some_and(|record| record.holder == self.holder) && !self.left().is_zero())
        })
    }

    fn release(self: Box<Self>) -> Pending<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        unlock(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_over_by_its_own_clock_or_when_it_was_watched_for_its_span() {
        let second = Duration::from_secs(1);
        let start = Moment::from_nanos(1_000_000_000_000);
        let record = |machine: &str| Record {
            holder: "a".to_owned(),
            machine: machine.to_owned(),
            until: nanos((start + 10 * second).since(Moment::default())),
            span: nanos(10 * second),
        };
        let cases = [
            ("the same", "the same", 9, 0, false),
            ("the same", "the same", 10, 0, true),
            ("another", "the same", 9, 0, false),
            ("another", "the same", 5_000, 9, false),
            ("another", "the same", 0, 10, true),
            // Nobody knows the clock: it may be anybody's.
            ("", "", 5_000, 0, false),
            ("", "", 5_000, 10, true),
        ];
        for (theirs, ours, at, watched, want) in cases {
            let over = is_over(&record(theirs), ours, start + at * second, watched * second);
            assert_eq!(over, want, "{theirs:?} {ours:?} {at} {watched}");
        }
    }
}
