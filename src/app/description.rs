//! What a configuration amounts to, in the words of its users: for banners, status and explanations.

use serde_json::{Value, json};

use super::Address;
use crate::config::{AuthorizationServer, Config, CredentialKind, Endpoint, Listener, Provider, Route};

/// The addresses at which a route is reached, each once.
pub fn urls(config: &Config, route: &Route, addresses: &[Address]) -> Vec<String> {
    let listeners = &config.server.listeners;
    let base = |(listener, address): (&Listener, &Address)| match address.socket {
        Some(socket) => format!("{}://{socket}", listener.scheme()),
        None => address.text.clone(),
    };
    let own = route.matches.listeners.iter().map(|id| base((&listeners[*id], &addresses[*id])));
    let shared = || listeners.iter().zip(addresses).filter(|(listener, _)| listener.shared);
    let by_path =
        route.matches.paths.iter().flat_map(|path| shared().map(move |at| format!("{}{path}", base(at))));
    let by_host = route.matches.hosts.iter().flat_map(|host| {
        let of = move |(listener, at): (&Listener, &Address)| {
            Some(format!("{}://{host}:{}", listener.scheme(), at.socket?.port()))
        };
        shared().filter_map(of)
    });
    own.chain(by_path).chain(by_host).collect()
}

/// The upstream as a URL.
pub fn upstream_url(route: &Route) -> String {
    let upstream = &route.upstream;
    let scheme = if upstream.tls { "https" } else { "http" };
    // Made of a URL, so it is text.
    let authority = upstream.host_header.to_str().unwrap_or_default();
    format!("{scheme}://{authority}{}", upstream.base_path)
}

/// What is reached through an egress proxy, a line each; the proxy's login is left out.
pub fn ways_out(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    for route in &config.routes {
        if let Some(proxy) = &route.upstream.via {
            lines.push(format!(
                "route {}: {} through the egress proxy {proxy}",
                route.name,
                upstream_url(route)
            ));
        }
    }
    for credential in &config.credentials {
        let mut line = |endpoint: &Endpoint| {
            if let Some(proxy) = &endpoint.origin.via {
                lines.push(format!(
                    "credential {}: {endpoint} through the egress proxy {proxy}",
                    credential.name
                ));
            }
        };
        match &credential.kind {
            CredentialKind::ClientCredentials(grant) => line(&grant.token_url),
            CredentialKind::AuthorizationCode(login) => match &login.server {
                AuthorizationServer::Known { token_url, revoke_url, .. } => {
                    line(token_url);
                    revoke_url.iter().for_each(line);
                }
                AuthorizationServer::Discovered { issuer } => {
                    lines.extend(login.egress.https.as_ref().map(|proxy| {
                        format!(
                            "credential {}: what {issuer} names, through the egress proxy {proxy}",
                            credential.name
                        )
                    }))
                }
            },
            _ => {}
        }
    }
    lines
}

/// A credential's type in the words of the file.
pub fn kind(kind: &CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Basic { .. } => "basic",
        CredentialKind::Bearer { .. } => "bearer",
        CredentialKind::ClientCredentials(_) => "client_credentials",
        CredentialKind::AuthorizationCode(_) => "authorization_code",
        CredentialKind::Exec { .. } => "exec",
        CredentialKind::Header { .. } => "header",
    }
}

/// A provider in the words of the file.
pub fn provider(provider: Provider) -> &'static str {
    match provider {
        Provider::Aura => "aura",
        Provider::Neo4j => "neo4j",
        Provider::Neon => "neon",
        Provider::Generic => "generic",
    }
}

/// The whole configuration as data, without what a secret could stand in.
pub fn describe(config: &Config, addresses: &[Address]) -> Value {
    let routes = config.routes.iter().map(|route| {
        json!({
            "name": &*route.name,
            "provider": provider(route.provider),
            "urls": urls(config, route, addresses),
            "upstream": upstream_url(route),
            "egress_proxy": route.upstream.via.as_ref().map(ToString::to_string),
            "credential": route.credential.map(|id| &*config.credentials[id].name),
        })
    });
    let credentials = config.credentials.iter().map(|credential| {
        json!({
            "name": &*credential.name,
            "type": kind(&credential.kind),
            "login": matches!(credential.kind, CredentialKind::AuthorizationCode(_)),
            "account_header": credential.account_header.as_ref().map(|name| name.as_str()),
        })
    });
    json!({
        "configuration": config.origin,
        "credentials": credentials.collect::<Vec<_>>(),
        "listeners": addresses.iter().map(|address| &address.text).collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
    })
}
