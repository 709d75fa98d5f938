//! Where grants and shared tokens are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::{TlsSettings, Upstream};
use crate::secret::SecretSource;

/// Where grants and shared tokens are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// What kind of store.
    pub kind: StoreKind,
    /// What seals: the first seals, all open. Empty: nothing is sealed.
    pub encryption_keys: Vec<SecretSource>,
}

/// What kind of store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one exists, made once at load")]
pub enum StoreKind {
    /// This process's memory: gone when it ends.
    Memory,
    /// A directory of its own.
    File {
        /// The directory.
        path: PathBuf,
    },
    /// Redis or Valkey.
    Redis(RedisStore),
}

/// A Redis or Valkey server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStore {
    /// Where; `base_path` is unused. TLS for `rediss://`.
    pub server: Upstream,
    /// The number of the database.
    pub database: i64,
    /// Who asks; none: the default user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretSource>,
    /// Before every key.
    pub prefix: String,
    /// TLS towards it.
    pub tls: TlsSettings,
    /// How long one command may take.
    pub timeout: Duration,
}
