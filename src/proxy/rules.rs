//! What may pass and where it goes: everything that is decided about a request before a token is needed.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method};

use super::addresses::View;
use super::cors::{Cors, Page};
use super::denial::{Rule, Whose};
use super::error::ProxyError;
use super::framing;
use super::path;
use super::reach::Reach;
use super::read_only::{self, Access};
use super::route::{self, RouteTable};
use super::shared::Slot;
use super::token_request::TokenRefusal;
use crate::config::{CallerId, Config, CredentialKind, ListenId, Peer, Provider, Route};
use crate::guard::callers::Callers;
use crate::guard::{self, Guard, Refused};
use crate::rights::{self, Rights};

/// The guard and the routes of a configuration.
#[derive(Debug)]
pub struct Rules {
    guard: Guard,
    callers: Callers,
    /// By caller: what it may use.
    reaches: Vec<Reach>,
    table: RouteTable,
    routes: Vec<Route>,
    /// By listener: is it reached by a name, which could be a lie?
    by_name: Vec<bool>,
    /// By listener: does any route that may match there keep the case of header names?
    keep_case: Vec<bool>,
    /// The longest path and query.
    max_target: usize,
    /// The most lines of a header. Of HTTP/1.1, hyper counts them.
    max_headers: usize,
    /// Does each request get an id, upstream and in its answer?
    gives_request_ids: bool,
    /// By listener: do callers speak TLS to it?
    tls: Vec<bool>,
    /// By route: the web pages that it is open to.
    cors: Vec<Option<Cors>>,
    /// Is any route open to any?
    is_open: bool,
    /// By route: the header in which callers name the account.
    account_headers: Vec<Option<HeaderName>>,
    /// By route: the headers that are not for callers to send upstream, if there are any.
    reserved: Vec<Option<Arc<[HeaderName]>>>,
}

/// The longest name of an account.
const MAX_ACCOUNT: usize = 128;

fn reserved(config: &Config, route: &Route) -> Option<Arc<[HeaderName]>> {
    let own = own_header(config, route).into_iter();
    let names: Vec<_> = own.chain(account_header(config, route)).collect();
    (!names.is_empty()).then(|| names.into())
}

fn own_header(config: &Config, route: &Route) -> Option<HeaderName> {
    match &config.credentials[route.credential?].kind {
        CredentialKind::Header { name, .. } => Some(name.clone()),
        _ => None,
    }
}

fn cors(config: &Config, route: &Route) -> Option<Cors> {
    let own = own_header(config, route).into_iter().collect();
    route.cors.as_ref().map(|cors| Cors::new(cors, own, account_header(config, route)))
}

fn account_header(config: &Config, route: &Route) -> Option<HeaderName> {
    config.credentials[route.credential?].account_header.clone()
}

/// Does any route that may match on a listener keep the case of header names?
fn keeps_case(config: &Config, listener: ListenId) -> bool {
    let may_match = |route: &Route| {
        let matches = &route.matches;
        let elsewhere = config.routes.iter().any(|route| route.matches.listeners.contains(&listener));
        if elsewhere {
            matches.listeners.contains(&listener)
        } else {
            !matches.hosts.is_empty() || !matches.paths.is_empty()
        }
    };
    config.routes.iter().any(|route| route.preserve_header_case && may_match(route))
}

/// How a connection came in.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// On this open listener.
    pub slot: Slot,
    /// From this process, of a Unix socket, where that is known.
    pub peer: Option<Peer>,
    /// From this address, of TCP.
    pub remote: Option<SocketAddr>,
}

/// How a request came in.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// On this listener.
    pub listener: ListenId,
    /// From this process, of a Unix socket, where that is known.
    pub peer: Option<Peer>,
    /// From this address, of TCP.
    pub remote: Option<SocketAddr>,
}

/// Why a request goes nowhere, and what is known of it.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: ProxyError,
    /// In whose error shape to say so.
    pub provider: Provider,
    /// Who it is from, if that was found out.
    pub caller: Option<CallerId>,
    /// The index of the route that it would have taken.
    pub route: Option<usize>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The route that it takes.
    pub route: &'a Route,
    /// The route's index.
    pub index: usize,
    /// Path and query upstream.
    pub target: PathAndQuery,
    /// The account that the caller names: visible ASCII.
    pub account: Option<HeaderValue>,
    /// How the caller reached it.
    pub view: View<'a>,
    /// What is to be done so that it only reads, on a route that only reads.
    pub access: Access,
    /// Who it is from; none: callers are not told apart, or the client of a token request has yet to show it.
    pub caller: Option<CallerId>,
    /// It is for sidekey itself, and nothing of it goes upstream: a client fetches a token.
    pub asks_for_local_token: bool,
}

impl Rules {
    /// The rules of a configuration.
    pub fn new(config: &Config, callers: Callers) -> Self {
        let hosts =
            config.server.hosts.iter().chain(config.routes.iter().flat_map(|route| &route.matches.hosts));
        let listeners = &config.server.listeners;
        Self {
            guard: Guard::new(hosts.map(String::as_str)),
            callers,
            reaches: config.callers.iter().map(|caller| Reach::of(caller, config)).collect(),
            table: RouteTable::new(&config.routes, listeners.len()),
            routes: config.routes.clone(),
            reserved: config.routes.iter().map(|route| reserved(config, route)).collect(),
            cors: config.routes.iter().map(|route| cors(config, route)).collect(),
            is_open: config.routes.iter().any(|route| route.cors.is_some()),
            account_headers: config.routes.iter().map(|route| account_header(config, route)).collect(),
            keep_case: (0..listeners.len()).map(|listener| keeps_case(config, listener)).collect(),
            max_target: config.server.limits.target,
            max_headers: config.server.limits.headers,
            gives_request_ids: config.server.request_id,
            by_name: listeners.iter().map(|listener| !listener.bind.is_unix()).collect(),
            tls: listeners.iter().map(|listener| listener.tls.is_some()).collect(),
        }
    }

    /// The callers of the configuration.
    pub fn callers(&self) -> &Callers {
        &self.callers
    }

    /// Does each request get an id, upstream and in its answer?
    pub fn gives_request_ids(&self) -> bool {
        self.gives_request_ids
    }

    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The web page that a request comes from, where its route is open to that page's origin: then it may read the
    /// answer, whatever that is.
    pub fn page_of(&self, arrival: Arrival, head: &Parts) -> Option<Page<'_>> {
        if !self.is_open {
            return None;
        }
        let host = self.guard.host(head, self.by_name[arrival.listener]).ok()?;
        let path = head.uri.path();
        let judged = path::judge(path);
        let normal = judged.as_ref().map_or(path, path::Judged::normal);
        let cors = self.cors[self.table.find(arrival.listener, &host, normal)?.route].as_ref()?;
        let origin = guard::page_of(head, Some(cors.origins())).ok()??;
        Some(Page { cors, origin })
    }

    /// The route that a request takes, if its host is one of ours and one matches.
    pub fn route_of(&self, arrival: Arrival, head: &Parts) -> Option<usize> {
        let host = self.guard.host(head, self.by_name[arrival.listener]).ok()?;
        let path = path::judge(head.uri.path()).ok()?;
        self.table.find(arrival.listener, &host, path.normal()).map(|found| found.route)
    }

    /// Does any route that may match on a listener keep the case of header names?
    pub fn keeps_header_case(&self, listener: ListenId) -> bool {
        self.keep_case[listener]
    }

    /// In whose error shape to speak to whoever sent this.
    pub fn provider_of(&self, arrival: Arrival, head: &Parts) -> Provider {
        self.route_of(arrival, head).map_or(Provider::Generic, |route| self.routes[route].provider)
    }

    /// May a caller use a route at all?
    pub fn may_use(&self, caller: CallerId, route: usize) -> bool {
        self.reaches[caller].routes[route]
    }

    /// The header in which a route's callers name the account.
    pub fn account_header(&self, route: usize) -> Option<&HeaderName> {
        self.account_headers[route].as_ref()
    }

    /// The headers that a route's callers may not send upstream: its credential's own, and the one in which they name
    /// the account.
    pub fn reserved(&self, route: usize) -> Option<&Arc<[HeaderName]>> {
        self.reserved[route].as_ref()
    }

    /// The account that a caller names, where it may and must.
    fn account(&self, index: usize, head: &Parts) -> Result<Option<HeaderValue>, ProxyError> {
        let (Some(name), route) = (&self.account_headers[index], &self.routes[index]) else {
            return Ok(None);
        };
        let mut values = head.headers.get_all(name).iter();
        let Some(value) = values.next() else {
            let text = "The request names no account; name one in the header that is for it.";
            return if route.account.is_some() { Ok(None) } else { Err(ProxyError::BadRequest(text)) };
        };
        if values.next().is_some() {
            return Err(ProxyError::BadRequest("The request names more than one account."));
        }
        let account = value.as_bytes();
        if account.is_empty() || account.len() > MAX_ACCOUNT || !account.iter().all(u8::is_ascii_graphic) {
            return Err(ProxyError::BadRequest("What the request names is no account's name."));
        }
        if route.account.as_ref().is_some_and(|only| only.as_bytes() != account) {
            let whose = Whose::Route(Arc::clone(&route.name));
            return Err(ProxyError::Denied { whose, rule: Rule::Account });
        }
        Ok(Some(value.clone()))
    }

    /// May a request pass that takes this route? Says what is to be done so that it only reads, where it may do no more.
    /// `path`: normalized, behind the route's prefix.
    fn permit(
        &self,
        route: &Route,
        caller: Option<CallerId>,
        head: &Parts,
        path: &str,
    ) -> Result<Access, ProxyError> {
        // The prefix was the whole path.
        let path = if path.is_empty() { "/" } else { path };
        let whose = || Whose::Route(Arc::clone(&route.name));
        if route.read_only || route.rights.are_limited() {
            judge(&route.rights, head, path, whose)?;
        }
        if let Some(caller) = caller
            && self.reaches[caller].rights.are_limited()
        {
            let whose = || Whose::Caller(Arc::clone(self.callers.name(caller)));
            judge(&self.reaches[caller].rights, head, path, whose)?;
        }
        if !route.read_only {
            return Ok(Access::ANY);
        }
        read_only::access(route.provider, head, path)
            .ok_or_else(|| ProxyError::Denied { whose: whose(), rule: Rule::ReadOnly })
    }

    /// What a caller asks for is beyond what it may use.
    fn beyond_reach(&self, caller: Option<CallerId>, rule: Rule) -> ProxyError {
        let name = caller.map_or_else(|| "".into(), |caller| Arc::clone(self.callers.name(caller)));
        ProxyError::Denied { whose: Whose::Caller(name), rule }
    }

    /// Where a request goes, or why it goes nowhere.
    pub fn plan(&self, arrival: Arrival, head: &Parts) -> Result<Plan<'_>, Refusal> {
        self.plan_for(arrival, head, |route| {
            let route = route.map(|route| &*self.routes[route].name);
            self.callers.identify(&head.headers, arrival.peer, route)
        })
    }

    /// The same for whomever `identify` says that it is from, of a request on the route that it is given.
    pub fn plan_for(
        &self,
        arrival: Arrival,
        head: &Parts,
        identify: impl FnOnce(Option<usize>) -> Result<Option<CallerId>, Refused>,
    ) -> Result<Plan<'_>, Refusal> {
        let Arrival { listener, .. } = arrival;
        let path = head.uri.path();
        let judged = path::judge(path);
        let ours = self.guard.host(head, self.by_name[listener]);
        let host = ours.as_deref().unwrap_or_default();
        // Whose error shape a path gets that has no meaning is decided by how it looks.
        let found = self.table.find(listener, host, judged.as_ref().map_or(path, path::Judged::normal));
        let provider = found.map_or(Provider::Generic, |found| self.routes[found.route].provider);
        let route = found.map(|found| found.route);
        let refusal = |error, caller| Refusal { error, provider, caller, route };
        ours.as_ref().map_err(|refused| refusal(refused.clone().into(), None))?;
        let cors = route.and_then(|route| self.cors[route].as_ref());
        guard::admit_page(head, cors.map(Cors::origins)).map_err(|refused| refusal(refused.into(), None))?;
        let asks_for_local_token = judged.as_ref().ok().zip(found).is_some_and(|(judged, found)| {
            let own = self.routes[found.route].local_token_endpoint.as_deref();
            own.is_some_and(|own| found.rest(judged.normal()) == own)
        });
        let caller = match asks_for_local_token {
            // What it shows there is for the endpoint to judge.
            true => self.callers.identify_otherwise(&head.headers, arrival.peer),
            false => identify(route).map_err(|refused| refusal(refused.into(), None))?,
        };
        let refuse = |error| refusal(error, caller);
        let ambiguous = |ambiguous: path::Ambiguous| refuse(ProxyError::BadRequest(ambiguous.text()));
        let judged = judged.map_err(ambiguous)?;
        let found = found.ok_or_else(|| refuse(ProxyError::NoRoute))?;
        let route = &self.routes[found.route];
        let reach = caller.map(|caller| &self.reaches[caller]);
        if !asks_for_local_token && reach.is_some_and(|reach| !reach.routes[found.route]) {
            return Err(refuse(self.beyond_reach(caller, Rule::Routes)));
        }
        if head.uri.path_and_query().is_some_and(|whole| whole.as_str().len() > self.max_target) {
            return Err(refuse(ProxyError::TargetTooLong));
        }
        if head.headers.len() > self.max_headers {
            return Err(refuse(ProxyError::HeadersTooLarge));
        }
        judged.on_route(route.passes_encoded_slash).map_err(ambiguous)?;
        if !framing::has_plain_framing(&head.headers) {
            let text = "The body has a transfer coding other than chunked; send it without.";
            return Err(refuse(ProxyError::BadRequest(text)));
        }
        let target = head
            .uri
            .path_and_query()
            .cloned()
            .or_else(|| (path == "/" || path.is_empty()).then(|| PathAndQuery::from_static("/")))
            .and_then(|whole| route::target(&route.upstream, &whole, found.segments()));
        // `*` is for OPTIONS only (RFC 9112 §3.2.4).
        let target = target.filter(|_| path != "*" || head.method == Method::OPTIONS);
        let target = target.ok_or_else(|| refuse(ProxyError::BadRequest("The target is not a path.")))?;
        // The guard has seen that there is exactly one.
        let host = head.headers.get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static(""));
        let by_path = found.prefix.map(|_| &self.table);
        let prefix = found.prefix.unwrap_or_default();
        let view = View { tls: self.tls[listener], host, prefix, by_path };
        let mut plan = Plan {
            route,
            index: found.route,
            target,
            account: None,
            view,
            caller,
            asks_for_local_token,
            access: Access::ANY,
        };
        if asks_for_local_token {
            // Nothing of it goes on, so that nothing below concerns it.
            let is_asked_well = head.method == Method::POST;
            return if is_asked_well { Ok(plan) } else { Err(refuse(TokenRefusal::Method.into())) };
        }
        plan.access = self.permit(route, caller, head, found.rest(judged.normal())).map_err(refuse)?;
        plan.account = self.account(found.route, head).map_err(refuse)?;
        if let (Some(reach), Some(account)) = (reach, &plan.account)
            && !reach.may_be(account.as_bytes())
        {
            return Err(refuse(self.beyond_reach(caller, Rule::Accounts)));
        }
        Ok(plan)
    }
}

/// Rules judge what the first line says; a request that asks to be taken for another one passes none.
fn judge(rights: &Rights, head: &Parts, path: &str, whose: impl Fn() -> Whose) -> Result<(), ProxyError> {
    if let Some(by) = rights::override_in(&head.headers, head.uri.query()) {
        return Err(ProxyError::Denied { whose: whose(), rule: Rule::Overridden(by) });
    }
    rights.judge(&head.method, path).map_err(|denied| ProxyError::denied(whose(), denied))
}
