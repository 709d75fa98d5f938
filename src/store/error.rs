//! What can be wrong with a store, and what to do then. Holds no content, no key, no password.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::seal::KeyError;
use crate::dial::DialError;
use crate::secret::SecretError;
use crate::tls::TlsError;

/// What is wrong with a store. Holds no content.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has written the entry meanwhile.
    #[error("somebody else has written the entry meanwhile")]
    Conflict,
    /// A directory or file cannot be trusted with credentials.
    #[error("{} {flaw}", path.display())]
    Unfit {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The system refused. What was stored before is intact.
    #[error("cannot {action} {}: {}", path.display(), advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An entry is not what it should be. It is left as it is.
    #[error("{place} {fault}")]
    Entry {
        /// The file or the server's key.
        place: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// An entry cannot be opened. It is left as it is.
    #[error("{place} {fault}")]
    Seal {
        /// Whose entry.
        place: String,
        /// Why not.
        fault: SealFault,
    },
    /// More than an entry may hold.
    #[error("an entry of {0} bytes is more than the store takes ({limit})", limit = super::MAX_CONTENT_BYTES)]
    TooLarge(usize),
    /// The guard of an entry is not given back; held, it takes milliseconds.
    #[error(
        "another process has held {} for longer than {limit:?}; is one stopped, or the disk stuck?",
        path.display()
    )]
    Busy {
        /// The guard's file.
        path: PathBuf,
        /// How long was waited.
        limit: Duration,
    },
    /// The file system did not answer in time. A write may have happened or may happen still.
    #[error("{} did not answer within {limit:?}; is the disk stuck?", path.display())]
    Slow {
        /// The store's directory.
        path: PathBuf,
        /// The limit that passed.
        limit: Duration,
    },
    /// A password or an encryption key cannot be read.
    #[error("cannot read {what}")]
    Secret {
        /// The setting.
        what: &'static str,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// An encryption key cannot be used.
    #[error("store.encryption_key, number {number}: {reason}")]
    EncryptionKey {
        /// Which of them, from 1.
        number: usize,
        /// Why not.
        reason: KeyError,
    },
    /// The TLS settings towards the server cannot be used.
    #[error("store.tls cannot be used")]
    Tls(#[from] TlsError),
    /// The server cannot be reached.
    #[error("cannot reach the Redis server of store.url")]
    Unreachable(#[source] DialError),
    /// The server refused or failed.
    #[error("the Redis server {server} {fault}")]
    Redis {
        /// Its host and port.
        server: String,
        /// What happened.
        fault: RedisFault,
    },
    /// The system has no randomness to give.
    #[error("the system has no randomness to give")]
    Randomness,
    /// The store's own work was cut off: the process is ending.
    #[error("the store's work was cut off; is sidekey stopping?")]
    CutOff,
}

/// What helps against a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Read the entry again and decide anew.
    ReadAgain,
    /// Trying again later may do: something is down, slow or busy.
    TryLater,
    /// A person must change a setting, a permission or the server.
    Repair,
    /// One entry is unusable as it is: a person must bring it or its key back, or move it away and log in anew.
    Entry,
}

impl StoreError {
    /// Has somebody else written the entry meanwhile?
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict)
    }

    /// What helps.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Conflict => Remedy::ReadAgain,
            Self::Entry { .. } | Self::Seal { .. } | Self::TooLarge(_) => Remedy::Entry,
            Self::Busy { .. }
            | Self::Slow { .. }
            | Self::Unreachable(_)
            | Self::Io { .. }
            | Self::Randomness
            | Self::CutOff => Remedy::TryLater,
            Self::Redis { fault, .. } => fault.remedy(),
            Self::Unfit { .. } | Self::Secret { .. } | Self::EncryptionKey { .. } | Self::Tls(_) => {
                Remedy::Repair
            }
        }
    }

    /// May a write that failed so have happened all the same? Then read before writing again.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Slow { .. } | Self::CutOff => true,
            // The new name is in place already; only its durability is not.
            Self::Io { action, .. } => *action == SYNC_DIRECTORY,
            // A script that fails half way keeps what it has done.
            Self::Redis { fault, .. } => matches!(
                fault,
                RedisFault::Timeout(_) | RedisFault::Lost | RedisFault::Permission | RedisFault::Other(_)
            ),
            _ => false,
        }
    }
}

/// The one action that fails after the new content is in place.
pub(super) const SYNC_DIRECTORY: &str = "make durable what was written in";

/// What to do about the system's refusal.
fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => "no space left; nothing was changed, make room",
        Kind::ReadOnlyFilesystem => {
            "the file system is read-only; set store.path to a directory on a writable volume"
        }
        Kind::PermissionDenied => {
            "permission denied; run sidekey as the owner of store.path, or name another directory"
        }
        Kind::NotFound => "it is not there; was it removed or unmounted?",
        Kind::NotADirectory => "a part of store.path is not a directory; name another one",
        Kind::Unsupported => "the file system cannot do this; set store.path to a directory on a local disk",
        _ => "see the cause",
    }
}

/// Why a directory or file cannot be trusted with credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Something else stands there.
    #[error("is not a directory; set store.path to a directory of sidekey's own")]
    NotADirectory,
    /// Something else stands there.
    #[error("is not a regular file; the store's directory is for sidekey alone, move it away")]
    NotAFile,
    /// It is somebody else's.
    #[error(
        "belongs to user {owner}, but sidekey runs as user {user}; run it as user {owner}, or name another directory"
    )]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others may enter it.
    #[error(
        "may be entered by others (mode {mode:04o}); `chmod 700` it, or name a directory in it that sidekey can make"
    )]
    OpenDirectory {
        /// Its permissions.
        mode: u32,
    },
    /// Others may read or write it.
    #[error(
        "may be read or written by others (mode {mode:04o}); the grant in it may be known: `chmod 600` it, and log in again if it was"
    )]
    OpenFile {
        /// Its permissions.
        mode: u32,
    },
    /// Larger than any entry.
    #[error("is larger than any entry of sidekey; the store's directory is for sidekey alone, move it away")]
    TooLarge,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// Cut off, or changed by hand.
    #[error("is damaged ({0}); bring it back from a backup, or move it away and log in again")]
    Damaged(&'static str),
    /// Something else.
    #[error("was not written by sidekey; move it away, or give sidekey a place of its own")]
    Foreign,
    /// Of a later sidekey.
    #[error("was written by a newer sidekey (format {0}); run that one, or move it away and log in again")]
    Newer(u64),
    /// The entry of another key.
    #[error(
        "holds the entry of another account, credential or issuer; was it copied or renamed? Bring it back, or move it away and log in again"
    )]
    Swapped,
}

/// Why an entry cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealFault {
    /// None of the keys made it.
    #[error("is sealed by an unknown key ({0}); add the older key to store.encryption_key")]
    UnknownKey(String),
    /// There is no key at all.
    #[error("is sealed (by the key {0}), but no key is configured; set store.encryption_key")]
    NoKey(String),
    /// The key is right and the seal is not.
    #[error(
        "has a broken seal: it was changed, or is another account's; bring it back from a backup, or log in again"
    )]
    Broken,
    /// Neither sealed nor open.
    #[error("is damaged: it is neither sealed nor open; bring it back from a backup, or log in again")]
    Shapeless,
}

/// What a Redis server said or did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisFault {
    /// WRONGPASS, NOAUTH.
    #[error("refuses the user name or password; check store.username and store.password")]
    Login,
    /// NOPERM.
    #[error(
        "lets this user not do what is needed (NOPERM); allow it `~{{PREFIX}}:* +get +set +hmget +smembers +incr +eval +evalsha +script|load +hget +hset +exists +pexpire +persist +sadd +del`"
    )]
    Permission,
    /// READONLY.
    #[error("is a read-only replica; set store.url to the primary")]
    ReadOnly,
    /// LOADING.
    #[error("is loading its data still; sidekey tries again")]
    Loading,
    /// MASTERDOWN.
    #[error("is a replica without its primary; set store.url to the primary")]
    MasterDown,
    /// OOM.
    #[error("has no memory left (OOM); raise its maxmemory, and keep maxmemory-policy at noeviction")]
    OutOfMemory,
    /// MISCONF, NOREPLICAS.
    #[error("takes no writes ({0}): it cannot save or replicate them; see its log")]
    NotDurable(String),
    /// MOVED, ASK, CLUSTERDOWN, CROSSSLOT, TRYAGAIN.
    #[error(
        "is part of a Redis Cluster and does not serve these keys ({0}); set store.url to a single server, or to a proxy of the cluster"
    )]
    Cluster(String),
    /// WRONGTYPE, or a value of another shape.
    #[error("has something else under a key of sidekey's; set store.prefix to one that nobody else uses")]
    Foreign,
    /// SELECT failed.
    #[error("refuses the database of store.url; check its number")]
    Database,
    /// No answer in time. A write may have happened or may happen still.
    #[error("did not answer within {0:?}; is it stopped or overloaded? See store.timeout")]
    Timeout(Duration),
    /// The connection broke. A write may have happened.
    #[error("closed the connection; is it restarting? Does it speak TLS (rediss://)?")]
    Lost,
    /// Not the answers of a Redis server.
    #[error(
        "does not speak the Redis protocol; check store.url, and write rediss:// if the server wants TLS"
    )]
    Protocol,
    /// Something else; only its code, because the rest may repeat what was sent.
    #[error("answered {0}; see its log")]
    Other(String),
}

impl RedisFault {
    fn remedy(&self) -> Remedy {
        match self {
            Self::Loading | Self::MasterDown | Self::OutOfMemory | Self::NotDurable(_) => Remedy::TryLater,
            // A failover makes a primary of it, or moves the name.
            Self::ReadOnly | Self::Timeout(_) | Self::Lost | Self::Other(_) => Remedy::TryLater,
            Self::Login
            | Self::Permission
            | Self::Cluster(_)
            | Self::Foreign
            | Self::Database
            | Self::Protocol => Remedy::Repair,
        }
    }
}
