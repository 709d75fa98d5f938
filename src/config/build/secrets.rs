//! Secret sources: where each comes from, and whether it can be read now.

use std::path::{Path, PathBuf};

use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table, Value};
use crate::secret::{Secret, SecretError, SecretSource, clean, clean_text, read_file, read_text_file};

/// How many lines a secret has.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// One, as a password or a token has.
    Line,
    /// Several, as a key in PEM has.
    Lines,
}

impl Form {
    fn clean(self, bytes: Vec<u8>, what: &str) -> Result<Secret, SecretError> {
        match self {
            Self::Line => clean(bytes, what),
            Self::Lines => clean_text(bytes, what),
        }
    }

    fn variable(self, name: &str, context: &Context<'_>) -> Result<Secret, SecretError> {
        match self {
            Self::Line => context.environment.secret(name),
            Self::Lines => context.environment.secret_text(name),
        }
    }

    fn file(self, path: &Path) -> Result<Secret, SecretError> {
        match self {
            Self::Line => read_file(path),
            Self::Lines => read_text_file(path),
        }
    }
}

/// The source of the secret of one line under that key; none if it is not there or wrong, which is reported.
pub(super) fn source(table: &Table, key: &str, context: &mut Context<'_>) -> Option<SecretSource> {
    source_of(table.get(key)?, key, Form::Line, context)
}

/// The source that the node gives.
pub(super) fn source_of(
    node: &Node,
    key: &str,
    form: Form,
    context: &mut Context<'_>,
) -> Option<SecretSource> {
    let [entry] = node.as_table()?.entries.as_slice() else {
        return None;
    };
    let at = entry.node.at;
    match (entry.key.as_str(), &entry.node.value) {
        ("env", Value::Text(name)) => variable(name, form, at, context),
        ("file", Value::Text(path)) => file(path, form, at, context),
        ("exec", Value::List(words)) => {
            let words: Vec<_> = words.iter().filter_map(Node::as_text).map(str::to_owned).collect();
            Some(SecretSource::Exec(words.into()))
        }
        ("value", Value::Text(text)) => {
            context.out.warn(
                entry.at,
                format!("`{key}` is written into the file itself"),
                "better: { env = \"NAME\" } or { file = \"PATH\" }",
            );
            match form.clean(text.clone().into_bytes(), &format!("`{key}`")) {
                Ok(secret) => Some(SecretSource::Value(secret)),
                Err(error) => {
                    context.secret_error(at, &error);
                    None
                }
            }
        }
        _ => None,
    }
}

/// The secret of one line itself, where it is at hand: commands are not run.
pub(super) fn at_hand(source: &SecretSource, context: &Context<'_>) -> Option<Secret> {
    match source {
        SecretSource::Env(name) if context.check_secrets => context.environment.secret(name).ok(),
        SecretSource::File(path) if context.check_secrets => read_file(path).ok(),
        SecretSource::Value(secret) => Some(secret.clone()),
        SecretSource::Env(_) | SecretSource::File(_) | SecretSource::Exec(_) => None,
    }
}

fn variable(name: &str, form: Form, at: At, context: &mut Context<'_>) -> Option<SecretSource> {
    if !context.variable_name(name, at) {
        return None;
    }
    context.secret_variables.push(name.to_owned());
    if context.check_secrets
        && let Err(error) = form.variable(name, context)
    {
        context.secret_error(at, &error);
        return None;
    }
    Some(SecretSource::Env(name.to_owned()))
}

fn file(path: &str, form: Form, at: At, context: &mut Context<'_>) -> Option<SecretSource> {
    if path.is_empty() {
        context.out.error(at, "`file` is empty", "write { file = \"PATH\" }");
        return None;
    }
    let path = PathBuf::from(path);
    if context.check_secrets {
        if let Err(error) = form.file(&path) {
            context.secret_error(at, &error);
            return None;
        }
        warn_if_public(&path, at, context);
    }
    Some(SecretSource::File(path))
}

/// Warns of a file that every user of the machine may read.
pub(super) fn warn_if_public(path: &Path, at: At, context: &mut Context<'_>) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = path.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        context.out.warn(
            at,
            format!("everyone on this machine may read {} (mode {mode:04o})", path.display()),
            "chmod 0400 it; in Kubernetes, set defaultMode: 0440 on the volume",
        );
    }
}
