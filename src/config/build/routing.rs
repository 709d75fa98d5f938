//! What each route matches, and whether any two match the same.

use super::listener::Listeners;
use super::names;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Entry, Node, Table, Value};
use crate::config::{ListenId, Matches};

/// What a route claims for itself, and where that is written.
pub(super) struct Claims {
    route: String,
    at: At,
    /// Something to match is written, even if it is wrong.
    given: bool,
    listeners: Vec<(ListenId, At)>,
    hosts: Vec<(String, At)>,
    paths: Vec<(String, At)>,
}

impl Claims {
    /// Can it match on a listener that is not its own?
    fn is_shared(&self) -> bool {
        !self.hosts.is_empty() || !self.paths.is_empty()
    }

    pub(super) fn into_matches(self) -> Matches {
        Matches {
            listeners: self.listeners.into_iter().map(|(id, _)| id).collect(),
            hosts: self.hosts.into_iter().map(|(host, _)| host).collect(),
            paths: self.paths.into_iter().map(|(path, _)| path).collect(),
        }
    }
}

/// Reads `listen`, `host` and `path` of a route.
pub(super) fn claims(
    entry: &Entry,
    table: &Table,
    listeners: &mut Listeners,
    context: &mut Context<'_>,
) -> Claims {
    let mut claims = Claims {
        route: entry.key.clone(),
        at: entry.at,
        given: ["listen", "host", "path"].iter().any(|key| {
            table.get(key).is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty()))
        }),
        listeners: Vec::new(),
        hosts: Vec::new(),
        paths: Vec::new(),
    };
    for node in table.items("listen") {
        claims.listeners.extend(listeners.claim(node, context).into_iter().map(|id| (id, node.at)));
    }
    for node in table.items("host") {
        claims.hosts.extend(names::host(node, context).map(|host| (host, node.at)));
    }
    for node in table.items("path") {
        claims.paths.extend(path(node, context).map(|path| (path, node.at)));
    }
    claims
}

/// Reports routes that match the same, that match nothing, or that could never match. A route alone with nothing
/// to match gets every path.
pub(super) fn check(all: &mut [Claims], listeners: &Listeners, context: &mut Context<'_>) {
    let alone = all.len() == 1;
    for claims in all.iter_mut().filter(|claims| !claims.given) {
        if alone {
            claims.paths.push((String::new(), claims.at));
        } else {
            let message = format!("[route.{}] has nothing to match", claims.route);
            context.out.error(
                claims.at,
                message,
                format!(
                    "write path = \"/{}\", host or listen; path = \"/\" takes what no other route does",
                    claims.route
                ),
            );
        }
    }
    for claims in all.iter() {
        let reachable = listeners.any_shared() || !claims.listeners.is_empty();
        if !reachable && claims.is_shared() {
            let message = format!("[route.{}] can never match: no listener is left for it", claims.route);
            context.out.error(
                claims.at,
                message,
                "write a `listen` of its own, or one more address in server.listen",
            );
        }
    }
    if !all.is_empty() && all.iter().all(|claims| claims.given && !claims.is_shared()) {
        for at in listeners.shared() {
            let help = "write path or host in a route, or remove it";
            context.out.warn(at, "no route matches on this listener", help);
        }
    }
    let listeners: Vec<_> = all.iter().map(|c| (&c.route, c.listeners.as_slice())).collect();
    report_same(&listeners, |_| "this listener".to_owned(), context);
    let hosts: Vec<_> = all.iter().map(|c| (&c.route, c.hosts.as_slice())).collect();
    report_same(&hosts, |host| format!("host `{host}`"), context);
    let paths: Vec<_> = all.iter().map(|c| (&c.route, c.paths.as_slice())).collect();
    report_same(&paths, |path| format!("path `{}`", if path.is_empty() { "/" } else { path }), context);
}

fn report_same<T: PartialEq>(
    claims: &[(&String, &[(T, At)])],
    name: impl Fn(&T) -> String,
    context: &mut Context<'_>,
) {
    let flat: Vec<_> = claims
        .iter()
        .flat_map(|(route, items)| items.iter().map(move |(item, at)| (*route, item, *at)))
        .collect();
    for (index, (route, item, at)) in flat.iter().enumerate() {
        let Some((other, _, first)) = flat[..index].iter().find(|(_, earlier, _)| earlier == item) else {
            continue;
        };
        let line = context.out.line_hint(*first);
        let (message, help) = if other == route {
            (format!("{} stands twice in [route.{route}]{line}", name(item)), "keep one of the two")
        } else {
            (
                format!("{} is already taken by [route.{other}]{line}", name(item)),
                "give one of the two another",
            )
        };
        context.out.error(*at, message, help);
    }
}

/// A path prefix without its trailing slash; empty for `/`.
fn path(node: &Node, context: &mut Context<'_>) -> Option<String> {
    plain_path("path", "/aura", node, context).map(|path| path.trim_end_matches('/').to_owned())
}

/// A path that is its own normal form, as a key gives it, or an error.
pub(super) fn plain_path<'a>(
    key: &str,
    example: &str,
    node: &'a Node,
    context: &mut Context<'_>,
) -> Option<&'a str> {
    let text = node.as_text()?;
    let wrong = |problem: &str, help: String, context: &mut Context<'_>| {
        context.out.error(node.at, format!("{key} {} {problem}", node.shown()), help);
        None
    };
    let plain = format!("write plain segments, as {key} = \"{example}\"");
    if !text.starts_with('/') {
        let help = match node.shown().starts_with('`') {
            true if !text.contains("://") => format!("write {key} = \"/{}\"", text.escape_debug()),
            _ => plain,
        };
        return wrong("does not begin with `/`", help, context);
    }
    if text.contains(['?', '#']) {
        return wrong("has a query or fragment", plain, context);
    }
    if text.contains('%') {
        return wrong("has a percent sign", plain, context);
    }
    if text.contains("//") {
        return wrong("has an empty segment", plain, context);
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return wrong("has a dot segment", plain, context);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic())
        || text.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}'])
    {
        return wrong("has a character that no path has", plain, context);
    }
    Some(text)
}
