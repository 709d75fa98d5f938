//! Credentials: named and inline tables → [`Credential`], and where each may go.

mod account;
mod authorization_code;
mod bound;
mod client;
mod client_credentials;
mod fields;
mod redirect_uri;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use self::account::Accounts;
pub(super) use self::account::name as account_name;
use self::bound::Bound;
use super::secrets;
use crate::config::context::Context;
use crate::config::diagnostic::{At, alternatives, nearest};
use crate::config::document::{Entry, Node, Table, Value};
use crate::config::{Credential, CredentialId, CredentialKind, Encoding, RedirectUri, TlsSettings, Upstream};
use crate::secret::CommandLine;

/// Every credential so far: the named ones, then the inline ones.
pub(super) struct Credentials {
    named: usize,
    list: Vec<Slot>,
}

struct Slot {
    name: String,
    at: At,
    used: bool,
    /// None: something in it is wrong.
    built: Option<Credential>,
    /// What a route may choose of it.
    accounts: Accounts,
    /// Where `redirect_uri` stands.
    redirect_at: At,
    /// Where it may go.
    bound: Bound,
}

impl Credentials {
    /// Each `[credential.NAME]`.
    pub(super) fn named(root: &Table, global: &TlsSettings, context: &mut Context<'_>) -> Self {
        let entries = root.table("credential").map(|table| table.entries.as_slice()).unwrap_or_default();
        let list: Vec<Slot> =
            entries.iter().map(|entry| slot(&entry.key, entry.at, &entry.node, global, context)).collect();
        Self { named: list.len(), list }
    }

    /// What the route carries: none if that is wrong, `Some(None)` if it is nothing.
    pub(super) fn of_route(
        &mut self,
        route: &Entry,
        table: &Table,
        upstream: Option<&Upstream>,
        global: &TlsSettings,
        context: &mut Context<'_>,
    ) -> Option<Option<CredentialId>> {
        let Some(node) = table.get("credential") else {
            context.out.error(
                route.at,
                format!("`credential` is missing in [route.{}]", route.key),
                "write a name, a table, or credential = false to forward without one",
            );
            return None;
        };
        let id = match &node.value {
            Value::Flag(_) => return Some(None),
            // A name that stands elsewhere and is not at hand: any of them may be meant.
            Value::Text(_) if node.referenced && !context.check_secrets => {
                self.list.iter_mut().for_each(|slot| slot.used = true);
                return Some(None);
            }
            Value::Text(name) => self.find(name, node, context)?,
            Value::Table(_) => {
                let slot = slot(&format!("route.{}", route.key), node.at, node, global, context);
                self.list.push(slot);
                self.list.len() - 1
            }
            _ => return None,
        };
        let slot = &mut self.list[id];
        slot.used = true;
        if let Some(upstream) = upstream.filter(|upstream| !slot.bound.takes(upstream, context)) {
            let at = table.place_of("credential");
            slot.bound.report(at, (&slot.name, &route.key), upstream, context);
            return None;
        }
        Some(Some(id))
    }

    /// The account that a route carries; none: it names none, or that is wrong, which is reported.
    pub(super) fn account_of_route(
        &self,
        table: &Table,
        credential: Option<CredentialId>,
        context: &mut Context<'_>,
    ) -> Option<Arc<str>> {
        let node = table.get("account")?;
        let Some(slot) = credential.and_then(|id| self.list.get(id)) else {
            // A credential that stands elsewhere and is not at hand may have accounts.
            if !table.get("credential").is_some_and(|node| node.referenced) {
                let message = "`account` has no use without a credential";
                context.out.error(table.place_of("account"), message, "remove it, or write a credential");
            }
            return None;
        };
        account::of_route(node, &slot.name, &slot.accounts, context)
    }

    /// Is any of them one that people log in to? Also if something in it is wrong.
    pub(super) fn any_login(&self) -> bool {
        self.list.iter().any(|slot| matches!(slot.accounts, Accounts::Logins))
    }

    /// Where browsers return to, and where that is written.
    pub(super) fn redirects(&self) -> impl Iterator<Item = (&RedirectUri, At)> {
        self.list.iter().filter_map(|slot| match &slot.built.as_ref()?.kind {
            CredentialKind::AuthorizationCode(login) => Some((&login.redirect_uri, slot.redirect_at)),
            _ => None,
        })
    }

    /// A credential that no route uses is most likely a misspelt one.
    pub(super) fn report_unused(&self, context: &mut Context<'_>) {
        for slot in self.list[..self.named].iter().filter(|slot| !slot.used) {
            let message = format!("no route uses [credential.{}]", slot.name);
            context.out.error(
                slot.at,
                message,
                format!("write credential = \"{}\" in a route, or remove it", slot.name),
            );
        }
    }

    /// All of them, if none is wrong.
    pub(super) fn into_vec(self) -> Option<Vec<Credential>> {
        self.list.into_iter().map(|slot| slot.built).collect()
    }

    fn find(&mut self, name: &str, node: &Node, context: &mut Context<'_>) -> Option<CredentialId> {
        let named = &mut self.list[..self.named];
        if let Some(id) = named.iter().position(|slot| slot.name == name) {
            return Some(id);
        }
        let near = nearest(name, named.iter().map(|slot| slot.name.as_str())).map(str::to_owned);
        let help = match &near {
            Some(near) => format!("write credential = \"{near}\""),
            None if named.is_empty() => "write [credential.NAME] and name it here, or a table".to_owned(),
            None => format!("there is {}", alternatives(named.iter().map(|slot| slot.name.as_str()))),
        };
        if let Some(slot) = named.iter_mut().find(|slot| Some(&slot.name) == near.as_ref()) {
            // It is meant: to call it unused as well would be the same mistake told twice.
            slot.used = true;
        }
        // A key pasted where a name belongs looks like no name, and is not shown.
        let like_a_name =
            name.len() <= 24 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_');
        let message = match near.is_some() || like_a_name {
            true => format!("there is no credential {}", node.shown()),
            false => "there is no credential of this name (not shown)".to_owned(),
        };
        context.out.error(node.at, message, help);
        None
    }
}

fn slot(name: &str, at: At, node: &Node, global: &TlsSettings, context: &mut Context<'_>) -> Slot {
    let table = node.as_table();
    let bound = table.map_or(Bound::Anywhere, |table| Bound::of(table, context));
    let built = table.and_then(|table| credential(name, table, &bound, global, context));
    let accounts = table.map_or(Accounts::One, Accounts::of);
    let redirect_at = table.and_then(|table| table.get("redirect_uri")).map_or(at, |node| node.at);
    Slot { name: name.to_owned(), at, used: false, built, accounts, redirect_at, bound }
}

fn credential(
    name: &str,
    table: &Table,
    bound: &Bound,
    global: &TlsSettings,
    context: &mut Context<'_>,
) -> Option<Credential> {
    let kind = match table.text("type")? {
        "basic" => basic(table, context),
        "bearer" => secrets::source(table, "token", context).map(|token| CredentialKind::Bearer { token }),
        "client_credentials" | "aura" => client_credentials::read(name, table, bound, global, context),
        "authorization_code" | "neon_oauth" => authorization_code::read(name, table, bound, global, context),
        "exec" => exec(table, context),
        "header" => header(table, context),
        _ => None,
    };
    let encoding = match table.text("encoding") {
        Some("base64") => Encoding::Base64,
        _ => Encoding::Plain,
    };
    let account_header = account::header(table, context);
    let kind = kind?;
    Some(Credential {
        name: name.into(),
        encoding,
        // Nobody may have logged in yet, and to wait for that would keep all other routes from serving.
        required: table.flag("required", !matches!(kind, CredentialKind::AuthorizationCode(_))),
        kind,
        lease_timeout: table.duration("lease_timeout").unwrap_or(Duration::from_secs(10)),
        lease_queue: table.integer("lease_queue").and_then(|n| usize::try_from(n).ok()).unwrap_or(1024),
        margin: table.duration("margin"),
        idle_account: table.duration("idle_account"),
        account_header,
    })
}

fn basic(table: &Table, context: &mut Context<'_>) -> Option<CredentialKind> {
    let username = username(table, context);
    let password = secrets::source(table, "password", context);
    Some(CredentialKind::Basic { username: username?, password: password? })
}

fn username(table: &Table, context: &mut Context<'_>) -> Option<String> {
    let node = table.get("username")?;
    let text = node.as_text()?;
    if text.is_empty() {
        context.out.error(node.at, "`username` is empty", "write username = \"neo4j\"");
        return None;
    }
    if text.contains(':') {
        // What stands after the colon may be the password.
        context.out.error(
            node.at,
            "`username` holds a colon, where Basic begins the password (RFC 7617)",
            "write the name alone, and the password in `password`",
        );
        return None;
    }
    Some(text.to_owned())
}

fn exec(table: &Table, context: &mut Context<'_>) -> Option<CredentialKind> {
    let node = table.get("command")?;
    let Value::List(words) = &node.value else {
        return None;
    };
    let command: Vec<String> = words.iter().filter_map(Node::as_text).map(str::to_owned).collect();
    if command.first().is_none_or(String::is_empty) {
        context.out.error(
            node.at,
            "`command` names no program",
            "write command = [\"helper\", \"argument\"]",
        );
        return None;
    }
    let timeout = table.duration("timeout").unwrap_or(Duration::from_secs(10));
    (command.len() == words.len())
        .then(|| CredentialKind::Exec { command: CommandLine::from(command), timeout })
}

/// Fields that the HTTP machinery itself writes (RFC 9110 §7.6.1, RFC 9112 §6).
const NOT_A_CREDENTIAL: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

fn header(table: &Table, context: &mut Context<'_>) -> Option<CredentialKind> {
    let value = secrets::source(table, "value", context);
    let node = table.get("name")?;
    let text = node.as_text()?;
    let Ok(name) = HeaderName::try_from(text) else {
        let message = format!("{} is not a header's name", node.shown());
        context.out.error(node.at, message, "write the name alone, as name = \"X-Api-Key\"");
        return None;
    };
    if NOT_A_CREDENTIAL.contains(&name.as_str()) {
        let message = format!("header `{name}` belongs to the connection and carries no credential");
        context.out.error(node.at, message, "write the name of the header that holds the key");
        return None;
    }
    Some(CredentialKind::Header { name, value: value? })
}
