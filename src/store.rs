//! Where grants, and between replicas tokens, are kept: one trait, three kinds.
//!
//! A [`Backend`] knows nothing of OAuth: it keeps a few bytes under a [`Key`], changes them only by compare-and-set,
//! and gives out locks that end by themselves. What the bytes mean, and in which order they are written around a
//! refresh, is the business of `credential::vault`.
//!
//! | kind | [`Backend::is_shared`] | what a write survives once it has returned |
//! |---|---|---|
//! | memory | no | nothing: it is gone with the process |
//! | file | yes, by processes of one machine | the machine's crash (`fsync` of the file and of its directory) |
//! | redis | yes | what the server's own persistence survives; replicas are not waited for |
//!
//! Every entry passes through [`seal::Seal`] on its way, whatever the kind.

pub mod seal;

mod entry;
mod error;
mod file;
mod memory;
mod name;
mod redis;
mod sealed;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use error::{EntryFault, Flaw, RedisFault, Remedy, SealFault, StoreError};

use crate::clock::Clock;
use crate::config;
use crate::secret::reader::SecretReader;
use crate::tls::TlsFactory;

/// A future of a [`Backend`].
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What is kept under a [`Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a login yielded; kept until it is overwritten.
    Grant,
    /// An access token that replicas share; it may vanish once it has expired.
    Token,
}

impl Kind {
    /// Its word in names and files.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Token => "token",
        }
    }
}

/// Whose entry it is. Two accounts never share one: all parts count, and the seal is bound to them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What is kept.
    pub kind: Kind,
    /// The credential's name.
    pub credential: Arc<str>,
    /// The account's name within it.
    pub account: Arc<str>,
    /// Who issued it: the issuer, or the token endpoint where no issuer is known.
    pub issuer: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, credential, account, .. } = self;
        write!(f, "the {} of credential {credential:?}, account {account:?}", kind.word())
    }
}

/// The most that one entry may hold, in bytes.
pub const MAX_CONTENT_BYTES: usize = 256 * 1024;

/// An entry as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Counts the writes of this entry, from 1.
    pub revision: u64,
    /// The bytes, opened if they were sealed.
    pub content: Zeroizing<Vec<u8>>,
}

/// What keeps entries. Shared by all accounts; every call is bounded in time.
pub trait Backend: fmt::Debug + Send + Sync {
    /// The entry; none if there is none.
    fn read<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Stored>>;

    /// Writes the entry if its revision is still `expected` (0: there is none), and gives its new revision, which is
    /// `expected + 1`. When this returns, the entry is as durable as the store can make it. `lifetime`: it may vanish
    /// after that.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else has written it; nothing is changed then.
    fn write<'a>(
        &'a self,
        key: &'a Key,
        expected: u64,
        content: &'a [u8],
        lifetime: Option<Duration>,
    ) -> Pending<'a, u64>;

    /// Takes the lock on the entry for at most `span`, if nobody has it. Does not wait.
    fn lock<'a>(&'a self, key: &'a Key, span: Duration) -> Pending<'a, Option<Box<dyn Lock>>>;

    /// The accounts of a credential and issuer that have a grant, in no order.
    fn accounts<'a>(&'a self, credential: &'a str, issuer: &'a str) -> Pending<'a, Vec<Arc<str>>>;

    /// A number that changes with each [`Backend::announce`].
    fn epoch(&self) -> Pending<'_, u64>;

    /// Tells every instance on this store that a login or a logout has changed a grant.
    fn announce(&self) -> Pending<'_, ()>;

    /// Does it outlast this process and may others use it at the same time?
    fn is_shared(&self) -> bool;
}

/// A lock that somebody has. It ends when its span is over, when it is released, or when its process ends; dropped,
/// it is released as soon as that can be done.
pub trait Lock: fmt::Debug + Send + Sync {
    /// How long it surely holds still, on a clock that runs through suspend; zero when it is over.
    fn left(&self) -> Duration;

    /// Asks the store whether it is still ours.
    fn is_held(&self) -> Pending<'_, bool>;

    /// Was it taken from somebody whose time was over, and whose process is there still: stopped, say? False where that
    /// cannot be told.
    fn former_holder_lives(&self) -> bool {
        false
    }

    /// Gives it back.
    fn release(self: Box<Self>) -> Pending<'static, ()>;
}

/// Makes what the store of a configuration needs that is not there: its directory.
///
/// # Errors
/// When the directory cannot be made or is unfit.
pub fn prepare(config: &config::Store) -> Result<(), StoreError> {
    match &config.kind {
        config::StoreKind::File { path } => file::prepare(path),
        config::StoreKind::Memory | config::StoreKind::Redis(_) => Ok(()),
    }
}

/// Opens the store of a configuration. A directory is made and checked; a server need not be up: it is connected to
/// at the first need, and again whenever the connection breaks.
///
/// # Errors
/// When an encryption key cannot be read or used, the directory is unfit or cannot be written, or the TLS settings
/// cannot be used.
pub async fn open(
    config: &config::Store,
    tls: &TlsFactory,
    reader: &SecretReader,
    clock: &Clock,
) -> Result<Arc<dyn Backend>, StoreError> {
    let mut keys = Vec::with_capacity(config.encryption_keys.len());
    for (index, source) in config.encryption_keys.iter().enumerate() {
        let text = reader
            .read(source)
            .await
            .map_err(|source| StoreError::Secret { what: "store.encryption_key", source })?;
        let key = seal::Seal::parse_key(&text)
            .map_err(|reason| StoreError::EncryptionKey { number: index + 1, reason })?;
        keys.push(key);
    }
    let inner: Box<dyn Backend> = match &config.kind {
        config::StoreKind::Memory => Box::new(memory::MemoryStore::new(clock.clone())),
        config::StoreKind::File { path } => Box::new(file::FileStore::open(path, clock).await?),
        config::StoreKind::Redis(server) => Box::new(redis::RedisStore::new(server, tls, reader, clock)?),
    };
    Ok(Arc::new(sealed::Sealed::new(inner, seal::Seal::new(keys))))
}

/// A store in this process's memory.
pub fn in_memory(clock: &Clock) -> Arc<dyn Backend> {
    Arc::new(memory::MemoryStore::new(clock.clone()))
}
