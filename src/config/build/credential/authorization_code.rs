//! `authorization_code` and its preset `neon_oauth`.

use std::time::Duration;

use super::bound::Bound;
use super::{client, fields, redirect_uri};
use crate::config::build::{egress, tls, url};
use crate::config::context::Context;
use crate::config::document::{Node, Table, Value};
use crate::config::{
    AuthMethod, AuthorizationCode, AuthorizationServer, CredentialKind, TlsSettings, Upstream,
};

const NEON_ISSUER: &str = "https://oauth2.neon.tech/";
const NEON_AUTH_URL: &str = "https://oauth2.neon.tech/oauth2/auth";
const NEON_TOKEN_URL: &str = "https://oauth2.neon.tech/oauth2/token";
const NEON_REVOKE_URL: &str = "https://oauth2.neon.tech/oauth2/revoke";
/// Without `offline` there is no refresh token; `offline_access` is its other name.
const NEON_SCOPE: &str = "openid offline offline_access";

/// Converts the table of either type.
pub(super) fn read(
    name: &str,
    table: &Table,
    bound: &Bound,
    global: &TlsSettings,
    context: &mut Context<'_>,
) -> Option<CredentialKind> {
    let neon = table.text("type") == Some("neon_oauth");
    let default_method = if neon { AuthMethod::Post } else { AuthMethod::Basic };
    let auth_method = client::auth_method(table, default_method, context);
    let client = client::client(name, table, auth_method, context);
    let server = server(table, neon, context).filter(|server| may_be_asked(server, table, bound, context));
    let (server, egress) = egress::of_login(server, table, context);
    let redirect_uri = table.get("redirect_uri").and_then(|node| redirect_uri::redirect_uri(node, context));
    let scope = match table.has("scope") {
        true => fields::scope(table, context),
        false => neon.then(|| NEON_SCOPE.to_owned()),
    };
    if neon {
        warn_of_short_logins(table, scope.as_deref(), context);
    }
    let params = fields::fields(table, "params", &["scope"], context);
    let auth_params = fields::fields(table, "auth_params", &["scope"], context);
    let tls = tls::settings(table.table("tls"), global, context);
    if let Some(AuthorizationServer::Known { token_url, .. }) = &server {
        tls::refuse_idle_pin(table, &token_url.origin, "token_url", context);
    }
    let leave = url::Leave::of(table);
    Some(CredentialKind::AuthorizationCode(AuthorizationCode {
        server: server?,
        client: client?.into(),
        auth_method,
        basic_encoding: client::basic_encoding(table),
        redirect_uri: redirect_uri?,
        scope,
        params,
        auth_params,
        tls,
        egress,
        allow_cleartext: leave.cleartext,
        allow_link_local: leave.link_local,
        fetch_timeout: table.duration("fetch_timeout").unwrap_or(Duration::from_secs(10)),
        login_timeout: table.duration("login_timeout").unwrap_or(Duration::from_secs(600)),
    }))
}

fn server(table: &Table, neon: bool, context: &mut Context<'_>) -> Option<AuthorizationServer> {
    let leave = url::Leave::of(table);
    let issuer = table.get("issuer").map(|node| url::issuer(node, leave, context));
    let auth_url = table.get("auth_url").map(|node| url::page(node, "auth_url", leave, context));
    let endpoint = |key: &str, context: &mut Context<'_>| {
        table.get(key).map(|node| url::endpoint(node, key, leave, context))
    };
    let token_url = endpoint("token_url", context);
    let revoke_url = endpoint("revoke_url", context);
    match (auth_url, token_url) {
        // Nothing of a preset goes with endpoints of one's own: a grant would be shown to another server.
        (Some(auth_url), Some(token_url)) => Some(AuthorizationServer::Known {
            issuer: sound(issuer)?,
            auth_url: auth_url?,
            token_url: token_url?,
            revoke_url: sound(revoke_url)?,
        }),
        (None, None) => match (issuer, revoke_url) {
            (Some(issuer), None) => Some(AuthorizationServer::Discovered { issuer: issuer? }),
            (None, revoke_url) if neon => {
                let node = |text: &str| Node::text(table.at, text);
                let revoke_url = match revoke_url {
                    Some(url) => url?,
                    None => url::endpoint(&node(NEON_REVOKE_URL), "revoke_url", leave, context)?,
                };
                Some(AuthorizationServer::Known {
                    issuer: Some(NEON_ISSUER.to_owned()),
                    auth_url: NEON_AUTH_URL.to_owned(),
                    token_url: url::endpoint(&node(NEON_TOKEN_URL), "token_url", leave, context)?,
                    revoke_url: Some(revoke_url),
                })
            }
            (_, Some(_)) => {
                let message = "`revoke_url` stands without `auth_url` and `token_url`";
                let help = "write both, or remove it: the metadata of `issuer` says where grants are revoked";
                context.out.error(table.place_of("revoke_url"), message, help);
                None
            }
            (None, None) => {
                context.out.error(
                    table.at,
                    "`issuer` is missing",
                    "write issuer = \"https://login.example.com\", or auth_url and token_url",
                );
                None
            }
        },
        (Some(_), None) => alone("auth_url", "token_url", table, context),
        (None, Some(_)) => alone("token_url", "auth_url", table, context),
    }
}

/// May the client show itself, and grants, at all that the table names?
fn may_be_asked(
    server: &AuthorizationServer,
    table: &Table,
    bound: &Bound,
    context: &mut Context<'_>,
) -> bool {
    let named: Vec<(&str, Upstream)> = match server {
        AuthorizationServer::Known { token_url, revoke_url, .. } => {
            [("token_url", Some(token_url)), ("revoke_url", revoke_url.as_ref())]
                .into_iter()
                .filter_map(|(key, endpoint)| Some((key, endpoint?.origin.clone())))
                .collect()
        }
        AuthorizationServer::Discovered { issuer } => {
            // Its own form was checked already.
            let node = Node::text(table.place_of("issuer"), issuer.as_str());
            let leave = url::Leave { cleartext: true, link_local: true };
            url::endpoint(&node, "issuer", leave, context)
                .map(|issuer| ("issuer", issuer.origin))
                .into_iter()
                .collect()
        }
    };
    let may = |(key, origin): &(&str, Upstream)| bound.check_server(table, key, origin, context);
    // Each is told, not only the first.
    named.iter().map(may).fold(true, |all, may| all && may)
}

/// None if it is given and wrong; `Some(None)` if it is not given.
fn sound<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        Some(None) => None,
        Some(good) => Some(good),
        None => Some(None),
    }
}

fn alone(
    given: &str,
    missing: &str,
    table: &Table,
    context: &mut Context<'_>,
) -> Option<AuthorizationServer> {
    context.out.error(
        table.place_of(given),
        format!("`{given}` stands without `{missing}`"),
        format!("write {missing} = \"https://login.example.com/…\" too, or `issuer` in the place of both"),
    );
    None
}

fn warn_of_short_logins(table: &Table, scope: Option<&str>, context: &mut Context<'_>) {
    // A scope that stands elsewhere may not be at hand.
    let unknown = table.items("scope").iter().any(|node| node.referenced || node.as_text().is_none())
        || table.get("scope").is_some_and(|node| matches!(node.value, Value::Broken));
    let lasting =
        scope.unwrap_or_default().split(' ').any(|word| matches!(word, "offline" | "offline_access"));
    if !lasting && !unknown {
        context.out.warn(
            table.place_of("scope"),
            "without the scope `offline` there is no refresh token: each login ends within about an hour",
            "add \"offline\" and \"offline_access\"",
        );
    }
}
