//! `sidekey run`: serves until it is told to stop.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use super::supervisor::Supervisor;
use super::watch::Watch;
use super::{ConfigArg, Failure, complain, load, runtime, say};
use crate::admin::{self, Wish};
use crate::app::description::{kind, upstream_url, urls};
use crate::app::{Address, App, Control, StartError, reload, vault_of};
use crate::clock::Clock;
use crate::config::{self, Config, Environment, LoadOptions, Source};
use crate::confinement::{Needs, Surroundings, confine, sandbox};
use crate::credential::Credentials;
use crate::credential::record::AccountRecord;
use crate::server::handed::HandedSockets;
use crate::store;

/// How long a refresh that runs may take after a second signal.
const LAST_REFRESH: Duration = Duration::from_secs(15);

/// What `run` is told.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Take up the configuration whenever its file changes; SIGHUP and `sidekey reload` do so at any time.
    #[arg(long)]
    watch: bool,
}

/// `handed`: the sockets that were handed over; the environment knows of them.
pub(super) fn run(args: &RunArgs, environment: &Environment, handed: HandedSockets) -> Result<(), Failure> {
    let arg = &args.config;
    let loaded = load(arg, environment, LoadOptions::default())?;
    if loaded.config.server.sandbox {
        // Before there is a runtime: it may start threads, and a thread that runs already is not confined.
        let needs = sandbox_needs(arg, &loaded.config, environment)?;
        confine(&needs).map_err(|error| Failure::Running(error.to_string()))?;
    }
    runtime()?.block_on(serve(args, &loaded.config, environment, handed))
}

/// What the sandbox of a run leaves open. Makes the folders that it needs: only what is there can be.
pub(super) fn sandbox_needs(
    arg: &ConfigArg,
    config: &Config,
    environment: &Environment,
) -> Result<Needs, Failure> {
    store::prepare(&config.store).map_err(StartError::from)?;
    let source = Source::find(arg.config.as_deref(), environment);
    let runtime = admin::runtime_folder(environment);
    Ok(Needs::of(config, &Surroundings::of(&source, environment, runtime)))
}

/// Runs a configuration, and what it is changed to, until SIGTERM, SIGINT, or a stop by the admin listener.
async fn serve(
    args: &RunArgs,
    config: &Config,
    environment: &Environment,
    handed: HandedSockets,
) -> Result<(), Failure> {
    // Before anything is started, so that no signal falls between.
    let failed = |error: std::io::Error| Failure::Running(format!("cannot handle signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    // Found once: another file that turns up, or this one while it is being written anew, is no other configuration.
    let source = Source::find(args.config.config.as_deref(), environment);
    let mut watch = Watch::new(args.watch, &source, config);
    let clock = Clock::system();
    let vault = vault_of(config, &clock).await?;
    let mut app = App::start_with(handed, config, &clock, vault)?;
    let mut control = Control::start(&app, config, environment, &clock).await?;
    // The access log has standard output to itself.
    let tell: fn(fmt::Arguments<'_>) =
        if config.server.access_log { |text| complain(text) } else { |text| say(text) };
    tell(format_args!("{}", banner(config, app.addresses())));
    let (admin, probes) = control.addresses();
    for (what, address) in [("admin", admin), ("probes", probes)] {
        if let Some(address) = address {
            tell(format_args!("{what} on http://{address}"));
        }
    }
    let told = tokio::spawn(tell_credentials(app.credentials().clone(), tell));
    let supervisor = Supervisor::of_process();
    supervisor.iter().for_each(|supervisor| supervisor.serving());
    let watched = supervisor
        .map(|supervisor| tokio::spawn(supervisor.watch(Arc::clone(control.instance()), app.pulse())));
    loop {
        let told = tokio::select! {
            _ = terminate.recv() => {
                info!("told to terminate");
                break;
            }
            _ = interrupt.recv() => {
                info!("interrupted");
                break;
            }
            wish = control.asked() => match wish {
                Wish::Stop => {
                    info!("asked to stop");
                    break;
                }
                Wish::Reload(told) => Some(told),
            },
            _ = hangup.recv() => None,
            () = watch.changed() => None,
        };
        supervisor.iter().for_each(|supervisor| supervisor.reloading());
        watch.begins();
        let taken_up = tokio::select! {
            biased;
            _ = terminate.recv() => {
                info!("told to terminate");
                break;
            }
            _ = interrupt.recv() => {
                info!("interrupted");
                break;
            }
            taken_up = take_up(&source, environment, &mut app, &mut control) => taken_up,
        };
        let (text_files, taken_up) = taken_up;
        control.instance().reloaded(taken_up.is_ok());
        match &taken_up {
            Ok(()) => info!(configuration = app.config().origin, "reloaded"),
            Err(reason) => warn!("not reloaded, and the configuration before is in force: {reason}"),
        }
        let text_files = [&text_files[..], &app.config().text_files].concat();
        watch.looks_at(&text_files);
        supervisor.iter().for_each(|supervisor| supervisor.serving());
        // Whoever asked may have gone.
        let _ = told.map(|told| told.send(taken_up));
    }
    told.abort();
    watched.iter().for_each(tokio::task::JoinHandle::abort);
    supervisor.iter().for_each(|supervisor| supervisor.stopping());
    control.stops();
    let vault = Arc::clone(app.vault());
    // A second signal ends it at once, but for a refresh token that is being presented: its successor would be lost.
    let again = async || {
        let _ = tokio::time::timeout(LAST_REFRESH, vault.close()).await;
        Err(Failure::Running("told to stop again while stopping; running requests were cut off".to_owned()))
    };
    let stopped = async {
        // First: what they bring is saved while the vault is open.
        control.finish_logins().await;
        app.stop().await;
    };
    tokio::select! {
        () = stopped => Ok(()),
        _ = interrupt.recv() => again().await,
        _ = terminate.recv() => again().await,
    }
}

/// Takes up the configuration as it is now; with the files that it takes texts from.
async fn take_up(
    source: &Source,
    environment: &Environment,
    app: &mut App,
    control: &mut Control,
) -> (Vec<PathBuf>, Result<(), String>) {
    match config::load(source, environment, LoadOptions::default()) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
            let files = loaded.config.text_files.clone();
            (files, take_up_loaded(&loaded.config, source, environment, app, control).await)
        }
        Err(report) => (report.text_files.clone(), Err(report.to_string())),
    }
}

async fn take_up_loaded(
    config: &Config,
    source: &Source,
    environment: &Environment,
    app: &mut App,
    control: &mut Control,
) -> Result<(), String> {
    if let Some(sandbox) = sandbox() {
        let runtime = admin::runtime_folder(environment);
        let needs = Needs::of(config, &Surroundings::of(source, environment, runtime));
        sandbox.admits(&needs).map_err(|missing| {
            let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
            format!(
                "the sandbox, which cannot be widened, does not let it: {}; restart it",
                missing.join("; ")
            )
        })?;
    }
    reload(app, control, config, environment).await.map_err(|error| error.to_string())
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

/// Says of each credential whether it has its token, once its first fetch has ended.
async fn tell_credentials(credentials: Credentials, tell: fn(fmt::Arguments<'_>)) {
    for credential in 0..credentials.len() {
        for record in credentials.settled(credential).await {
            tell(format_args!("{}", account_line(&record)));
        }
    }
}

/// One account's state in a line.
pub(super) fn account_line(record: &AccountRecord) -> String {
    let AccountRecord { credential, account, .. } = record;
    let mut text = format!("credential {credential}");
    if account != credential {
        let _ = write!(text, ", account {account}");
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
