//! The whole: a validated configuration becomes a running sidekey, and stops in order.

mod control;
pub mod description;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
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
use crate::server::{self, BindError, Bound, Server, ServerSettings};
use crate::store::{self, StoreError};
use crate::telemetry::access_log::{self, AccessLog, Queue};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::tls::{CertificateWatch, ListenerTls, TlsError, TlsFactory};

pub use self::control::Control;

/// How long the last lines of the access log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

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
    refusals: Arc<Refusals>,
    metrics: Arc<Metrics>,
    access_log: Option<AccessLog>,
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
        Self::start_on(None, config, clock, vault)
    }

    /// The same on listeners that are bound already, those of the configuration in its order.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_on(
        bound: Option<Vec<Bound>>,
        config: &Config,
        clock: &Clock,
        vault: Arc<Vault>,
    ) -> Result<Self, StartError> {
        let tls = TlsFactory::default();
        let (pool, keeper) = pool_of(config, &tls, clock, &vault)?;
        let metrics = Arc::<Metrics>::default();
        pool.is_counted_in(&metrics);
        let mut certificates = CertificateWatch::default();
        let reader = SecretReader::new(config.secret_variables.clone());
        let (callers, tokens) = Callers::load(config, &reader, clock)?;
        // One sheet more, for the admin listener.
        let refusals = Arc::new(Refusals::new(config.server.workers.max(1) + 1));
        let (queue, access_log) = access_log(&config.server).map_err(StartError::Threads)?.unzip();
        let shared = Arc::new(Shared {
            rules: Rules::new(config, callers),
            claims: claims(config, &pool),
            pool: Arc::clone(&pool),
            tls: upstream_tls(config, &tls)?,
            listener_tls: listener_tls(config, &mut certificates)?,
            transactions: Arc::default(),
            paces: Paces::new(&config.routes),
            clock: clock.clone(),
            refusals: Arc::clone(&refusals),
            traffic: metrics.of_routes(config.routes.iter().map(|route| &route.name)),
            access_log: queue,
        });
        let bound = match bound {
            Some(bound) => bound,
            None => server::bind(&config.server.listeners)?,
        };
        let addresses = addresses_of(&bound, config);
        let server = Server::start(bound, &shared, settings(&config.server)).map_err(StartError::Threads)?;
        let keeper = tokio::spawn(keeper.run());
        let tending = tokio::spawn(Arc::clone(&vault).tend());
        let certificates = tokio::spawn(certificates.run());
        let callers = tokio::spawn(tokens.run());
        let drain_delay = config.server.drain_delay;
        drop(shared);
        Ok(Self {
            addresses,
            pool,
            vault,
            server,
            keeper,
            tending,
            certificates,
            callers,
            refusals,
            metrics,
            access_log,
            drain_delay,
        })
    }

    /// Where each listener is reached, in the order of the configuration.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The token pool, to look at.
    pub fn pool(&self) -> &Arc<TokenPool> {
        &self.pool
    }

    /// How many requests were refused: a sheet for each worker, and the last one for the admin listener.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// What is counted of its routes and credentials.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
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
        if let Some(log) = self.access_log {
            // It blocks, and there is nothing else that it could be waited with.
            let _ = tokio::task::spawn_blocking(|| log.close(LAST_LINES)).await;
        }
        self.certificates.abort();
        self.callers.abort();
        // Last: exchanges that still ran might have needed a token.
        // A refresh token that is being presented must not be cut off: its successor would be lost.
        self.vault.close().await;
        self.keeper.abort();
        self.tending.abort();
    }
}

/// Where bound listeners are reached, those of the configuration in its order.
pub fn addresses_of(bound: &[Bound], config: &Config) -> Vec<Address> {
    let address = |(bound, listener): (&Bound, &crate::config::Listener)| Address {
        text: match listener.tls {
            Some(_) => format!("{}://{}", listener.scheme(), bound.address),
            None => bound.address.clone(),
        },
        socket: bound.socket_addr,
        path: bound.address.strip_prefix("unix:").map(PathBuf::from),
    };
    bound.iter().zip(&config.server.listeners).map(address).collect()
}

/// The access log on standard output, if there is to be one.
fn access_log(server: &ServerConfig) -> std::io::Result<Option<(Queue, AccessLog)>> {
    if !server.access_log {
        return Ok(None);
    }
    // Its own handle: whoever writes to it blocks nobody who prints.
    let output = std::io::stdout().as_fd().try_clone_to_owned()?;
    access_log::start(output).map(Some)
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
