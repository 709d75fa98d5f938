//! Where the browser returns to: `http://` on loopback (RFC 8252 §7.3).

use std::net::Ipv4Addr;

use url::Url;

use crate::config::RedirectUri;
use crate::config::context::Context;
use crate::config::document::Node;

const EXAMPLE: &str = "http://127.0.0.1:7601/callback";

/// The redirect URI that the node gives, or an error.
pub(super) fn redirect_uri(node: &Node, context: &mut Context<'_>) -> Option<RedirectUri> {
    let text = node.as_text()?;
    let problem = match parse(text) {
        Ok(uri) => return Some(uri),
        Err(problem) => problem,
    };
    let shown = node.shown();
    let write = format!("write it as registered, as redirect_uri = \"{EXAMPLE}\"");
    let (message, help) = match problem {
        Problem::Tls => (
            format!(
                "`redirect_uri`: {shown} is https, and no certificate is known for this machine's loopback"
            ),
            format!("the browser must come back to this machine: register and write \"{EXAMPLE}\""),
        ),
        Problem::Elsewhere => (
            format!("`redirect_uri`: {shown} is not on this machine's loopback"),
            format!("the browser must come back to this machine: register and write \"{EXAMPLE}\""),
        ),
        Problem::UserInfo => {
            ("`redirect_uri` must not hold a user name or password (not shown)".to_owned(), write)
        }
        Problem::Extra => ("`redirect_uri` has a query or fragment".to_owned(), write),
        Problem::Port => (format!("`redirect_uri`: {shown} has no port that can be listened on"), write),
        Problem::Path => (
            format!("`redirect_uri`: the browser would ask for another path than that of {shown}"),
            "write a path of plain segments, without dots, spaces or backslashes".to_owned(),
        ),
        Problem::Malformed => (format!("`redirect_uri`: {shown} is not an http:// URL"), write),
    };
    context.out.error(node.at, message, help);
    None
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Tls,
    Elsewhere,
    UserInfo,
    Extra,
    Port,
    Path,
    Malformed,
}

fn parse(text: &str) -> Result<RedirectUri, Problem> {
    let (scheme, rest) = text.split_once("://").ok_or(Problem::Malformed)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        return Err(Problem::UserInfo);
    }
    if path.contains(['?', '#']) {
        return Err(Problem::Extra);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.starts_with('[') || host.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = host.to_ascii_lowercase();
    let loopback = host == "localhost"
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    match scheme.to_ascii_lowercase().as_str() {
        "http" if loopback => {}
        "https" if loopback => return Err(Problem::Tls),
        "http" | "https" if !host.is_empty() => return Err(Problem::Elsewhere),
        _ => return Err(Problem::Malformed),
    }
    let port = match port {
        None => 80,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(Problem::Port)?
        }
        Some(_) => return Err(Problem::Port),
    };
    let path = if path.is_empty() { "/" } else { path };
    // What a browser makes of it must be what is waited for.
    if Url::parse(text).map_err(|_| Problem::Malformed)?.path() != path {
        return Err(Problem::Path);
    }
    Ok(RedirectUri { text: text.to_owned(), host, port, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_uri_is_http_on_loopback_and_kept_as_written() {
        let cases = [
            ("http://127.0.0.1:7601/callback", ("127.0.0.1", 7601, "/callback")),
            ("http://localhost/callback", ("localhost", 80, "/callback")),
            ("HTTP://LocalHost:8080/", ("localhost", 8080, "/")),
            ("http://localhost:8080", ("localhost", 8080, "/")),
            ("http://127.1.2.3:1/a/b%20c/", ("127.1.2.3", 1, "/a/b%20c/")),
            ("http://[::1]:7601/callback", ("[::1]", 7601, "/callback")),
            ("http://[::1]", ("[::1]", 80, "/")),
        ];
        for (text, (host, port, path)) in cases {
            let want = RedirectUri { text: text.into(), host: host.into(), port, path: path.into() };
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_none_says_why() {
        let cases = [
            ("https://localhost:7601/callback", Problem::Tls),
            ("https://app.example.com/callback", Problem::Elsewhere),
            ("http://app.example.com/callback", Problem::Elsewhere),
            ("http://app.localhost/callback", Problem::Elsewhere),
            ("http://localhost./callback", Problem::Elsewhere),
            ("http://0.0.0.0:1/callback", Problem::Elsewhere),
            ("http://127.1/callback", Problem::Elsewhere),
            ("http://[::2]/callback", Problem::Elsewhere),
            ("http://[::1/callback", Problem::Elsewhere),
            ("http://localhost@evil.example/callback", Problem::UserInfo),
            ("http://u:p@localhost/callback", Problem::UserInfo),
            ("http://localhost/callback?x=1", Problem::Extra),
            ("http://localhost?x=1", Problem::Extra),
            ("http://localhost/callback#x", Problem::Extra),
            ("http://localhost:0/callback", Problem::Port),
            ("http://localhost:/callback", Problem::Port),
            ("http://localhost:+80/callback", Problem::Port),
            ("http://localhost:65536/callback", Problem::Port),
            ("http://localhost/a/../b", Problem::Path),
            ("http://localhost/a/%2e%2e/b", Problem::Path),
            ("http://localhost/a b", Problem::Path),
            ("http://localhost/a\\b", Problem::Path),
            ("http://localhost/ä", Problem::Path),
            ("http:///callback", Problem::Malformed),
            ("urn:ietf:wg:oauth:2.0:oob", Problem::Malformed),
            ("com.example.app://callback", Problem::Malformed),
            ("localhost:7601/callback", Problem::Malformed),
            ("", Problem::Malformed),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Err(want), "{text}");
        }
    }
}
