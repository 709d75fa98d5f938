//! The admin listener and the one for probes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::listener::Listeners;
use super::secrets;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table};
use crate::config::{Admin, RedirectUri};

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7601);

/// Reads `admin`, `admin_token`, `quitquitquit` and `health` of `[server]`.
pub(super) fn admin(server: &Table, listeners: &Listeners, context: &mut Context<'_>) -> Admin {
    let listen = match server.get("admin") {
        None => Some(DEFAULT),
        // `false`, the only other value that the format lets through, has no text.
        Some(node) => node.as_text().and_then(|text| address(node, text, context)),
    };
    if let (Some(address), Some(node)) = (listen, server.get("admin"))
        && !address.ip().to_canonical().is_loopback()
    {
        let message = format!("the admin listener would be reached from other machines at {address}");
        let help = format!("write admin = \"127.0.0.1:{}\"; for probes there is `health`", address.port());
        context.out.error(node.at, message, help);
    }
    let health =
        server.get("health").and_then(|node| node.as_text().and_then(|text| address(node, text, context)));
    for (key, bound) in [("admin", listen), ("health", health)] {
        let Some((node, bound)) = server.get(key).zip(bound) else { continue };
        if listeners.has_tcp(bound) || (key == "health" && listen == Some(bound) && bound.port() != 0) {
            let message = format!("{bound} is already listened on");
            context.out.error(node.at, message, "choose another port");
        }
    }
    Admin {
        listen,
        token: secrets::source(server, "admin_token", context),
        open_quit: server.text("quitquitquit") == Some("open"),
        health,
    }
}

/// Paths of the admin listener that no browser may be sent to in the place of a login's end.
const OWN_PATHS: [&str; 7] = ["/", "/livez", "/readyz", "/metrics", "/status", "/reload", "/quitquitquit"];
const OWN_PREFIX: &str = "/connect/";

/// Reports redirects that would end where something else answers.
pub(super) fn check_redirects<'a>(
    redirects: impl Iterator<Item = (&'a RedirectUri, At)>,
    admin: &Admin,
    listeners: &Listeners,
    context: &mut Context<'_>,
) {
    for (uri, at) in redirects {
        let own = OWN_PATHS.contains(&uri.path.as_str()) || uri.path.starts_with(OWN_PREFIX);
        let bound = addresses(uri);
        let probes = |address: &SocketAddr| {
            admin.health.is_some_and(|health| {
                let there = health.ip().is_unspecified() || health.ip() == address.ip();
                health.port() == address.port() && there
            })
        };
        if bound.iter().any(|address| listeners.has_tcp(*address) || probes(address)) {
            let message = format!("`redirect_uri`: port {} is taken by callers or probes", uri.port);
            context.out.error(at, message, "register one at the port of the admin listener or at a free one");
        } else if own && admin.listen.is_some_and(|listen| bound.contains(&listen)) {
            let message = format!("`redirect_uri`: {} of the admin listener has another meaning", uri.path);
            context.out.error(at, message, "register another path, as \"http://127.0.0.1:7601/callback\"");
        }
    }
}

/// Where a browser may look for it.
fn addresses(uri: &RedirectUri) -> Vec<SocketAddr> {
    let host = uri.host.trim_matches(['[', ']']);
    let addresses = match host.parse() {
        Ok(address) => vec![address],
        // `localhost` is either.
        Err(_) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
    };
    addresses.into_iter().map(|address| SocketAddr::new(address, uri.port)).collect()
}

fn address(node: &Node, text: &str, context: &mut Context<'_>) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let message = format!("{} is not an address to listen on", node.shown());
        let help = match text.starts_with("systemd:") {
            true => {
                "sockets are handed over for `listen` alone: commands and probes find this one by its address; write \
                     \"127.0.0.1:7601\", say"
            }
            false => "write \"127.0.0.1:7601\", say",
        };
        context.out.error(node.at, message, help);
    }
    parsed
}
