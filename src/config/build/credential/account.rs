//! Accounts: which a credential has, which one a route carries, and the header in which callers name one.

use std::sync::Arc;

use http::HeaderName;

use super::NOT_A_CREDENTIAL;
use crate::config::context::Context;
use crate::config::diagnostic::{alternatives, nearest};
use crate::config::document::{Node, Table};

/// The accounts that a credential has.
pub(super) enum Accounts {
    /// One, without a name.
    One,
    /// Each of `clients`, as far as their names are known.
    Clients(Vec<String>),
    /// Whoever logs in.
    Logins,
}

/// Headers that have another meaning to the guard, to HTTP or to sidekey.
const TAKEN: [&str; 7] =
    ["authorization", "cookie", "forwarded", "max-forwards", "neo4j-cluster-affinity", "origin", "referer"];
const TAKEN_PREFIXES: [&str; 4] = ["content-", "proxy-", "sec-", "x-forwarded-"];
/// sidekey's own, but for what names an account.
const OWN: [&str; 2] = ["sidekey-token", "sidekey-error"];
/// The longest name of an account, in bytes.
const LONGEST_NAME: usize = 128;

impl Accounts {
    /// Those of the credential that the table describes.
    pub(super) fn of(table: &Table) -> Self {
        match table.text("type") {
            Some("authorization_code" | "neon_oauth") => Self::Logins,
            Some("client_credentials" | "aura") if table.has("clients") => {
                let clients = table.items("clients").into_iter().filter_map(Node::as_table);
                Self::Clients(clients.filter_map(|table| table.text("name").map(str::to_owned)).collect())
            }
            _ => Self::One,
        }
    }
}

/// The account that the node names, or an error: 1 to 128 visible ASCII characters.
pub(in crate::config::build) fn name<'a>(
    node: &'a Node,
    key: &str,
    context: &mut Context<'_>,
) -> Option<&'a str> {
    let text = node.as_text()?;
    let good = !text.is_empty() && text.len() <= LONGEST_NAME && text.bytes().all(|b| b.is_ascii_graphic());
    if !good {
        let message = match text.is_empty() {
            true => format!("`{key}` is empty"),
            false => format!("`{key}`: {} is no name of an account", node.shown()),
        };
        let help = format!("use 1 to {LONGEST_NAME} visible ASCII characters, and no spaces");
        context.out.error(node.at, message, help);
    }
    good.then_some(text)
}

/// The account that a route carries of this credential; none if it cannot, which is reported.
pub(super) fn of_route(
    node: &Node,
    credential: &str,
    accounts: &Accounts,
    context: &mut Context<'_>,
) -> Option<Arc<str>> {
    match accounts {
        Accounts::One => {
            let message = format!("credential `{credential}` has no accounts to choose from");
            context.out.error(node.at, message, "remove it, or take a credential with `clients` or logins");
            None
        }
        Accounts::Logins => name(node, "account", context).map(Arc::from),
        Accounts::Clients(names) => {
            let text = name(node, "account", context)?;
            // A name that stands elsewhere may not be at hand.
            if names.iter().any(|known| known == text) || (node.referenced && !context.check_secrets) {
                return Some(text.into());
            }
            let known = || names.iter().map(String::as_str);
            let help = match nearest(text, known()) {
                Some(near) => format!("write account = \"{}\"", near.escape_debug()),
                None => format!("there is {}", alternatives(known())),
            };
            let message = format!("credential `{credential}` has no client {}", node.shown());
            context.out.error(node.at, message, help);
            None
        }
    }
}

/// The header in which callers name the account; none if there is none or it is wrong, which is reported.
pub(super) fn header(table: &Table, context: &mut Context<'_>) -> Option<HeaderName> {
    const HELP: &str = "write account_header = \"Sidekey-Account\"";
    let node = table.get("account_header")?;
    let text = node.as_text()?;
    if matches!(Accounts::of(table), Accounts::One) {
        // With any other type, the format says already that the key does not belong there.
        if !matches!(table.text("type"), Some("client_credentials" | "aura")) {
            return None;
        }
        context.out.error(
            table.place_of("account_header"),
            "`account_header` has no use: this credential has one account only",
            "remove it, or write several API clients in `clients`",
        );
        return None;
    }
    let Ok(name) = HeaderName::try_from(text) else {
        context.out.error(node.at, format!("{} is not a header's name", node.shown()), HELP);
        return None;
    };
    let taken = [&NOT_A_CREDENTIAL[..], &TAKEN, &OWN].concat().contains(&name.as_str())
        || TAKEN_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
    if taken {
        context.out.error(node.at, format!("header `{name}` has another meaning already"), HELP);
        return None;
    }
    Some(name)
}
