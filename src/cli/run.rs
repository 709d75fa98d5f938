//! `sidekey run`: serves until it is told to stop.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use super::{ConfigArg, Failure, load, runtime, say};
use crate::app::{Address, App};
use crate::clock::Clock;
use crate::config::{Config, CredentialKind, Environment, LoadOptions, Route};
use crate::credential::TokenPool;
use crate::credential::record::AccountRecord;

pub(super) fn run(arg: &ConfigArg, environment: &Environment) -> Result<(), Failure> {
    let loaded = load(arg, environment, LoadOptions::default())?;
    runtime()?.block_on(serve(&loaded.config))
}

/// Runs a configuration until SIGTERM or SIGINT.
async fn serve(config: &Config) -> Result<(), Failure> {
    // Before anything is started, so that no signal falls between.
    let failed = |error: std::io::Error| Failure::Running(format!("cannot handle signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let app = App::start(config, &Clock::system())?;
    say(banner(config, app.addresses()));
    let told = tokio::spawn(tell_credentials(config.credentials.len(), Arc::clone(app.pool())));
    tokio::select! {
        _ = terminate.recv() => info!("told to terminate"),
        _ = interrupt.recv() => info!("interrupted"),
    }
    told.abort();
    // A second signal ends it at once, by the default action being what a person expects of it.
    tokio::select! {
        () = app.stop() => Ok(()),
        _ = interrupt.recv() => Err(Failure::Running("interrupted again while stopping".to_owned())),
    }
}

/// Where it listens and what each route does.
pub(super) fn banner(config: &Config, addresses: &[Address]) -> String {
    let mut text = format!("sidekey {}, configured by {}", env!("CARGO_PKG_VERSION"), config.origin);
    for address in addresses {
        let _ = write!(text, "\nlistening on {}", address.text);
    }
    for route in &config.routes {
        for url in urls(config, route, addresses) {
            let _ = write!(text, "\nroute {}: {url} → {}", route.name, upstream_url(route));
            match route.credential {
                Some(id) => {
                    let credential = &config.credentials[id];
                    let _ = write!(text, " with {} ({})", credential.name, kind(&credential.kind));
                }
                None => text.push_str(" without a credential"),
            }
        }
    }
    text
}

/// The addresses at which a route is reached, each once.
pub(super) fn urls(config: &Config, route: &Route, addresses: &[Address]) -> Vec<String> {
    let base = |address: &Address| match address.socket {
        Some(socket) => format!("http://{socket}"),
        None => address.text.clone(),
    };
    let own = route.matches.listeners.iter().map(|id| base(&addresses[*id]));
    let shared = || {
        let listeners = config.server.listeners.iter().zip(addresses);
        listeners.filter(|(listener, _)| listener.shared).map(|(_, address)| address)
    };
    let by_path =
        route.matches.paths.iter().flat_map(|path| shared().map(move |at| format!("{}{path}", base(at))));
    let by_host = route.matches.hosts.iter().flat_map(|host| {
        let ports = shared().filter_map(|at| at.socket.map(|socket| socket.port()));
        ports.map(move |port| format!("http://{host}:{port}"))
    });
    own.chain(by_path).chain(by_host).collect()
}

/// The upstream as a URL.
pub(super) fn upstream_url(route: &Route) -> String {
    let upstream = &route.upstream;
    let scheme = if upstream.tls { "https" } else { "http" };
    // Made of a URL, so it is text.
    let authority = upstream.host_header.to_str().unwrap_or_default();
    format!("{scheme}://{authority}{}", upstream.base_path)
}

/// A credential's type in the words of the file.
pub(super) fn kind(kind: &CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Basic { .. } => "basic",
        CredentialKind::Bearer { .. } => "bearer",
        CredentialKind::ClientCredentials(_) => "client_credentials",
        CredentialKind::Exec { .. } => "exec",
        CredentialKind::Header { .. } => "header",
    }
}

/// Says of each credential whether it has its token, once its first fetch has ended.
async fn tell_credentials(count: usize, pool: Arc<TokenPool>) {
    for credential in 0..count {
        for record in pool.settled(credential).await {
            say(account_line(&record));
        }
    }
}

/// One account's state in a line.
pub(super) fn account_line(record: &AccountRecord) -> String {
    let AccountRecord { credential, account, .. } = record;
    let mut text = format!("credential {credential}");
    if account != credential {
        let _ = write!(text, ", client {account}");
    }
    match (&record.last_error, record.expires_in_seconds) {
        (Some(error), _) => {
            let _ = write!(text, ": no token yet: {error}");
        }
        (None, Some(seconds)) => {
            let whole = Duration::from_secs_f64(seconds.max(0.0)).as_secs();
            let _ = write!(text, ": ready, its token lives for {whole} s more");
        }
        (None, None) => text.push_str(": ready"),
    }
    text
}
