//! What steers a running instance from outside: its admin listener, its probes, and the token file.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tracing::warn;

use super::description::describe;
use super::{App, StartError};
use crate::admin::{Admin, AdminRules, Instance, TokenFile};
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::credential::logins_of;
use crate::login::Desk;
use crate::secret::reader::SecretReader;
use crate::server::BindError;
use crate::telemetry::chain;
use crate::tls::TlsFactory;

/// The listeners that are not for requests, while an instance runs; dropped, they stop.
#[derive(Debug)]
pub struct Control {
    admin: Option<Admin>,
    probes: Option<Admin>,
    _token_file: Option<TokenFile>,
    stop: Arc<Notify>,
    instance: Arc<Instance>,
    desk: Option<Arc<Desk>>,
}

impl Control {
    /// Starts what the configuration asks for.
    ///
    /// # Errors
    /// [`StartError`] when an address is in use or the configured token cannot be read.
    pub async fn start(
        app: &App,
        config: &Config,
        environment: &Environment,
        clock: &Clock,
    ) -> Result<Self, StartError> {
        let description = describe(config, app.addresses());
        let instance = Instance::new(
            Arc::clone(app.pool()),
            Arc::clone(app.vault()),
            clock.clone(),
            description,
            Arc::clone(app.refusals()),
        );
        let instance = Arc::new(instance.counting(Arc::clone(app.metrics())));
        let stop = Arc::new(Notify::new());
        let settings = &config.server.admin;
        let mut control = Self {
            admin: None,
            probes: None,
            _token_file: None,
            stop: Arc::clone(&stop),
            instance: Arc::clone(&instance),
            desk: None,
        };
        if let Some(address) = settings.listen {
            let listener = bind(address).await?;
            let bound = listener.local_addr().map_err(StartError::Threads)?;
            let token = match &settings.token {
                Some(source) => Some(SecretReader::new(config.secret_variables.clone()).read(source).await?),
                None => match TokenFile::create(bound, environment) {
                    Ok((file, token)) => {
                        control._token_file = Some(file);
                        Some(token)
                    }
                    // A root that is read-only, say: probes and status work without it.
                    Err(error) => {
                        warn!("nobody can use the admin listener's POSTs: {}", chain(&error));
                        None
                    }
                },
            };
            let rules =
                AdminRules { token, open_quit: settings.open_quit, hosts: config.server.hosts.clone() };
            control.desk = desk(app, config, clock, bound)?;
            let admin = Admin::start(listener, rules, Arc::clone(&instance), control.desk.clone(), stop);
            control.admin = Some(admin.map_err(StartError::Threads)?);
        }
        if let Some(address) = settings.health {
            let probes = Admin::start_probes(bind(address).await?, instance);
            control.probes = Some(probes.map_err(StartError::Threads)?);
        }
        Ok(control)
    }

    /// Where the admin listener and the one for probes are.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        (self.admin.as_ref().map(Admin::address), self.probes.as_ref().map(Admin::address))
    }

    /// The instance, to look at.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Where people log in; none without such credentials, or without an admin listener.
    pub fn desk(&self) -> Option<&Arc<Desk>> {
        self.desk.as_ref()
    }

    /// Lets logins in their last step come to their end, and ends all others.
    pub async fn finish_logins(&self) {
        if let Some(desk) = &self.desk {
            desk.close().await;
        }
    }

    /// Says that the instance stops: it is not ready any more.
    pub fn stops(&self) {
        self.instance.stops();
    }

    /// Returns when somebody who may has asked for the instance to stop.
    pub async fn stop_asked(&self) {
        self.stop.notified().await;
    }
}

/// The desk of an instance whose admin listener is at `admin`.
fn desk(
    app: &App,
    config: &Config,
    clock: &Clock,
    admin: SocketAddr,
) -> Result<Option<Arc<Desk>>, StartError> {
    let logins = logins_of(config, &TlsFactory::default(), clock)?;
    let any = !logins.is_empty();
    let desk = || Desk::new(logins, Arc::clone(app.vault()), clock.clone()).served_at(admin);
    Ok(any.then(desk).map(Arc::new))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::new(address.to_string(), source))
}
