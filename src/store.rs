//! Where grants, and between replicas tokens, are kept: one trait, three kinds.
//!
//! A [`Backend`] knows nothing of OAuth: it keeps a few bytes under a [`Key`], changes them only by compare-and-set,
//! and gives out locks that end by themselves. What the bytes mean, and in which order they are written around a
//! refresh, is the business of `credential::grant`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

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

    /// Gives it back.
    fn release(self: Box<Self>) -> Pending<'static, ()>;
}

/// What is wrong with a store. Holds no content.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has written the entry meanwhile.
    #[error("somebody else has written the entry meanwhile")]
    Conflict,
    /// Somebody else has had the lock for too long.
    #[error("another instance has been refreshing this grant for too long")]
    Busy,
    /// The lock ran out before what it is for could begin.
    #[error("the lock ran out before the refresh could begin; it is tried again")]
    LockLost,
    /// The store does not answer, and without it nothing may be presented.
    #[error("the store does not answer, so that nothing may be refreshed")]
    Unreachable,
    /// The entry holds something that this version does not know.
    #[error("the entry is of a version that this sidekey does not know; run the newer one, or log in anew")]
    Unknown,
}
