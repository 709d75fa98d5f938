//! What goes to an authorization server besides the client: scopes, and fields with free names.

use crate::config::context::Context;
use crate::config::document::{Entry, Table, Value};

/// What sidekey itself sends, beginning with the flow's own fields.
const OWN: [&str; 11] = [
    "grant_type",
    "response_type",
    "client_id",
    "client_secret",
    "code",
    "code_verifier",
    "redirect_uri",
    "refresh_token",
    "state",
    "client_assertion",
    "code_challenge",
];
/// The same for names of which several begin alike.
const OWN_PREFIXES: [&str; 2] = ["client_assertion_", "code_challenge_"];

/// Scopes joined by spaces (RFC 6749 §3.3).
pub(super) fn scope(table: &Table, context: &mut Context<'_>) -> Option<String> {
    let listed = matches!(table.get("scope")?.value, Value::List(_));
    let mut scopes = Vec::new();
    for node in table.items("scope") {
        let Some(text) = node.as_text() else { continue };
        let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        let words: Vec<&str> = if listed { vec![text] } else { text.split_whitespace().collect() };
        if words.iter().any(|word| word.is_empty() || !word.bytes().all(plain)) {
            let message = format!("{} is not a scope", node.shown());
            context.out.error(
                node.at,
                message,
                "write one scope in each string, as scope = [\"openid\", \"email\"]",
            );
        }
        scopes.extend(words);
    }
    (!scopes.is_empty()).then(|| scopes.join(" "))
}

/// The fields in the table under that key, in the order of the file. `keys`: names that keys of the credential set.
pub(super) fn fields(
    table: &Table,
    key: &str,
    keys: &[&str],
    context: &mut Context<'_>,
) -> Vec<(String, String)> {
    let entries = table.table(key).map(|table| table.entries.as_slice()).unwrap_or_default();
    entries.iter().filter_map(|entry| field(entry, key, keys, context)).collect()
}

fn field(entry: &Entry, key: &str, keys: &[&str], context: &mut Context<'_>) -> Option<(String, String)> {
    let name = entry.key.as_str();
    if keys.contains(&name) {
        let message = format!("`{name}` has a key of its own and no place in `{key}`");
        context.out.error(entry.at, message, format!("write `{name}` beside `{key}`"));
        return None;
    }
    if OWN.contains(&name) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        context.out.error(entry.at, format!("`{name}` in `{key}` is set by sidekey itself"), "remove it");
        return None;
    }
    Some((entry.key.clone(), entry.node.as_text()?.to_owned()))
}
