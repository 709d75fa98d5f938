//! The connection to the server: made at the first need, made anew when it breaks, shared by all who ask.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, ScriptInvocation, Value};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::{durability, fault};
use crate::config;
use crate::dial::dial;
use crate::secret::reader::SecretReader;
use crate::store::{RedisFault, StoreError};
use crate::tls::TlsFactory;

/// What the server is asked.
pub(super) enum Ask<'a> {
    Command(Cmd),
    Script(ScriptInvocation<'a>),
}

impl Ask<'_> {
    async fn send(&self, connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Script(script) => script.invoke_async(connection).await,
        }
    }
}

/// The way to one server.
pub(super) struct Link {
    server: config::RedisStore,
    connector: Option<TlsConnector>,
    reader: SecretReader,
    live: Mutex<Option<Live>>,
    /// Held while a connection is made, so that one is enough for all who wait.
    connecting: tokio::sync::Mutex<()>,
    connections: AtomicU64,
    was_looked_at: AtomicBool,
}

/// A connection and the task that drives it.
struct Live {
    number: u64,
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        // It would else wait for the answers of a server that may have stopped for good.
        self.driver.abort();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} …)", self.name())
    }
}

impl Link {
    pub(super) fn new(
        server: &config::RedisStore,
        tls: &TlsFactory,
        reader: &SecretReader,
    ) -> Result<Self, StoreError> {
        let connector = if server.server.tls {
            let mut config = rustls::ClientConfig::clone(tls.connector(&server.tls)?.0.config());
            // HTTP is not what is spoken here, and a proxy in between may mind.
            config.alpn_protocols.clear();
            Some(TlsConnector::from(Arc::new(config)))
        } else {
            None
        };
        Ok(Self {
            server: server.clone(),
            connector,
            reader: reader.clone(),
            live: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            connections: AtomicU64::new(0),
            was_looked_at: AtomicBool::new(false),
        })
    }

    pub(super) fn fault(&self, fault: RedisFault) -> StoreError {
        StoreError::Redis { server: self.name(), fault }
    }

    /// Asks, connecting first if need be; all of it within the configured time.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Value, StoreError> {
        let used = AtomicU64::new(0);
        let limit = self.server.timeout;
        match tokio::time::timeout(limit, self.ask_unbounded(ask, &used)).await {
            Ok(done) => done,
            Err(_) => {
                // Whatever is stuck, it is stuck for all: the next one tries another connection.
                self.forget(used.load(Ordering::Relaxed));
                Err(self.fault(RedisFault::Timeout(limit)))
            }
        }
    }

    async fn ask_unbounded(&self, ask: &Ask<'_>, used: &AtomicU64) -> Result<Value, StoreError> {
        let mut is_retry = false;
        loop {
            let (number, mut connection, is_new) = self.connection().await?;
            used.store(number, Ordering::Relaxed);
            let error = match ask.send(&mut connection).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let fault = fault::of(&error);
            if fault::is_of_connection(&fault) {
                self.forget(number);
            }
            // A kept connection may have been dead for long. What is asked may be asked twice: each write knows itself,
            // and a lock that was taken finds its own name.
            if fault != RedisFault::Lost || is_new || is_retry {
                return Err(self.fault(fault));
            }
            is_retry = true;
        }
    }

    /// The connection, its number, and whether it was made just now.
    async fn connection(&self) -> Result<(u64, MultiplexedConnection, bool), StoreError> {
        if let Some((number, connection)) = self.kept() {
            return Ok((number, connection, false));
        }
        let _connecting = self.connecting.lock().await;
        if let Some((number, connection)) = self.kept() {
            return Ok((number, connection, false));
        }
        let live = self.connect().await?;
        let (number, connection) = (live.number, live.connection.clone());
        *self.live() = Some(live);
        if !self.was_looked_at.swap(true, Ordering::Relaxed) {
            let (mut looked_at, limit) = (connection.clone(), self.server.timeout);
            let server = self.name();
            tokio::spawn(async move {
                let worries = tokio::time::timeout(limit, durability::look(&mut looked_at)).await;
                for worry in worries.unwrap_or_default() {
                    tracing::warn!(server, "{worry}");
                }
            });
        }
        Ok((number, connection, true))
    }

    async fn connect(&self) -> Result<Live, StoreError> {
        let mut info = RedisConnectionInfo::default().set_db(self.server.database).set_skip_set_lib_name();
        if let Some(username) = &self.server.username {
            info = info.set_username(username);
        }
        if let Some(source) = &self.server.password {
            // Read each time, so that a rotated one is picked up.
            let password = self.reader.read(source).await;
            let password =
                password.map_err(|source| StoreError::Secret { what: "store.password", source })?;
            info = info.set_password(password.expose());
        }
        // A little less than the whole, so that it can say itself what took so long.
        let limit = self.server.timeout * 9 / 10;
        let stream = dial(&self.server.server, self.connector.as_ref(), limit)
            .await
            .map_err(StoreError::Unreachable)?;
        // Each answer is waited for by `ask`, with its limit.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|error| self.fault(fault::of_setup(&error)))?;
        let driver = tokio::spawn(driver).abort_handle();
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Live { number, connection, driver })
    }

    fn kept(&self) -> Option<(u64, MultiplexedConnection)> {
        self.live().as_ref().map(|live| (live.number, live.connection.clone()))
    }

    fn forget(&self, number: u64) {
        let mut live = self.live();
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
        }
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> String {
        format!("{}:{}", self.server.server.host, self.server.server.port)
    }
}
