//! What may pass and where it goes: everything that is decided about a request before a token is needed.

use http::request::Parts;
use http::uri::PathAndQuery;

use super::error::ProxyError;
use super::headers;
use super::route::{self, RouteTable};
use crate::config::{Bind, Config, ListenId, Provider, Route};
use crate::guard::Guard;

/// The guard and the routes of a configuration.
#[derive(Debug)]
pub struct Rules {
    guard: Guard,
    table: RouteTable,
    routes: Vec<Route>,
    /// By listener: is it reached by a name, which could be a lie?
    by_name: Vec<bool>,
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
}

impl Rules {
    /// The rules of a configuration.
    pub fn new(config: &Config) -> Self {
        let hosts =
            config.server.hosts.iter().chain(config.routes.iter().flat_map(|route| &route.matches.hosts));
        let listeners = &config.server.listeners;
        Self {
            guard: Guard::new(hosts.map(String::as_str)),
            table: RouteTable::new(&config.routes, listeners.len()),
            routes: config.routes.clone(),
            by_name: listeners.iter().map(|listener| matches!(listener.bind, Bind::Tcp(_))).collect(),
        }
    }

    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Where a request goes, or why it does not, and in whose error shape to say so.
    pub fn plan(&self, listener: ListenId, head: &Parts) -> Result<Plan<'_>, (ProxyError, Provider)> {
        let path = head.uri.path();
        let admitted = self.guard.admit(head, self.by_name[listener]);
        let host = admitted.as_deref().unwrap_or_default();
        let found = self.table.find(listener, host, path);
        let provider = found.map_or(Provider::Generic, |found| self.routes[found.route].provider);
        admitted.as_ref().map_err(|refused| (refused.clone().into(), provider))?;
        let found = found.ok_or((ProxyError::NoRoute, provider))?;
        if route::is_ambiguous(path) {
            let text =
                "The path has a dot segment or a backslash, so it could be read two ways; send it resolved.";
            return Err((ProxyError::BadRequest(text), provider));
        }
        if !headers::has_plain_framing(&head.headers) {
            let text = "The body has a transfer coding other than chunked; send it without.";
            return Err((ProxyError::BadRequest(text), provider));
        }
        let route = &self.routes[found.route];
        let target = head
            .uri
            .path_and_query()
            .cloned()
            .or_else(|| (path == "/" || path.is_empty()).then(|| PathAndQuery::from_static("/")))
            .and_then(|whole| route::target(&route.upstream, &whole, found.prefix));
        let target = target.ok_or((ProxyError::BadRequest("The target is not a path."), provider))?;
        Ok(Plan { route, index: found.route, target })
    }
}
