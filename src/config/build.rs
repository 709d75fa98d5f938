//! The one conversion: the checked tree → [`Config`]. Collects every error; nothing after it checks again.

mod admin;
mod caller;
mod cors;
mod credential;
mod egress;
mod listener;
pub(super) mod names;
mod rights;
mod route;
mod routing;
mod secrets;
mod store;
mod tls;
mod url;

use std::time::Duration;

pub use self::names::is_this_machine;

use self::credential::Credentials;
use self::listener::Listeners;
use super::context::Context;
use super::diagnostic::At;
use super::document::{Node, Table, Value};
use super::handed::{HANDOVER_VARIABLES, Handover};
use super::{Config, Limits, Server, TlsSettings};

/// Converts the whole file; none if anything was wrong.
pub(crate) fn build(root: &Table, origin: &str, context: &mut Context<'_>) -> Option<Config> {
    let global = root.table("tls").map_or_else(TlsSettings::default, |table| {
        tls::settings(Some(table), &TlsSettings::default(), context)
    });
    let empty = Table { at: At::Whole, entries: Vec::new() };
    let server = root.table("server").unwrap_or(&empty);
    context.egress = egress::default(server, context);
    let has_callers = !root.named("caller").is_empty();
    let mut listeners = Listeners::of_server(server, needs_shared_listener(root), has_callers, context);
    let mut credentials = Credentials::named(root, &global, context);

    let tables = root.named("route");
    if tables.is_empty() && !root.get("route").is_some_and(|node| matches!(node.value, Value::Broken)) {
        context.out.error(
            At::Byte(0),
            "there is no route",
            "write [route.NAME] with provider, credential and, for neo4j and generic, upstream",
        );
    }
    let mut claims: Vec<_> =
        tables.iter().map(|(entry, table)| routing::claims(entry, table, &mut listeners, context)).collect();
    listeners.report_unused_sockets(context);
    routing::check(&mut claims, &listeners, context);
    let routes: Vec<_> = tables
        .iter()
        .zip(claims)
        .map(|((entry, table), claims)| {
            route::route(entry, table, claims.into_matches(), &global, &mut credentials, context)
        })
        .collect();
    credentials.report_unused(context);
    for ((entry, table), route) in tables.iter().zip(&routes) {
        let Some(route) = route.as_ref().filter(|route| listeners.are_behind(&route.upstream)) else {
            continue;
        };
        let at = table.get("upstream").map_or(entry.at, |node| node.at);
        let message = format!("`upstream` of [route.{}] leads back to sidekey itself", route.name);
        context.out.error(at, message, "write the address of the service, or listen on another port");
    }
    let hosts = server.items("hosts").into_iter().filter_map(|node| names::host(node, context)).collect();

    let workers = workers(server.get("workers"));
    for (_, table) in &tables {
        let Some(node) = table.get("max_connections") else { continue };
        if table.count("max_connections").is_some_and(|count| count < workers) {
            let message = format!("`max_connections`: each of the {workers} workers needs one of its own");
            context.out.error(node.at, message, format!("write max_connections = {workers} or more"));
        }
    }
    let admin = admin::admin(server, &listeners, context);
    admin::check_redirects(credentials.redirects(), &admin, &listeners, context);
    let store = if root.get("store").is_some_and(|node| matches!(node.value, Value::Broken)) {
        None
    } else {
        store::store(root.table("store"), credentials.any_login(), &global, context)
    };
    let duration = |key, default| server.duration(key).unwrap_or(default);
    let listeners = listeners.into_vec();
    let callers = caller::callers(root, &listeners, context);
    let server = Server {
        listeners,
        admin,
        workers,
        hosts,
        sandbox: server.flag("sandbox", false),
        header_timeout: duration("header_timeout", Duration::from_secs(10)),
        idle_timeout: duration("idle_timeout", Duration::from_secs(300)),
        limits: limits(server),
        drain_delay: duration("drain_delay", Duration::ZERO),
        drain_timeout: duration("drain_timeout", Duration::from_secs(25)),
        request_id: server.flag("request_id", false),
        access_log: server.text("access_log") == Some("stdout"),
    };
    if context.out.has_errors() {
        return None;
    }
    let mut secret_variables = std::mem::take(&mut context.secret_variables);
    if matches!(context.environment.handover(), Handover::Seen { .. }) {
        // They are for this process alone.
        secret_variables.extend(HANDOVER_VARIABLES.map(str::to_owned));
    }
    secret_variables.sort();
    secret_variables.dedup();
    Some(Config {
        origin: origin.to_owned(),
        server,
        routes: routes.into_iter().collect::<Option<_>>()?,
        credentials: credentials.into_vec()?,
        callers,
        store: store?,
        secret_variables,
        text_files: std::mem::take(&mut context.text_files),
    })
}

/// Without `server.listen`, the default listener is opened only for routes that can match on it.
fn needs_shared_listener(root: &Table) -> bool {
    let tables = root.named("route");
    tables.iter().any(|(_, table)| !table.has("listen") || table.has("path") || table.has("host"))
        || tables.is_empty()
}

fn limits(server: &Table) -> Limits {
    let count = |key, default| server.count(key).unwrap_or(default);
    let size = |key, default| server.size(key).unwrap_or(default);
    Limits {
        connections: server.count("max_connections"),
        requests: count("max_requests", 8192),
        header_size: size("max_header_size", 64 << 10),
        headers: count("max_headers", 100),
        target: size("max_target", 16 << 10),
        streams: server.count("max_streams").and_then(|count| u32::try_from(count).ok()).unwrap_or(100),
        resets: count("max_resets", 200),
    }
}

fn workers(node: Option<&Node>) -> usize {
    match node.map(|node| &node.value) {
        Some(Value::Integer(Some(number))) => usize::try_from(*number).unwrap_or(1),
        // "auto", the only text that the format lets through.
        Some(Value::Text(_)) => std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(4)),
        _ => 1,
    }
}
