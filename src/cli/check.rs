//! `sidekey check`: every configuration error at once, and on request whether it would really work.

use super::run::account_line;
use super::{ConfigArg, Failure, load, runtime, say};
use crate::app::description::{upstream_url, ways_out};
use crate::app::{listener_tls, upstream_tls, vault_of};
use crate::clock::Clock;
use crate::config::{Bind, Config, Environment, LoadOptions};
use crate::credential::{Credentials, Vault};
use crate::dial::dial;
use crate::telemetry::chain;
use crate::tls::{CertificateWatch, TlsFactory};

pub(super) fn check(
    arg: &ConfigArg,
    environment: &Environment,
    with_connect: bool,
    options: LoadOptions,
) -> Result<(), Failure> {
    let config = load(arg, environment, options)?.config;
    if options.check_secrets {
        // Certificates and keys are read as a run would read them.
        let tls = TlsFactory::default();
        config.routes.iter().try_for_each(|route| upstream_tls(route, &tls).map(drop))?;
        listener_tls(&config, &mut CertificateWatch::default())?;
        // The store is not opened: a check leaves nothing behind.
        let clock = Clock::system();
        Credentials::of(&config, &tls, &clock, &Vault::in_memory(&clock), &Credentials::default())?;
    }
    let (routes, credentials) = (config.routes.len(), config.credentials.len());
    say(format_args!("{}: valid; routes: {routes}, credentials: {credentials}", config.origin));
    for listener in &config.server.listeners {
        if let Bind::Systemd { name, kind: None, .. } = &listener.bind {
            say(format_args!(
                "systemd:{name}: seen only where it is handed over; if it is bound beyond loopback, `run` asks for callers"
            ));
        }
    }
    ways_out(&config).iter().for_each(say);
    if with_connect { runtime()?.block_on(connect(&config)) } else { Ok(()) }
}

/// Fetches each token and shakes hands with each upstream. All are tried, whatever fails.
async fn connect(config: &Config) -> Result<(), Failure> {
    let tls = TlsFactory::default();
    let clock = Clock::system();
    let vault = vault_of(config, &clock).await?;
    let (credentials, keepers) = Credentials::of(config, &tls, &clock, &vault, &Credentials::default())?;
    keepers.start();
    let mut failed = 0;
    for credential in 0..config.credentials.len() {
        for record in credentials.settled(credential).await {
            failed += usize::from(record.last_error.is_some());
            say(account_line(&record));
        }
    }
    vault.close().await;
    credentials.abort();
    for route in &config.routes {
        let connectors = upstream_tls(route, &tls)?;
        let connector = connectors.as_ref().map(|connectors| &connectors.any.0);
        let url = upstream_url(route);
        match dial(&route.upstream, connector, route.connect_timeout).await {
            Ok(_) => say(format_args!("route {}: {url} accepts connections", route.name)),
            Err(error) => {
                failed += 1;
                say(format_args!("route {}: {url}: {}", route.name, chain(&error)));
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Failure::Configuration(format!("{failed} of these failed")))
}
