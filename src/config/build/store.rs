//! `[store]`: where grants and shared tokens are kept.

mod redis;

use std::path::PathBuf;

use super::secrets::{self, Form};
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table, Value};
use crate::config::{Store, StoreKind, TlsSettings};
use crate::secret::SecretSource;
use crate::secret::key::key_bytes;

/// What a key is made with.
const KEY_HELP: &str = "make one with `openssl rand -base64 32`";
/// Stands for a directory of the environment that is not at hand.
const PLACEHOLDER_PATH: &str = "/placeholder/sidekey";
/// The keys that not every type takes, and those that do.
const OWN_KEYS: [(&str, &[&str]); 10] = [
    ("path", &["file"]),
    ("url", &["redis"]),
    ("username", &["redis"]),
    ("password", &["redis"]),
    ("prefix", &["redis"]),
    ("tls", &["redis"]),
    ("allow_cleartext", &["redis"]),
    ("allow_link_local", &["redis"]),
    ("timeout", &["redis"]),
    ("encryption_key", &["file", "redis"]),
];

/// Reads `[store]`; none if anything in it is wrong. `logins`: people log in to some credential.
pub(super) fn store(
    table: Option<&Table>,
    logins: bool,
    global: &TlsSettings,
    context: &mut Context<'_>,
) -> Option<Store> {
    let empty = Table { at: At::Whole, entries: Vec::new() };
    let table = table.unwrap_or(&empty);
    if table.get("type").is_some_and(|node| matches!(node.value, Value::Broken)) {
        return None;
    }
    let kind = kind(table, logins, context);
    refuse_idle_keys(table, kind, context);
    let encryption_keys = encryption_keys(table, context);
    let kind = match kind {
        "file" => directory(table, context).map(|path| StoreKind::File { path }),
        "redis" => redis::server(table, global, context).map(StoreKind::Redis),
        _ => Some(StoreKind::Memory),
    };
    Some(Store { kind: kind?, encryption_keys: encryption_keys? })
}

fn kind<'t>(table: &'t Table, logins: bool, context: &Context<'_>) -> &'t str {
    match table.get("type") {
        // A word that stands elsewhere and may not be at hand: the keys tell which one is meant.
        Some(node) if node.referenced && !context.check_secrets => {
            match (table.has("url"), table.has("path") || table.has("encryption_key")) {
                (true, _) => "redis",
                (false, true) => "file",
                (false, false) => "memory",
            }
        }
        Some(node) => node.as_text().unwrap_or("memory"),
        None if logins => "file",
        None => "memory",
    }
}

fn refuse_idle_keys(table: &Table, kind: &str, context: &mut Context<'_>) {
    for (key, kinds) in OWN_KEYS {
        let Some(entry) = table.entry(key).filter(|_| !kinds.contains(&kind)) else { continue };
        let message = match (key, kind) {
            ("encryption_key", "memory") => {
                "`encryption_key` has no use: what is in memory is never written down".to_owned()
            }
            _ => format!("`{key}` has no use in a store with type = \"{kind}\""),
        };
        let write: Vec<String> = kinds.iter().map(|kind| format!("type = \"{kind}\"")).collect();
        context.out.error(entry.at, message, format!("write {}, or remove it", write.join(" or ")));
    }
}

fn encryption_keys(table: &Table, context: &mut Context<'_>) -> Option<Vec<SecretSource>> {
    let Some(node) = table.get("encryption_key") else { return Some(Vec::new()) };
    let items = node.items();
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let help = format!("write encryption_key = {{ file = \"PATH\" }}; {KEY_HELP}");
        context.out.error(node.at, "`encryption_key` names no key", help);
        return None;
    }
    if items.is_empty() {
        return None;
    }
    let keys: Vec<_> = items.into_iter().map(|node| encryption_key(node, context)).collect();
    keys.into_iter().collect()
}

fn encryption_key(node: &Node, context: &mut Context<'_>) -> Option<SecretSource> {
    let source = secrets::source_of(node, "encryption_key", Form::Line, context)?;
    let text = secrets::at_hand(&source, context);
    if text.is_some_and(|text| key_bytes(&text).is_none()) {
        let at = node.as_table().and_then(|table| table.entries.first()).map_or(node.at, |entry| entry.at);
        context.out.error(
            at,
            "`encryption_key` is not 32 bytes as base64 or as 64 hexadecimal digits (not shown)",
            KEY_HELP,
        );
        return None;
    }
    Some(source)
}

/// The directory of a file store. A relative one would be another for each command that is called elsewhere.
fn directory(table: &Table, context: &mut Context<'_>) -> Option<PathBuf> {
    let Some(node) = table.get("path") else { return default_directory(table, context) };
    let path = PathBuf::from(node.as_text()?);
    if !path.is_absolute() {
        let message = format!("`path`: {} does not begin at the root", node.shown());
        context.out.error(node.at, message, "write the whole path, as path = \"/var/lib/sidekey\"");
        return None;
    }
    Some(path)
}

/// By the XDG Base Directory Specification.
fn default_directory(table: &Table, context: &mut Context<'_>) -> Option<PathBuf> {
    const HELP: &str = "give it a whole path, or write path = \"/var/lib/sidekey\" in [store]";
    for (variable, below) in [("XDG_STATE_HOME", "sidekey"), ("HOME", ".local/state/sidekey")] {
        let Some(base) = context.environment.path(variable) else { continue };
        if !base.is_absolute() {
            context.out.error(At::Variable(variable), "is not a path that begins at the root", HELP);
            return None;
        }
        return Some(base.join(below));
    }
    if !context.check_secrets {
        return Some(PLACEHOLDER_PATH.into());
    }
    context.out.error(
        table.place_of("type"),
        "there is no place for the store: neither XDG_STATE_HOME nor HOME is set",
        "write path = \"/var/lib/sidekey\" in [store]",
    );
    None
}
