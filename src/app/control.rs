//! What steers a running instance from outside: its admin listener, its probes, and the token file.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing::warn;

use super::description::describe;
use super::{App, StartError};
use crate::admin::{Admin, AdminRules, Instance, Orders, Subject, TokenFile, Wish};
use crate::clock::Clock;
use crate::config::{Config, Environment};
use crate::credential::logins_of;
use crate::login::Desk;
use crate::secret::Secret;
use crate::secret::reader::SecretReader;
use crate::server::BindError;
use crate::telemetry::chain;
use crate::tls::TlsFactory;

/// The listeners that are not for requests, while an instance runs; dropped, they stop.
#[derive(Debug)]
pub struct Control {
    admin: Option<Admin>,
    probes: Option<Admin>,
    token_file: Option<(TokenFile, Secret)>,
    orders: Arc<Orders>,
    instance: Arc<Instance>,
    desk: Option<Arc<Desk>>,
    clock: Clock,
}

/// What a configuration asks for, made ready; nothing is changed until [`Control::steer`].
#[derive(Debug)]
pub struct Steering {
    /// None: the listener that there is stays.
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
    /// As the configuration has it; none: it has none.
    token: Option<Secret>,
    /// None: the desk that there is stays.
    desk: Option<Option<Arc<Desk>>>,
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
        let subject = subject(app, config);
        let (refusals, metrics) = (Arc::clone(app.refusals()), Arc::clone(app.metrics()));
        let instance = Arc::new(Instance::new(subject, clock.clone(), refusals, metrics));
        let mut control = Self {
            admin: None,
            probes: None,
            token_file: None,
            orders: Arc::default(),
            instance,
            desk: None,
            clock: clock.clone(),
        };
        let mut steering = control.prepare(app, config).await?;
        control.desk = steering.desk.take().flatten();
        control.listen(config, steering, environment);
        Ok(control)
    }

    /// Makes ready what another configuration asks for.
    ///
    /// # Errors
    /// [`StartError`] when an address is in use or the configured token cannot be read.
    pub async fn prepare(&self, app: &App, config: &Config) -> Result<Steering, StartError> {
        let settings = &config.server.admin;
        let (admin, probes) = self.addresses();
        let token = match &settings.token {
            Some(source) => Some(SecretReader::new(config.secret_variables.clone()).read(source).await?),
            None => None,
        };
        let (admin, probes) = (bind(settings.listen, admin).await?, bind(settings.health, probes).await?);
        let there = self.desk.as_ref();
        let stays = admin.is_none() && there.is_some_and(|desk| desk.is_for(config, app.vault()));
        let desk = if stays { None } else { Some(self.new_desk(app, config, admin.as_ref())?) };
        Ok(Steering { admin, probes, token, desk })
    }

    /// Steers as another configuration has it, which the app has just taken up.
    pub fn steer(&mut self, app: &App, config: &Config, mut steering: Steering, environment: &Environment) {
        self.instance.is_now(subject(app, config));
        if let Some(next) = steering.desk.take()
            && let Some(before) = std::mem::replace(&mut self.desk, next)
        {
            // Logins in their last step come to their end.
            tokio::spawn(async move { before.close().await });
        }
        let settings = &config.server.admin;
        if settings.listen.is_none() {
            leave(self.admin.take());
            self.token_file = None;
        }
        if settings.health.is_none() {
            leave(self.probes.take());
        }
        self.listen(config, steering, environment);
    }

    fn listen(&mut self, config: &Config, steering: Steering, environment: &Environment) {
        let Steering { admin, probes, token, desk: _ } = steering;
        let settings = &config.server.admin;
        if settings.listen.is_some() {
            let bound = match &admin {
                Some(listener) => listener.local_addr().ok(),
                None => self.addresses().0,
            };
            if token.is_some() {
                self.token_file = None;
            } else if let Some(bound) = bound.filter(|_| admin.is_some() || self.token_file.is_none()) {
                self.token_file = match TokenFile::create(bound, environment) {
                    Ok(created) => Some(created),
                    // A root that is read-only, say: probes and status work without it.
                    Err(error) => {
                        warn!("nobody can use the admin listener's POSTs: {}", chain(&error));
                        None
                    }
                };
            }
            let token = token.or_else(|| self.token_file.as_ref().map(|(_, token)| token.clone()));
            let hosts = config.server.hosts.clone();
            let rules = AdminRules { token, open_quit: settings.open_quit, hosts };
            let (instance, orders) = (Arc::clone(&self.instance), Arc::clone(&self.orders));
            match (admin, &self.admin) {
                (Some(listener), _) => {
                    let next = Admin::start(listener, rules, instance, self.desk.clone(), orders);
                    leave(std::mem::replace(&mut self.admin, started("the admin listener", next)));
                }
                (None, Some(admin)) => admin.goes_by(rules, self.desk.clone()),
                (None, None) => {}
            }
        }
        if let Some(listener) = probes {
            let next = Admin::start_probes(listener, Arc::clone(&self.instance));
            leave(std::mem::replace(&mut self.probes, started("the listener for probes", next)));
        }
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
        self.orders.close();
    }

    /// Returns when somebody who may has asked for something.
    pub async fn asked(&self) -> Wish {
        self.orders.asked().await
    }

    /// The desk of an instance whose admin listener is `listener`, or the one that there is.
    fn new_desk(
        &self,
        app: &App,
        config: &Config,
        listener: Option<&TcpListener>,
    ) -> Result<Option<Arc<Desk>>, StartError> {
        if config.server.admin.listen.is_none() {
            return Ok(None);
        }
        let bound = listener.map(TcpListener::local_addr).transpose().map_err(StartError::Threads)?;
        let Some(admin) = bound.or(self.addresses().0) else { return Ok(None) };
        let logins = logins_of(config, &TlsFactory::default(), &self.clock)?;
        let any = !logins.is_empty();
        let desk = || Desk::new(logins, Arc::clone(app.vault()), self.clock.clone()).served_at(admin);
        Ok(any.then(desk).map(Arc::new))
    }
}

/// How long a listener that is left may take for the answer to who had it left.
const LEAVING: Duration = Duration::from_secs(2);

fn leave(listener: Option<Admin>) {
    if let Some(listener) = listener {
        listener.accepts_no_more();
        tokio::spawn(async move {
            tokio::time::sleep(LEAVING).await;
            drop(listener);
        });
    }
}

/// A bound socket always is a listener; were it none, the rest would still be steered.
fn started(what: &str, listener: std::io::Result<Admin>) -> Option<Admin> {
    listener.inspect_err(|error| warn!(%error, "{what} cannot be served")).ok()
}

fn subject(app: &App, config: &Config) -> Subject {
    Subject {
        credentials: app.credentials().clone(),
        vault: Arc::clone(app.vault()),
        description: describe(config, app.addresses()),
    }
}

/// A listener at an address, unless the one that there is stands for it.
async fn bind(
    wanted: Option<SocketAddr>,
    there: Option<SocketAddr>,
) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = wanted else { return Ok(None) };
    let stays = |there: SocketAddr| there == address || (address.port() == 0 && there.ip() == address.ip());
    if there.is_some_and(stays) {
        return Ok(None);
    }
    let bound = TcpListener::bind(address).await;
    bound.map(Some).map_err(|source| BindError::new(address.to_string(), source))
}
