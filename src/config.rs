//! Configuration: the file as written → the validated form that the rest of the program sees.
//!
//! [`load`] is the whole of it: text → tree (`document`) → checked against the format (`format`) → converted
//! (`build`). Each step records every error and goes on; the result is a [`Config`] or a [`Report`].

mod build;
mod context;
mod diagnostic;
mod document;
mod environment;
mod format;
mod handed;
mod model;
mod no_proxy;
mod pin;
mod reserved;
mod units;

use std::path::{Path, PathBuf};

use self::context::Context;
use self::diagnostic::Collector;

pub use build::is_this_machine;
pub use context::Environment;
pub use diagnostic::{Diagnostic, Place, Report};
pub use format::{json_schema, reference_markdown};
pub use handed::{Handed, HandedKind, Handover, Unfit};
pub use model::*;
pub use pin::Pin;
pub use reserved::{Reserved, reserved, reserved_unless};
pub use units::{MAX_RATES, Rate, duration};

/// Where a configuration comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Text at hand, and the name to call it by in errors.
    Text {
        /// What errors call it.
        name: String,
        /// TOML.
        text: String,
    },
    /// The environment is the configuration.
    Environment,
}

impl std::fmt::Debug for Source {
    /// Without the text, which may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source {
    /// The file that [`find_file`] finds; without one, the environment.
    pub fn find(explicit: Option<&Path>, environment: &Environment) -> Self {
        find_file(explicit, environment).map_or(Self::Environment, Self::File)
    }

    /// What a person would call it: the file's path, or `environment`.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.strip_prefix("./").unwrap_or(path).display().to_string(),
            Self::Text { name, .. } => name.clone(),
            Self::Environment => "environment".to_owned(),
        }
    }
}

/// What to check besides the configuration itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Must every secret, and every file that is named, be readable now? Commands are never run. Without it,
    /// strings that stand elsewhere get a placeholder if they are missing.
    pub check_secrets: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { check_secrets: true }
    }
}

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed and yet worth a word; sorted by place.
    pub warnings: Vec<Diagnostic>,
}

/// Loads and checks a configuration. `SIDEKEY_LISTEN`, `SIDEKEY_ADMIN` and `SIDEKEY_HOSTS` override a file,
/// and `SIDEKEY_CALLER_TOKEN` the token of `[caller.default]`.
///
/// # Errors
///
/// All of them at once, each with its place and what to write instead; none holds a secret.
pub fn load(source: &Source, environment: &Environment, options: LoadOptions) -> Result<Loaded, Report> {
    let name = source.name();
    let text = match source {
        Source::File(path) => read(path, &name)?,
        Source::Text { text, .. } => text.clone(),
        Source::Environment => String::new(),
    };
    let mut out = Collector::new(&name, &text);
    let (mut tree, whole) = match source {
        Source::Environment => (environment::tree(environment, &mut out)?, true),
        Source::File(_) | Source::Text { .. } => document::parse(&text, &mut out),
    };
    if *source != Source::Environment {
        environment::warn_of_idle_variables(environment, &mut out);
    }
    environment::override_server(&mut tree, environment, &mut out);
    let mut context = Context {
        environment,
        check_secrets: options.check_secrets,
        out,
        egress: context::DefaultEgress::default(),
        placeholders: 0,
        secret_variables: Vec::new(),
        text_files: Vec::new(),
    };
    // A provider variable that is wrong leaves its route out; what would follow from that is no news.
    let complete = *source != Source::Environment || !context.out.has_errors();
    format::check(&mut tree, &mut context);
    let config = if whole && complete {
        build::build(&tree, &name, &mut context)
    } else {
        // What follows from a broken line is no news either.
        context.out.keep_first_of_each_line();
        None
    };
    let text_files = match &config {
        Some(config) => config.text_files.clone(),
        None => std::mem::take(&mut context.text_files),
    };
    match context.out.finish(config) {
        Ok((config, warnings)) => Ok(Loaded { config, warnings }),
        Err(report) => Err(Report { text_files, ..report }),
    }
}

/// The configuration file: the explicit one, else `$SIDEKEY_CONFIG`, else `./sidekey.toml`, else
/// `/etc/sidekey/sidekey.toml`. The first two need not exist, so that a mistaken path is told; none: the
/// environment is the configuration.
pub fn find_file(explicit: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = explicit {
        return Some(path.to_owned());
    }
    if let Some(path) = environment.path("SIDEKEY_CONFIG") {
        return Some(path);
    }
    ["./sidekey.toml", "/etc/sidekey/sidekey.toml"].into_iter().map(PathBuf::from).find(|path| path.exists())
}

/// The commented file that `sidekey init` writes.
pub fn starter_file() -> &'static str {
    include_str!("../config/starter.toml")
}

fn read(path: &Path, name: &str) -> Result<String, Report> {
    let bytes = std::fs::read(path).map_err(|error| {
        Report::whole(
            name,
            format!("cannot read it: {error}"),
            "name another with -c, or write one with `sidekey init`",
        )
    })?;
    String::from_utf8(bytes).map_err(|_| Report::whole(name, "is not UTF-8 text", "save it as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_explicit_file_wins_then_the_variable() {
        let environment = Environment::from_pairs([("SIDEKEY_CONFIG", "/from/variable.toml")]);
        let explicit = Path::new("/explicit.toml");
        assert_eq!(find_file(Some(explicit), &environment), Some(explicit.to_owned()));
        assert_eq!(find_file(None, &environment), Some("/from/variable.toml".into()));
    }

    #[test]
    fn debug_of_a_source_shows_its_name_and_no_text() {
        let source = Source::Text { name: "x.toml".into(), text: "canary".into() };
        assert_eq!(format!("{source:?}"), "x.toml");
    }
}
