//! `sidekey exec`: a command with a sidekey of its own, for as long as it runs.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{debug, info};

use super::run::sandbox_needs;
use super::{ConfigArg, Failure, load, runtime};
use crate::app::description::urls;
use crate::app::{Address, App, StartError, addresses_of, vault_of};
use crate::clock::Clock;
use crate::config::{Bind, Config, Environment, Listener, LoadOptions};
use crate::confinement::{Needs, confine};
use crate::server;
use crate::server::handed::HandedSockets;

/// What a shell says of a command that is not there, and of one that cannot be started.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;

#[derive(Debug, clap::Args)]
pub(super) struct ExecArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) fn exec(args: &ExecArgs, environment: &Environment) -> Result<(), Failure> {
    let mut config = load(&args.config, environment, LoadOptions::default())?.config;
    let is_socket = |listener: &Listener| matches!(listener.bind, Bind::Unix { .. });
    let any_socket = config.server.listeners.iter().any(is_socket);
    let sockets = any_socket.then(|| PrivateFolder::make(environment)).transpose()?;
    take_free_addresses(&mut config, sockets.as_ref());
    if std::mem::take(&mut config.server.access_log) {
        super::complain("warning: standard output is the command's, so there is no access log");
    }
    let needs =
        config.server.sandbox.then(|| sandbox_needs(&args.config, &config, environment)).transpose()?;
    let needs = needs.map(|needs| Needs { signals: true, ..needs });
    runtime()?.block_on(run(&config, &args.command, needs.as_ref()))
}

async fn run(config: &Config, command: &[OsString], sandbox: Option<&Needs>) -> Result<(), Failure> {
    let mut signals =
        Signals::caught().map_err(|error| Failure::Running(format!("cannot handle signals: {error}")))?;
    let clock = Clock::system();
    let (app, started) = match sandbox {
        None => {
            let vault = vault_of(config, &clock).await?;
            let app = App::start(config, &clock, vault)?;
            let started = start(config, app.addresses(), command);
            (app, started)
        }
        // The command is not to be confined, and all threads of this process are: so it comes first. What it sends
        // meanwhile waits at the listeners.
        Some(needs) => {
            let bound = server::bind(&config.server.listeners, &HandedSockets::default())
                .map_err(StartError::from)?;
            let child = start(config, &addresses_of(&bound, config), command)?;
            confine(needs).map_err(|error| Failure::Running(error.to_string()))?;
            let vault = vault_of(config, &clock).await?;
            (App::start_on(Some(bound), config, &clock, vault)?, Ok(child))
        }
    };
    let ended = match started {
        Ok(mut child) => {
            let ended = signals.passed_on_until_end(&mut child).await;
            ended.map_err(|error| Failure::Running(format!("the command cannot be waited for: {error}")))
        }
        Err(failure) => Err(failure),
    };
    app.stop().await;
    match status_of(ended?) {
        0 => Ok(()),
        status => Err(Failure::Exit(status)),
    }
}

/// Every listener gets an address that nobody else has: another instance may run with the same configuration.
fn take_free_addresses(config: &mut Config, sockets: Option<&PrivateFolder>) {
    for (number, listener) in config.server.listeners.iter_mut().enumerate() {
        match &mut listener.bind {
            Bind::Tcp(address) => address.set_port(0),
            // Those are for a run.
            Bind::Systemd { .. } => listener.bind = Bind::Tcp((std::net::Ipv4Addr::LOCALHOST, 0).into()),
            Bind::Unix { path, .. } => {
                sockets.iter().for_each(|folder| *path = folder.path.join(format!("{number}.sock")));
            }
        }
    }
    config.server.admin.listen = None;
    config.server.admin.health = None;
}

fn start(config: &Config, addresses: &[Address], command: &[OsString]) -> Result<Child, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::Configuration("there is no command".to_owned()));
    };
    let mut child = Command::new(program);
    child.args(arguments).kill_on_drop(true);
    for name in &config.secret_variables {
        child.env_remove(name);
    }
    for (name, url) in variables(config, addresses) {
        debug!(variable = name, url, "for the command");
        child.env(name, url);
    }
    child.spawn().map_err(|error| {
        super::complain(format_args!("cannot start {}: {error}", program.display()));
        match error.kind() {
            std::io::ErrorKind::NotFound => Failure::Exit(NOT_FOUND),
            _ => Failure::Exit(NOT_STARTED),
        }
    })
}

/// What the command is told: `SIDEKEY_URL`, the first listener that routes share, and `SIDEKEY_<ROUTE>_URL`, the first
/// address of each route.
fn variables(config: &Config, addresses: &[Address]) -> Vec<(String, String)> {
    let listeners = config.server.listeners.iter().zip(addresses);
    let url = |scheme: &str, address: &Address| match address.socket {
        Some(socket) => format!("{scheme}://{}", reachable(socket)),
        None => address.text.clone(),
    };
    let mut shared = listeners.filter(|(listener, _)| listener.shared);
    let mut variables: Vec<_> = shared
        .next()
        .map(|(listener, address)| ("SIDEKEY_URL".to_owned(), url(listener.scheme(), address)))
        .into_iter()
        .collect();
    for route in &config.routes {
        let name = route.name.to_ascii_uppercase().replace('-', "_");
        let first = urls(config, route, addresses).into_iter().next();
        variables.extend(first.map(|url| (format!("SIDEKEY_{name}_URL"), url)));
    }
    variables
}

/// An address that is every address of the machine is reached at loopback's.
fn reachable(mut socket: SocketAddr) -> SocketAddr {
    if socket.ip().is_unspecified() {
        socket.set_ip(match socket {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    socket
}

/// A status as shells write it: of a command that a signal ended, 128 and its number.
fn status_of(ended: ExitStatus) -> u8 {
    let number = ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(number & 0xff).unwrap_or(1)
}

/// The signals that are the command's.
struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    fn caught() -> std::io::Result<Self> {
        let kinds = [
            (Signal::TERM, SignalKind::terminate()),
            (Signal::INT, SignalKind::interrupt()),
            (Signal::HUP, SignalKind::hangup()),
            (Signal::QUIT, SignalKind::quit()),
            (Signal::USR1, SignalKind::user_defined1()),
            (Signal::USR2, SignalKind::user_defined2()),
        ];
        kinds
            .into_iter()
            .map(|(number, kind)| Ok((number, signal(kind)?)))
            .collect::<std::io::Result<_>>()
            .map(Self)
    }

    /// Waits for the command to end, and passes on every signal until then.
    async fn passed_on_until_end(&mut self, child: &mut Child) -> std::io::Result<ExitStatus> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        loop {
            tokio::select! {
                ended = child.wait() => return ended,
                signal = self.next() => {
                    // What is typed at a terminal reaches the command as well.
                    let is_typed = matches!(signal, Signal::INT | Signal::QUIT)
                        && std::io::IsTerminal::is_terminal(&std::io::stdin());
                    if let (Some(pid), false) = (pid, is_typed) {
                        info!(signal = signal.as_raw(), "passed on to the command");
                        // Gone already, it needs none.
                        let _ = kill_process(pid, signal);
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let caught = |(number, caught): &mut (Signal, tokio::signal::unix::Signal)| {
                caught.poll_recv(cx).is_ready().then_some(*number)
            };
            self.0.iter_mut().find_map(caught).map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}

/// A folder for sockets; removed when dropped.
struct PrivateFolder {
    path: PathBuf,
}

impl PrivateFolder {
    fn make(environment: &Environment) -> Result<Self, Failure> {
        let place = environment.path("XDG_RUNTIME_DIR").or_else(|| environment.path("TMPDIR"));
        let name = format!("sidekey-exec-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = place.unwrap_or_else(|| "/tmp".into()).join(name);
        // It must not be there yet: whose it would be is unknown.
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            let text = format!("cannot make {} for the sockets: {error}; set TMPDIR", path.display());
            Failure::Running(text)
        })?;
        Ok(Self { path })
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_the_commands_own() {
        for (raw, want) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(status_of(ExitStatus::from_raw(raw)), want, "{raw:#x}");
        }
    }
}
