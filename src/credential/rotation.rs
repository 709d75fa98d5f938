//! The source of a login's tokens: refreshes a grant whose refresh token rotates, in the one order that loses nothing.
//!
//! Lock; read again, as somebody may have refreshed; write down that the token is about to be presented; make sure that
//! the lock still holds; present it; write down what came back; give it out; unlock.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::grant::{self, Access, Grant, Life, Step, Why};
use super::machine::Span;
use super::source::{FetchError, Fetched, TokenSource, Wish};
use super::vault::{LOCK_PAUSE, Vault, VaultError, View};
use crate::clock::Clock;
use crate::config::Encoding;
use crate::oauth::{OAuthClient, OAuthError, Sent};
use crate::store::{Key, Lock};

/// How often to look, at least, while somebody else is waited for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How often a token is presented again in one fetch because somebody else presented it at the same time.
const CONCURRENT_TRIES: u32 = 3;
/// How long to wait before that.
const CONCURRENT_PAUSE: Duration = Duration::from_millis(300);

/// The tokens of one account's login.
#[derive(Debug)]
pub struct GrantSource {
    /// Whose.
    pub key: Key,
    /// Where its grant is.
    pub vault: Arc<Vault>,
    /// Talks to the authorization server.
    pub client: Arc<OAuthClient>,
    /// How the token stands in the header.
    pub encoding: Encoding,
    /// Whether a token is worth taking.
    pub clock: Clock,
}

impl TokenSource for GrantSource {
    fn fetch(&self, wish: Wish) -> Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + '_>> {
        Box::pin(async move { self.token(&wish).await })
    }

    fn watched_files(&self) -> Vec<PathBuf> {
        self.client.watched_files()
    }
}

/// What came of presenting a refresh token.
enum Presented {
    Token(Fetched),
    /// Somebody else was there at the same time: look again.
    Again(OAuthError),
}

impl GrantSource {
    async fn token(&self, wish: &Wish) -> Result<Fetched, FetchError> {
        let mut concurrent = 0;
        let deadline = self.clock.now() + self.client.limit() * 2;
        loop {
            let view = self.vault.view(&self.key, wish.unlike.is_some()).await?;
            match self.step(&view, wish) {
                // Whoever is about to present it has the lock: it is waited for there.
                Step::Refresh(_) | Step::Wait(_) => {}
                other => return self.without_presenting(other),
            }
            // Nobody else can take from a grant that is in memory alone, and its store may not even be able to lock.
            let lock = if view.unsaved {
                None
            } else {
                match self.vault.try_lock(&self.key, self.client.limit()).await? {
                    None if self.clock.now() >= deadline => return Err(VaultError::Contended.into()),
                    // Whoever has it is most likely refreshing: what that brings is looked for.
                    None => {
                        tokio::time::sleep(LOCK_PAUSE.mul_f64(1.0 + fastrand::f64())).await;
                        continue;
                    }
                    lock => lock,
                }
            };
            let presented = self.refresh(wish, lock.as_deref()).await;
            if let Some(lock) = lock {
                self.vault.give_back_when_saved(&self.key, lock).await;
            }
            match presented? {
                Presented::Token(fetched) => return Ok(fetched),
                Presented::Again(error) => {
                    concurrent += 1;
                    if concurrent >= CONCURRENT_TRIES {
                        return Err(error.into());
                    }
                    tokio::time::sleep(CONCURRENT_PAUSE.mul_f64(1.0 + fastrand::f64())).await;
                }
            }
        }
    }

    /// What can be said without presenting anything.
    fn without_presenting(&self, step: Step) -> Result<Fetched, FetchError> {
        match step {
            Step::Take(access) => self.fetched(&access),
            // Whoever is waited for may come back at any time.
            Step::Wait(left) => Err(FetchError::Uncertain { retry_in: left.min(LOOK_AGAIN), source: None }),
            Step::LogIn(why) => Err(self.login_required(why)),
            Step::Refresh(_) => Err(FetchError::Cut),
        }
    }

    fn login_required(&self, why: Why) -> FetchError {
        let Key { credential, account, .. } = &self.key;
        FetchError::LoginRequired { why, credential: Arc::clone(credential), account: Arc::clone(account) }
    }

    fn step(&self, view: &View, wish: &Wish) -> Step {
        let now = self.clock.wall();
        grant::step(view.grant.as_ref(), wish.unlike.as_ref(), self.encoding, now, self.client.limit())
    }

    /// Presents the refresh token, under the lock where there is one.
    async fn refresh(&self, wish: &Wish, lock: Option<&dyn Lock>) -> Result<Presented, FetchError> {
        let Some(_presentation) = self.vault.presents(&self.key).await else { return Err(FetchError::Cut) };
        // Somebody may have refreshed before the lock was ours.
        let view = self.vault.view(&self.key, wish.unlike.is_some()).await?;
        if let (Some(lock), Some(grant), Some(revision)) = (lock, &view.grant, view.revision)
            && lock.former_holder_lives()
            && let Some(stuck) = grant.stuck()
        {
            // It was stopped in the middle, and its answer may be waiting for it: to present the token a second time now
            // would cost what it can still bring.
            warn!(
                credential = %self.key.credential, account = %self.key.account,
                "another instance is stuck in the middle of a refresh; it is waited for"
            );
            self.vault.write(&self.key, &stuck, revision).await?;
            return Err(FetchError::Uncertain { retry_in: Duration::ZERO, source: None });
        }
        let (before, token) = match (self.step(&view, wish), &view.grant) {
            (Step::Refresh(token), Some(grant)) => (grant.clone(), token),
            // With the lock in hand, an intent that is not over is that of somebody who is gone.
            (other, _) => return self.without_presenting(other).map(Presented::Token),
        };
        let intent = before.intending(self.clock.wall());
        let mut revision = view.revision;
        if !view.unsaved {
            // Presented without a word of it in the store, a crash would leave a used token there that looks unused.
            let known = revision.ok_or(VaultError::Unanswering)?;
            if lock.is_none() {
                // It was in memory alone when no lock was taken for it, and has been saved since.
                return Err(VaultError::LockLost.into());
            }
            revision = match self.vault.write(&self.key, &intent, known).await {
                Ok(revision) => Some(revision),
                Err(error) if error.is_conflict() => return Err(VaultError::Contended.into()),
                Err(error) => return Err(error.into()),
            };
        }
        if let Some(lock) = lock
            && !self.surely_holds(lock).await
        {
            // Somebody else may have the lock by now and this very intent as a riddle before them: leave it to them.
            self.take_back(&before, &intent, revision).await;
            return Err(VaultError::LockLost.into());
        }
        let asked = self.clock.wall();
        // Asked once more when the connection is there: connecting may take long, and timers stand still in suspend.
        let may_go = || lock.is_none_or(|lock| lock.left() > self.client.fetch_timeout());
        match self.client.refresh(&token, may_go).await {
            Ok(granted) => {
                if before.is_uncertain() {
                    self.vault.health.counts.recovered.fetch_add(1, Ordering::Relaxed);
                    info!(
                        credential = %self.key.credential, account = %self.key.account,
                        "the refresh token was not used up after all: the grant lives on"
                    );
                }
                let after = intent.refreshed(&granted, asked);
                let in_force = self.vault.settle(&self.key, after.clone(), revision).await;
                if in_force.life == Life::LoggedOut {
                    // Somebody logged out meanwhile, and could not revoke what was only just made.
                    if let Some(token) = after.refresh_token() {
                        let _ = self.client.revoke(token).await;
                    }
                    return Err(self.login_required(Why::LoggedOut));
                }
                // The new refresh token is safe whatever is wrong with the access token.
                granted.access?;
                let access = in_force.access.as_ref().or(after.access.as_ref());
                access.map_or(Err(FetchError::Cut), |access| self.fetched(access)).map(Presented::Token)
            }
            Err(error) => self.failed(&before, &intent, revision, error).await,
        }
    }

    /// The lock is asked for immediately before the token goes out: by the clock that runs through suspend, and at the
    /// store, which may have given it to somebody else.
    async fn surely_holds(&self, lock: &dyn Lock) -> bool {
        let fits = || lock.left() > self.client.limit();
        fits() && lock.is_held().await.unwrap_or(false) && fits()
    }

    /// Writes down what a failed presentation means for the refresh token.
    async fn failed(
        &self,
        before: &Grant,
        intent: &Grant,
        revision: Option<u64>,
        error: OAuthError,
    ) -> Result<Presented, FetchError> {
        let (credential, account) = (&self.key.credential, &self.key.account);
        match error.sent() {
            Sent::Not | Sent::Refused => {
                self.take_back(before, intent, revision).await;
                Err(error.into())
            }
            Sent::Concurrent => {
                self.take_back(before, intent, revision).await;
                debug!(%credential, %account, "somebody else refreshes at the same time");
                Ok(Presented::Again(error))
            }
            Sent::Unknown => {
                self.vault.health.counts.uncertain.fetch_add(1, Ordering::Relaxed);
                warn!(
                    %credential, %account, token_left_s = self.left(before),
                    "it is uncertain whether the refresh token was used up: its answer did not arrive; one careful try \
                     follows"
                );
                self.vault.settle(&self.key, intent.uncertain(), revision).await;
                Err(FetchError::Uncertain { retry_in: Duration::ZERO, source: Some(error) })
            }
            Sent::Dead => {
                let ended = intent.ended();
                let why = if before.is_uncertain() { Why::Lost } else { Why::Ended };
                if why == Why::Lost {
                    self.vault.health.counts.lost.fetch_add(1, Ordering::Relaxed);
                }
                let in_force = self.vault.settle(&self.key, ended.clone(), revision).await;
                if in_force != ended
                    && let Some(access) = &in_force.access
                {
                    // Somebody else's try came first and succeeded.
                    return self.fetched(access).map(Presented::Token);
                }
                warn!(%credential, %account, token_left_s = self.left(before), "{}", crate::telemetry::chain(&error));
                Err(self.login_required(why))
            }
        }
    }

    /// The token was not used up: what the store says of an attempt is taken back.
    async fn take_back(&self, before: &Grant, intent: &Grant, revision: Option<u64>) {
        let Some(revision) = revision else { return };
        // Where the store fails, the intent stays, and costs a careful try.
        match self.vault.write(&self.key, before, revision).await {
            Err(error) if error.is_conflict() => {}
            _ => return,
        }
        // Somebody may have noted on it that this process was stuck; anything else is somebody else's word.
        if let Ok(View { grant: Some(now), revision: Some(revision), .. }) =
            self.vault.view(&self.key, false).await
            && now.is_same_attempt(intent)
        {
            let _ = self.vault.write(&self.key, before, revision).await;
        }
    }

    fn left(&self, grant: &Grant) -> u64 {
        let left = grant.access.as_ref().and_then(|access| access.left(self.clock.wall()));
        left.unwrap_or_default().as_secs()
    }

    fn fetched(&self, access: &Access) -> Result<Fetched, FetchError> {
        let lifetime = access.left(self.clock.wall()).unwrap_or_default();
        Ok(Fetched {
            header: access.header(self.encoding)?,
            span: Span { lifetime: Some(lifetime), look_again: None },
        })
    }
}
