//! The command line: what each command says and the status that it exits with.

mod check;
#[cfg(feature = "demo")]
mod demo;
mod exec;
mod explain;
mod instance;
mod login;
mod run;
mod starter;
mod status;
mod supervisor;
mod terminal;
mod watch;

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing::level_filters::LevelFilter;

use crate::config::{self, Environment, LoadOptions, Loaded, Source};
use crate::confinement::{Children, harden};
use crate::server::handed::HandedSockets;
use crate::telemetry::{LogFormat, start_log};

/// A local HTTP sidecar that puts the right Authorization header on every request to Neo4j Aura, Neo4j and Neon.
///
/// Exit status: 0 well; 1 it failed while running; 2 bad usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "sidekey", version, max_term_width = 100)]
struct Cli {
    /// How much the log says.
    #[arg(long, global = true, help_heading = "Log", value_name = "LEVEL", default_value = "info")]
    log_level: Level,
    /// How log lines look.
    #[arg(long, global = true, help_heading = "Log", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or Ctrl-C.
    Run(run::RunArgs),
    /// Run a command with a proxy of its own, on free ports, which it finds in SIDEKEY_URL and SIDEKEY_<ROUTE>_URL; exits
    /// with the command's status.
    Exec(exec::ExecArgs),
    /// Run in front of embedded stand-ins of Aura, Neo4j and Neon, and print lines to try; needs no network.
    #[cfg(feature = "demo")]
    Demo {
        /// Make the tour itself, print what went over the wire, and exit.
        #[arg(long)]
        once: bool,
    },
    /// Find every configuration error at once; exits with 0 or 2.
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Also fetch each token and connect to each upstream, TLS handshake included.
        #[arg(long)]
        connect: bool,
        /// Read no secrets, and let texts and certificates that stand elsewhere be missing; for CI.
        #[arg(long, conflicts_with = "connect")]
        no_secrets: bool,
    },
    /// Tell what would happen to a request, without sending it; exits with 1 if it would be refused.
    Explain(explain::ExplainArgs),
    /// Log in to a credential in the browser; what is granted is kept for the requests that carry it.
    Login(login::LoginArgs),
    /// Revoke what a login granted, and forget it.
    Logout(login::LogoutArgs),
    /// Print what the running instance says of itself.
    Status {
        #[command(flatten)]
        config: ConfigArg,
        /// As JSON, on a line.
        #[arg(long)]
        json: bool,
        /// Again every second: in place on a terminal, one after the other elsewhere.
        #[arg(long)]
        watch: bool,
    },
    /// Wait until the running instance is live or ready; for entry points and probes.
    Wait {
        #[command(flatten)]
        config: ConfigArg,
        /// What to wait for.
        #[arg(long = "for", value_name = "WHAT", default_value = "ready")]
        what: instance::WaitFor,
        /// How long at most.
        #[arg(long, default_value = "30s", value_parser = time)]
        timeout: Duration,
    },
    /// Stop the running instance in order.
    Stop(ConfigArg),
    /// Make the running instance take up its configuration as it is now; refused whole if anything is wrong with it.
    Reload(ConfigArg),
    /// Write a commented starter file, never over an existing one.
    Init {
        /// The file to write.
        #[arg(default_value = "sidekey.toml")]
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct ConfigArg {
    /// The configuration file; else $SIDEKEY_CONFIG, ./sidekey.toml, /etc/sidekey/sidekey.toml, or the environment.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why a command did not end well.
#[derive(Debug)]
enum Failure {
    /// Bad usage or configuration: one line each.
    Configuration(String),
    /// It failed while running.
    Running(String),
    /// The result was printed, and it is no.
    No,
    /// The status of a command that was run.
    Exit(u8),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    // Clap prints usage errors itself and exits with 2.
    let cli = Cli::parse();
    // First of all: nothing else may have opened a file.
    let handed = match cli.command {
        Command::Run(_) => HandedSockets::take(),
        _ => HandedSockets::default(),
    };
    start_log(cli.log_level.into(), cli.log_format.into());
    // A login opens a browser, which may need what other programs may not; the command of `exec` is its user's own.
    harden(match cli.command {
        Command::Login(_) | Command::Exec(_) => Children::AsTheyAre,
        _ => Children::WithoutNewPrivileges,
    });
    let environment = match cli.command {
        Command::Run(_) => Environment::of_process().with_handover(handed.seen()),
        _ => Environment::of_process(),
    };
    let ended = match cli.command {
        Command::Run(args) => run::run(&args, &environment, handed),
        Command::Exec(args) => exec::exec(&args, &environment),
        #[cfg(feature = "demo")]
        Command::Demo { once } => demo::run(once),
        Command::Check { config, connect, no_secrets } => {
            check::check(&config, &environment, connect, LoadOptions { check_secrets: !no_secrets })
        }
        Command::Explain(args) => explain::explain(&args, &environment),
        Command::Login(args) => login::login(&args, &environment),
        Command::Logout(args) => login::logout(&args, &environment),
        Command::Status { config, json, watch } => status::status(&config, &environment, json, watch),
        Command::Wait { config, what, timeout } => instance::wait(&config, &environment, what, timeout),
        Command::Stop(config) => instance::stop(&config, &environment),
        Command::Reload(config) => instance::reload(&config, &environment),
        Command::Init { file } => starter::write(&file),
        Command::Schema => {
            say(format_args!("{:#}", config::json_schema()));
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sidekey", &mut script);
            say(String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::No) => ExitCode::from(1),
        Err(Failure::Exit(status)) => ExitCode::from(status),
        Err(Failure::Running(text)) => {
            complain(text);
            ExitCode::from(1)
        }
        Err(Failure::Configuration(text)) => {
            complain(text);
            ExitCode::from(2)
        }
    }
}

/// Loads the configuration that a command is about, and prints its warnings.
fn load(arg: &ConfigArg, environment: &Environment, options: LoadOptions) -> Result<Loaded, Failure> {
    let source = Source::find(arg.config.as_deref(), environment);
    match config::load(&source, environment, options) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| complain(format_args!("warning: {warning}")));
            Ok(loaded)
        }
        Err(report) => {
            report.warnings.iter().for_each(|warning| complain(format_args!("warning: {warning}")));
            Err(Failure::Configuration(report.to_string()))
        }
    }
}

/// A result, on standard output. A reader that is gone wants no more of it.
fn say(text: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An error, on standard error.
fn complain(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A duration as the configuration writes it.
fn time(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|_| "write a number and a unit: 250ms, 30s, 5m or 1h".to_owned())
}

/// A runtime for a command: one thread, everything on it.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Running(format!("cannot start: {error}")))
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

impl From<crate::app::StartError> for Failure {
    fn from(error: crate::app::StartError) -> Self {
        let text = crate::telemetry::chain(&error);
        match error {
            crate::app::StartError::Tls(_) => Self::Configuration(text),
            _ => Self::Running(text),
        }
    }
}

impl From<crate::tls::TlsError> for Failure {
    fn from(error: crate::tls::TlsError) -> Self {
        Self::Configuration(crate::telemetry::chain(&error))
    }
}
