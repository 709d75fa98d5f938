//! A source whose tokens replicas share: N of them make one fetch, not N.
//!
//! A token is worth less than an answer: whatever is wrong with the store, the token is fetched without it.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use tracing::debug;
use zeroize::Zeroizing;

use super::grant::Access;
use super::machine::Span;
use super::source::{FetchError, Fetched, TokenSource, Wish};
use super::vault::{LOCK_PAUSE, Vault};
use crate::clock::Clock;
use crate::header::AuthHeader;
use crate::secret::Secret;
use crate::store::{Key, Lock};
use crate::telemetry::chain;

/// Another source, asked only when the store has no token that will do.
#[derive(Debug)]
pub struct SharedSource {
    /// What fetches.
    pub inner: Arc<dyn TokenSource>,
    /// Where the token is kept; made of all that decides what token it is.
    pub key: Key,
    /// The store.
    pub vault: Arc<Vault>,
    /// How long one fetch may take.
    pub limit: Duration,
    /// Whether a token is worth taking.
    pub clock: Clock,
}

impl TokenSource for SharedSource {
    fn fetch(&self, wish: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async move {
            match self.shared(&wish).await {
                Found::Token(fetched) => Ok(fetched),
                Found::Turn(lock) => {
                    let fetched = self.fetch_and_share(wish).await;
                    if let Err(error) = lock.release().await {
                        self.shrug("give its lock back", &error);
                    }
                    fetched
                }
                Found::NoStore => self.inner.fetch(wish).await,
            }
        })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        self.inner.watched_files()
    }
}

/// What a look into the store amounts to.
enum Found {
    /// A token that will do.
    Token(Fetched),
    /// It is this instance's turn to fetch.
    Turn(Box<dyn Lock>),
    /// The store is of no use now.
    NoStore,
}

impl SharedSource {
    /// A token of the store, or the turn to fetch one. Whoever has the turn is waited for as long as its fetch may take.
    async fn shared(&self, wish: &Wish) -> Found {
        let deadline = self.clock.now() + self.limit;
        let backend = &self.vault.backend;
        loop {
            let stored = match backend.read(&self.key).await {
                Ok(stored) => stored,
                Err(error) => return self.no_store("be read", &error),
            };
            if let Some(fetched) = stored.and_then(|stored| self.usable(&stored.content, wish)) {
                return Found::Token(fetched);
            }
            match backend.lock(&self.key, self.limit * 2).await {
                Err(error) => return self.no_store("be locked", &error),
                Ok(None) if self.clock.now() >= deadline => return Found::NoStore,
                Ok(None) => tokio::time::sleep(LOCK_PAUSE.mul_f64(1.0 + fastrand::f64())).await,
                Ok(Some(lock)) => {
                    // It may have come between the look and the lock.
                    let again = backend.read(&self.key).await.ok().flatten();
                    return match again.and_then(|stored| self.usable(&stored.content, wish)) {
                        Some(fetched) => {
                            if let Err(error) = lock.release().await {
                                self.shrug("give its lock back", &error);
                            }
                            Found::Token(fetched)
                        }
                        None => Found::Turn(lock),
                    };
                }
            }
        }
    }

    fn usable(&self, content: &[u8], wish: &Wish) -> Option<Fetched> {
        let access: Access = serde_json::from_slice(content).ok()?;
        let header = AuthHeader::named(AUTHORIZATION, access.token()).ok()?;
        let is_other = wish.unlike.as_ref().map(|unlike| *unlike != header);
        let now = self.clock.wall();
        let lifetime = access.left(now).filter(|_| access.is_worth_taking(is_other, now))?;
        Some(Fetched { header, span: Span { lifetime: Some(lifetime), look_again: None } })
    }

    async fn fetch_and_share(&self, wish: Wish) -> Result<Fetched, FetchError> {
        let asked = self.clock.wall();
        let fetched = self.inner.fetch(wish).await?;
        if let (Some(lifetime), Ok(value)) = (fetched.span.lifetime, fetched.header.value().to_str()) {
            let access = Access::new(Secret::new(value), lifetime, asked);
            // Of its final size from the start, or nearly: a buffer that grows would leave copies behind.
            let mut content = Zeroizing::new(Vec::with_capacity(2 * value.len() + 128));
            // Numbers and a text: there is nothing that could fail.
            let _ = serde_json::to_writer(&mut *content, &access);
            let backend = &self.vault.backend;
            let written = async {
                let revision = backend.read(&self.key).await?.map_or(0, |stored| stored.revision);
                backend.write(&self.key, revision, &content, Some(lifetime)).await
            };
            if let Err(error) = written.await {
                self.shrug("be written", &error);
            }
        }
        Ok(fetched)
    }

    fn no_store(&self, what: &str, error: &crate::store::StoreError) -> Found {
        self.shrug(what, error);
        Found::NoStore
    }

    fn shrug(&self, what: &str, error: &crate::store::StoreError) {
        debug!(
            credential = %self.key.credential, account = %self.key.account,
            "the store cannot {what}, so the token is not shared: {}", chain(error)
        );
    }
}
