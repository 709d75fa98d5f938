//! One `[route.NAME]` table → [`Route`].

use std::time::Duration;

use super::credential::Credentials;
use super::{egress, rights, routing, tls, url};
use crate::config::context::Context;
use crate::config::document::{Entry, Node, Table, Value};
use crate::config::units::{self, Rate};
use crate::config::{HttpVersion, Matches, Provider, Route, TlsSettings, Upstream};

/// Converts a route; none if anything in it is wrong.
pub(super) fn route(
    entry: &Entry,
    table: &Table,
    matches: Matches,
    global: &TlsSettings,
    credentials: &mut Credentials,
    context: &mut Context<'_>,
) -> Option<Route> {
    let provider = provider(table);
    warn_of_prefixes_alone(entry, table, provider, &matches, context);
    let upstream =
        upstream(entry, table, provider, context).map(|upstream| egress::led(upstream, table, context));
    let credential = credentials.of_route(entry, table, upstream.as_ref(), global, context);
    let account = credential.and_then(|credential| credentials.account_of_route(table, credential, context));
    let tls = tls::settings(table.table("tls"), global, context);
    if let Some(upstream) = &upstream {
        tls::refuse_idle_pin(table, upstream, "upstream", context);
    }
    let pace = pace(table, context);
    let read_only = table.flag("read_only", false);
    if read_only && provider == Provider::Neo4j {
        warn_of_access_mode(table, context);
    }
    let limits = rights::rights(table, context);
    for path in &matches.paths {
        rights::warn_of_prefix(table, path, "the route's own path", context);
    }
    if let Some(upstream) = &upstream {
        rights::warn_of_prefix(table, &upstream.base_path, "the upstream's own path", context);
    }
    let local_token_endpoint = local_token_endpoint(table, provider, &matches, context);
    Some(Route {
        name: entry.key.as_str().into(),
        provider,
        matches,
        upstream: upstream?,
        credential: credential?,
        account,
        tls,
        connect_timeout: table.duration("connect_timeout").unwrap_or(Duration::from_secs(5)),
        response_timeout: response_timeout(table, provider),
        replay_body: table.size("replay_body").unwrap_or(64 << 10),
        refused_statuses: refused_statuses(table, provider),
        http: http_version(table),
        max_connections: table.count("max_connections"),
        max_queue: table.count("max_queue").unwrap_or(1024),
        idle_timeout: table.duration("idle_timeout").unwrap_or(Duration::from_secs(25)),
        preserve_header_case: table.flag("preserve_header_case", false),
        pace,
        pace_wait: table.duration("pace_wait").unwrap_or(Duration::from_secs(10)),
        local_token_endpoint,
        passes_encoded_slash: table.text("encoded_slash") == Some("pass"),
        rights: limits,
        read_only,
    })
}

fn http_version(table: &Table) -> HttpVersion {
    match table.text("http") {
        Some("1.1") => HttpVersion::Http1,
        Some("2") => HttpVersion::Http2,
        _ => HttpVersion::Auto,
    }
}

/// A Neo4j server can be told the caller's host, and no prefix.
fn warn_of_prefixes_alone(
    entry: &Entry,
    table: &Table,
    provider: Provider,
    matches: &Matches,
    context: &mut Context<'_>,
) {
    let Matches { listeners, hosts, paths } = matches;
    let is_behind_prefixes = !paths.is_empty() && paths.iter().all(|path| !path.is_empty());
    if provider == Provider::Neo4j && is_behind_prefixes && listeners.is_empty() && hosts.is_empty() {
        context.out.warn(
            table.get("path").map_or(entry.at, |node| node.at),
            "Neo4j writes URLs without this prefix into its answers",
            "a client that follows them needs `host` or `listen` in this route",
        );
    }
}

/// Neo4j's documents describe the access mode as a way to route queries in a cluster, and as no permission.
fn warn_of_access_mode(table: &Table, context: &mut Context<'_>) {
    context.out.warn(
        table.place_of("read_only"),
        "`read_only` asks Neo4j for the access mode READ, which its documents call routing and no permission: sidekey \
         cannot promise that no query or procedure writes",
        "use a credential whose user has no right to write",
    );
}

fn provider(table: &Table) -> Provider {
    match table.text("provider") {
        Some("aura") => Provider::Aura,
        Some("neo4j") => Provider::Neo4j,
        Some("neon") => Provider::Neon,
        _ => Provider::Generic,
    }
}

fn upstream(entry: &Entry, table: &Table, provider: Provider, context: &mut Context<'_>) -> Option<Upstream> {
    let default = match provider {
        Provider::Aura => Some("https://api.neo4j.io"),
        Provider::Neon => Some("https://console.neon.tech/api/v2"),
        Provider::Neo4j | Provider::Generic => None,
    };
    let leave = url::Leave::of(table);
    match (table.get("upstream"), default) {
        (Some(node), _) => url::upstream(node, leave, context),
        (None, Some(default)) => url::upstream(&Node::text(entry.at, default), leave, context),
        (None, None) => {
            // A mistaken provider may be the reason; that is reported already.
            if !table.get("provider").is_some_and(|node| matches!(node.value, Value::Broken)) {
                let example = match provider {
                    Provider::Neo4j => "https://ID.databases.neo4j.io",
                    _ => "https://api.example.com",
                };
                let message = format!("`upstream` is missing in [route.{}]", entry.key);
                context.out.error(entry.at, message, format!("write upstream = \"{example}\""));
            }
            None
        }
    }
}

fn response_timeout(table: &Table, provider: Provider) -> Option<Duration> {
    match (table.text("response_timeout"), provider) {
        (Some("none"), _) | (None, Provider::Neo4j) => None,
        (None, _) => Some(Duration::from_secs(60)),
        (Some(_), _) => table.duration("response_timeout"),
    }
}

fn pace(table: &Table, context: &mut Context<'_>) -> Vec<Rate> {
    let mut rates: Vec<Rate> = Vec::new();
    for node in table.items("pace") {
        let Some(rate) = node.as_text().and_then(|text| units::rate(text).ok()) else { continue };
        if node.referenced && !context.check_secrets {
            // It only stands for what will be there.
        } else if rates.iter().any(|other| other.per == rate.per) {
            let message = format!("`pace`: {} is a second rate with the same unit", node.shown());
            context.out.error(node.at, message, "keep the lower one");
        } else {
            rates.push(rate);
        }
    }
    let is_empty =
        table.get("pace").is_none_or(|node| matches!(&node.value, Value::List(all) if all.is_empty()));
    if is_empty && table.has("pace_wait") {
        let help = "write pace = \"125/min\", say, or remove it";
        context.out.error(
            table.place_of("pace_wait"),
            "`pace_wait` without `pace` has nothing to wait for",
            help,
        );
    }
    rates
}

/// Where clients of Aura fetch their tokens, unless another path is written, or none.
fn local_token_endpoint(
    table: &Table,
    provider: Provider,
    matches: &Matches,
    context: &mut Context<'_>,
) -> Option<Box<str>> {
    const KEY: &str = "local_token_endpoint";
    let Some(node) = table.get(KEY) else {
        return (provider == Provider::Aura).then(|| "/oauth/token".into());
    };
    let path = routing::plain_path(KEY, "/oauth/token", node, context)?;
    if path == "/" {
        let help =
            format!("write the path at which the client fetches its token, as {KEY} = \"/oauth/token\"");
        context.out.error(node.at, format!("{KEY} `/` would answer at the root of the route"), help);
    }
    let rest_behind =
        |prefix: &String| Some(path.strip_prefix(&**prefix)?).filter(|rest| rest.starts_with('/'));
    let behind = matches.paths.iter().filter(|prefix| !prefix.is_empty()).find_map(rest_behind);
    if let Some(rest) = behind {
        context.out.warn(
            node.at,
            format!("{KEY} begins with the route's own prefix, which is not part of it"),
            format!("write {KEY} = \"{rest}\", unless clients call the prefix twice"),
        );
    }
    Some(path.into())
}

fn refused_statuses(table: &Table, provider: Provider) -> Vec<u16> {
    if table.has("refused_statuses") {
        let number = |node: &Node| match node.value {
            Value::Integer(Some(number)) => u16::try_from(number).ok(),
            _ => None,
        };
        return table.items("refused_statuses").into_iter().filter_map(number).collect();
    }
    match provider {
        // Aura's documents say that an expired token is answered with 403.
        Provider::Aura => vec![401, 403],
        _ => vec![401],
    }
}
