//! The whole: a validated configuration becomes a running sidekey, gives way to the next one, and stops in order.

mod control;
pub mod description;
mod generation;
mod reload;

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};

use self::generation::{Generation, Prepared, Standing};
use crate::clock::Clock;
use crate::config::{Config, Server as ServerConfig};
use crate::credential::{Credentials, Vault};
use crate::guard::callers::{Callers, TokenWatch};
use crate::proxy::exchange::CallerLimits;
use crate::secret::SecretError;
use crate::secret::reader::SecretReader;
use crate::server::handed::HandedSockets;
use crate::server::{BindError, Bound, Server, ServerSettings};
use crate::store::{self, StoreError};
use crate::telemetry::access_log::{self, AccessLog, Queue};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refusals::Refusals;
use crate::tls::{TlsError, TlsFactory};

pub use self::control::{Control, Steering};
pub use self::generation::{listener_tls, upstream_tls};
pub use self::reload::{Fixed, ReloadError, reload};

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
    now: Generation,
    server: Server,
    /// What stays whatever is reloaded.
    standing: Standing,
    access_log: Option<(Queue, AccessLog)>,
    /// Keeps the store in order.
    tending: JoinHandle<()>,
    /// Earlier configurations that are still in use.
    retiring: JoinSet<()>,
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
    /// Binds, starts the data plane on threads of its own and the token pools on the current runtime. Tokens are
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
        Self::starts(bound, HandedSockets::default(), config, clock, vault)
    }

    /// The same, also on sockets that were handed over.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_with(
        handed: HandedSockets,
        config: &Config,
        clock: &Clock,
        vault: Arc<Vault>,
    ) -> Result<Self, StartError> {
        Self::starts(None, handed, config, clock, vault)
    }

    fn starts(
        bound: Option<Vec<Bound>>,
        handed: HandedSockets,
        config: &Config,
        clock: &Clock,
        vault: Arc<Vault>,
    ) -> Result<Self, StartError> {
        // One sheet more, for the admin listener.
        let refusals = Arc::new(Refusals::new(config.server.workers.max(1) + 1));
        let mut standing = Standing {
            clock: clock.clone(),
            handed,
            refusals,
            metrics: Arc::default(),
            transactions: Arc::default(),
            next_slot: 0,
        };
        let access_log = access_log(&config.server).map_err(StartError::Threads)?;
        let queue = access_log.as_ref().map(|(queue, _)| queue.clone());
        let callers = callers_of(config, clock)?;
        let prepared = Prepared::of(config, callers, vault, queue, &mut standing, None, bound)?;
        let open = prepared.open();
        let server =
            Server::start(open, prepared.shared(), settings(&config.server)).map_err(StartError::Threads)?;
        let now = prepared.start();
        let tending = tokio::spawn(Arc::clone(now.vault()).tend());
        Ok(Self { now, server, standing, access_log, tending, retiring: JoinSet::new() })
    }

    /// Gives way to another configuration: from here on requests are served by it, and those that run end as they
    /// began. Listeners, connections and tokens stay where nothing changed that has to do with them.
    ///
    /// # Errors
    /// [`StartError`]; everything is as it was then.
    pub async fn swap(&mut self, config: &Config) -> Result<(), StartError> {
        // They may come from commands, and nothing else waits for those.
        let (new, clock) = (config.clone(), self.standing.clock.clone());
        let loaded = tokio::task::spawn_blocking(move || callers_of(&new, &clock)).await;
        let callers = loaded.map_err(|error| StartError::Threads(std::io::Error::other(error)))??;
        if config.server.access_log && self.access_log.is_none() {
            self.access_log = access_log(&config.server).map_err(StartError::Threads)?;
        }
        let queue =
            self.access_log.as_ref().filter(|_| config.server.access_log).map(|(queue, _)| queue.clone());
        let vault = Arc::clone(self.now.vault());
        let prepared =
            Prepared::of(config, callers, vault, queue, &mut self.standing, Some(&self.now), None)?;
        self.server.swap(prepared.open(), prepared.shared(), settings(&config.server));
        let before = std::mem::replace(&mut self.now, prepared.start());
        while self.retiring.try_join_next().is_some() {}
        self.retiring.spawn(before.retire());
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        self.now.config()
    }

    /// Where each listener is reached, in the order of the configuration.
    pub fn addresses(&self) -> &[Address] {
        self.now.addresses()
    }

    /// The credentials in force, to look at.
    pub fn credentials(&self) -> &Credentials {
        self.now.credentials()
    }

    /// How many requests were refused: a sheet for each worker, and the last one for the admin listener.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.standing.refusals
    }

    /// What is counted of its routes and credentials.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.standing.metrics
    }

    /// The grants that it holds.
    pub fn vault(&self) -> &Arc<Vault> {
        self.now.vault()
    }

    /// Tells whether all threads of the data plane run.
    pub fn pulse(&self) -> impl Fn() -> bool + Send + 'static {
        self.server.pulse()
    }

    /// Stops in order: serves for the drain delay, then lets running exchanges finish.
    pub async fn stop(mut self) {
        self.server.leaves();
        tokio::time::sleep(self.now.config().server.drain_delay).await;
        self.now.closes();
        self.server.stop().await;
        if let Some((queue, log)) = self.access_log {
            drop(queue);
            // It blocks, and there is nothing else that it could be waited with.
            let _ = tokio::task::spawn_blocking(|| log.close(LAST_LINES)).await;
        }
        // Last: exchanges that still ran might have needed a token.
        self.now.stop().await;
        self.tending.abort();
        while self.retiring.join_next().await.is_some() {}
    }
}

/// Where bound listeners are reached, those of the configuration in its order.
pub fn addresses_of<'a>(bound: impl IntoIterator<Item = &'a Bound>, config: &Config) -> Vec<Address> {
    let address = |(bound, listener): (&Bound, &crate::config::Listener)| Address {
        text: match listener.tls {
            Some(_) => format!("{}://{}", listener.scheme(), bound.address),
            None => bound.address.clone(),
        },
        socket: bound.socket_addr,
        path: bound.address.strip_prefix("unix:").map(PathBuf::from),
    };
    bound.into_iter().zip(&config.server.listeners).map(address).collect()
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

/// The callers of a configuration, with their tokens, and what keeps those fresh. It may wait for commands.
fn callers_of(config: &Config, clock: &Clock) -> Result<(Callers, TokenWatch), SecretError> {
    Callers::load(config, &SecretReader::new(config.secret_variables.clone()), clock)
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

fn settings(server: &ServerConfig) -> ServerSettings {
    ServerSettings {
        workers: server.workers,
        times: CallerLimits { header: server.header_timeout, idle: server.idle_timeout },
        limits: server.limits,
        drain_timeout: server.drain_timeout,
    }
}
