//! Where a credential may go at all: its `hosts`, or those of its preset's provider.

use std::fmt;
use std::net::IpAddr;

use crate::config::Upstream;
use crate::config::build::names;
use crate::config::context::{Context, PLACEHOLDER_HOST};
use crate::config::diagnostic::At;
use crate::config::document::{Node, Table, Value};

/// Where a credential may go.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Wherever a route takes it; also if what is written is wrong, which is reported.
    Anywhere,
    /// To its `hosts`, and nowhere else.
    Written(Vec<Place>),
    /// To its preset's provider, and to this machine.
    Preset(&'static Preset),
}

/// What a preset's credentials are for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Preset {
    /// The API that its tokens are for.
    api: &'static str,
    /// The authorization server that knows its clients.
    server: &'static str,
}

const AURA: Preset = Preset { api: "api.neo4j.io", server: "api.neo4j.io" };
const NEON: Preset = Preset { api: "console.neon.tech", server: "oauth2.neon.tech" };

/// One of `hosts`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A host, or `.suffix` for all below it.
    host: String,
    /// None: any.
    port: Option<u16>,
}

impl Bound {
    /// What the credential's table says, or its type.
    pub(super) fn of(table: &Table, context: &mut Context<'_>) -> Self {
        let preset = match table.text("type") {
            Some("aura") => Some(&AURA),
            Some("neon_oauth") => Some(&NEON),
            _ => None,
        };
        let Some(node) = table.get("hosts") else { return preset.map_or(Self::Anywhere, Self::Preset) };
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            let message = "`hosts` is an empty list: the credential could go nowhere";
            context.out.error(table.place_of("hosts"), message, "name its hosts, or remove it");
        }
        let places: Vec<_> = node.items().into_iter().map(|node| place(node, context)).collect();
        // With a mistaken one among them, none is known: its error is told already.
        match places.into_iter().collect::<Option<Vec<_>>>() {
            Some(places) if !places.is_empty() => Self::Written(places),
            _ => Self::Anywhere,
        }
    }

    /// May its header go to that upstream?
    pub(super) fn takes(&self, upstream: &Upstream, context: &Context<'_>) -> bool {
        is_not_at_hand(upstream, context)
            || match self {
                Self::Anywhere => true,
                Self::Written(places) => places.iter().any(|place| place.is(upstream)),
                Self::Preset(preset) => upstream.host == preset.api || names::is_this_machine(&upstream.host),
            }
    }

    /// May a preset's client show itself at that endpoint? Reports it if not.
    pub(super) fn check_server(
        &self,
        table: &Table,
        key: &str,
        endpoint: &Upstream,
        context: &mut Context<'_>,
    ) -> bool {
        let preset = match (self, table.text("type")) {
            (Self::Anywhere, _) => return true,
            (_, Some("aura")) => &AURA,
            (_, Some("neon_oauth")) => &NEON,
            _ => return true,
        };
        let is_written =
            matches!(self, Self::Written(places) if places.iter().any(|place| place.is(endpoint)));
        if endpoint.host == preset.server
            || is_written
            || names::is_this_machine(&endpoint.host)
            || is_not_at_hand(endpoint, context)
        {
            return true;
        }
        let kind = table.text("type").unwrap_or_default();
        let more = match self {
            Self::Written(_) => format!("add \"{}\" to `hosts`", endpoint.host),
            _ => format!("write hosts = [\"{}\", \"{}\"]", preset.api, endpoint.host),
        };
        context.out.error(
            table.place_of(key),
            format!(
                "`{key}`: what a client of type = \"{kind}\" shows may only go to {}, and this is {}",
                preset.server, endpoint.host
            ),
            format!("correct it, or, knowingly, {more}"),
        );
        false
    }

    /// Reports a credential that must not go where its route goes.
    pub(super) fn report(
        &self,
        at: At,
        (credential, route): (&str, &str),
        upstream: &Upstream,
        context: &mut Context<'_>,
    ) {
        // Where ports bound it, the one that is meant has to be told.
        let ports = matches!(self, Self::Written(places) if places.iter().any(|place| place.port.is_some()));
        let place = Place { host: upstream.host.clone(), port: ports.then_some(upstream.port) };
        let message = format!(
            "credential `{credential}` may only go to {self}, and the upstream of [route.{route}] is {place}"
        );
        let help = match self {
            Self::Written(_) => format!("add \"{place}\" to the credential's `hosts`"),
            _ => format!("write hosts = [\"{place}\"] in the credential"),
        };
        context.out.error(at, message, format!("correct the upstream, or, knowingly, {help}"));
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anywhere => f.write_str("any host"),
            Self::Preset(preset) => f.write_str(preset.api),
            Self::Written(places) => {
                let places: Vec<String> = places.iter().map(Place::to_string).collect();
                f.write_str(&places.join(", "))
            }
        }
    }
}

impl Place {
    fn is(&self, origin: &Upstream) -> bool {
        let host = &origin.host;
        let is_host = match self.host.starts_with('.') {
            // An address has no hosts below it.
            true => {
                host.len() > self.host.len() && host.ends_with(&self.host) && host.parse::<IpAddr>().is_err()
            }
            false => self.host == *host,
        };
        is_host && self.port.is_none_or(|port| port == origin.port)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.starts_with('.') {
            f.write_str("*")?;
        }
        match self.port {
            Some(port) => f.write_str(&crate::config::authority(&self.host, port)),
            None => f.write_str(&self.host),
        }
    }
}

/// A URL that is not at hand stands for any.
fn is_not_at_hand(origin: &Upstream, context: &Context<'_>) -> bool {
    !context.check_secrets && origin.host == PLACEHOLDER_HOST
}

fn place(node: &Node, context: &mut Context<'_>) -> Option<Place> {
    match parse(node.as_text()?) {
        Ok(place) => Some(place),
        Err((problem, help)) => {
            context.out.error(node.at, format!("host {} {problem}", node.shown()), help);
            None
        }
    }
}

/// Pure. A host, or `*.suffix`; after either may stand a port.
fn parse(text: &str) -> Result<Place, (&'static str, String)> {
    let with_port = text.rsplit_once(':').filter(|(host, port)| {
        let is_host = !host.contains([':', '/']) || (host.starts_with('[') && host.ends_with(']'));
        is_host && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    });
    let (host, port) = match with_port {
        None => (text, None),
        Some((host, port)) => match port.parse().ok().filter(|port| *port != 0) {
            Some(port) => (host, Some(port)),
            None => {
                return Err(("has no port of a server", "write a port from 1 to 65535 after it".to_owned()));
            }
        },
    };
    let Some(suffix) = host.strip_prefix("*.") else {
        return Ok(Place { host: names::normal(host)?, port });
    };
    let suffix = names::normal(suffix)?;
    // `*.0.0.1` is a suffix of addresses, which have none.
    if suffix.bytes().all(|b| b.is_ascii_digit() || b == b'.') || suffix.contains(':') {
        return Err(("is a wildcard for addresses", "write each address in full".to_owned()));
    }
    Ok(Place { host: format!(".{suffix}"), port })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn origin(host: &str, port: u16) -> Upstream {
        Upstream {
            tls: true,
            host: host.to_owned(),
            port,
            base_path: String::new(),
            host_header: HeaderValue::from_static("h"),
            via: None,
            allow_link_local: false,
        }
    }

    #[test]
    fn a_place_takes_its_own_host_or_what_is_below_its_suffix_and_only_its_port() {
        let cases = [
            ("api.neo4j.io", "api.neo4j.io", 443, true),
            ("API.Neo4j.io.", "api.neo4j.io", 8443, true),
            ("api.neo4j.io", "x.api.neo4j.io", 443, false),
            ("api.neo4j.io", "api.neo4j.io.evil.example", 443, false),
            ("*.neo4j.io", "api.neo4j.io", 443, true),
            ("*.neo4j.io", "a.b.neo4j.io", 443, true),
            ("*.neo4j.io", "neo4j.io", 443, false),
            ("*.neo4j.io", "evilneo4j.io", 443, false),
            ("*.neo4j.io", ".neo4j.io", 443, false),
            ("api.neo4j.io:443", "api.neo4j.io", 443, true),
            ("api.neo4j.io:443", "api.neo4j.io", 8443, false),
            ("*.neo4j.io:7473", "a.neo4j.io", 7473, true),
            ("*.neo4j.io:7473", "a.neo4j.io", 443, false),
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1", "10.0.0.10", 443, false),
            ("*.io", "169.254.0.io", 443, true),
            ("[2001:DB8::1]:443", "2001:db8::1", 443, true),
            ("[2001:db8::1]:443", "2001:db8::1", 444, false),
            ("2001:db8:0::1", "2001:db8::1", 444, true),
        ];
        for (text, host, port, want) in cases {
            let place = parse(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"));
            assert_eq!(place.is(&origin(host, port)), want, "{text} {host}:{port}");
        }
    }

    #[test]
    fn a_place_is_shown_as_it_is_written() {
        for text in
            ["api.neo4j.io", "*.neo4j.io", "*.neo4j.io:7473", "10.0.0.1:1", "[2001:db8::1]:443", "::1"]
        {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            "*.*.io",
            "a.*.io",
            "*neo4j.io",
            "*.0.0.1",
            "*.0.0.1:80",
            "*.::1",
            "a.io:0",
            "a.io:65536",
            "a.io:",
            "a.io:http",
            "a.io:+1",
            "https://a.io",
            "https://a.io:443",
            "a.io/v1",
            "käse.example",
            "a..io",
        ] {
            assert!(parse(text).is_err(), "{text:?}: {:?}", parse(text));
        }
    }
}
