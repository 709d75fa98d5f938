//! URLs that sidekey calls: upstreams and token endpoints. A URL's text is shown only where it holds no secret.

use http::HeaderValue;
use url::{Host, Url};

use super::names;
use crate::config::context::Context;
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table};
use crate::config::{Endpoint, Reserved, Upstream, reserved_unless};

/// Where a table lets its URLs lead, knowingly.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Leave {
    /// In clear text to other machines.
    pub(super) cleartext: bool,
    /// To link-local addresses, and those of metadata services.
    pub(super) link_local: bool,
}

impl Leave {
    /// What the table says.
    pub(super) fn of(table: &Table) -> Self {
        Self {
            cleartext: table.flag("allow_cleartext", false),
            link_local: table.flag("allow_link_local", false),
        }
    }
}

/// The upstream that the node gives, or an error.
pub(super) fn upstream(node: &Node, leave: Leave, context: &mut Context<'_>) -> Option<Upstream> {
    let url = parse(node, "upstream", context)?;
    if url.query().is_some() || url.fragment().is_some() {
        let help = "write it without `?…` and `#…`";
        context.out.error(node.at, "`upstream` may end in a path, and in nothing more", help);
        return None;
    }
    let base_path = url.path().trim_end_matches('/').to_owned();
    origin(&url, base_path, node, "upstream", leave, context)
}

/// The token endpoint that the node gives, or an error.
pub(super) fn endpoint(node: &Node, key: &str, leave: Leave, context: &mut Context<'_>) -> Option<Endpoint> {
    let url = parse(node, key, context)?;
    if url.fragment().is_some() {
        context.out.error(node.at, format!("`{key}` may not have a fragment"), "write it without `#…`");
        return None;
    }
    let path_and_query = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let origin = origin(&url, String::new(), node, key, leave, context)?;
    Some(Endpoint { origin, path_and_query })
}

/// An issuer identifier (RFC 8414 §2): kept exactly as it is written, for it is only ever compared.
pub(super) fn issuer(node: &Node, leave: Leave, context: &mut Context<'_>) -> Option<String> {
    let url = parse(node, "issuer", context)?;
    if url.query().is_some() || url.fragment().is_some() {
        let help = "write the issuer identifier as the server's metadata has it, without `?…` and `#…`";
        context.out.error(node.at, "`issuer` has a query or fragment, which no issuer has (RFC 8414)", help);
        return None;
    }
    origin(&url, String::new(), node, "issuer", leave, context)?;
    node.as_text().map(str::to_owned)
}

/// A page for the browser: kept as it is written.
pub(super) fn page(node: &Node, key: &str, leave: Leave, context: &mut Context<'_>) -> Option<String> {
    endpoint(node, key, leave, context)?;
    node.as_text().map(str::to_owned)
}

fn parse(node: &Node, key: &str, context: &mut Context<'_>) -> Option<Url> {
    let text = node.as_text()?;
    let (message, help) = match problem(text) {
        None => match Url::parse(text) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => userinfo(key),
            Ok(url) if url.port() == Some(0) => {
                (format!("`{key}`: port 0 cannot be called"), "write the port that the server has".to_owned())
            }
            Ok(url) if url.host().is_some() => return Some(url),
            Ok(_) => (format!("`{key}`: {} has no host", node.shown()), example(key)),
            Err(error) => (format!("`{key}`: {} is not a URL: {error}", node.shown()), example(key)),
        },
        Some(Problem::UserInfo) => userinfo(key),
        Some(Problem::Character) => {
            (format!("`{key}` holds a space, a backslash or a control character"), example(key))
        }
        Some(Problem::DotSegment) => (
            format!("`{key}`: {} has a dot segment", node.shown()),
            "write the path as it is meant".to_owned(),
        ),
        Some(Problem::NoScheme) => {
            let help = match node.referenced || text.contains(['@', '?', '#']) {
                true => example(key),
                false => format!("write {key} = \"https://{text}\""),
            };
            (format!("`{key}`: {} has no scheme", node.shown()), help)
        }
        Some(Problem::Scheme(scheme)) => scheme_problem(key, scheme),
    };
    context.out.error(node.at, message, help);
    None
}

enum Problem<'a> {
    UserInfo,
    Character,
    DotSegment,
    NoScheme,
    Scheme(&'a str),
}

/// What the URL parser would put right in silence, or show in its error.
fn problem(text: &str) -> Option<Problem<'_>> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Some(if text.contains('@') { Problem::UserInfo } else { Problem::NoScheme });
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some(Problem::UserInfo);
    }
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Some(Problem::Scheme(scheme));
    }
    if rest.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Some(Problem::Character);
    }
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| matches!(segment, "." | "..")).then_some(Problem::DotSegment)
}

fn userinfo(key: &str) -> (String, String) {
    (
        format!("`{key}` must not hold a user name or password (not shown)"),
        "write the URL without it, and a credential with type = \"basic\"".to_owned(),
    )
}

fn scheme_problem(key: &str, scheme: &str) -> (String, String) {
    let help = match scheme.to_ascii_lowercase().as_str() {
        "neo4j+s" | "bolt+s" => "write the HTTPS address: \"https://ID.databases.neo4j.io\"",
        "neo4j" | "bolt" => "write the HTTP address: \"http://HOST:7474\"",
        "neo4j+ssc" | "bolt+ssc" => {
            "write the HTTPS address: \"https://HOST:7473\", and its certificate in tls = { ca = \"PATH\" }"
        }
        _ => "write https:// (or http://)",
    };
    let shown = if scheme.len() <= 12 { format!(" `{scheme}`") } else { String::new() };
    (format!("`{key}`: sidekey does not speak{shown}, only HTTP"), help.to_owned())
}

fn example(key: &str) -> String {
    format!("write {key} = \"https://api.example.com\"")
}

fn origin(
    url: &Url,
    base_path: String,
    node: &Node,
    key: &str,
    leave: Leave,
    context: &mut Context<'_>,
) -> Option<Upstream> {
    let tls = url.scheme() == "https";
    let (host, in_header) = match url.host()? {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_owned();
            (name.clone(), name)
        }
        Host::Ipv4(address) => (address.to_string(), address.to_string()),
        Host::Ipv6(address) => (address.to_string(), format!("[{address}]")),
    };
    if !tls && !leave.cleartext && !names::is_this_machine(&host) {
        context.out.error(
            node.at,
            format!("`{key}`: the credential would go over the network to {host} in clear text"),
            match node.at {
                At::Variable(_) => "give an https:// address, or write a file with allow_cleartext = true",
                _ => "write https://, or, knowingly, allow_cleartext = true",
            },
        );
        return None;
    }
    if may_not_be_reached(&host, leave.link_local, node, key, context) {
        return None;
    }
    let port = url.port_or_known_default()?;
    let host_header = match url.port() {
        Some(port) => format!("{in_header}:{port}"),
        None => in_header,
    };
    let Ok(host_header) = HeaderValue::try_from(host_header) else {
        context.out.error(node.at, format!("`{key}`: this is not a host name"), example(key));
        return None;
    };
    let allow_link_local = leave.link_local;
    Some(Upstream { tls, host, port, base_path, host_header, via: None, allow_link_local })
}

/// Is it an address that nothing goes to? Reports it. What a name leads to shows when it is looked up.
pub(super) fn may_not_be_reached(
    host: &str,
    allow_link_local: bool,
    node: &Node,
    key: &str,
    context: &mut Context<'_>,
) -> bool {
    let Ok(address) = host.parse() else { return false };
    let Some(why) = reserved_unless(address, allow_link_local) else { return false };
    let help = match (why, node.at) {
        (Reserved::NoMachine, _) => "write the address of the service; this machine's is 127.0.0.1",
        (_, At::Variable(_)) => {
            "give another address, or, knowingly, write a file with allow_link_local = true beside it"
        }
        _ if key == "egress_proxy" => {
            "correct it, or, knowingly, write egress_proxy = { url = \"…\", allow_link_local = true }"
        }
        _ => "correct it, or, knowingly, write allow_link_local = true",
    };
    context.out.error(node.at, format!("`{key}`: {address} is {why}, where credentials must not go"), help);
    true
}
