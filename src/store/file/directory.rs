//! The store's directory and the files in it: nobody else's, and nobody else may look into them.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::store::{Flaw, StoreError};

/// More than any entry takes as text.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Makes the directory if it is not there, and judges it.
pub(in crate::store) fn prepare(path: &Path) -> Result<(), StoreError> {
    let failed = |action| move |source| StoreError::Io { action, path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path).map_err(failed("make"))?,
        Err(error) => return Err(failed("look at")(error)),
        Ok(_) => (),
    }
    let found = std::fs::metadata(path).map_err(failed("look at"))?;
    let flaw = judge_directory(&Facts::of(&found), user());
    flaw.map_or(Ok(()), |flaw| Err(StoreError::Unfit { path: path.to_owned(), flaw }))
}

fn make(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        // Another process was faster; what it made is judged like any other.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }?;
    parent.map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Opens a file of ours for reading and writing, made if it is not there: a guard or a lock.
pub(super) fn open_or_create(path: &Path) -> Result<File, StoreError> {
    let file = options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|source| StoreError::Io { action: "open", path: path.to_owned(), source })?;
    check(path, &file)?;
    Ok(file)
}

/// Makes a new file, in place of what a killed process left under this name.
pub(super) fn create_anew(path: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Io { action: "make", path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => (),
    }
    options().read(true).write(true).create_new(true).open(path).map_err(failed)
}

/// What a file of ours holds; none: it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let failed = |source| StoreError::Io { action: "read", path: path.to_owned(), source };
    let mut file = match options().read(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let size = check(path, &file)?;
    // One allocation of the final size: a growing buffer would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(1)));
    (&mut file).take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // A link would lead elsewhere, and opening a pipe would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.mode(0o600).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    options
}

/// Judges an open file and gives its size.
fn check(path: &Path, file: &File) -> Result<usize, StoreError> {
    let found = file.metadata().map_err(|source| StoreError::Io {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    match judge_file(&Facts::of(&found), user()) {
        None => Ok(usize::try_from(found.len()).unwrap_or(usize::MAX)),
        Some(flaw) => Err(StoreError::Unfit { path: PathBuf::from(path), flaw }),
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    is_directory: bool,
    is_file: bool,
    owner: u32,
    mode: u32,
    size: u64,
}

impl Facts {
    fn of(found: &Metadata) -> Self {
        Self {
            is_directory: found.is_dir(),
            is_file: found.is_file(),
            owner: found.uid(),
            mode: found.mode() & 0o7777,
            size: found.len(),
        }
    }
}

/// Why this directory cannot be the store's.
fn judge_directory(facts: &Facts, user: u32) -> Option<Flaw> {
    let Facts { owner, mode, .. } = *facts;
    if !facts.is_directory {
        Some(Flaw::NotADirectory)
    } else if owner != user {
        Some(Flaw::Owner { owner, user })
    } else if mode & 0o077 != 0 {
        Some(Flaw::OpenDirectory { mode })
    } else {
        None
    }
}

/// Why this file cannot be one of the store's.
fn judge_file(facts: &Facts, user: u32) -> Option<Flaw> {
    let Facts { owner, mode, .. } = *facts;
    if !facts.is_file {
        Some(Flaw::NotAFile)
    } else if owner != user {
        Some(Flaw::Owner { owner, user })
    } else if mode & 0o077 != 0 {
        Some(Flaw::OpenFile { mode })
    } else if facts.size >= MAX_FILE_BYTES {
        Some(Flaw::TooLarge)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: Facts = Facts { is_directory: true, is_file: false, owner: 7, mode: 0o700, size: 4096 };
    const FILE: Facts = Facts { is_directory: false, is_file: true, owner: 7, mode: 0o600, size: 300 };

    #[test]
    fn a_directory_is_ours_alone_or_refused() {
        let cases = [
            (DIRECTORY, None),
            (Facts { mode: 0o2700, ..DIRECTORY }, None),
            (Facts { owner: 8, ..DIRECTORY }, Some(Flaw::Owner { owner: 8, user: 7 })),
            (Facts { owner: 0, ..DIRECTORY }, Some(Flaw::Owner { owner: 0, user: 7 })),
            (Facts { mode: 0o750, ..DIRECTORY }, Some(Flaw::OpenDirectory { mode: 0o750 })),
            (Facts { mode: 0o701, ..DIRECTORY }, Some(Flaw::OpenDirectory { mode: 0o701 })),
            (Facts { mode: 0o1777, ..DIRECTORY }, Some(Flaw::OpenDirectory { mode: 0o1777 })),
            (FILE, Some(Flaw::NotADirectory)),
        ];
        for (facts, want) in cases {
            assert_eq!(judge_directory(&facts, 7), want, "{facts:?}");
        }
    }

    #[test]
    fn a_file_is_ours_alone_or_refused() {
        let cases = [
            (FILE, None),
            (Facts { mode: 0o400, ..FILE }, None),
            (Facts { owner: 8, ..FILE }, Some(Flaw::Owner { owner: 8, user: 7 })),
            (Facts { owner: 0, ..FILE }, Some(Flaw::Owner { owner: 0, user: 7 })),
            (Facts { mode: 0o640, ..FILE }, Some(Flaw::OpenFile { mode: 0o640 })),
            (Facts { mode: 0o602, ..FILE }, Some(Flaw::OpenFile { mode: 0o602 })),
            (Facts { is_file: false, ..FILE }, Some(Flaw::NotAFile)),
            (Facts { size: MAX_FILE_BYTES, ..FILE }, Some(Flaw::TooLarge)),
        ];
        for (facts, want) in cases {
            assert_eq!(judge_file(&facts, 7), want, "{facts:?}");
        }
    }
}
