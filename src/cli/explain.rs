//! `sidekey explain`: what would happen to a request, or which rule refuses it. No network, no secret.

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::{ConfigArg, Failure, load, say};
use crate::app::description::{kind, upstream_url};
use crate::config::{Bind, CallerId, Config, CredentialKind, Environment, ListenId, Listener, LoadOptions};
use crate::credential::DEFAULT_ACCOUNT;
use crate::guard::Refused;
use crate::guard::callers::Callers;
use crate::proxy::cors;
use crate::proxy::headers::{self, Received};
use crate::proxy::read_only::{self, Mode};
use crate::proxy::{Arrival, Plan, ProxyError, Refusal, Rules};
use crate::secret::likeness::masked;

/// A request to explain.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The request's method.
    method: Method,
    /// Its URL as the app would call it: `http://127.0.0.1:7600/aura/v1/instances`, or a path on the first shared listener.
    url: String,
    /// A header of the request, `Name: value`; may be given more than once.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The caller that it is from, where the configuration has some.
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// The account that the caller names, in the header that the route's credential has for it.
    #[arg(long, value_name = "NAME")]
    account: Option<HeaderValue>,
}

pub(super) fn explain(args: &ExplainArgs, environment: &Environment) -> Result<(), Failure> {
    let config = load(&args.config, environment, LoadOptions { check_secrets: false })?.config;
    let (listener, authority, path) = locate(&config, &args.url)?;
    let mut request = Request::new(());
    *request.method_mut() = args.method.clone();
    *request.uri_mut() = path;
    for (name, value) in &args.headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad_url(&args.url))?;
        request.headers_mut().insert(HOST, host);
    }
    let (mut head, ()) = request.into_parts();
    say(format_args!("request     {} {}", args.method, args.url));
    say(format_args!("listener    {}", shown(&config.server.listeners[listener])));
    let rules = Rules::new(&config, Callers::unread(&config));
    let from = caller(&config, &rules, args.caller.as_deref())?;
    let arrival = Arrival { listener, peer: None, remote: None };
    if let Some(account) = &args.account {
        name_account(&rules, arrival, &mut head, account)?;
    }
    if let Some(page) = rules.page_of(arrival, &head) {
        say(format_args!("page        of {:?}, which the route is open to", page.origin()));
        if cors::is_preflight(&head) {
            say("answered    204 by sidekey itself: a preflight goes no further");
            return Ok(());
        }
    }
    let plan = match rules.plan_for(arrival, &head, |_| from) {
        Ok(plan) => plan,
        Err(Refusal { error, route, .. }) => {
            say(format_args!(
                "refused     {} {}: {}",
                error.status().as_u16(),
                error.code(),
                error.public_text()
            ));
            let route = route.map(|route| &*config.routes[route].name);
            if let Some(rule) = rule_of(&error, route) {
                say(format_args!("rule        {rule}"));
            }
            if let (ProxyError::Refused(Refused::CallerUnknown(_)), None) = (&error, &args.caller) {
                let names: Vec<_> = config.callers.iter().map(|caller| &*caller.name).collect();
                say(format_args!(
                    "            with --caller NAME it is from one of these: {}",
                    names.join(", ")
                ));
            }
            return Err(Failure::No);
        }
    };
    let Plan { route, index, target, account, view, caller, asks_for_local_token, access } = plan;
    if let Some(caller) = caller {
        say(format_args!("caller      {}", rules.callers().name(caller)));
    }
    say(format_args!("route       {}", route.name));
    if asks_for_local_token {
        say(
            "answered    by sidekey itself, with a token that is worth nothing anywhere else (local_token_endpoint)",
        );
        return Ok(());
    }
    let origin = upstream_url(route);
    let origin = origin.strip_suffix(&route.upstream.base_path).unwrap_or(&origin);
    say(format_args!("upstream    {} {}", args.method, masked(&format!("{origin}{target}"))));
    if let Some(proxy) = &route.upstream.via {
        say(format_args!("through     {proxy} (egress proxy)"));
    }
    let before = head.headers.clone();
    let received =
        Received::of(&head, view.tls, rules.reserved(index).map(|names| &names[..]).unwrap_or_default());
    headers::to_upstream(&mut head.headers, route.provider, &route.upstream, received);
    match access.mode {
        Mode::Unsaid => {}
        Mode::InHeader => read_only::set_in_header(&mut head.headers),
        Mode::InBody { begins: true } => say("body        its accessMode is set to READ (read_only)"),
        Mode::InBody { begins: false } => say("body        its accessMode is removed (read_only)"),
    }
    if access.within {
        say("transaction passes only if it was begun on this route (read_only)");
    }
    match route.credential.map(|id| &config.credentials[id]) {
        None => say("credential  none"),
        Some(credential) => {
            say(format_args!("credential  {} ({})", credential.name, kind(&credential.kind)));
            let named = account.as_ref().and_then(|account| account.to_str().ok());
            let is_login = matches!(credential.kind, CredentialKind::AuthorizationCode(_));
            let account = named.or(route.account.as_deref()).or(is_login.then_some(DEFAULT_ACCOUNT));
            if let Some(account) = account {
                say(format_args!("account     {account}"));
            }
            let (name, value) = injected(&credential.kind);
            head.headers.insert(name, HeaderValue::from_static(value));
        }
    }
    show_headers(&before, &head.headers);
    Ok(())
}

/// What of the configuration refuses a request; none: nothing in it would let such a one pass.
fn rule_of(error: &ProxyError, route: Option<&str>) -> Option<String> {
    Some(match error {
        ProxyError::Denied { whose, rule } => format!("{rule} ({whose})"),
        ProxyError::Refused(Refused::ForbiddenHost) => {
            "hosts does not name this Host ([server]), nor does `host` of any route".to_owned()
        }
        ProxyError::Refused(Refused::CrossSite(_)) => match route {
            Some(route) => format!("cors does not name this page's origin ([route.{route}])"),
            None => "no route takes it, and only a route's `cors` lets web pages in".to_owned(),
        },
        ProxyError::Refused(Refused::CallerUnknown(_) | Refused::LocalToken(_)) => {
            "there are callers ([caller.NAME]), and it is from none of them".to_owned()
        }
        ProxyError::NoRoute => "no `listen`, `host` or `path` of any route matches".to_owned(),
        ProxyError::TargetTooLong => "max_target ([server])".to_owned(),
        ProxyError::HeadersTooLarge => "max_headers ([server])".to_owned(),
        _ => return None,
    })
}

/// Who the request is from: whom `--caller` names, else nobody who is known.
fn caller(
    config: &Config,
    rules: &Rules,
    name: Option<&str>,
) -> Result<Result<Option<CallerId>, Refused>, Failure> {
    let names = || config.callers.iter().map(|caller| &*caller.name).collect::<Vec<_>>().join(", ");
    match name {
        None if config.callers.is_empty() => Ok(Ok(None)),
        None => Ok(Err(Refused::CallerUnknown("name one with --caller"))),
        Some(_) if config.callers.is_empty() => {
            Err(Failure::Configuration("there is no [caller.NAME]: leave out --caller".to_owned()))
        }
        Some(name) => match rules.callers().find(name) {
            Some(id) => Ok(Ok(Some(id))),
            None => Err(Failure::Configuration(format!("there is no caller {name:?}; there is {}", names()))),
        },
    }
}

/// Names an account as the caller would: in the header that the route's credential has for it.
fn name_account(
    rules: &Rules,
    arrival: Arrival,
    head: &mut Parts,
    account: &HeaderValue,
) -> Result<(), Failure> {
    let Some(route) = rules.route_of(arrival, head) else { return Ok(()) };
    let Some(name) = rules.account_header(route) else {
        let route = &rules.routes()[route].name;
        return Err(Failure::Configuration(format!(
            "callers of route {route} name no account; write account_header in its credential, or leave --account out"
        )));
    };
    head.headers.insert(name.clone(), account.clone());
    Ok(())
}

fn show_headers(before: &HeaderMap, after: &HeaderMap) {
    for (name, value) in after {
        let text = String::from_utf8_lossy(value.as_bytes());
        let shown = if name == COOKIE { "(redacted)".into() } else { masked(&text) };
        say(format_args!("header      {name}: {shown}"));
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        say(format_args!("removed     {name}"));
    }
}

/// The header that a credential sets, its secret left out.
fn injected(kind: &CredentialKind) -> (HeaderName, &'static str) {
    match kind {
        CredentialKind::Basic { .. } => (http::header::AUTHORIZATION, "Basic (redacted)"),
        CredentialKind::Header { name, .. } => (name.clone(), "(redacted)"),
        CredentialKind::Bearer { .. }
        | CredentialKind::ClientCredentials(_)
        | CredentialKind::AuthorizationCode(_)
        | CredentialKind::Exec { .. } => (http::header::AUTHORIZATION, "Bearer (redacted)"),
    }
}

/// The listener that a URL leads to, the authority to name in Host, and the target.
fn locate(config: &Config, url: &str) -> Result<(ListenId, Authority, Uri), Failure> {
    let listeners = &config.server.listeners;
    let uri: Uri = url.parse().map_err(|_| bad_url(url))?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let path: Uri = target.parse().map_err(|_| bad_url(url))?;
    let Some(authority) = uri.authority() else {
        let first = listeners.iter().position(|listener| listener.shared).unwrap_or(0);
        let bind = &listeners[first].bind;
        let authority = bind.tcp().map_or_else(|| "localhost".to_owned(), |address| address.to_string());
        return Ok((first, authority.parse().map_err(|_| bad_url(url))?, path));
    };
    let scheme = uri.scheme_str().unwrap_or_default();
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let found = listeners.iter().position(|one| one.bind.tcp().is_some_and(|at| at.port() == port));
    // Where a socket that is yet to be handed over listens is not known here.
    let unseen = |one: &Listener| matches!(one.bind, Bind::Systemd { kind: None, .. });
    let found = found.or_else(|| listeners.iter().position(unseen));
    let listener = found.ok_or_else(|| {
        let all: Vec<_> = listeners.iter().map(shown).collect();
        Failure::Configuration(format!(
            "nothing listens on port {port}; the listeners are: {}",
            all.join(", ")
        ))
    })?;
    let spoken = listeners[listener].scheme();
    if scheme != spoken {
        let text = format!("callers speak {spoken} there; write {spoken}://{authority}{target}");
        return Err(Failure::Configuration(text));
    }
    Ok((listener, authority.clone(), path))
}

fn shown(listener: &Listener) -> String {
    match &listener.bind {
        Bind::Tcp(address) if listener.tls.is_some() => format!("{}://{address}", listener.scheme()),
        bind => bind.to_string(),
    }
}

fn bad_url(url: &str) -> Failure {
    Failure::Configuration(format!("{url:?} is no URL; write http://127.0.0.1:7600/aura/v1/instances, say"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
    let value =
        value.trim().parse().map_err(|_| "the value has a character that no header may carry".to_owned())?;
    Ok((name, value))
}
