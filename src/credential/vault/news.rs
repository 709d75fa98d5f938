//! News of logins and logouts: told to this process's pools and to all others on the store, and heard from them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::{Change, ROUND, Vault};
use crate::store::Key;

impl Vault {
    /// The changes that somebody's login or logout makes, from here on.
    pub(in crate::credential) fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        self.changed.hear()
    }

    /// Asks for another listing of all accounts in a while; many wishes are one.
    pub(in crate::credential) fn relist_later(self: &Arc<Self>) {
        if self.relisting.swap(true, Ordering::AcqRel) {
            return;
        }
        let vault = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(ROUND).await;
            vault.relisting.store(false, Ordering::Release);
            vault.changed.tell(&Change::Any);
        });
    }

    /// Tells the others; a failure is made good later. False: not yet.
    pub(super) async fn announce(&self) -> bool {
        let told = self.backend.announce().await;
        if let Err(error) = &told {
            self.health.failed(error);
            self.untold.store(true, Ordering::Release);
        } else {
            self.health.is_well();
        }
        told.is_ok()
    }

    pub(super) async fn look_for_changes(&self) {
        let mut seen = self.epoch.lock().await;
        match self.backend.epoch().await {
            Ok(epoch) => {
                if seen.replace(epoch) != Some(epoch) {
                    // The first look counts as well: what there is, is news.
                    // Whoever listened is gone only when the process stops.
                    self.changed.tell(&Change::Any);
                }
            }
            Err(error) => self.health.failed(&error),
        }
    }

    /// Tells this process's pool and all others of a login or logout.
    pub(super) async fn tell_all(&self, key: &Key) {
        self.changed.tell(&Change::One(key.clone()));
        let mut seen = self.epoch.lock().await;
        if !self.announce().await {
            return;
        }
        // Our own announcement is no news to us, where nobody else's fell between.
        if let (Some(before), Ok(now)) = (*seen, self.backend.epoch().await)
            && now == before + 1
        {
            *seen = Some(now);
        }
    }
}
