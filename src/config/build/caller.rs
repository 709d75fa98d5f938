//! `[caller.NAME]` tables → [`Caller`]s.

use std::sync::Arc;

use super::credential::account_name;
use super::rights;
use super::secrets::{self, Form};
use crate::config::context::Context;
use crate::config::diagnostic::{At, alternatives, nearest};
use crate::config::document::{Entry, Node, Table, Value};
use crate::config::{Bind, Caller, Listener, PeerRule};
use crate::secret::{Secret, SecretSource};

/// Tokens of fewer bytes can be guessed by trying.
const SHORT: usize = 16;

/// Every caller so far.
struct Callers {
    list: Vec<Caller>,
    /// What was at hand of their tokens, whose each is, and where that is written.
    tokens: Vec<(Secret, usize, At)>,
}

/// Converts all callers; what is wrong in them is reported.
pub(super) fn callers(root: &Table, listeners: &[Listener], context: &mut Context<'_>) -> Vec<Caller> {
    let routes: Vec<&str> = root.named("route").iter().map(|(entry, _)| entry.key.as_str()).collect();
    let mut callers = Callers { list: Vec::new(), tokens: Vec::new() };
    let tables = root.named("caller");
    if let (Some(entry), true) = (root.entry("caller"), tables.is_empty())
        && matches!(&entry.node.value, Value::Table(table) if table.entries.is_empty())
    {
        let help =
            "write [caller.NAME] with a token, or remove it: without callers, whoever connects gets in";
        context.out.error(entry.at, "[caller] names no caller", help);
    }
    for (entry, table) in tables {
        callers.add(entry, table, &routes, listeners, context);
    }
    callers.list
}

impl Callers {
    fn add(
        &mut self,
        entry: &Entry,
        table: &Table,
        routes: &[&str],
        listeners: &[Listener],
        context: &mut Context<'_>,
    ) {
        let tokens = self.tokens(entry, table, context);
        let peer = peer(table);
        let is_broken = |key: &str| table.get(key).is_some_and(|node| matches!(node.value, Value::Broken));
        let by_peer = ["uid", "gid"].into_iter().find(|key| table.has(key));
        match (table.has("token"), by_peer) {
            (false, None) => context.out.error(
                entry.at,
                format!("nothing tells [caller.{}] from others", entry.key),
                "write token = { file = \"PATH\" }, or, on a Unix socket, uid = 1000",
            ),
            (true, Some(key)) => context.out.error(
                table.place_of(key),
                format!("`{key}` and `token` exclude each other: is one enough, or are both needed?"),
                "keep one; for either, write a second caller",
            ),
            _ => {}
        }
        for key in ["uid", "gid"] {
            let Some(node) = table.get(key) else { continue };
            if matches!(&node.value, Value::List(items) if items.is_empty()) {
                let help = format!("write {key} = 1000, say, or remove it");
                context.out.error(node.at, format!("`{key}` names nobody"), help);
            }
        }
        if let Some(key) = by_peer
            && !is_broken(key)
            && !listeners.iter().any(|listener| {
                // Elsewhere it may turn out to be one.
                listener.bind.is_unix() || matches!(listener.bind, Bind::Systemd { kind: None, .. })
            })
        {
            let help = "write listen = \"unix:PATH\" as well, or a token instead";
            let message = format!("`{key}` has no use: no listener is a Unix socket");
            context.out.error(table.place_of(key), message, help);
        }
        if let Some(peer) = &peer
            && let Some(other) =
                self.list.iter().find(|other| other.peer.as_ref().is_some_and(|known| known.meets(peer)))
        {
            let message = format!("a process can be both [caller.{}] and [caller.{}]", other.name, entry.key);
            context.out.error(entry.at, message, "let no user and group belong to both");
        }
        self.list.push(Caller {
            name: entry.key.as_str().into(),
            tokens,
            peer,
            routes: routes_of(table, routes, context),
            accounts: accounts_of(table, context),
            rights: rights::rights(table, context),
        });
    }

    fn tokens(&mut self, entry: &Entry, table: &Table, context: &mut Context<'_>) -> Vec<SecretSource> {
        let Some(node) = table.get("token") else { return Vec::new() };
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            context.out.error(node.at, "`token` names no token", "write token = { file = \"PATH\" }");
        }
        let mut sources = Vec::new();
        for node in node.items() {
            let Some(source) = secrets::source_of(node, "token", Form::Line, context) else { continue };
            if let Some(token) = secrets::at_hand(&source, context) {
                let at = node.as_table().and_then(|table| table.entries.first()).map_or(node.at, |e| e.at);
                self.judge(token, at, &entry.key, context);
            }
            sources.push(source);
        }
        sources
    }

    /// Judges a token that is at hand, and keeps it to compare others with.
    fn judge(&mut self, token: Secret, at: At, name: &str, context: &mut Context<'_>) {
        let caller = self.list.len();
        if !token.is_word() {
            context.out.error(
                at,
                "`token` is not one word of visible ASCII (not shown)",
                "make one with `openssl rand -hex 32`",
            );
            return;
        }
        if token.expose().len() < SHORT {
            let message = format!("`token` has fewer than {SHORT} characters: it can be guessed by trying");
            context.out.warn(at, message, "make one with `openssl rand -hex 32`");
        }
        if let Some((_, other, first)) = self.tokens.iter().find(|(known, ..)| *known == token) {
            let line = context.out.line_hint(*first);
            let (message, help) = match *other == caller {
                true => (format!("this token stands twice in [caller.{name}]{line}"), "keep one of the two"),
                false => (
                    format!("[caller.{}] has the same token{line}", self.list[*other].name),
                    "give each caller a token of its own",
                ),
            };
            context.out.error(at, message, help);
            return;
        }
        self.tokens.push((token, caller, at));
    }
}

fn peer(table: &Table) -> Option<PeerRule> {
    let ids = |key: &str| -> Vec<u32> {
        let number = |node: &Node| match node.value {
            Value::Integer(Some(number)) => u32::try_from(number).ok(),
            _ => None,
        };
        table.items(key).into_iter().filter_map(number).collect()
    };
    let rule = PeerRule { uids: ids("uid"), gids: ids("gid") };
    // Empty, it would be anybody.
    (rule != PeerRule::default()).then_some(rule)
}

fn routes_of(table: &Table, routes: &[&str], context: &mut Context<'_>) -> Option<Vec<usize>> {
    let node = table.get("routes")?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        context.out.error(node.at, "`routes` names no route", "name one, or remove it: then it may use all");
    }
    let mut found = Vec::new();
    for node in node.items() {
        let Some(text) = node.as_text() else { continue };
        if let Some(route) = routes.iter().position(|known| *known == text) {
            found.push(route);
        } else if !node.referenced || context.check_secrets {
            let help = match nearest(text, routes.iter().copied()) {
                Some(near) => format!("write \"{near}\""),
                None => format!("there is {}", alternatives(routes.iter().copied())),
            };
            context.out.error(node.at, format!("there is no route {}", node.shown()), help);
        }
    }
    Some(found)
}

fn accounts_of(table: &Table, context: &mut Context<'_>) -> Option<Vec<Arc<str>>> {
    let node = table.get("accounts")?;
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        let help = "name one, or remove it: then it may use all";
        context.out.error(node.at, "`accounts` names no account", help);
    }
    let names = node.items().into_iter();
    Some(names.filter_map(|node| account_name(node, "accounts", context).map(Arc::from)).collect())
}
