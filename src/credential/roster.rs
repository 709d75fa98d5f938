//! The roster: which accounts of a login there are, and which of them somebody has just logged in to or out of.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::debug;

use super::LoginCredential;
use super::rotation::GrantSource;
use super::source::TokenSource;
use super::vault::{Change, Vault};
use crate::clock::Clock;
use crate::config::Encoding;
use crate::telemetry::chain;

/// Where a credential's accounts come from.
pub trait Directory: fmt::Debug + Send + Sync {
    /// The source of an account's tokens, whether it has a grant or not.
    fn source(&self, account: &Arc<str>) -> Arc<dyn TokenSource>;
}

/// Accounts whose grant may have changed under the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// These accounts.
    pub accounts: Vec<Arc<str>>,
    /// And all that the pool knows of already.
    pub all: bool,
    /// Is that every account that there is?
    pub listed: bool,
}

/// The accounts of a login, as its grants in the vault tell them.
#[derive(Debug)]
pub(super) struct Grants {
    pub(super) login: LoginCredential,
    pub(super) vault: Arc<Vault>,
    pub(super) encoding: Encoding,
    pub(super) clock: Clock,
}

impl Directory for Grants {
    fn source(&self, account: &Arc<str>) -> Arc<dyn TokenSource> {
        Arc::new(GrantSource {
            key: self.login.key(account),
            vault: Arc::clone(&self.vault),
            client: Arc::clone(&self.login.client),
            encoding: self.encoding,
            clock: self.clock.clone(),
        })
    }
}

/// Tells the keeper of logins and logouts, for ever.
pub(super) fn follow(
    vault: &Vault,
    grants: Arc<Grants>,
) -> (mpsc::UnboundedReceiver<News>, Pin<Box<dyn Future<Output = ()> + Send>>) {
    let (sender, news) = mpsc::unbounded_channel();
    let mut changes = vault.changes();
    let followed = async move {
        while let Some(change) = changes.recv().await {
            let Some(news) = news_of(&change, &grants).await else { continue };
            if sender.send(news).is_err() {
                return;
            }
        }
    };
    (news, Box::pin(followed))
}

async fn news_of(change: &Change, grants: &Grants) -> Option<News> {
    let of_all = grants.login.key("");
    match change {
        Change::One(key) => {
            let is_its = key.credential == of_all.credential && key.issuer == of_all.issuer;
            is_its.then(|| News { accounts: vec![Arc::clone(&key.account)], all: false, listed: false })
        }
        Change::Any => {
            let listed = grants.vault.backend.accounts(&of_all.credential, &of_all.issuer).await;
            let listed = listed.inspect_err(|error| {
                debug!(credential = %of_all.credential, "the accounts cannot be listed: {}", chain(error));
                grants.vault.relist_later();
            });
            // Those that are known are looked at whether there is a list or not.
            let (accounts, all) = (listed.as_deref().unwrap_or_default().to_vec(), true);
            Some(News { accounts, all, listed: listed.is_ok() })
        }
    }
}
