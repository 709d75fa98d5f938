//! A store in Redis or Valkey.

use std::time::Duration;

use http::HeaderValue;

use crate::config::build::url::{Leave, may_not_be_reached};
use crate::config::build::{names, secrets, tls};
use crate::config::context::Context;
use crate::config::document::{Node, Table};
use crate::config::{RedisStore, TlsSettings, Upstream};

const DEFAULT_PORT: u16 = 6379;
const EXAMPLE: &str = "write url = \"rediss://cache.example.com:6379\"";

/// Reads what a Redis store needs; none if anything is wrong.
pub(super) fn server(table: &Table, global: &TlsSettings, context: &mut Context<'_>) -> Option<RedisStore> {
    if !table.has("encryption_key") {
        context.out.error(
            table.at,
            "`encryption_key` is missing: others may read what a server keeps",
            "write encryption_key = { file = \"PATH\" }; make one with `openssl rand -base64 32`",
        );
    }
    let server = match table.get("url") {
        Some(node) => url(node, Leave::of(table), context),
        None => {
            context.out.error(table.at, "`url` is missing", EXAMPLE);
            None
        }
    };
    if let (Some((server, _)), true) = (&server, table.has("tls"))
        && !server.tls
    {
        let help = "write url = \"rediss://…\", or remove it";
        context.out.error(table.place_of("tls"), "`tls` has no use with redis://", help);
    }
    let password = secrets::source(table, "password", context);
    let username = username(table, context);
    let prefix = match table.get("prefix") {
        Some(node) => prefix(node, context),
        None => Some("sidekey".to_owned()),
    };
    let tls = tls::settings(table.table("tls"), global, context);
    let (server, database) = server?;
    Some(RedisStore {
        server,
        database,
        username,
        password,
        prefix: prefix?,
        tls,
        timeout: table.duration("timeout").unwrap_or(Duration::from_secs(2)),
    })
}

/// The server, and the number of the database.
fn url(node: &Node, leave: Leave, context: &mut Context<'_>) -> Option<(Upstream, i64)> {
    let parsed = match parse(node.as_text()?) {
        Ok(parsed) => parsed,
        Err(problem) => {
            let (message, help) = problem.told();
            context.out.error(node.at, message, help);
            return None;
        }
    };
    if !parsed.tls && !leave.cleartext && !names::is_this_machine(&parsed.host) {
        context.out.error(
            node.at,
            format!("`url`: password and grants would go over the network to {} in clear text", parsed.host),
            "write rediss://, or, knowingly, allow_cleartext = true",
        );
        return None;
    }
    if may_not_be_reached(&parsed.host, leave.link_local, node, "url", context) {
        return None;
    }
    let host = if parsed.host.contains(':') { format!("[{}]", parsed.host) } else { parsed.host.clone() };
    let authority = match parsed.port {
        DEFAULT_PORT => host,
        port => format!("{host}:{port}"),
    };
    let host_header = HeaderValue::try_from(authority).ok()?;
    let Url { tls, host, port, database } = parsed;
    // Always direct: proxies lead out to the web.
    let (base_path, allow_link_local) = (String::new(), leave.link_local);
    let server = Upstream { tls, host, port, base_path, host_header, via: None, allow_link_local };
    Some((server, i64::from(database)))
}

#[derive(Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    host: String,
    port: u16,
    database: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Scheme,
    UserInfo,
    Extra,
    Host,
    Port,
    Database,
}

impl Problem {
    /// What is wrong and what to write. The URL itself is not shown: what looks like a port may be a password.
    fn told(&self) -> (&'static str, &'static str) {
        match self {
            Self::Scheme => ("`url` begins with neither redis:// nor rediss://", EXAMPLE),
            Self::UserInfo => (
                "`url` must not hold a user name or password (not shown)",
                "write them in `username` and `password`",
            ),
            Self::Extra => ("`url` has a query or fragment", "write it without `?…` and `#…`"),
            Self::Host => ("`url` has no host name", EXAMPLE),
            Self::Port => ("`url` has no port of a server", "write a port from 1 to 65535 after the host"),
            Self::Database => {
                ("`url` ends in no number of a database", "write \"rediss://HOST\", or \"rediss://HOST/0\"")
            }
        }
    }
}

fn parse(text: &str) -> Result<Url, Problem> {
    // Whatever else is wrong: what stands before an `@` may be a password.
    if text.contains('@') {
        return Err(Problem::UserInfo);
    }
    let (scheme, rest) = text.split_once("://").ok_or(Problem::Scheme)?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "redis" => false,
        "rediss" => true,
        _ => return Err(Problem::Scheme),
    };
    if rest.contains(['?', '#']) {
        return Err(Problem::Extra);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let bracketed = host.starts_with('[');
    if host.contains([':', '[', ']']) && !(bracketed && host.ends_with(']')) {
        return Err(Problem::Host);
    }
    let host = names::normal(host).map_err(|_| Problem::Host)?;
    if bracketed != host.contains(':') {
        return Err(Problem::Host);
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) => number(digits).filter(|port| *port != 0).ok_or(Problem::Port)?,
    };
    let database = if path.is_empty() { 0 } else { number(path).ok_or(Problem::Database)? };
    Ok(Url { tls, host, port, database })
}

fn number(digits: &str) -> Option<u16> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn username(table: &Table, context: &mut Context<'_>) -> Option<String> {
    let node = table.get("username")?;
    let text = node.as_text()?;
    if text.is_empty() {
        context.out.error(node.at, "`username` is empty", "write the user's name, or remove it");
    } else if !table.has("password") {
        let help = "write password = { env = \"NAME\" } or { file = \"PATH\" } too";
        context.out.error(table.place_of("username"), "`username` stands without `password`", help);
    }
    Some(text.to_owned())
}

/// What may stand before keys: no spaces, and nothing that means something in a pattern.
fn prefix(node: &Node, context: &mut Context<'_>) -> Option<String> {
    let text = node.as_text()?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"*?[]\\".contains(&b);
    if text.is_empty() || text.len() > 128 || !text.bytes().all(plain) {
        context.out.error(
            node.at,
            format!("`prefix`: {} cannot stand before keys", node.shown()),
            "use 1 to 128 letters, digits and signs, as prefix = \"sidekey\", without spaces and `*?[]\\`",
        );
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_server_and_a_database() {
        let cases = [
            ("redis://localhost", (false, "localhost", 6379, 0)),
            ("REDISS://Cache.Example.com./", (true, "cache.example.com", 6379, 0)),
            ("rediss://cache:80/15", (true, "cache", 80, 15)),
            ("redis://127.0.0.1:1/0", (false, "127.0.0.1", 1, 0)),
            ("redis://[::1]:6380/2", (false, "::1", 6380, 2)),
            ("redis://[::1]", (false, "::1", 6379, 0)),
        ];
        for (text, (tls, host, port, database)) in cases {
            let want = Url { tls, host: host.to_owned(), port, database };
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for (text, want) in [
            ("cache:6379", Problem::Scheme),
            ("http://cache", Problem::Scheme),
            ("unix:///run/redis.sock", Problem::Scheme),
            ("redis://:hunter2@cache", Problem::UserInfo),
            ("u:hunter2@cache", Problem::UserInfo),
            ("redis://cache?db=1", Problem::Extra),
            ("redis://cache/0#x", Problem::Extra),
            ("redis://", Problem::Host),
            ("redis://:6379", Problem::Host),
            ("redis://::1", Problem::Host),
            ("redis://[::1", Problem::Host),
            ("redis://[cache]", Problem::Host),
            ("redis://a b", Problem::Host),
            ("redis://cache:0", Problem::Port),
            ("redis://cache:", Problem::Port),
            ("redis://cache:+1", Problem::Port),
            ("redis://cache:65536", Problem::Port),
            ("redis://cache/first", Problem::Database),
            ("redis://cache/0/1", Problem::Database),
            ("redis://cache/-1", Problem::Database),
            ("redis://cache/99999999", Problem::Database),
        ] {
            assert_eq!(parse(text), Err(want), "{text}");
        }
    }
}
