//! `client_credentials` and its preset `aura`.

use std::sync::Arc;
use std::time::Duration;

use super::bound::Bound;
use super::{account, client, fields};
use crate::config::build::{egress, tls, url};
use crate::config::context::Context;
use crate::config::document::{Node, Table, Value};
use crate::config::{
    ApiClient, AuthMethod, BasicEncoding, ClientCredentials, CredentialKind, Endpoint, Strategy, TlsSettings,
};

/// What `params` may not set, for a key of the credential does.
const OWN_KEYS: &[&str] = &["scope", "audience"];
const AURA_TOKEN_URL: &str = "https://api.neo4j.io/oauth/token";

/// Converts the table of either type.
pub(super) fn read(
    name: &str,
    table: &Table,
    bound: &Bound,
    global: &TlsSettings,
    context: &mut Context<'_>,
) -> Option<CredentialKind> {
    let aura = table.text("type") == Some("aura");
    let token_url = token_url(table, aura, context)
        .filter(|endpoint| bound.check_server(table, "token_url", &endpoint.origin, context));
    let token_url = token_url.map(|endpoint| egress::led_endpoint(endpoint, table, context));
    let auth_method = client::auth_method(table, AuthMethod::Basic, context);
    let clients = clients(name, table, auth_method, context);
    let scope = fields::scope(table, context);
    let params = fields::fields(table, "params", OWN_KEYS, context);
    let tls = tls::settings(table.table("tls"), global, context);
    if let Some(endpoint) = &token_url {
        tls::refuse_idle_pin(table, &endpoint.origin, "token_url", context);
    }
    Some(CredentialKind::ClientCredentials(ClientCredentials {
        token_url: token_url?,
        clients: clients?.into_iter().map(Arc::new).collect(),
        strategy: match table.text("strategy") {
            Some("spread") => Strategy::Spread,
            _ => Strategy::Failover,
        },
        auth_method,
        basic_encoding: match table.text("basic_encoding") {
            _ if aura => BasicEncoding::Raw,
            _ => client::basic_encoding(table),
        },
        scope,
        audience: table.text("audience").map(str::to_owned),
        params,
        tls,
        fetch_timeout: table.duration("fetch_timeout").unwrap_or(Duration::from_secs(10)),
    }))
}

fn token_url(table: &Table, aura: bool, context: &mut Context<'_>) -> Option<Endpoint> {
    let leave = url::Leave::of(table);
    match table.get("token_url") {
        Some(node) => url::endpoint(node, "token_url", leave, context),
        None if aura => url::endpoint(&Node::text(table.at, AURA_TOKEN_URL), "token_url", leave, context),
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
        return client::client(name, table, auth_method, context).map(|client| vec![client]);
    };
    for key in client::KEYS.into_iter().filter(|key| table.has(key)) {
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
        if let Some(node) = table.get("name") {
            account::name(node, "name", context);
        }
        clients.push(client::client(own, table, auth_method, context));
    }
    (clients.len() == items.len()).then_some(clients)?.into_iter().collect()
}
