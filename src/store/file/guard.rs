//! Who may write an entry's files right now: whoever has `flock`ed its guard. The kernel ends it with the process.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::directory;
use crate::store::StoreError;

/// The guard of an entry, held until it is dropped.
#[derive(Debug)]
pub(super) struct Guard(File);

impl Guard {
    /// None: somebody holds it. Does not wait.
    pub(super) fn take(path: &Path) -> Result<Option<Self>, StoreError> {
        let file = directory::open_or_create(path)?;
        Ok(try_flock(&file, path)?.then_some(Self(file)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// Holds the file from now on, if nobody does.
pub(super) fn try_flock(file: &File, path: &Path) -> Result<bool, StoreError> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => (),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => {
                return Err(StoreError::Io { action: "lock", path: path.to_owned(), source: error.into() });
            }
        }
    }
}

/// Gives it back at once, though a child that is just being started may have inherited the file.
pub(super) fn unlock(file: &File) {
    // Closing it does the same a little later.
    let _ = flock(file, FlockOperation::Unlock);
}
