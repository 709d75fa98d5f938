//! Claims: whose token a request carries. One person's token never stands in for another's.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::DEFAULT_ACCOUNT;
use super::account::{Account, AccountId};
use super::grant::Why;
use super::lease::LeaseError;
use super::pool::{Place, TokenPool};

/// Whose token a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// None: whichever the credential's strategy says.
    account: Option<AccountId>,
}

impl Claim {
    /// That of requests that name no account.
    pub const fn any() -> Self {
        Self { account: None }
    }
}

impl TokenPool {
    /// The claim of an account by its name.
    ///
    /// # Errors
    /// [`LeaseError::LoginRequired`] where it could be made by a login, [`LeaseError::NoSuchAccount`] elsewhere.
    pub fn claim(&self, account: &str) -> Result<Claim, LeaseError> {
        let group = &self.credential;
        match group.by_name.load().get(account) {
            Some(id) => Ok(Claim { account: Some(*id) }),
            None if group.logins.is_some() => Err(LeaseError::LoginRequired {
                credential: Arc::clone(&group.name),
                account: account.into(),
                cause: Why::Never.to_string().into(),
            }),
            None => Err(LeaseError::NoSuchAccount { credential: Arc::clone(&group.name) }),
        }
    }

    /// The same, after the accounts have been looked up for the first time.
    ///
    /// # Errors
    /// Those of [`TokenPool::claim`], and [`LeaseError::Unavailable`] when they cannot be looked up in time.
    pub async fn claim_when_listed(&self, account: &str) -> Result<Claim, LeaseError> {
        let group = &self.credential;
        let deadline = tokio::time::Instant::now() + group.lease_timeout;
        loop {
            let changed = group.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.claim(account) {
                Err(LeaseError::LoginRequired { .. }) if !group.listed.load(Ordering::Acquire) => {}
                told => return told,
            }
            let _place = Place::take(group)?;
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Err(LeaseError::Unavailable {
                    credential: Arc::clone(&group.name),
                    cause: "the store has not told yet which accounts there are".into(),
                    retry_after: Duration::from_secs(1),
                });
            }
        }
    }

    /// The accounts that a claim may be met by.
    pub(super) fn accounts_of(&self, claim: Claim) -> Range<AccountId> {
        let group = &self.credential;
        match claim.account {
            Some(id) => id..id + 1,
            None if group.logins.is_none() => group.accounts.clone(),
            // Another person's token is never as good.
            None => match group.by_name.load().get(DEFAULT_ACCOUNT) {
                Some(id) => *id..*id + 1,
                None => 0..0,
            },
        }
    }

    /// The account of that name, made if a login has brought it. For the keeper.
    pub(super) fn enrol(&self, name: &Arc<str>) -> Option<AccountId> {
        let group = &self.credential;
        let known = group.by_name.load();
        if let Some(id) = known.get(name) {
            return Some(*id);
        }
        let source = group.logins.as_ref()?.source(name);
        let id = self.accounts.push(Account::new(Arc::clone(name), source, group.margin));
        let mut grown = HashMap::clone(&known);
        grown.insert(Arc::clone(name), id);
        group.by_name.store(Arc::new(grown));
        Some(id)
    }
}
