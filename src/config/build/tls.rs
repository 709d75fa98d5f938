//! The `tls` tables: ours over the global one.

use std::path::{Path, PathBuf};

use super::secrets::warn_if_public;
use crate::config::TlsSettings;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::Table;

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
    let path = |key: &str, context: &mut Context<'_>| {
        let node = table.get(key)?;
        file(node.as_text()?, key, node.at, context)
    };
    let (cert, key) = (path("cert", context), path("key", context));
    for (given, missing) in [("cert", "key"), ("key", "cert")] {
        if table.has(given) && !table.has(missing) {
            let message = format!("`{given}` stands without `{missing}`");
            context.out.error(table.place_of(given), message, format!("write {missing} = \"PATH\" too"));
        }
    }
    if let Some(key) = &key
        && context.check_secrets
    {
        warn_if_public(key, table.place_of("key"), context);
    }
    TlsSettings { ca, identity: cert.zip(key).or_else(|| global.identity.clone()) }
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
    std::fs::File::open(path).map(drop).map_err(|error| error.to_string())
}
