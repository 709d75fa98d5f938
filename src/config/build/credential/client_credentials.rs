//! `client_credentials` and its preset `aura`.

use std::time::Duration;

use crate::config::build::{secrets, tls, url};
use crate::config::context::Context;
use crate::config::document::{Node, Table, Value};
use crate::config::format::secret_help;
use crate::config::{
    ApiClient, AuthMethod, BasicEncoding, ClientCredentials, CredentialKind, Endpoint, Strategy, TlsSettings,
};

const AURA_TOKEN_URL: &str = "https://api.neo4j.io/oauth/token";

/// Converts the table of either type.
pub(super) fn read(
    name: &str,
    table: &Table,
    global: &TlsSettings,
    context: &mut Context<'_>,
) -> Option<CredentialKind> {
    let aura = table.text("type") == Some("aura");
    let token_url = token_url(table, aura, context);
    let auth_method = match table.text("auth_method") {
        Some("post") => AuthMethod::Post,
        Some("none") => AuthMethod::None,
        _ => AuthMethod::Basic,
    };
    let clients = clients(name, table, auth_method, context);
    let scope = scope(table, context);
    let tls = tls::settings(table.table("tls"), global, context);
    Some(CredentialKind::ClientCredentials(ClientCredentials {
        token_url: token_url?,
        clients: clients?,
        strategy: match table.text("strategy") {
            Some("spread") => Strategy::Spread,
            _ => Strategy::Failover,
        },
        auth_method,
        basic_encoding: match table.text("basic_encoding") {
            _ if aura => BasicEncoding::Raw,
            Some("raw") => BasicEncoding::Raw,
            _ => BasicEncoding::Form,
        },
        scope,
        audience: table.text("audience").map(str::to_owned),
        params: Vec::new(),
        tls,
        fetch_timeout: table.duration("fetch_timeout").unwrap_or(Duration::from_secs(10)),
    }))
}

fn token_url(table: &Table, aura: bool, context: &mut Context<'_>) -> Option<Endpoint> {
    let allow_cleartext = table.flag("allow_cleartext", false);
    match table.get("token_url") {
        Some(node) => url::endpoint(node, "token_url", allow_cleartext, context),
        None if aura => {
            url::endpoint(&Node::text(table.at, AURA_TOKEN_URL), "token_url", allow_cleartext, context)
        }
        None => None,
    }
}

fn clients(
    name: &str,
    table: &Table,
    auth_method: AuthMethod,
    context: &mut Context<'_>,
) -> Option<Vec<ApiClient>> {
    let Some(node) = table.get("clients") else {
        return one(name, table, auth_method, context).map(|client| vec![client]);
    };
    for key in ["client_id", "client_secret"].into_iter().filter(|key| table.has(key)) {
        let message = format!("`{key}` and `clients` exclude each other");
        context.out.error(table.place_of(key), message, "move it into `clients`");
    }
    let Value::List(items) = &node.value else {
        return None;
    };
    if items.is_empty() {
        let help = "write clients = [{ name, client_id, client_secret }, …]";
        context.out.error(node.at, "`clients` is empty", help);
        return None;
    }
    let mut clients: Vec<Option<ApiClient>> = Vec::new();
    let mut names = Vec::new();
    for table in items.iter().filter_map(Node::as_table) {
        let own = table.text("name").unwrap_or_default();
        if !own.is_empty() && names.contains(&own) {
            let message = format!("client `{}` is there twice", own.escape_debug());
            context.out.error(table.place_of("name"), message, "give each client a name of its own");
        }
        names.push(own);
        if own.is_empty() && table.text("name").is_some() {
            context.out.error(table.place_of("name"), "`name` is empty", "write name = \"first\"");
        }
        clients.push(one(own, table, auth_method, context));
    }
    (clients.len() == items.len()).then_some(clients)?.into_iter().collect()
}

fn one(name: &str, table: &Table, auth_method: AuthMethod, context: &mut Context<'_>) -> Option<ApiClient> {
    let client_id = client_id(table, context);
    let secret = secrets::source(table, "client_secret", context);
    match (auth_method, table.has("client_secret")) {
        (AuthMethod::None | AuthMethod::PrivateKeyJwt, true) => {
            let help = "remove it, or write another auth_method";
            context.out.error(
                table.place_of("client_secret"),
                "`client_secret` has no use with auth_method = \"none\"",
                help,
            );
            return None;
        }
        (AuthMethod::Basic | AuthMethod::Post, false) => {
            context.out.error(table.at, "`client_secret` is missing", secret_help("client_secret"));
            return None;
        }
        (AuthMethod::Basic | AuthMethod::Post, true) if secret.is_none() => return None,
        _ => {}
    }
    Some(ApiClient { name: name.into(), client_id: client_id?, client_secret: secret, signing_key: None })
}

fn client_id(table: &Table, context: &mut Context<'_>) -> Option<String> {
    let Some(node) = table.get("client_id") else {
        // In `clients` the format itself requires it.
        context.out.error(
            table.at,
            "`client_id` is missing",
            "write client_id = \"…\" or { env = \"NAME\" }, or several in `clients`",
        );
        return None;
    };
    let text = node.as_text()?;
    if text.is_empty() {
        context.out.error(node.at, "`client_id` is empty", "write client_id = \"…\" or { env = \"NAME\" }");
        return None;
    }
    Some(text.to_owned())
}

/// Scopes joined by spaces (RFC 6749 §3.3).
fn scope(table: &Table, context: &mut Context<'_>) -> Option<String> {
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
