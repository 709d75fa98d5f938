//! Listeners: where callers connect, each address once.

mod handed;
mod socket;

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{names, tls};
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table, Value};
use crate::config::{Bind, ListenId, Listener, ListenerTlsSettings, Upstream};

const DEFAULT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 7600));
/// `sun_path` of Linux and the BSDs, less the closing NUL; macOS has the shortest.
const LONGEST_SOCKET_PATH: usize = 103;

/// What to do with `tls` where there is no use for it.
const NO_TLS: &str = "remove it; what goes through a Unix socket does not leave this machine";

/// Every listener so far.
pub(super) struct Listeners {
    list: Vec<(Listener, At)>,
    /// Something in `server.listen` is wrong: what follows from that is no news.
    incomplete: bool,
    /// Do callers have to show who they are?
    has_callers: bool,
}

/// A listener as written.
struct Written {
    bind: Bind,
    at: At,
    /// What is said of a Unix socket's file.
    access_given: Vec<&'static str>,
    /// TLS, and where it is written.
    tls: Option<(ListenerTlsSettings, At)>,
}

impl Written {
    fn listener(self, shared: bool) -> (Listener, At) {
        (Listener { bind: self.bind, shared, tls: self.tls.map(|(tls, _)| tls) }, self.at)
    }
}

impl Listeners {
    /// Those of `server.listen`, or the default where one is needed.
    pub(super) fn of_server(
        server: &Table,
        needed: bool,
        has_callers: bool,
        context: &mut Context<'_>,
    ) -> Self {
        let broken = |node: &Node| matches!(node.value, Value::Broken);
        let incomplete = server.get("listen").is_some_and(broken);
        let mut listeners = Self { list: Vec::new(), incomplete, has_callers };
        if !server.has("listen") && needed {
            let default = Listener { bind: Bind::Tcp(DEFAULT), shared: true, tls: None };
            listeners.list.push((default, At::Whole));
        }
        for node in server.items("listen") {
            let Some(all) = read(node, has_callers, context) else {
                listeners.incomplete = true;
                continue;
            };
            for written in all {
                match listeners.find(&written.bind) {
                    Some(other) => listeners.report_twice(&written, other, context),
                    None => listeners.list.push(written.listener(true)),
                }
            }
        }
        listeners
    }

    /// A route's own listeners: of the server's, which then are the route's alone, or new ones.
    pub(super) fn claim(&mut self, node: &Node, context: &mut Context<'_>) -> Vec<ListenId> {
        let all = read(node, self.has_callers, context).unwrap_or_default();
        all.into_iter().filter_map(|written| self.claim_one(written, context)).collect()
    }

    fn claim_one(&mut self, written: Written, context: &mut Context<'_>) -> Option<ListenId> {
        let exact = self.list.iter().position(|(listener, _)| same(&listener.bind, &written.bind));
        if let Some(id) = exact {
            let (listener, at) = &mut self.list[id];
            listener.shared = false;
            if let Some(key) = socket::difference(&written.access_given, &written.bind, &listener.bind) {
                let message = format!("`{key}` differs from the one in server.listen");
                context.out.error(written.at, message, "write it there only");
            }
            // Placeholders, which stand for what is not at hand, cannot be compared.
            let comparable = context.check_secrets || context.placeholders == 0;
            if let Some((tls, here)) = written.tls
                && listener.tls.as_ref() != Some(&tls)
                && comparable
            {
                let line = context.out.line_hint(*at);
                let message = format!("`tls` differs from that of the same address{line}");
                context.out.error(here, message, "write it there only");
            }
            return Some(id);
        }
        if let Some(other) = self.find(&written.bind) {
            self.report_twice(&written, other, context);
            return None;
        }
        self.list.push(written.listener(false));
        Some(self.list.len() - 1)
    }

    /// Is there a listener, or was there meant to be one, that no route has for itself?
    pub(super) fn any_shared(&self) -> bool {
        self.incomplete || self.shared().next().is_some()
    }

    /// Where each listener stands that no route has for itself.
    pub(super) fn shared(&self) -> impl Iterator<Item = At> {
        self.list.iter().filter(|(listener, _)| listener.shared).map(|(_, at)| *at)
    }

    /// Is that address taken?
    pub(super) fn has_tcp(&self, address: SocketAddr) -> bool {
        self.find(&Bind::Tcp(address)).is_some()
    }

    /// Does an upstream's address lead back to one of the listeners?
    pub(super) fn are_behind(&self, upstream: &Upstream) -> bool {
        let same = |listener: &Listener| {
            listener.bind.tcp().is_some_and(|at| at.port() == upstream.port && at.port() != 0)
        };
        names::is_this_machine(&upstream.host) && self.list.iter().any(|(listener, _)| same(listener))
    }

    /// Warns of sockets that were handed over in vain.
    pub(super) fn report_unused_sockets(&self, context: &mut Context<'_>) {
        if !self.incomplete {
            handed::report_unused(self.list.iter().map(|(listener, _)| listener), context);
        }
    }

    pub(super) fn into_vec(self) -> Vec<Listener> {
        self.list.into_iter().map(|(listener, _)| listener).collect()
    }

    fn find(&self, bind: &Bind) -> Option<usize> {
        self.list.iter().position(|(listener, _)| overlaps(&listener.bind, bind))
    }

    fn report_twice(&self, written: &Written, other: usize, context: &mut Context<'_>) {
        let (listener, at) = &self.list[other];
        let line = context.out.line_hint(*at);
        let message = format!("{} is already listened on by {}{line}", written.bind, listener.bind);
        context.out.error(written.at, message, "choose another address or port, or remove one of the two");
    }
}

/// The very same address; port 0 is another one each time.
fn same(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Tcp(a), Bind::Tcp(b)) => a == b && a.port() != 0,
        (Bind::Unix { path: a, .. }, Bind::Unix { path: b, .. }) => a == b,
        (Bind::Systemd { name: a, number: m, .. }, Bind::Systemd { name: b, number: n, .. }) => {
            (a, m) == (b, n)
        }
        _ => false,
    }
}

/// Could not both be bound: the same, or one of them every address of the machine.
fn overlaps(a: &Bind, b: &Bind) -> bool {
    // Two that were handed over are both bound already.
    let are_ours = matches!(a, Bind::Tcp(_)) || matches!(b, Bind::Tcp(_));
    match a.tcp().zip(b.tcp()).filter(|_| are_ours) {
        Some((a, b)) => {
            let every = a.ip().is_unspecified() || b.ip().is_unspecified();
            same(&Bind::Tcp(a), &Bind::Tcp(b))
                || (a.port() == b.port() && a.port() != 0 && every && a.is_ipv4() == b.is_ipv4())
        }
        None => same(a, b),
    }
}

/// What one item stands for: several sockets, where as many were handed over by the same name. None: it is wrong.
fn read(node: &Node, has_callers: bool, context: &mut Context<'_>) -> Option<Vec<Written>> {
    let (address, table) = match node.as_table() {
        Some(table) => (table.get("bind")?, Some(table)),
        None => (node, None),
    };
    let text = address.as_text()?;
    let access_given = socket::given(table);
    let place_of_tls = table.filter(|table| table.has("tls")).map(|table| table.place_of("tls"));
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() || path.len() > LONGEST_SOCKET_PATH {
            let message = format!("{} is no path for a Unix socket", address.shown());
            let help = format!("write \"unix:PATH\" with a path of 1 to {LONGEST_SOCKET_PATH} bytes");
            context.out.error(address.at, message, help);
            return None;
        }
        if let Some(at) = place_of_tls {
            context.out.error(at, "`tls` is for TCP addresses", NO_TLS);
        }
        let bind = Bind::Unix { path: PathBuf::from(path), access: socket::access(table, context)? };
        return Some(vec![Written { bind, at: address.at, access_given, tls: None }]);
    }
    if let Some(name) = text.strip_prefix("systemd:") {
        return handed::read(name, address, table, has_callers, context);
    }
    for key in access_given {
        let at = table.and_then(|table| table.get(key)).map_or(address.at, |node| node.at);
        context.out.error(
            at,
            format!("`{key}` is for Unix sockets"),
            "remove it, or write bind = \"unix:PATH\"",
        );
    }
    let Ok(tcp) = text.parse::<SocketAddr>() else {
        let help = suggestion(text);
        context.out.error(address.at, format!("{} is not an address to listen on", address.shown()), help);
        return None;
    };
    let instead = format!("listen on 127.0.0.1:{}", tcp.port());
    if !may_be_reached_at(tcp, &instead, address, table, has_callers, context) {
        return None;
    }
    let tls = table.and_then(|table| table.table("tls")).and_then(|table| tls::listener(table, context));
    let (bind, tls) = (Bind::Tcp(tcp), tls.zip(place_of_tls));
    Some(vec![Written { bind, at: address.at, access_given: Vec::new(), tls }])
}

/// May callers come to that address? Reports it if it is beyond loopback and nobody shows who they are; `instead`:
/// what is to be done so that it is not.
fn may_be_reached_at(
    tcp: SocketAddr,
    instead: &str,
    address: &Node,
    table: Option<&Table>,
    has_callers: bool,
    context: &mut Context<'_>,
) -> bool {
    let is_remote = !tcp.ip().to_canonical().is_loopback();
    let allowed = table.is_some_and(|table| table.flag("allow_unauthenticated_remote", false));
    if is_remote && !allowed && !has_callers {
        let message = format!("anyone who reaches {tcp} could use the credentials");
        let write = match address.at {
            At::Variable(_) => "write a file with",
            _ => "write",
        };
        let bind = address.as_text().unwrap_or_default();
        let help = format!(
            "{instead}, tell callers apart by [caller.NAME], or, knowingly, {write} {{ bind = \"{bind}\", \
             allow_unauthenticated_remote = true }}"
        );
        context.out.error(address.at, message, help);
        return false;
    }
    if is_remote && has_callers && !allowed && table.is_none_or(|table| !table.has("tls")) {
        let message =
            format!("callers' tokens pass in clear text where they come to {tcp} from other machines");
        let help = "write { bind = \"…\", tls = { cert = \"PATH\", key = \"PATH\" } }";
        context.out.warn(address.at, message, help);
    }
    true
}

fn suggestion(text: &str) -> String {
    let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).unwrap_or(7600);
    if text.starts_with('/') || text.starts_with("./") {
        return format!("write \"unix:{}\"", text.escape_debug());
    }
    format!("write \"127.0.0.1:{port}\", \"[::1]:{port}\" or \"unix:PATH\"")
}
