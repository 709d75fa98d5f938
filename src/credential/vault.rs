//! The vault: grants in the store, and what this process knows of them that the store may not.
//!
//! A store can fail in two ways that would cost a login: it cannot be written when a refresh has brought a new token,
//! or it forgets what was written (a fail-over, a restart without its file). So the vault remembers the newest grant of
//! each account: one that could not be saved is used from memory and saved as soon as that works, and one that the
//! store has an older version of is written over it.

mod changes;
mod health;
mod locks;
mod news;
mod presenting;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use self::changes::Changes;
use self::health::Health;
use self::presenting::Presenting;
use super::grant::{Grant, Life};
use crate::clock::Clock;
use crate::oauth::{Granted, OAuthClient, OAuthError};
use crate::store::{self, Backend, Key, Lock, StoreError};

/// How often the store is asked whether somebody logged in or out, and unsaved grants are tried again.
const ROUND: Duration = Duration::from_secs(1);
/// How long saving what is unsaved is tried at the end of the process.
const LAST_TRIES: Duration = Duration::from_secs(5);
/// How long to wait between two tries for a lock that somebody has; up to twice that.
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(40);

pub use self::changes::Change;
pub use self::health::VaultRecord;
pub(super) use self::presenting::Presentation;

/// Keeps grants in a store, so that none is lost that can be kept. One for a process.
pub struct Vault {
    pub(super) backend: Arc<dyn Backend>,
    clock: Clock,
    known: Mutex<HashMap<Key, Known>>,
    /// How the store does, and what became of grants.
    pub(super) health: Health,
    /// The store's epoch as far as this process has acted on it.
    epoch: tokio::sync::Mutex<Option<u64>>,
    changed: Changes,
    presenting: Presenting,
    /// Locks on grants that are in memory alone: while they hold, nobody takes what the store has for the newest.
    parked: Mutex<HashMap<Key, Box<dyn Lock>>>,
    /// Will a listing that failed be asked for again?
    relisting: AtomicBool,
    /// Is there a login or logout that the others have not been told of, because the store failed?
    untold: AtomicBool,
}

/// The newest grant that this process has seen of an account.
struct Known {
    grant: Grant,
    /// Does the store not have it yet?
    unsaved: bool,
}

/// A grant as it stands.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) grant: Option<Grant>,
    /// Its revision in the store; none: the store does not answer, or has not got it.
    pub(super) revision: Option<u64>,
    /// Is it held in memory alone?
    pub(super) unsaved: bool,
}

/// Why a grant cannot be had from the store, or not be changed there.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// What the store said.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else has had the lock for too long.
    #[error("another instance has been refreshing this grant for too long")]
    Contended,
    /// The lock ran out before what it is for could begin.
    #[error("the lock ran out before the refresh could begin; it is tried again")]
    LockLost,
    /// The store does not answer, and without it nothing may be presented.
    #[error("the store does not answer, so that nothing may be refreshed")]
    Unanswering,
    /// The entry holds something that this version does not know.
    #[error("the grant is of a version that this sidekey does not know; run the newer one, or log in anew")]
    UnknownVersion,
}

impl VaultError {
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict))
    }
}

/// What a logout did.
#[derive(Debug)]
pub struct LoggedOut {
    /// Was there a grant?
    pub existed: bool,
    /// Was it revoked at the server? `Ok(false)`: the server has no place to revoke at. The grant is forgotten in any
    /// case.
    pub revoked: Result<bool, OAuthError>,
}

impl Vault {
    /// A vault on a store.
    pub fn new(backend: Arc<dyn Backend>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            backend,
            health: Health::new(clock.clone()),
            clock,
            known: Mutex::default(),
            epoch: tokio::sync::Mutex::default(),
            changed: Changes::default(),
            presenting: Presenting::default(),
            parked: Mutex::default(),
            relisting: AtomicBool::new(false),
            untold: AtomicBool::new(false),
        })
    }

    /// A vault on this process's memory.
    pub fn in_memory(clock: &Clock) -> Arc<Self> {
        Self::new(store::in_memory(clock), clock.clone())
    }

    /// Keeps what a login yielded, in place of an older grant, and tells every instance on the store. A running pool
    /// of this process takes it up at once.
    ///
    /// # Errors
    /// When the store cannot be written: the grant is kept in memory then, and writing is tried again; for a command
    /// that ends, that is a failure.
    pub async fn log_in(&self, key: &Key, granted: &Granted) -> Result<(), VaultError> {
        let saved = loop {
            let (earlier, revision) = match self.read_store(key).await {
                Ok((stored, revision)) => (self.newest(key, stored), revision),
                Err(error) => {
                    let grant = Grant::of_login(granted, self.remembered(key).as_ref(), self.clock.wall());
                    self.keep(key, grant);
                    break Err(error);
                }
            };
            let grant = Grant::of_login(granted, earlier.as_ref(), self.clock.wall());
            match self.write(key, &grant, revision).await {
                Ok(_) => break Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    self.keep(key, grant);
                    break Err(error);
                }
            }
        };
        self.tell_all(key).await;
        saved
    }

    /// Revokes an account's grant and forgets it, and tells every instance on the store.
    ///
    /// # Errors
    /// When the store cannot be read or written, or somebody refreshes the grant for too long.
    pub async fn log_out(&self, key: &Key, client: &OAuthClient) -> Result<LoggedOut, VaultError> {
        // A refresh that runs would bring a token that nobody revokes.
        let lock = self.wait_for_lock(key, client.limit()).await?;
        let done = self.log_out_locked(key, client).await;
        self.give_back(lock).await;
        self.tell_all(key).await;
        done
    }

    async fn log_out_locked(&self, key: &Key, client: &OAuthClient) -> Result<LoggedOut, VaultError> {
        let (stored, mut revision) = self.read_store(key).await?;
        let Some(mut grant) = self.newest(key, stored) else {
            return Ok(LoggedOut { existed: false, revoked: Ok(false) });
        };
        let mut revoked = revoke(&grant, client).await;
        let existed = grant.life != Life::LoggedOut;
        loop {
            match self.write(key, &grant.logged_out(self.clock.wall()), revision).await {
                Ok(_) => return Ok(LoggedOut { existed, revoked }),
                Err(error) if error.is_conflict() => {
                    let (stored, now) = self.read_store(key).await?;
                    let newer = self.newest(key, stored).unwrap_or_else(|| grant.clone());
                    if newer.refresh_token() != grant.refresh_token() {
                        // Somebody has logged in meanwhile: that is what is forgotten now, so that is revoked as well.
                        revoked = revoke(&newer, client).await;
                    }
                    (grant, revision) = (newer, now);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The state, as data.
    pub fn record(&self) -> VaultRecord {
        self.health.record(self.known().values().filter(|known| known.unsaved).count())
    }

    /// Looks after the store for ever: saves what could not be saved, and notices logins elsewhere.
    pub async fn tend(self: Arc<Self>) {
        if self.backend.is_shared() {
            self.look_for_changes().await;
        } else {
            self.changed.tell(&Change::Any);
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = self.changed.unsaved.notified() => tokio::time::sleep(ROUND / 4).await,
            }
            self.save_unsaved().await;
            // A store that failed is tried by writing to it; once it works, the others may have missed something.
            let fails = self.health.fails();
            if self.untold.swap(false, Ordering::AcqRel) || fails {
                self.announce().await;
            }
            if self.backend.is_shared() {
                self.look_for_changes().await;
            }
        }
    }

    /// Begins a presentation, as soon as no other of this grant runs in this process; none: the process stops, and none
    /// may begin any more.
    pub(super) async fn presents<'a>(&'a self, key: &'a Key) -> Option<Presentation<'a>> {
        self.presenting.begin(key).await
    }

    /// Lets the presentations that run come to their end and starts no others; saves what is unsaved, and tries that for
    /// a while. For the end of the process: one that is cut off leaves a riddle that may cost the grant.
    pub async fn close(&self) {
        self.presenting.close().await;
        self.save_last().await;
        let parked = std::mem::take(&mut *self.parked());
        for lock in parked.into_values() {
            self.give_back(lock).await;
        }
    }

    async fn save_last(&self) {
        let deadline = self.clock.now() + LAST_TRIES;
        loop {
            self.save_unsaved().await;
            let unsaved = self.known().values().filter(|known| known.unsaved).count();
            if unsaved == 0 {
                return;
            }
            if self.clock.now() >= deadline {
                warn!(lost = unsaved, "grants could not be saved before the end; log in to them again");
                return;
            }
            tokio::time::sleep(ROUND / 4).await;
        }
    }

    /// An account's grant: the newer of what the store has and what this process knows. `of_memory`: is what this process
    /// knows good enough where the store does not answer? Not for whoever looks for a change.
    ///
    /// # Errors
    /// When the store does not answer and this process knows of none, or may not rely on it.
    pub(super) async fn view(&self, key: &Key, of_memory: bool) -> Result<View, VaultError> {
        let (stored, revision) = match self.read_store(key).await {
            Ok(read) => read,
            Err(error) => {
                let unsaved = self.is_unsaved(key);
                let known = self.remembered(key).filter(|_| of_memory || unsaved);
                let Some(grant) = known else { return Err(error) };
                return Ok(View { grant: Some(grant), revision: None, unsaved });
            }
        };
        let newest = self.newest(key, stored.clone());
        let unsaved = self.is_unsaved(key);
        if newest == stored || unsaved {
            return Ok(View { grant: newest, revision: Some(revision), unsaved });
        }
        // The store has lost it, or has an older one that must never be used again.
        let Some(grant) = newest else { return Ok(View { grant: None, revision: Some(revision), unsaved }) };
        self.health.counts.restored.fetch_add(1, Ordering::Relaxed);
        warn!(
            credential = %key.credential, account = %key.account,
            "the store has {} of this grant; what this instance knows is written over it",
            if stored.is_some() { "an older version" } else { "lost its record" }
        );
        let revision = self.write(key, &grant, revision).await.ok();
        Ok(View { grant: Some(grant), revision, unsaved })
    }

    /// Writes a step of a refresh down before it is made.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else was there; others when the store cannot be written.
    pub(super) async fn write(&self, key: &Key, grant: &Grant, revision: u64) -> Result<u64, VaultError> {
        let written = self.backend.write(key, revision, &grant.to_bytes(), None).await;
        match &written {
            Ok(_) => {
                self.health.is_well();
                self.learn(key, grant, false);
            }
            Err(StoreError::Conflict) => self.health.is_well(),
            Err(error) => self.health.failed(error),
        }
        written.map_err(VaultError::from)
    }

    /// Writes the outcome of a refresh down, whatever it takes: what cannot be saved is kept in memory. Gives the grant
    /// in force, which is somebody else's if that is newer.
    pub(super) async fn settle(&self, key: &Key, grant: Grant, revision: Option<u64>) -> Grant {
        let Some(mut revision) = revision else { return self.keep(key, grant) };
        let mut is_waited_for = false;
        loop {
            match self.write(key, &grant, revision).await {
                Ok(_) => {
                    self.unpark(key).await;
                    if is_waited_for {
                        // Others have been in between, and wait for this.
                        self.announce().await;
                    }
                    return grant;
                }
                Err(error) if error.is_conflict() => {}
                Err(_) => break,
            }
            match self.read_store(key).await {
                Ok((Some(stored), _)) if !grant.is_newer_than(&stored) => {
                    return self.learn(key, &stored, false);
                }
                Ok((_, now)) => (revision, is_waited_for) = (now, true),
                Err(_) => break,
            }
        }
        self.keep(key, grant)
    }

    async fn read_store(&self, key: &Key) -> Result<(Option<Grant>, u64), VaultError> {
        // That it can be read says nothing of writing.
        let read = self.backend.read(key).await.inspect_err(|error| self.health.failed(error))?;
        match read {
            None => Ok((None, 0)),
            Some(stored) => {
                let grant = Grant::from_bytes(&stored.content).ok_or(VaultError::UnknownVersion)?;
                Ok((Some(grant), stored.revision))
            }
        }
    }

    /// The newer of what the store has and what is known; remembered.
    fn newest(&self, key: &Key, stored: Option<Grant>) -> Option<Grant> {
        match stored {
            None => self.remembered(key),
            // One of the same generation may have a newer intent.
            Some(stored) => Some(self.learn(key, &stored, false)),
        }
    }

    /// Remembers a grant unless a newer one is known, and gives the newer of the two: whatever was slow to arrive never
    /// takes the place of what came after it.
    fn learn(&self, key: &Key, grant: &Grant, unsaved: bool) -> Grant {
        let mut all = self.known();
        if let Some(known) = all.get(key)
            && known.grant.is_newer_than(grant)
        {
            return known.grant.clone();
        }
        all.insert(key.clone(), Known { grant: grant.clone(), unsaved });
        grant.clone()
    }

    fn keep(&self, key: &Key, grant: Grant) -> Grant {
        let newest = self.learn(key, &grant, true);
        self.changed.unsaved.notify_one();
        newest
    }

    async fn save_unsaved(&self) {
        let unsaved: Vec<Key> =
            self.known().iter().filter(|(_, known)| known.unsaved).map(|(key, _)| key.clone()).collect();
        for key in unsaved {
            // What is being presented is not for others any more; its outcome comes next.
            let Some(_turn) = self.presenting.turn(&key) else { continue };
            let Ok((stored, revision)) = self.read_store(&key).await else { continue };
            let newest = self.newest(&key, stored);
            let Some(grant) = newest.filter(|_| self.is_unsaved(&key)) else { continue };
            // A conflict is looked at in the next round.
            if self.write(&key, &grant, revision).await.is_ok() {
                info!(credential = %key.credential, account = %key.account, "the grant is saved now");
                self.unpark(&key).await;
                self.announce().await;
            }
        }
    }

    fn remembered(&self, key: &Key) -> Option<Grant> {
        self.known().get(key).map(|known| known.grant.clone())
    }

    fn is_unsaved(&self, key: &Key) -> bool {
        self.known().get(key).is_some_and(|known| known.unsaved)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn revoke(grant: &Grant, client: &OAuthClient) -> Result<bool, OAuthError> {
    match grant.refresh_token() {
        Some(token) => client.revoke(token).await,
        None => Ok(false),
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("backend", &self.backend).finish_non_exhaustive()
    }
}
