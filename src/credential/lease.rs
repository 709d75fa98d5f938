//! Leases: what a request gets from the pool, and why it may get none.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::HeaderMap;

use crate::clock::Moment;
use crate::header::AuthHeader;

/// A token in force.
pub(super) struct Token {
    pub(super) header: AuthHeader,
    pub(super) generation: u64,
    pub(super) expires: Option<Moment>,
    /// Has an upstream accepted it?
    pub(super) accepted: AtomicBool,
}

/// What a request gets from the pool: a ready header value and its generation.
#[derive(Clone)]
pub struct Lease {
    pub(super) token: Arc<Token>,
    /// Its account within the pool.
    pub(super) account: usize,
}

impl Lease {
    /// Puts the header on a request, in place of any of the same name.
    pub fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(self.token.header.name.clone(), self.token.header.value().clone());
    }

    /// The name of the header that it sets.
    pub fn header_name(&self) -> &http::HeaderName {
        &self.token.header.name
    }

    /// Its generation within its account; the first is 1.
    pub fn generation(&self) -> u64 {
        self.token.generation
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease(account {}, generation {})", self.account, self.token.generation)
    }
}

/// Why there is no lease, and when to come back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No token, and none within the time that a request may wait.
    #[error("credential {credential} has no valid token: {cause}")]
    Unavailable {
        /// The credential.
        credential: Arc<str>,
        /// What the last fetch failed with; for the log only.
        cause: Arc<str>,
        /// When to come back, at least a second.
        retry_after: Duration,
    },
    /// Nobody has logged in, or the login is over.
    #[error("credential {credential}, account {account}: {cause}")]
    LoginRequired {
        /// The credential.
        credential: Arc<str>,
        /// The account.
        account: Arc<str>,
        /// Why; for the log only.
        cause: Arc<str>,
    },
    /// The caller named an account that the configuration does not have.
    #[error("credential {credential} has no account of the name that the caller gave")]
    NoSuchAccount {
        /// The credential.
        credential: Arc<str>,
    },
    /// Too many requests wait already.
    #[error("credential {credential} has no valid token, and {waiting} requests wait for one already")]
    QueueFull {
        /// The credential.
        credential: Arc<str>,
        /// How many wait.
        waiting: usize,
    },
}
