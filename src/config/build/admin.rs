//! The admin listener and the one for probes.

use std::net::{Ipv4Addr, SocketAddr};

use super::listener::Listeners;
use super::secrets;
use crate::config::Admin;
use crate::config::context::Context;
use crate::config::document::{Node, Table};

const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7601);

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

fn address(node: &Node, text: &str, context: &mut Context<'_>) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let message = format!("{} is not an address to listen on", node.shown());
        context.out.error(node.at, message, "write \"127.0.0.1:7601\", say");
    }
    parsed
}
