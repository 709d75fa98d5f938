//! What every step of loading needs: the environment, what to check, and where to put what is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroize as _;

use super::diagnostic::{At, Collector};
use super::document::{Node, Value};
use super::format::Kind;
use super::handed::Handover;
use super::model::Egress;
use crate::secret::{self, Secret, SecretError};

/// The process's environment as a value, so that loading depends on nothing else: its variables, and the sockets that
/// were handed over to it. `Debug` shows no values.
#[derive(Clone, Default)]
pub struct Environment {
    variables: std::collections::BTreeMap<String, std::ffi::OsString>,
    handover: Handover,
}

impl Environment {
    /// The variables of this process. Those whose name is not text are left out.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, _)| Some((name.into_string().ok()?, value));
        Self { variables: std::env::vars_os().filter_map(text).collect(), handover: Handover::Unseen }
    }

    /// The same, and what a service manager handed over.
    #[must_use]
    pub fn with_handover(mut self, handover: Handover) -> Self {
        self.handover = handover;
        self
    }

    /// What a service manager handed over.
    pub fn handover(&self) -> &Handover {
        &self.handover
    }

    /// These variables and no others.
    pub fn from_pairs<N: Into<String>, V: Into<std::ffi::OsString>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, handover: Handover::Unseen }
    }

    /// Is it set to anything? An empty variable counts as unset: compose files and CI leave such behind.
    pub fn has(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| !value.is_empty())
    }

    /// Is it set, to nothing?
    pub fn is_empty(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| value.is_empty())
    }

    /// The variable as a path; none if unset or empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(Into::into)
    }

    /// The variable as a secret: one line of text.
    pub fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        secret::clean(self.bytes(name)?, &secret::variable(name))
    }

    /// The variable as a secret of several lines, such as a key in PEM.
    pub fn secret_text(&self, name: &str) -> Result<Secret, SecretError> {
        secret::clean_text(self.bytes(name)?, &secret::variable(name))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, SecretError> {
        let value = self.variables.get(name).ok_or_else(|| SecretError::Unset(name.to_owned()))?;
        Ok(value.clone().into_encoded_bytes())
    }
}

impl Drop for Environment {
    /// Any of the values may be a secret.
    fn drop(&mut self) {
        for value in std::mem::take(&mut self.variables).into_values() {
            value.into_encoded_bytes().zeroize();
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// The host of a URL that is not at hand; whether a credential may go there is unknown.
pub(crate) const PLACEHOLDER_HOST: &str = "placeholder.invalid";

/// What every step of loading needs.
pub(crate) struct Context<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) check_secrets: bool,
    pub(crate) out: Collector,
    /// The way out of the network where a table says nothing else.
    pub(crate) egress: DefaultEgress,
    /// How many texts have a placeholder.
    pub(crate) placeholders: usize,
    /// Environment variables that hold secrets.
    pub(crate) secret_variables: Vec<String>,
    /// Files that texts came from which are no secrets.
    pub(crate) text_files: Vec<PathBuf>,
}

impl Context<'_> {
    /// Puts the text that `{ env }` or `{ file }` names in its place; a placeholder if it is missing and
    /// nothing is to be checked.
    pub(crate) fn resolve(&mut self, node: &mut Node, kind: &Kind) {
        let Value::Table(table) = &node.value else { return };
        let [entry] = table.entries.as_slice() else {
            self.out.error(node.at, "`env` and `file` exclude each other", "keep one of the two");
            node.value = Value::Broken;
            return;
        };
        let Some(name) = entry.node.as_text().map(str::to_owned) else {
            let message = format!("`{}` must be a string, not {}", entry.key, entry.node.what());
            self.out.error(entry.node.at, message, "write { env = \"NAME\" } or { file = \"PATH\" }");
            node.value = Value::Broken;
            return;
        };
        let at = entry.node.at;
        let read = if entry.key == "env" {
            self.variable_name(&name, at).then(|| self.environment.secret(&name))
        } else {
            self.text_files.push(PathBuf::from(&name));
            Some(secret::read_file(Path::new(&name)))
        };
        node.referenced = true;
        node.value = match read {
            None => Value::Broken,
            Some(Ok(text)) => Value::Text(text.expose().to_owned()),
            Some(Err(_)) if !self.check_secrets => {
                self.placeholders += 1;
                Value::Text(placeholder(kind, self.placeholders))
            }
            Some(Err(error)) => {
                self.secret_error(at, &error);
                Value::Broken
            }
        };
    }

    /// Records why a secret cannot be read and what to do about it.
    pub(crate) fn secret_error(&mut self, at: At, error: &SecretError) {
        let help = match error {
            SecretError::Unset(name) | SecretError::Empty(name) => {
                if matches!(error, SecretError::Unset(_)) {
                    format!("export {name}=…")
                } else {
                    "give it a value".into()
                }
            }
            SecretError::NotText(_) | SecretError::ControlCharacter(_) => {
                "write it without quotes and without a second line".into()
            }
            SecretError::NotAWord(_) => {
                "take letters and digits without spaces; make one with `openssl rand -hex 32`".into()
            }
            SecretError::NotPlain(_) => "give it the key as PEM, from -----BEGIN to END-----".into(),
            SecretError::Directory(path) => format!("write {{ file = \"{}/…\" }}", path.display()),
            SecretError::NotAFile(_) | SecretError::Unreadable { .. } => {
                "name a file that sidekey may read".into()
            }
            SecretError::TooLarge(_) | SecretError::Command { .. } => String::new(),
        };
        let message = match error {
            SecretError::Unreadable { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        self.out.error(at, message, help);
    }

    /// Is it a variable's name? What is not may be the secret itself, so it is not shown.
    pub(crate) fn variable_name(&mut self, name: &str, at: At) -> bool {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let good = plain && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        if !good {
            self.out.error(
                at,
                "`env` takes the name of a variable, and this is none (not shown)",
                "write { env = \"NAME\" }, without `$` and without the value itself",
            );
        }
        good
    }
}

/// A text that will do where the real one is not at hand; the number keeps two of them apart.
fn placeholder(kind: &Kind, number: usize) -> String {
    match kind {
        Kind::Url => format!("https://{PLACEHOLDER_HOST}"),
        Kind::Duration { .. } => "1s".to_owned(),
        Kind::Size { .. } => "1KiB".to_owned(),
        Kind::Rate => "1/s".to_owned(),
        Kind::OneOf(choices) => choices.first().map_or("", |choice| choice.word).to_owned(),
        Kind::Text("127.0.0.1:7600" | "127.0.0.1:7601" | "0.0.0.0:7602") => "127.0.0.1:0".to_owned(),
        Kind::Text(example) if example.ends_with(".localhost") => format!("placeholder-{number}.localhost"),
        Kind::Text(example) if example.starts_with('/') => format!("/placeholder-{number}"),
        Kind::Text(example) if example.contains(" /") => format!("/placeholder-{number}"),
        Kind::Text("0660") => "0600".to_owned(),
        Kind::Text(example) if example.contains("://") => (*example).to_owned(),
        _ => format!("placeholder-{number}"),
    }
}

/// The egress proxies that hold where a table says nothing else.
#[derive(Default)]
pub(crate) struct DefaultEgress {
    pub(crate) egress: Egress,
    /// Variables that name no proxy that can be used: to https and to http. Told only if an origin needs one of them:
    /// they are there for other programs as well.
    pub(crate) faulty: [Option<Fault>; 2],
}

/// What is wrong with a variable.
#[derive(Clone)]
pub(crate) struct Fault {
    pub(crate) variable: &'static str,
    pub(crate) message: &'static str,
    pub(crate) help: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let environment = Environment::from_pairs([("NEON_API_KEY", "canary")]);
        assert_eq!(format!("{environment:?}"), r#"{"NEON_API_KEY"}"#);
    }
}
