//! What happened to each account, as data for commands, pages and metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::account::Account;
use super::machine::State;
use super::pool::TokenPool;

/// One account, as it stands. Holds no secret.
#[derive(Debug, Clone, Serialize)]
pub struct AccountRecord {
    /// The credential's name.
    pub credential: Arc<str>,
    /// The account's name within it.
    pub account: Arc<str>,
    /// Does readiness wait for it?
    pub required: bool,
    /// In one word.
    pub state: State,
    /// Is there a valid token?
    pub has_token: bool,
    /// Does nothing help but a login? A token that is left serves on.
    pub login_required: bool,
    /// Tokens given so far.
    pub generation: u64,
    /// Seconds since the token in force was asked for.
    pub age_seconds: Option<f64>,
    /// Seconds until it expires; none: it does not, or there is no token.
    pub expires_in_seconds: Option<f64>,
    /// Seconds until the next try, after a failure.
    pub next_try_seconds: Option<f64>,
    /// What the last fetch failed with, while it counts.
    pub last_error: Option<Arc<str>>,
    /// Fetches that brought a new token.
    pub fetches: u64,
    /// Fetches that failed.
    pub failures: u64,
    /// Leases that upstreams refused.
    pub refusals: u64,
}

impl TokenPool {
    /// Every account, in the order of the configuration.
    pub fn records(&self) -> Vec<AccountRecord> {
        self.accounts.iter().map(|(_, account)| self.record(account)).collect()
    }

    /// Waits until an account has a token or its first fetch has failed; then all records.
    pub async fn settled(&self) -> Vec<AccountRecord> {
        let group = &self.credential;
        loop {
            let changed = group.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let accounts = || self.accounts.iter().map(|(_, account)| account);
            if accounts().all(|account| account.machine().attempts() > 0) {
                return accounts().map(|account| self.record(account)).collect();
            }
            changed.await;
        }
    }

    /// An account's state in one word.
    pub(super) fn state_of(&self, account: &Account) -> State {
        let now = self.clock.now();
        let machine = account.machine();
        let has_token = machine.held().is_some_and(|held| held.expires.is_none_or(|at| now < at));
        match machine.state(now) {
            State::Dead | State::Failing if !has_token && account.login_required.load(Ordering::Relaxed) => {
                State::LoginRequired
            }
            state => state,
        }
    }

    fn record(&self, account: &Account) -> AccountRecord {
        let credential = &self.credential;
        let now = self.clock.now();
        let state = self.state_of(account);
        let machine = account.machine();
        let held = machine.held();
        let has_token = held.is_some_and(|held| held.expires.is_none_or(|at| now < at));
        let login_required = account.login_required.load(Ordering::Relaxed);
        let seconds = |span: Duration| (span.as_secs_f64() * 1000.0).round() / 1000.0;
        AccountRecord {
            credential: Arc::clone(&credential.name),
            account: Arc::clone(&account.name),
            required: credential.required,
            state,
            has_token,
            login_required,
            generation: machine.generation(),
            age_seconds: held.map(|held| seconds(now.since(held.issued))),
            expires_in_seconds: held.and_then(|held| held.expires).map(|at| seconds(at.since(now))),
            next_try_seconds: machine.next_try().map(|at| seconds(at.since(now))),
            last_error: account.last_error(),
            fetches: account.fetches.load(Ordering::Relaxed),
            failures: account.failures.load(Ordering::Relaxed),
            refusals: account.refusals.load(Ordering::Relaxed),
        }
    }
}
