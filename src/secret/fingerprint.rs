//! What tells one state of a file from the next, without reading it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// One state of a file: another one after writing in place, after renaming another file over it, and after a symlink
/// anywhere on the way to it was turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// That of the file there now; none if there is none that can be seen.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}
