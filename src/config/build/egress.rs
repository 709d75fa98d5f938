//! The way out of the network: `egress_proxy` in the file, `https_proxy` and its like in the environment.

mod address;

use std::sync::Arc;

use self::address::{Parsed, Problem, parse};
use super::{secrets, url};
use crate::config::context::{Context, DefaultEgress, Fault};
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table, Value};
use crate::config::no_proxy::NoProxy;
use crate::config::{AuthorizationServer, Egress, EgressProxy, Endpoint, ProxyLogin, Upstream, reserved};
use crate::secret::{Secret, SecretSource};

const EXAMPLE: &str = "write egress_proxy = \"http://proxy.example.com:3128\"";
/// Lower case first, as curl reads them.
const HTTPS: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
/// Not `HTTP_PROXY`: where a web server starts programs, a caller's header `Proxy` becomes that variable.
const HTTP: [&str; 1] = ["http_proxy"];
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// `server.egress_proxy`, else the environment's proxies. `NO_PROXY` holds for either.
pub(super) fn default(server: &Table, context: &mut Context<'_>) -> DefaultEgress {
    let own = server.get("egress_proxy").map(|node| written(node, context));
    let (https, http) = match own {
        Some(None) => return DefaultEgress::default(),
        Some(Some(proxy)) => (Ok(Some(Arc::clone(&proxy))), Ok(Some(proxy))),
        None => (of_variable(&HTTPS, context), of_variable(&HTTP, context)),
    };
    let faulty = [https.as_ref().err().cloned(), http.as_ref().err().cloned()];
    let (https, http) = (https.unwrap_or_default(), http.unwrap_or_default());
    let mut egress = Egress { https, http, except: NoProxy::default() };
    if egress.https.is_some() || egress.http.is_some() {
        egress.except = exceptions(context);
    }
    DefaultEgress { egress, faulty }
}

/// The upstream with the way that its route takes to it.
pub(super) fn led(mut upstream: Upstream, table: &Table, context: &mut Context<'_>) -> Upstream {
    let egress = of_table(table, std::slice::from_ref(&upstream), context);
    upstream.via = egress.way_to(&upstream);
    upstream
}

/// The endpoint with the way that its credential takes to it.
pub(super) fn led_endpoint(mut endpoint: Endpoint, table: &Table, context: &mut Context<'_>) -> Endpoint {
    endpoint.origin = led(endpoint.origin, table, context);
    endpoint
}

/// The server's endpoints with the way to them, and the way to those that only its metadata names.
pub(super) fn of_login(
    server: Option<AuthorizationServer>,
    table: &Table,
    context: &mut Context<'_>,
) -> (Option<AuthorizationServer>, Egress) {
    let mut server = server;
    let mut known: Vec<Upstream> = Vec::new();
    match &server {
        Some(AuthorizationServer::Known { token_url, revoke_url, .. }) => {
            known.extend(
                [Some(token_url), revoke_url.as_ref()].into_iter().flatten().map(|e| e.origin.clone()),
            );
        }
        Some(AuthorizationServer::Discovered { issuer }) => {
            // Its own form was checked already.
            let node = Node::text(table.place_of("issuer"), issuer.as_str());
            known.extend(
                url::endpoint(&node, "issuer", url::Leave { cleartext: true, link_local: true }, context)
                    .map(|endpoint| endpoint.origin),
            );
        }
        None => {}
    }
    let egress = of_table(table, &known, context);
    if let Some(AuthorizationServer::Known { token_url, revoke_url, .. }) = &mut server {
        token_url.origin.via = egress.way_to(&token_url.origin);
        if let Some(endpoint) = revoke_url {
            endpoint.origin.via = egress.way_to(&endpoint.origin);
        }
    }
    (server, egress)
}

/// What a route or credential says itself, or else the default. `origins`: those that are known to be called.
fn of_table(table: &Table, origins: &[Upstream], context: &mut Context<'_>) -> Egress {
    let Some(entry) = table.entry("egress_proxy") else {
        for origin in origins {
            let index = usize::from(!origin.tls);
            if context.egress.egress.leads_to(origin)
                && let Some(fault) = &context.egress.faulty[index]
            {
                let Fault { variable, message, help } = *fault;
                told_of_variable(variable, message, help, context);
            }
        }
        return context.egress.egress.clone();
    };
    let proxy = written(&entry.node, context);
    let egress = Egress { https: proxy.clone(), http: proxy, except: NoProxy::default() };
    // A URL that is not at hand has a host that stands for any.
    if egress.https.is_some() && !origins.is_empty() && !origins.iter().any(|origin| egress.leads_to(origin))
    {
        context.out.error(
            entry.at,
            "`egress_proxy` has no use: what is on this machine is never reached through a proxy",
            "remove it",
        );
    }
    egress
}

/// The proxy that the file names; none: it says false, or is wrong, which is reported.
fn written(node: &Node, context: &mut Context<'_>) -> Option<Arc<EgressProxy>> {
    let Value::Table(table) = &node.value else {
        let (host, port) = address(node, "egress_proxy", context)?;
        if url::may_not_be_reached(&host, false, node, "egress_proxy", context) {
            return None;
        }
        return Some(Arc::new(EgressProxy { host, port, login: None, allow_link_local: false }));
    };
    let allow_link_local = table.flag("allow_link_local", false);
    let address = table.get("url").and_then(|node| {
        let (host, port) = address(node, "url", context)?;
        let barred = url::may_not_be_reached(&host, allow_link_local, node, "url", context);
        (!barred).then_some((host, port))
    });
    let login = login(table, context);
    let (host, port) = address?;
    Some(Arc::new(EgressProxy { host, port, login: login?, allow_link_local }))
}

/// None if it is wrong; `Some(None)` if there is none.
fn login(table: &Table, context: &mut Context<'_>) -> Option<Option<ProxyLogin>> {
    for (given, missing, write) in [
        ("username", "password", "write password = { env = \"NAME\" } or { file = \"PATH\" } too"),
        ("password", "username", "write username = \"NAME\" too"),
    ] {
        if table.has(given) && !table.has(missing) {
            let message = format!("`{given}` stands without `{missing}`");
            context.out.error(table.place_of(given), message, write);
            return None;
        }
    }
    let Some(node) = table.get("username") else { return Some(None) };
    let password = secrets::source(table, "password", context);
    let username = node.as_text()?;
    if username.contains(':') {
        // What stands after the colon may be the password.
        context.out.error(
            node.at,
            "`username` holds a colon, where Basic begins the password (RFC 7617)",
            "write the name alone, and the password in `password`",
        );
        return None;
    }
    if let Some(SecretSource::Exec(_)) = &password {
        context.out.error(
            table.place_of("password"),
            "`password` of a proxy cannot come from a command, which would run once for each connection",
            "write password = { env = \"NAME\" } or { file = \"PATH\" }",
        );
        return None;
    }
    Some(Some(ProxyLogin { username: Secret::new(username), password: password? }))
}

fn address(node: &Node, key: &str, context: &mut Context<'_>) -> Option<(String, u16)> {
    let text = node.as_text()?;
    let example = match key {
        "url" => "write url = \"http://proxy.example.com:3128\"",
        _ => EXAMPLE,
    };
    let with_scheme = match node.shown().starts_with('`') {
        true => format!("write {key} = \"http://{}\"", text.escape_debug()),
        false => example.to_owned(),
    };
    let (message, help) = match parse(text) {
        Ok(Parsed { login: None, host, port }) => return Some((host, port)),
        Ok(_) | Err(Problem::UserInfo) => (
            format!("`{key}` must not hold a user name or password (not shown)"),
            "write egress_proxy = { url = \"http://HOST:PORT\", username = \"NAME\", password = { env = \"NAME\" } }",
        ),
        Err(Problem::NoScheme) => (format!("`{key}`: {} has no scheme", node.shown()), with_scheme.as_str()),
        Err(Problem::Tls) => (
            format!("`{key}`: sidekey speaks to a proxy in clear text, and TLS to the upstream through it"),
            "write the proxy's http:// address",
        ),
        Err(Problem::Scheme) => (
            format!("`{key}`: sidekey speaks to HTTP proxies only"),
            "write the address of one that takes CONNECT, as \"http://proxy.example.com:3128\"",
        ),
        Err(Problem::More) => (
            format!("`{key}` names a host and a port, and nothing more"),
            "write it without path, `?…` and `#…`",
        ),
        Err(Problem::Malformed) => {
            (format!("`{key}`: {} is not the address of a proxy", node.shown()), example)
        }
    };
    context.out.error(node.at, message, help);
    None
}

/// The proxy that the first of the variables which is set names.
fn of_variable(names: &[&'static str], context: &Context<'_>) -> Result<Option<Arc<EgressProxy>>, Fault> {
    let Some(variable) = names.iter().copied().find(|name| context.environment.has(name)) else {
        return Ok(None);
    };
    let fault = |message, help| Fault { variable, message, help };
    const HELP: &str = "give it as http://HOST:PORT, or write egress_proxy in [server]";
    let text = context.environment.secret(variable).map_err(|_| fault("is not one line of text", HELP))?;
    // Other programs take it without a scheme, too.
    let whole = match text.expose().contains("://") {
        true => text,
        false => Secret::new(format!("http://{}", text.expose())),
    };
    let Parsed { host, port, login } = parse(whole.expose()).map_err(|problem| match problem {
        Problem::Tls => {
            fault("is a proxy that speaks TLS itself (not shown); sidekey speaks to one in clear text", HELP)
        }
        Problem::Scheme => fault("is no HTTP proxy (not shown), and sidekey speaks to no others", HELP),
        Problem::UserInfo => fault("holds a user name or password that cannot be read (not shown)", HELP),
        Problem::More | Problem::NoScheme | Problem::Malformed => {
            fault("is not the address of a proxy (not shown)", HELP)
        }
    })?;
    if host.parse().is_ok_and(|address| reserved(address).is_some()) {
        const OTHER: &str = "give another one, or, knowingly, write egress_proxy = { url = \"…\", allow_link_local = true } \
                             in [server]";
        return Err(fault("names a proxy at a link-local address, or at no machine's (not shown)", OTHER));
    }
    Ok(Some(Arc::new(EgressProxy { host, port, login, allow_link_local: false })))
}

/// A command about an instance that runs elsewhere has an environment of its own, in which this stops nothing.
fn told_of_variable(
    variable: &'static str,
    message: &'static str,
    help: &'static str,
    context: &mut Context<'_>,
) {
    match context.check_secrets {
        true => context.out.error(At::Variable(variable), message, help),
        false => context.out.warn(At::Variable(variable), message, help),
    }
}

fn exceptions(context: &mut Context<'_>) -> NoProxy {
    let Some(variable) = NO_PROXY.into_iter().find(|name| context.environment.has(name)) else {
        return NoProxy::default();
    };
    let Ok(text) = context.environment.secret(variable) else {
        told_of_variable(variable, "is not one line of text", "write hosts, separated by commas", context);
        return NoProxy::default();
    };
    let (list, faulty) = NoProxy::read(text.expose());
    for place in faulty {
        context.out.warn(
            At::Variable(variable),
            format!("its entry {place} is no host, address or range (not shown), and has no effect"),
            "write it as example.com, 10.0.0.1 or 10.0.0.0/8",
        );
    }
    list
}
