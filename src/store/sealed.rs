//! The layer between a store and those who use it: what goes in is sealed, what comes out is opened.

use std::sync::Arc;
use std::time::Duration;

use super::seal::Seal;
use super::{Backend, Key, Lock, MAX_CONTENT_BYTES, Pending, StoreError, Stored};

/// A store whose entries are sealed, if there is a key to seal by.
#[derive(Debug)]
pub(super) struct Sealed {
    inner: Box<dyn Backend>,
    seal: Seal,
}

impl Sealed {
    pub(super) fn new(inner: Box<dyn Backend>, seal: Seal) -> Self {
        Self { inner, seal }
    }
}

impl Backend for Sealed {
    fn read<'a>(&'a self, key: &'a Key) -> Pending<'a, Option<Stored>> {
        Box::pin(async {
            let Some(stored) = self.inner.read(key).await? else { return Ok(None) };
            let content = self.seal.open(key, &stored.content)?;
            Ok(Some(Stored { revision: stored.revision, content }))
        })
    }

    fn write<'a>(
        &'a self,
        key: &'a Key,
        expected: u64,
        content: &'a [u8],
        lifetime: Option<Duration>,
    ) -> Pending<'a, u64> {
        Box::pin(async move {
            if content.len() > MAX_CONTENT_BYTES {
                return Err(StoreError::TooLarge(content.len()));
            }
            let closed = self.seal.close(key, content)?;
            self.inner.write(key, expected, &closed, lifetime).await
        })
    }

    fn lock<'a>(&'a self, key: &'a Key, span: Duration) -> Pending<'a, Option<Box<dyn Lock>>> {
        self.inner.lock(key, span)
    }

    fn accounts<'a>(&'a self, credential: &'a str, issuer: &'a str) -> Pending<'a, Vec<Arc<str>>> {
        self.inner.accounts(credential, issuer)
    }

    fn epoch(&self) -> Pending<'_, u64> {
        self.inner.epoch()
    }

    fn announce(&self) -> Pending<'_, ()> {
        self.inner.announce()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }
}
