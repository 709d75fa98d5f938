//! A running instance takes up another configuration: whole, or not at all.

use super::{App, Control, StartError};
use crate::config::{Config, Environment};
use crate::telemetry::chain;

/// Why a configuration was not taken up. The one before it is in force, unchanged.
#[derive(Debug)]
pub enum ReloadError {
    /// It changes what cannot change while the process runs.
    Fixed(Fixed),
    /// It cannot be run.
    Start(StartError),
}

/// What cannot change while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fixed {
    /// The number of threads.
    Workers,
    /// Whether there is a sandbox.
    Sandbox,
    /// Where grants are kept: what one store has not taken yet, another would never get.
    Store,
}

impl Fixed {
    /// What of it another configuration would change.
    pub fn between(before: &Config, next: &Config) -> Option<Self> {
        if before.server.workers != next.server.workers {
            return Some(Self::Workers);
        }
        if before.store != next.store {
            return Some(Self::Store);
        }
        (before.server.sandbox != next.server.sandbox).then_some(Self::Sandbox)
    }
}

/// Takes up a checked configuration. Requests that run end as they began; none fails.
///
/// # Errors
/// [`ReloadError`]; everything is as it was then.
pub async fn reload(
    app: &mut App,
    control: &mut Control,
    config: &Config,
    environment: &Environment,
) -> Result<(), ReloadError> {
    if let Some(fixed) = Fixed::between(app.config(), config) {
        return Err(ReloadError::Fixed(fixed));
    }
    let steering = control.prepare(app, config).await.map_err(ReloadError::Start)?;
    app.swap(config).await.map_err(ReloadError::Start)?;
    control.steer(app, config, steering, environment);
    Ok(())
}

impl std::fmt::Display for ReloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(fixed) => {
                let what = match fixed {
                    Fixed::Workers => "`server.workers`",
                    Fixed::Sandbox => "`server.sandbox`",
                    Fixed::Store => "`store`",
                };
                write!(f, "{what} cannot change while it runs; restart it for that")
            }
            Self::Start(error) => f.write_str(&chain(error)),
        }
    }
}

impl std::error::Error for ReloadError {}
