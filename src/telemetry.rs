//! Logs: readable on a terminal, JSON for collectors; always on standard error. Below: what is counted
//! and recorded beside it.

pub mod access_log;
pub mod limiter;
pub mod metrics;
pub mod refusals;

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; with colours on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log of this process to standard error. A second call has no effect.
pub fn start_log(level: LevelFilter, format: LogFormat) {
    // A line that cannot be written is lost. Saying so on standard error, as is the default, would panic in the middle of
    // a request once its reader is gone.
    let builder = fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .log_internal_errors(false);
    // An error means that a log was started before, in a test.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// An error and its causes in one line, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        // A transparent error shows its cause's text as its own.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = inner.source();
    }
    text
}
