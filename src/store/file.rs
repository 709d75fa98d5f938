//! The store in a directory of its own: one file for each entry, for all processes of one machine.
//!
//! `NAME.json` is the entry. `NAME.guard` is held (`flock`) by whoever writes it, for as long as that takes.
//! `NAME.lock` is held by whoever has the lock ([`lock`]). `NAME.tmp` is what is being written; whoever holds the
//! guard and finds one knows that its writer is dead, and finishes its work if it is whole: a grant that arrived and was
//! about to be kept is kept. `epoch` counts the announcements. Nothing is ever written over:
//! a new file takes the old one's name once it is on the disk.

mod directory;
mod guard;
mod lock;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error::SYNC_DIRECTORY;
use super::{Backend, EntryFault, Key, Kind, Lock, Pending, StoreError, Stored, entry, name};
use crate::clock::Clock;
use guard::Guard;

pub(super) use directory::prepare;

/// How long one call may take. Past it, the disk is stuck.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a guard is waited for: it is held while one small file is made durable.
const GUARD_LIMIT: Duration = Duration::from_secs(5);

/// The name of the file that counts announcements.
const EPOCH: &str = "epoch";

/// Entries and locks in a directory.
#[derive(Debug)]
pub(super) struct FileStore {
    directory: Arc<Path>,
    locks: Arc<lock::Locks>,
}

impl FileStore {
    /// Makes and checks the directory, tries its guards, and removes what killed processes left half written.
    pub(super) async fn open(path: &Path, clock: &Clock) -> Result<Self, StoreError> {
        let directory: Arc<Path> = path.into();
        let store = Self { directory, locks: Arc::new(lock::Locks::new(clock.clone())) };
        let directory = Arc::clone(&store.directory);
        store
            .blocking(move || {
                prepare(&directory)?;
                for name in leftovers(&directory)? {
                    let place = Place::new(&directory, &name);
                    // Whoever holds the guard is writing it now.
                    if let Some(_guard) = Guard::take(&place.guard())? {
                        finish_or_remove(&place)?;
                    }
                }
                Ok(())
            })
            .await?;
        // A file system without flock is found out now rather than at the first refresh.
        store.guarded(Place::new(path, EPOCH), read_epoch).await?;
        Ok(store)
    }

    fn place(&self, key: &Key) -> Place {
        Place::new(&self.directory, &name::of_entry(key))
    }

    /// Runs file work off the runtime's thread, within the limit.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(work)).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::CutOff),
            Err(_) => Err(StoreError::Slow { path: self.directory.to_path_buf(), limit: LIMIT }),
        }
    }

    /// The same while holding the guard of an entry. Dropped, the work is done to its end or not begun.
    async fn guarded<T: Send + 'static>(
        &self,
        place: Place,
        work: impl FnOnce(&Place) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = tokio::time::Instant::now();
        let mut work = work;
        loop {
            let tried = Place::clone(&place);
            let attempt = self.blocking(move || match Guard::take(&tried.guard())? {
                Some(_guard) => work(&tried).map(Ok),
                None => Ok(Err(work)),
            });
            match attempt.await? {
                Ok(done) => return Ok(done),
                Err(unused) => work = unused,
            }
            if begun.elapsed() > GUARD_LIMIT {
                return Err(StoreError::Busy { path: place.guard(), limit: GUARD_LIMIT });
            }
            tokio::time::sleep(Duration::from_micros(fastrand::u64(500..4_000))).await;
        }
    }
}

impl Backend for FileStore {
    fn read<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Stored>> {
        let (place, key) = (self.place(key), key.clone());
        Box::pin(self.blocking(move || read_entry(&place, &key)))
    }

    /// The lifetime is not looked at: the file stays until it is overwritten.
    fn write<'a>(
        &'a self,
        key: &'a Key,
        expected: u64,
        content: &'a [u8],
        _lifetime: Option<Duration>,
    ) -> Pending<'a, u64> {
        Box::pin(async move {
            // Made before the guard is held. If the revision is not the expected one, it is thrown away.
            let revision = expected.checked_add(1).ok_or(StoreError::Conflict)?;
            let place = self.place(key);
            let text = entry::encode(key, revision, content).map_err(|fault| place.fault(fault))?;
            let key = key.clone();
            self.guarded(place, move |place| {
                finish_or_remove(place)?;
                // An unreadable entry is not written over: nothing is lost that was on the disk.
                if read_entry(place, &key)?.map_or(0, |stored| stored.revision) != expected {
                    return Err(StoreError::Conflict);
                }
                replace(place, &place.entry(), &text)?;
                Ok(revision)
            })
            .await
        })
    }

    fn lock<'a>(&'a self, key: &'a Key, span: Duration) -> Pending<'a, Option<Box<dyn Lock>>> {
        Box::pin(async move {
            let locks = Arc::clone(&self.locks);
            let taken = self
                .guarded(self.place(key), move |place| {
                    // Whoever gets the lock reads next: it must find what its last holder was writing down.
                    finish_or_remove(place)?;
                    locks.take(place, span)
                })
                .await?;
            Ok(taken.map(|lock| Box::new(lock) as Box<dyn Lock>))
        })
    }

    fn accounts<'a>(&'a self, credential: &'a str, issuer: &'a str) -> Pending<'a, Vec<Arc<str>>> {
        Box::pin(async move {
            let directory = Arc::clone(&self.directory);
            let mut keys = self.blocking(move || grants(&directory)).await?;
            keys.retain(|key| &*key.credential == credential && &*key.issuer == issuer);
            Ok(keys.into_iter().map(|key| key.account).collect())
        })
    }

    fn epoch(&self) -> Pending<'_, u64> {
        let place = Place::new(&self.directory, EPOCH);
        Box::pin(self.blocking(move || read_epoch(&place)))
    }

    fn announce(&self) -> Pending<'_, ()> {
        let place = Place::new(&self.directory, EPOCH);
        Box::pin(self.guarded(place, |place| {
            let next = read_epoch(place)?.wrapping_add(1);
            replace(place, &place.epoch(), format!("{{\"sidekey\":1,\"epoch\":{next}}}").as_bytes())
        }))
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// Where the files of one entry are.
#[derive(Debug, Clone)]
struct Place {
    directory: Arc<Path>,
    name: String,
}

impl Place {
    fn new(directory: &Path, name: &str) -> Self {
        Self { directory: directory.into(), name: name.to_owned() }
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.directory.join(format!("{}{ending}", self.name))
    }

    fn entry(&self) -> PathBuf {
        self.file(".json")
    }

    fn epoch(&self) -> PathBuf {
        self.file("")
    }

    fn guard(&self) -> PathBuf {
        self.file(".guard")
    }

    fn lock(&self) -> PathBuf {
        self.file(".lock")
    }

    fn draft(&self) -> PathBuf {
        self.file(".tmp")
    }

    fn fault(&self, fault: EntryFault) -> StoreError {
        StoreError::Entry { place: self.entry().display().to_string(), fault }
    }
}

fn read_entry(place: &Place, key: &Key) -> Result<Option<Stored>, StoreError> {
    let Some(text) = directory::read(&place.entry())? else { return missing(place) };
    entry::decode(key, &text).map(Some).map_err(|fault| place.fault(fault))
}

/// No file is no entry, but no directory is a volume that went away.
fn missing<T>(place: &Place) -> Result<Option<T>, StoreError> {
    match std::fs::metadata(&place.directory) {
        Ok(_) => Ok(None),
        Err(source) => Err(StoreError::Io { action: "look at", path: place.directory.to_path_buf(), source }),
    }
}

fn read_epoch(place: &Place) -> Result<u64, StoreError> {
    #[derive(serde::Deserialize)]
    struct Epoch {
        epoch: u64,
    }
    let path = place.epoch();
    let Some(text) = directory::read(&path)? else { return Ok(missing::<u64>(place)?.unwrap_or(0)) };
    serde_json::from_slice(&text).map(|read: Epoch| read.epoch).map_err(|_| StoreError::Entry {
        place: path.display().to_string(),
        fault: EntryFault::Damaged("it should count the announcements; removing it is harmless"),
    })
}

/// Puts a new file in place of `path`, durably. Only under the guard.
fn replace(place: &Place, path: &Path, text: &[u8]) -> Result<(), StoreError> {
    let draft = place.draft();
    let failed = |action| {
        let path = draft.clone();
        move |source| StoreError::Io { action, path, source }
    };
    let mut file = directory::create_anew(&draft)?;
    let written = file
        .write_all(text)
        .map_err(failed("write"))
        .and_then(|()| file.sync_all().map_err(failed("make durable")))
        .and_then(|()| std::fs::rename(&draft, path).map_err(failed("rename")));
    if written.is_err() {
        // It may hold a grant. If this fails too, the next write or start removes it.
        let _ = std::fs::remove_file(&draft);
        return written;
    }
    sync_directory(place)
}

fn sync_directory(place: &Place) -> Result<(), StoreError> {
    let opened = std::fs::File::open(&place.directory);
    opened.and_then(|directory| directory.sync_all()).map_err(|source| StoreError::Io {
        action: SYNC_DIRECTORY,
        path: place.directory.to_path_buf(),
        source,
    })
}

/// The names in the directory that end so, without the ending.
fn names(directory: &Path, ending: &str) -> Result<Vec<String>, StoreError> {
    let failed = |source| StoreError::Io { action: "list", path: directory.to_owned(), source };
    let mut names = Vec::new();
    for found in std::fs::read_dir(directory).map_err(failed)? {
        let found = found.map_err(failed)?.file_name();
        // Ours are ASCII; whatever else there is, is not ours.
        names.extend(found.to_str().and_then(|name| name.strip_suffix(ending)).map(str::to_owned));
    }
    Ok(names)
}

/// Whose grants there are. An unreadable one must not hide the others.
fn grants(directory: &Path) -> Result<Vec<Key>, StoreError> {
    let mut keys = Vec::new();
    for name in names(directory, ".json")? {
        let place = Place::new(directory, &name);
        let key = directory::read(&place.entry()).and_then(|text| {
            text.map(|text| entry::whose(&text).map_err(|fault| place.fault(fault))).transpose()
        });
        match key {
            // Under another name it is a copy, which no key leads to.
            Ok(Some(key)) if key.kind == Kind::Grant && name::of_entry(&key) == name => keys.push(key),
            Ok(_) => (),
            Err(error) => tracing::debug!(%error, "skipped a file of the store"),
        }
    }
    Ok(keys)
}

/// The entries of which something half written is there.
fn leftovers(directory: &Path) -> Result<Vec<String>, StoreError> {
    names(directory, ".tmp")
}

/// Puts what a killed process was writing in its place if it is whole and the next of its entry, and removes it
/// otherwise. Only under the guard.
fn finish_or_remove(place: &Place) -> Result<(), StoreError> {
    let draft = place.draft();
    let text = match directory::read(&draft) {
        Ok(None) => return Ok(()),
        Ok(Some(text)) => text,
        Err(_) => return remove(&draft),
    };
    let key = entry::whose(&text).ok().filter(|key| name::of_entry(key) == place.name);
    let whole = key.and_then(|key| entry::decode(&key, &text).ok().map(|stored| (key, stored.revision)));
    let Some((key, revision)) = whole else { return remove(&draft) };
    let current = read_entry(place, &key)?.map_or(0, |stored| stored.revision);
    if revision.checked_sub(1) != Some(current) {
        return remove(&draft);
    }
    std::fs::File::open(&draft)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&draft, place.entry()))
        .map_err(|source| StoreError::Io { action: "finish", path: draft, source })?;
    tracing::info!(file = %place.entry().display(), "finished what a killed process was writing");
    sync_directory(place)
}

fn remove(draft: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { action: "remove", path: draft.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
