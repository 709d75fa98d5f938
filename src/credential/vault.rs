//! The vault: grants and shared tokens in the store, and what this process knows of them that the store may not.

use std::sync::Arc;

use crate::clock::Clock;
use crate::oauth::{Granted, OAuthClient, OAuthError};
use crate::store::{Backend, Key, StoreError};

/// Keeps grants in a store, so that none is lost that can be kept. One for a process.
#[derive(Debug)]
pub struct Vault {}

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
    pub fn new(_backend: Arc<dyn Backend>, _clock: Clock) -> Arc<Self> {
        todo!()
    }

    /// Keeps what a login yielded, in place of an older grant, and tells every instance on the store. A running pool
    /// of this process takes it up at once.
    ///
    /// # Errors
    /// When the store cannot be written: the grant is kept in memory then, and writing is tried again; for a command
    /// that ends, that is a failure.
    pub async fn log_in(&self, _key: &Key, _granted: &Granted) -> Result<(), StoreError> {
        todo!()
    }

    /// Revokes an account's grant and forgets it, and tells every instance on the store.
    ///
    /// # Errors
    /// When the store cannot be read or written, or somebody refreshes the grant for too long.
    pub async fn log_out(&self, _key: &Key, _client: &OAuthClient) -> Result<LoggedOut, StoreError> {
        todo!()
    }
}
