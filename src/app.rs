//! The whole: a validated configuration becomes a running sidekey, and stops in order.

mod control;
pub mod description;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::config::{Config, Server as ServerConfig};
use crate::credential::{Claim, TokenPool, Vault, pool_of};
use crate::guard::callers::Callers;
use crate::proxy::exchange::CallerLimits;
use crate::proxy::{Paces, Rules, Shared, UpstreamTls};
use crate::secret::SecretError;
use crate::secret::reader::SecretReader;
use crate::server::{self, BindError, Server, ServerSettings};
use crate::store::{self, StoreError};
use crate::tls::{CertificateWatch, ListenerTls, TlsError, TlsFactory};

pub use self::control::Control;

/// Why a checked configuration cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A `tls` table names files that cannot be used: the configuration is to be mended.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configured admin token, or a caller's, cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No threads.
    #[error("cannot start the data plane: {0}")]
    Threads(std::io::Error),
}

/// A running sidekey.
#[derive(Debug)]
pub struct App {
    addresses: Vec<Address>,
    pool: Arc<TokenPool>,
    vault: Arc<Vault>,
    server: Server,
    keeper: JoinHandle<()>,
    tending: JoinHandle<()>,
    certificates: JoinHandle<()>,
    callers: JoinHandle<()>,
    drain_delay: Duration,
}

/// Where a listener is reached.
#[derive(Debug, Clone)]
pub struct Address {
    /// As a person writes it: `127.0.0.1:7600`, `https://127.0.0.1:7643` or `unix:/path`.
    pub text: String,
    /// Of TCP.
    pub socket: Option<SocketAddr>,
    /// Of a Unix socket.
    pub path: Option<PathBuf>,
}

impl App {
    /// Binds, starts the data plane on threads of its own and the token pool on the current runtime. Tokens are
    /// fetched from here on; nothing waits for them.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(config: &Config, clock: &Clock, vault: Arc<Vault>) -> Result<Self, StartError> {
        let tls = TlsFactory::default();
        let (pool, keeper) = pool_of(config, &tls, clock, &vault)?;
        let mut certificates = CertificateWatch::default();
        let reader = SecretReader::new(config.secret_variables.clone());
        let (callers, tokens) = Callers::load(config, &reader, clock)?;
        let shared = Arc::new(Shared {
            rules: Rules::new(config, callers),
            claims: claims(config, &pool),
            pool: Arc::clone(&pool),
            tls: upstream_tls(config, &tls)?,
            listener_tls: listener_tls(config, &mut certificates)?,
            transactions: Arc::default(),
            paces: Paces::new(&config.routes),
            clock: clock.clone(),
        });
        let bound = server::bind(&config.server.listeners)?;
        let addresses = bound
            .iter()
            .zip(&config.server.listeners)
            .map(|(bound, listener)| Address {
                text: match listener.tls {
                    Some(_) => format!("{}://{}", listener.scheme(), bound.address),
                    None => bound.address.clone(),
                },
                socket: bound.socket_addr,
                path: bound.address.strip_prefix("unix:").map(PathBuf::from),
            })
            .collect();
        let server = Server::start(bound, &shared, settings(&config.server)).map_err(StartError::Threads)?;
        let keeper = tokio::spawn(keeper.run());
        let tending = tokio::spawn(Arc::clone(&vault).tend());
        let certificates = tokio::spawn(certificates.run());
        let callers = tokio::spawn(tokens.run());
        let drain_delay = config.server.drain_delay;
        Ok(Self { addresses, pool, vault, server, keeper, tending, certificates, callers, drain_delay })
    }

    /// Where each listener is reached, in the order of the configuration.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The token pool, to look at.
    pub fn pool(&self) -> &Arc<TokenPool> {
        &self.pool
    }

    /// The grants that it holds.
    pub fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Tells whether all threads of the data plane run.
    pub fn pulse(&self) -> impl Fn() -> bool + Send + 'static {
        self.server.pulse()
    }

    /// Stops in order: serves for the drain delay, then lets running exchanges finish.
    pub async fn stop(self) {
        tokio::time::sleep(self.drain_delay).await;
        self.server.stop().await;
        self.certificates.abort();
        self.callers.abort();
        // Last: exchanges that still ran might have needed a token.
        // A refresh token that is being presented must not be cut off: its successor would be lost.
        self.vault.close().await;
        self.keeper.abort();
        self.tending.abort();
    }
}

/// Each route's claim on the pool, where its callers name no account.
fn claims(config: &Config, pool: &TokenPool) -> Vec<Option<Claim>> {
    let claim = |route: &crate::config::Route| {
        let credential = route.credential?;
        // Enrolled, as the configuration names it.
        let named = route.account.as_ref().and_then(|account| pool.claim(credential, account).ok());
        Some(named.unwrap_or_else(|| credential.into()))
    };
    config.routes.iter().map(claim).collect()
}

/// The store of a configuration.
///
/// # Errors
/// [`StartError`] when its directory cannot be used, or its keys cannot be read.
pub async fn vault_of(config: &Config, clock: &Clock) -> Result<Arc<Vault>, StartError> {
    let reader = SecretReader::new(config.secret_variables.clone());
    let backend = store::open(&config.store, &TlsFactory::default(), &reader, clock).await?;
    Ok(Vault::new(backend, clock.clone()))
}

/// TLS towards each route's upstream; none for clear text.
pub fn upstream_tls(config: &Config, tls: &TlsFactory) -> Result<Vec<Option<UpstreamTls>>, TlsError> {
    let of_route = |route: &crate::config::Route| {
        if !route.upstream.tls {
            return Ok(None);
        }
        tls.connector(&route.tls).map(|connector| Some(UpstreamTls::new(connector, route.http)))
    };
    config.routes.iter().map(of_route).collect()
}

/// TLS towards each listener's callers, kept fresh by `watch` while that runs; none for clear text.
///
/// # Errors
/// [`TlsError`] when a certificate or its key cannot be used.
pub fn listener_tls(
    config: &Config,
    watch: &mut CertificateWatch,
) -> Result<Vec<Option<Arc<ListenerTls>>>, TlsError> {
    let listeners = config.server.listeners.iter();
    listeners.map(|listener| listener.tls.as_ref().map(|files| watch.load(files)).transpose()).collect()
}

fn settings(server: &ServerConfig) -> ServerSettings {
    ServerSettings {
        workers: server.workers,
        times: CallerLimits { header: server.header_timeout, idle: server.idle_timeout },
        limits: server.limits,
        drain_timeout: server.drain_timeout,
    }
}
