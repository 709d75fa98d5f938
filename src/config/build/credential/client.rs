//! An OAuth client: its id, and how it shows who it is.

use crate::config::build::secrets::{self, Form};
use crate::config::context::Context;
use crate::config::document::{Node, Table};
use crate::config::format::secret_help;
use crate::config::{ApiClient, AuthMethod, BasicEncoding, SigningAlgorithm, SigningKey};
use crate::secret::SecretSource;

/// The keys that describe a client.
pub(super) const KEYS: [&str; 5] = ["client_id", "client_secret", "private_key", "key_id", "key_algorithm"];

/// How the client, or each of `clients`, shows who it is.
pub(super) fn auth_method(table: &Table, default: AuthMethod, context: &Context<'_>) -> AuthMethod {
    // A word that stands elsewhere and may not be at hand: the keys tell which one is meant.
    if !context.check_secrets && table.get("auth_method").is_some_and(|node| node.referenced) {
        let clients = table.items("clients").into_iter().filter_map(Node::as_table);
        let tables: Vec<&Table> = std::iter::once(table).chain(clients).collect();
        let has = |key| tables.iter().any(|table| table.has(key));
        return match (has("private_key"), has("client_secret")) {
            (true, _) => AuthMethod::PrivateKeyJwt,
            (false, true) => AuthMethod::Basic,
            (false, false) => AuthMethod::None,
        };
    }
    match table.text("auth_method") {
        Some("basic") => AuthMethod::Basic,
        Some("post") => AuthMethod::Post,
        Some("none") => AuthMethod::None,
        Some("private_key_jwt") => AuthMethod::PrivateKeyJwt,
        _ => default,
    }
}

/// How id and secret go into Basic.
pub(super) fn basic_encoding(table: &Table) -> BasicEncoding {
    match table.text("basic_encoding") {
        Some("raw") => BasicEncoding::Raw,
        _ => BasicEncoding::Form,
    }
}

/// The client that the table describes; none if anything in it is wrong.
pub(super) fn client(
    name: &str,
    table: &Table,
    auth_method: AuthMethod,
    context: &mut Context<'_>,
) -> Option<ApiClient> {
    let client_id = client_id(table, context);
    let client_secret = client_secret(table, auth_method, context);
    let signing_key = signing_key(table, auth_method, context);
    Some(ApiClient {
        name: name.into(),
        client_id: client_id?,
        client_secret: client_secret?,
        signing_key: signing_key?,
    })
}

fn client_id(table: &Table, context: &mut Context<'_>) -> Option<String> {
    let Some(node) = table.get("client_id") else {
        // In `clients` and in logins the format itself requires it.
        if matches!(table.text("type"), Some("client_credentials" | "aura")) {
            context.out.error(
                table.at,
                "`client_id` is missing",
                "write client_id = \"…\" or { env = \"NAME\" }, or several in `clients`",
            );
        }
        return None;
    };
    let text = node.as_text()?;
    if text.is_empty() {
        context.out.error(node.at, "`client_id` is empty", "write client_id = \"…\" or { env = \"NAME\" }");
        return None;
    }
    Some(text.to_owned())
}

/// The secret, if the method takes one; none if there is one too many or too few.
fn client_secret(
    table: &Table,
    auth_method: AuthMethod,
    context: &mut Context<'_>,
) -> Option<Option<SecretSource>> {
    let secret = secrets::source(table, "client_secret", context);
    match (auth_method, table.has("client_secret")) {
        (AuthMethod::None | AuthMethod::PrivateKeyJwt, true) => {
            let message = format!("`client_secret` has no use with auth_method = \"{}\"", word(auth_method));
            let help = "remove it, or write another auth_method";
            context.out.error(table.place_of("client_secret"), message, help);
            None
        }
        (AuthMethod::Basic | AuthMethod::Post, false) => {
            context.out.error(table.at, "`client_secret` is missing", secret_help("client_secret"));
            None
        }
        (AuthMethod::Basic | AuthMethod::Post, true) => secret.map(Some),
        (AuthMethod::None | AuthMethod::PrivateKeyJwt, false) => Some(None),
    }
}

/// The private key, if the method takes one; none if there is one too many or too few.
fn signing_key(
    table: &Table,
    auth_method: AuthMethod,
    context: &mut Context<'_>,
) -> Option<Option<SigningKey>> {
    let key = table
        .get("private_key")
        .and_then(|node| secrets::source_of(node, "private_key", Form::Lines, context));
    if auth_method != AuthMethod::PrivateKeyJwt {
        let idle = ["private_key", "key_id", "key_algorithm"].into_iter().find(|key| table.has(key));
        let Some(idle) = idle else { return Some(None) };
        let message = format!("`{idle}` has no use with auth_method = \"{}\"", word(auth_method));
        let help = "write auth_method = \"private_key_jwt\" (not with type = \"aura\"), or remove it";
        context.out.error(table.place_of(idle), message, help);
        return None;
    }
    if !table.has("private_key") {
        context.out.error(
            table.at,
            "`private_key` is missing",
            "write private_key = { file = \"PATH\" } with the key as PEM, or another auth_method",
        );
        return None;
    }
    let id = key_id(table, context);
    let algorithm = match table.text("key_algorithm") {
        Some("PS256") => SigningAlgorithm::Ps256,
        Some("ES256") => SigningAlgorithm::Es256,
        Some("EdDSA") => SigningAlgorithm::EdDsa,
        _ => SigningAlgorithm::Rs256,
    };
    Some(Some(SigningKey { key: key?, id: id?, algorithm }))
}

fn key_id(table: &Table, context: &mut Context<'_>) -> Option<Option<String>> {
    let Some(node) = table.get("key_id") else { return Some(None) };
    let text = node.as_text()?;
    if text.is_empty() {
        context.out.error(node.at, "`key_id` is empty", "write the key's id at the server, or remove it");
        return None;
    }
    Some(Some(text.to_owned()))
}

fn word(auth_method: AuthMethod) -> &'static str {
    match auth_method {
        AuthMethod::Basic => "basic",
        AuthMethod::Post => "post",
        AuthMethod::None => "none",
        AuthMethod::PrivateKeyJwt => "private_key_jwt",
    }
}
