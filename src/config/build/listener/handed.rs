//! Sockets that a service manager hands over: which ones a listener takes, and whether callers may come there.

use super::{NO_TLS, Written, may_be_reached_at};
use crate::config::build::tls;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table};
use crate::config::{Bind, Handed, HandedKind, Handover, Listener};

/// The longest name that there is (systemd.socket(5), `FileDescriptorName=`).
const LONGEST_NAME: usize = 255;

/// What `systemd:NAME` stands for: each socket of that name, or a listener of which nothing else is known yet.
pub(super) fn read(
    name: &str,
    address: &Node,
    table: Option<&Table>,
    has_callers: bool,
    context: &mut Context<'_>,
) -> Option<Vec<Written>> {
    let at = address.at;
    for key in ["mode", "owner", "group"] {
        let Some(given) = table.and_then(|table| table.get(key)) else { continue };
        let help = "remove it; write SocketMode=, SocketUser= and SocketGroup= in its socket unit";
        context.out.error(given.at, format!("`{key}` is for Unix sockets that sidekey makes"), help);
    }
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(|c: char| c.is_control() || c == ':') {
        let message = format!("{} is no name of a socket", address.shown());
        context.out.error(
            at,
            message,
            "write \"systemd:NAME\" with the FileDescriptorName= of its socket unit",
        );
        return None;
    }
    let tls = table.and_then(|table| table.table("tls")).and_then(|table| tls::listener(table, context));
    let tls = tls.zip(table.map(|table| table.place_of("tls")));
    let written = |number, kind| Written {
        bind: Bind::Systemd { name: name.to_owned(), number, kind },
        at,
        access_given: Vec::new(),
        tls: tls.clone(),
    };
    let Handover::Seen { sockets, fault } = context.environment.handover() else {
        return Some(vec![written(0, None)]);
    };
    let mut named = sockets.iter().filter(|socket| socket.name == name).peekable();
    if named.peek().is_none() {
        let help = what_there_is(name, sockets, fault.as_deref());
        context.out.error(at, format!("no socket was handed over by the name `{name}`"), help);
        return None;
    }
    let mut all = Vec::new();
    for socket in named {
        match &socket.kind {
            HandedKind::Unfit(unfit) => {
                context.out.error(at, format!("what was handed over as `{name}` {unfit}"), unfit.help());
                return None;
            }
            HandedKind::Unix(_) if tls.is_some() => {
                let at = tls.as_ref().map_or(at, |(_, at)| *at);
                context.out.error(at, format!("`tls` is for TCP, and `{name}` is a Unix socket"), NO_TLS);
                return None;
            }
            HandedKind::Unix(_) => {}
            HandedKind::Tcp(tcp) => {
                let instead = format!("write ListenStream=127.0.0.1:{} in its socket unit", tcp.port());
                if !may_be_reached_at(*tcp, &instead, address, table, has_callers, context) {
                    return None;
                }
            }
        }
        all.push(written(socket.number, Some(socket.kind.clone())));
    }
    Some(all)
}

/// What to do where a socket is not there.
fn what_there_is(name: &str, sockets: &[Handed], fault: Option<&str>) -> String {
    if let Some(fault) = fault {
        return fault.to_owned();
    }
    if sockets.is_empty() {
        return format!(
            "start sidekey by a socket unit with FileDescriptorName={name}, or write an address: \"127.0.0.1:7600\""
        );
    }
    let mut names: Vec<_> =
        sockets.iter().map(|socket| format!("`{}`", socket.name.escape_debug())).collect();
    names.dedup();
    format!("there is {}; write that, or FileDescriptorName={name} in the socket unit", names.join(", "))
}

/// Warns of sockets that no listener takes: who connects there waits for ever.
pub(super) fn report_unused<'a>(listeners: impl Iterator<Item = &'a Listener>, context: &mut Context<'_>) {
    let taken: Vec<&str> = listeners
        .filter_map(|listener| match &listener.bind {
            Bind::Systemd { name, .. } => Some(&**name),
            _ => None,
        })
        .collect();
    let Handover::Seen { sockets, .. } = context.environment.handover() else { return };
    for socket in sockets.iter().filter(|socket| socket.number == 0 && !taken.contains(&&*socket.name)) {
        let name = socket.name.escape_debug();
        let message = format!("the socket that was handed over as `{name}` is not used");
        let help = format!(
            "write listen = \"systemd:{name}\" for [server] or a route, or remove it from its socket unit"
        );
        context.out.warn(At::Whole, message, help);
    }
}
