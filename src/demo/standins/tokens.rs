//! The ledger of the access tokens that a stand-in has issued.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Issues random tokens and knows what became of them. Clones share one ledger.
#[derive(Clone, Default)]
pub struct Tokens {
    ledger: Arc<Ledger>,
}

/// What a ledger says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Issued, and neither expired nor revoked.
    Valid,
    /// Its lifetime is over.
    Expired,
    /// Taken back before its lifetime was over.
    Revoked,
    /// Never issued here.
    Unknown,
}

#[derive(Default)]
struct Ledger {
    entries: Mutex<HashMap<String, Entry>>,
    issued: AtomicU64,
}

struct Entry {
    client: String,
    subject: String,
    /// `None`: beyond what the clock can express.
    expires: Option<Instant>,
    revoked: bool,
}

impl Tokens {
    /// An empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Issues a token of 40 letters and digits that is valid from now on for `lifetime`.
    pub fn issue(&self, lifetime: Duration) -> String {
        self.issue_to("", lifetime)
    }

    /// The same, on behalf of an API client.
    pub fn issue_to(&self, client: &str, lifetime: Duration) -> String {
        self.issue_for(client, client, lifetime)
    }

    /// The same, on behalf of a user (`subject`) of an API client.
    pub fn issue_for(&self, client: &str, subject: &str, lifetime: Duration) -> String {
        let token = random_text(40);
        let entry = Entry {
            client: client.to_owned(),
            subject: subject.to_owned(),
            expires: Instant::now().checked_add(lifetime),
            revoked: false,
        };
        self.entries().insert(token.clone(), entry);
        self.ledger.issued.fetch_add(1, Ordering::Relaxed);
        token
    }

    /// What is known of a token now. A revoked token stays revoked after its lifetime.
    pub fn check(&self, token: &str) -> Check {
        match self.entries().get(token) {
            None => Check::Unknown,
            Some(entry) if entry.revoked => Check::Revoked,
            Some(entry) if entry.expires.is_some_and(|at| at <= Instant::now()) => Check::Expired,
            Some(_) => Check::Valid,
        }
    }

    /// The API client that a token was issued to.
    pub fn client(&self, token: &str) -> Option<String> {
        self.entries().get(token).map(|entry| entry.client.clone())
    }

    /// On whose behalf a token was issued: a user, or the API client itself.
    pub fn subject_of(&self, token: &str) -> Option<String> {
        self.entries().get(token).map(|entry| entry.subject.clone())
    }

    /// Takes one token back; false if it was never issued.
    pub fn revoke(&self, token: &str) -> bool {
        self.entries().get_mut(token).map(|entry| entry.revoked = true).is_some()
    }

    /// Takes every token back that has been issued so far.
    pub fn revoke_all(&self) {
        self.entries().values_mut().for_each(|entry| entry.revoked = true);
    }

    /// Loses the ledger, as a server that restarts with empty storage: every token is unknown. The count stays.
    pub fn forget_all(&self) {
        self.entries().clear();
    }

    /// How many tokens have been issued.
    pub fn issued(&self) -> u64 {
        self.ledger.issued.load(Ordering::Relaxed)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.ledger.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issued", &self.issued()).finish_non_exhaustive()
    }
}

/// Random letters and digits: opaque, good enough for a stand-in, not for a real service.
pub(super) fn random_text(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_valid_for_its_lifetime_unless_revoked() {
        let tokens = Tokens::new();
        let first = tokens.issue(Duration::from_secs(60));
        let second = tokens.issue_to("client", Duration::from_secs(60));
        assert!(first.len() >= 32 && first != second);
        assert_eq!(tokens.check(&first), Check::Valid);
        assert_eq!(tokens.check("never issued"), Check::Unknown);
        assert_eq!(tokens.client(&second).as_deref(), Some("client"));

        assert!(tokens.revoke(&first) && !tokens.revoke("never issued"));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(tokens.check(&first), Check::Revoked);
        assert_eq!(tokens.check(&second), Check::Expired);

        let third = tokens.issue(Duration::MAX);
        tokens.revoke_all();
        assert_eq!(tokens.check(&third), Check::Revoked);
        assert_eq!(tokens.issued(), 3);
        assert!(!format!("{tokens:?}").contains(&third));
    }
}
