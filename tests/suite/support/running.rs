//! A sidekey of a test: in this process, on free ports, with the real clock.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sidekey::app::{App, StartError, vault_of};
use sidekey::clock::Clock;
use sidekey::config::{Config, Environment, LoadOptions, Source, load};
use sidekey::credential::record::AccountRecord;
use sidekey::credential::{TokenPool, Vault};
use sidekey::demo::standins::Aura;

use super::PATIENCE;

/// A running sidekey; dropped, it stops.
pub(crate) struct Running {
    /// Its first TCP listener.
    pub(crate) addr: SocketAddr,
    app: App,
}

impl Running {
    /// The TCP listeners, in the order of the configuration.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.app.addresses().iter().filter_map(|address| address.socket).collect()
    }

    /// The only account of a configuration that has one credential.
    pub(crate) fn account(&self) -> AccountRecord {
        self.app.credentials().records().remove(0)
    }

    /// The pool of the first credential.
    pub(crate) fn pool(&self) -> &std::sync::Arc<TokenPool> {
        self.app.credentials().get(0).pool()
    }

    /// What `Debug` says of all of it.
    pub(crate) fn debug(&self) -> String {
        format!("{:?} {:?} {:#?}", self.app, self.app.credentials(), self.app.addresses())
    }

    /// Waits for the first token, or the first failure to get one, of every credential.
    pub(crate) async fn settled(&self) -> Vec<AccountRecord> {
        let mut records = Vec::new();
        for credential in 0..self.app.credentials().len() {
            records.extend(patiently("a first fetch", self.app.credentials().settled(credential)).await);
        }
        records
    }

    /// Takes up another configuration.
    pub(crate) async fn swap(&mut self, text: &str) -> Result<(), StartError> {
        self.swap_to(&config(text)).await
    }

    pub(crate) async fn swap_to(&mut self, config: &Config) -> Result<(), StartError> {
        self.app.swap(config).await
    }

    pub(crate) fn vault(&self) -> &std::sync::Arc<Vault> {
        self.app.vault()
    }

    pub(crate) async fn stop(self) {
        self.app.stop().await;
    }
}

/// The configuration that a text stands for.
pub(crate) fn config(text: &str) -> Config {
    config_in(text, &Environment::default())
}

/// The same with variables.
pub(crate) fn config_in(text: &str, environment: &Environment) -> Config {
    let source = Source::Text { name: "test.toml".to_owned(), text: text.to_owned() };
    match load(&source, environment, LoadOptions::default()) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{report}\n{text}"),
    }
}

/// Starts what the text says, if it can be started.
pub(crate) fn try_sidekey(text: &str) -> Result<Running, StartError> {
    let clock = Clock::system();
    started(&config(text), &clock, Vault::in_memory(&clock))
}

/// Starts what the text says, on a clock that the test turns.
pub(crate) fn sidekey_at(text: &str, clock: &Clock) -> Running {
    let started = started(&config(text), clock, Vault::in_memory(clock));
    started.unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Starts what the text says, with the store that it says.
pub(crate) async fn sidekey_on_store(text: &str) -> Running {
    let (config, clock) = (config(text), Clock::system());
    let vault = vault_of(&config, &clock).await.unwrap_or_else(|error| panic!("{error}\n{text}"));
    started(&config, &clock, vault).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Starts what the text says, on a vault of the test's.
pub(crate) fn sidekey_on(text: &str, vault: &std::sync::Arc<Vault>) -> Running {
    let started = started(&config(text), &Clock::system(), std::sync::Arc::clone(vault));
    started.unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn started(config: &Config, clock: &Clock, vault: std::sync::Arc<Vault>) -> Result<Running, StartError> {
    let app = App::start(config, clock, vault)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let addr = app.addresses().iter().find_map(|address| address.socket).unwrap_or(nowhere);
    Ok(Running { addr, app })
}

/// Starts what the text says. Listeners of the text have port 0.
pub(crate) fn sidekey(text: &str) -> Running {
    try_sidekey(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Starts what the text says, with variables.
pub(crate) fn sidekey_in(text: &str, variables: &[(&str, &str)]) -> Running {
    let (clock, environment) = (Clock::system(), Environment::from_pairs(variables.to_vec()));
    let started = started(&config_in(text, &environment), &clock, Vault::in_memory(&clock));
    started.unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// One generic route that takes everything and carries nothing. `more`: further keys of the route.
pub(crate) fn open_route(upstream: SocketAddr, more: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.up]\npath = \"/\"\ncredential = false\n\
         upstream = \"http://{upstream}\"\n{more}\n"
    )
}

/// One route to an Aura stand-in that takes everything, as client `id` with `s:cret`. `more`: further keys of the
/// credential.
pub(crate) fn aura_route(aura: &Aura, more: &str) -> String {
    let url = aura.url();
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[route.aura]\nprovider = \"aura\"\npath = \"/\"\n\
         upstream = \"{url}\"\ncredential = \"aura\"\n[credential.aura]\ntype = \"aura\"\n\
         token_url = \"{url}/oauth/token\"\nclient_id = \"id\"\n{more}\n{}",
        if more.contains("client_secret") { "" } else { "client_secret = { value = \"s:cret\" }\n" }
    )
}

/// An Aura stand-in that knows client `id` with `s:cret`.
pub(crate) async fn aura() -> Aura {
    Aura::builder().client("id", "s:cret").start().await.expect("start")
}

/// Awaits `future`, but not for ever.
pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    patiently(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A file of a test, readable by its owner only.
pub(crate) fn private_file(path: PathBuf, content: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(&path, content).expect("write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    path
}
