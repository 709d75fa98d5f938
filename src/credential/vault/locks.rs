//! The locks on grants: waited for, given back, and kept for those that the store has not got yet.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::{LOCK_PAUSE, Vault, VaultError};
use crate::store::{Key, Lock};

impl Vault {
    /// The lock on a grant, for so long that a fetch of `limit` surely fits; waits for it within reason.
    ///
    /// # Errors
    /// [`VaultError::Contended`] when somebody has it for too long.
    pub(in crate::credential) async fn wait_for_lock(
        &self,
        key: &Key,
        limit: Duration,
    ) -> Result<Box<dyn Lock>, VaultError> {
        let span = lock_span(limit);
        let deadline = self.clock.now() + span + Duration::from_secs(1);
        loop {
            if let Some(lock) = self.try_lock(key, limit).await? {
                return Ok(lock);
            }
            if self.clock.now() >= deadline {
                return Err(VaultError::Contended);
            }
            tokio::time::sleep(LOCK_PAUSE.mul_f64(1.0 + fastrand::f64())).await;
        }
    }

    /// The same, without waiting.
    pub(in crate::credential) async fn try_lock(
        &self,
        key: &Key,
        limit: Duration,
    ) -> Result<Option<Box<dyn Lock>>, VaultError> {
        // Our own, kept while the grant was in memory alone, which it is not any more.
        self.unpark(key).await;
        let lock = self.backend.lock(key, lock_span(limit)).await;
        match &lock {
            Ok(_) => self.health.is_well(),
            Err(error) => self.health.failed(error),
        }
        lock.map_err(VaultError::from)
    }

    /// Gives a lock back. It would end by itself, so that a failure costs no more than time.
    pub(in crate::credential) async fn give_back(&self, lock: Box<dyn Lock>) {
        if let Err(error) = lock.release().await {
            self.health.failed(&error);
        }
    }

    /// The same, but for a grant whose newest state the store does not have yet: others would take an older one for it.
    pub(in crate::credential) async fn give_back_when_saved(&self, key: &Key, lock: Box<dyn Lock>) {
        if !self.is_unsaved(key) {
            return self.give_back(lock).await;
        }
        self.parked().insert(key.clone(), lock);
    }

    pub(super) async fn unpark(&self, key: &Key) {
        let parked = self.parked().remove(key);
        if let Some(lock) = parked {
            self.give_back(lock).await;
        }
    }

    pub(super) fn parked(&self) -> MutexGuard<'_, HashMap<Key, Box<dyn Lock>>> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a lock is taken for: a fetch, what is written before and after, and time to notice that it is late.
fn lock_span(limit: Duration) -> Duration {
    limit * 2 + Duration::from_secs(2)
}
