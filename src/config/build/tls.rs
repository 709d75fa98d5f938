//! The `tls` tables: ours over the global one, and those of listeners.

use std::path::{Path, PathBuf};

use super::secrets::warn_if_public;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Table, Value};
use crate::config::{ListenerTlsSettings, TlsSettings};

/// The settings of a `tls` table, with the global ones merged in: roots add up, an identity of its own wins.
pub(super) fn settings(
    table: Option<&Table>,
    global: &TlsSettings,
    context: &mut Context<'_>,
) -> TlsSettings {
    let Some(table) = table else { return global.clone() };
    let mut ca = global.ca.clone();
    for node in table.items("ca") {
        if let Some(path) = node.as_text().and_then(|text| file(text, "ca", node.at, context))
            && !ca.contains(&path)
        {
            ca.push(path);
        }
    }
    let (cert, key) = (path(table, "cert", context), path(table, "key", context));
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        if table.has(given) && !table.has(missing) {
            let message = format!("`{given}` stands without `{missing}`");
            context.out.error(table.place_of(given), message, format!("write {missing} = \"PATH\" too"));
        }
    }
    warn_of_public_key(key.as_deref(), table, context);
    TlsSettings { ca, identity: cert.zip(key).or_else(|| global.identity.clone()) }
}

/// The settings of a listener's `tls` table; none if they are wrong, which is reported.
pub(super) fn listener(table: &Table, context: &mut Context<'_>) -> Option<ListenerTlsSettings> {
    let (cert, key) = (path(table, "cert", context), path(table, "key", context));
    warn_of_public_key(key.as_deref(), table, context);
    let ca = table.get("ca");
    // It would let everybody in, which is hardly what it says.
    if ca.is_some_and(|node| matches!(&node.value, Value::List(items) if items.is_empty())) {
        let help = "name the roots of callers' certificates, or remove it: callers need no certificate then";
        context.out.error(table.place_of("ca"), "`ca` is an empty list", help);
        return None;
    }
    let mut client_ca = Vec::new();
    for node in table.items("ca") {
        client_ca.push(file(node.as_text()?, "ca", node.at, context)?);
    }
    if ca.is_some() && client_ca.is_empty() {
        return None;
    }
    Some(ListenerTlsSettings { cert: cert?, key: key?, client_ca })
}

fn path(table: &Table, key: &str, context: &mut Context<'_>) -> Option<PathBuf> {
    let node = table.get(key)?;
    file(node.as_text()?, key, node.at, context)
}

fn warn_of_public_key(key: Option<&Path>, table: &Table, context: &mut Context<'_>) {
    if let Some(key) = key
        && context.check_secrets
    {
        warn_if_public(key, table.place_of("key"), context);
    }
}

fn file(text: &str, key: &str, at: At, context: &mut Context<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    if text.is_empty() {
        context.out.error(at, format!("`{key}` is empty"), format!("write {key} = \"PATH\""));
        return None;
    }
    if context.check_secrets
        && let Err(problem) = readable(&path)
    {
        let message = format!("`{key}`: cannot read {}: {problem}", path.display());
        context.out.error(at, message, "name a PEM file that sidekey may read");
        return None;
    }
    Some(path)
}

fn readable(path: &Path) -> Result<(), String> {
    let metadata = path.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("it is a directory".to_owned());
    }
    // Opening a pipe would wait for its writer, perhaps for ever.
    if !metadata.is_file() {
        return Err("it is a pipe or a device, not a file".to_owned());
    }
    std::fs::File::open(path).map(drop).map_err(|error| error.to_string())
}
