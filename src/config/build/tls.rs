//! The `tls` tables: ours over the global one, and those of listeners.

use std::path::{Path, PathBuf};

use super::secrets::warn_if_public;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Table, Value};
use crate::config::{ListenerTlsSettings, Pin, TlsSettings, Upstream};

/// The settings of a `tls` table, with the global ones merged in: roots add up; of pins and an identity, its own win. A
/// `ca` of its own ends the global pins.
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
    let pins = match (table.has("pin"), table.has("ca")) {
        (true, _) => pins(table, context),
        (false, true) => Vec::new(),
        (false, false) => global.pins.clone(),
    };
    let (cert, key) = (path(table, "cert", context), path(table, "key", context));
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        if table.has(given) && !table.has(missing) {
            let message = format!("`{given}` stands without `{missing}`");
            context.out.error(table.place_of(given), message, format!("write {missing} = \"PATH\" too"));
        }
    }
    warn_of_public_key(key.as_deref(), table, context);
    TlsSettings { ca, pins, identity: cert.zip(key).or_else(|| global.identity.clone()) }
}

fn pins(table: &Table, context: &mut Context<'_>) -> Vec<Pin> {
    const EXAMPLE: &str = "write it as pin = \"sha256/BASE64\", the SHA-256 of the server's public key; the README says \
                           how to get it";
    if table.has("ca") {
        let message =
            "`pin` and `ca` exclude each other: whoever has a pinned key is trusted, whoever signed it";
        context.out.error(table.place_of("pin"), message, "keep one of the two");
    }
    if table.get("pin").is_some_and(|node| matches!(&node.value, Value::List(items) if items.is_empty())) {
        context.out.error(
            table.place_of("pin"),
            "`pin` is an empty list: nobody could be connected to",
            EXAMPLE,
        );
    }
    let mut pins = Vec::new();
    for node in table.items("pin") {
        let Some(text) = node.as_text() else { continue };
        match Pin::parse(text) {
            Some(pin) => pins.push(pin),
            // Its place is taken by what stands for it.
            None if node.referenced && !context.check_secrets => pins.push(Pin::new([0; 32])),
            None => {
                context.out.error(node.at, format!("`pin`: {} is no pinned key", node.shown()), EXAMPLE);
            }
        }
    }
    pins
}

/// A pin that nothing would look at is an error: it must not seem to protect.
pub(super) fn refuse_idle_pin(table: &Table, origin: &Upstream, key: &str, context: &mut Context<'_>) {
    if let Some(own) = table.table("tls")
        && own.has("pin")
        && !origin.tls
    {
        let help = format!("write https:// in `{key}`, or remove it");
        context.out.error(own.place_of("pin"), format!("`pin` has no use: `{key}` is http://"), help);
    }
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
