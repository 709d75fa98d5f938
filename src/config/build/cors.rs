//! A route's `cors` table → [`Cors`].

use std::time::Duration;

use http::HeaderName;
use url::Url;

use super::names::is_this_machine;
use crate::config::Cors;
use crate::config::context::Context;
use crate::config::document::{Node, Table, Value};

/// The pages that a route is open to, if it is open to any.
pub(super) fn of_route(table: &Table, context: &mut Context<'_>) -> Option<Cors> {
    let cors = table.table("cors")?;
    let is_empty = |node: &Node| matches!(&node.value, Value::List(all) if all.is_empty());
    if cors.get("origins").is_some_and(is_empty) {
        let help = "write origins = [\"https://app.example.com\"], or remove `cors`";
        context.out.error(cors.place_of("origins"), "`origins` names no origin", help);
    }
    let mut origins: Vec<Box<str>> = Vec::new();
    for node in cors.items("origins") {
        let Some(origin) = origin(node, context) else { continue };
        if origins.contains(&origin) && !node.referenced {
            context.out.error(node.at, format!("`origins` has `{origin}` twice"), "keep one of the two");
        }
        origins.push(origin);
    }
    let expose = cors.items("expose").into_iter().filter_map(|node| exposed(node, context)).collect();
    Some(Cors {
        origins,
        credentials: cors.flag("credentials", false),
        expose,
        max_age: cors.duration("max_age").unwrap_or(Duration::from_secs(600)),
    })
}

fn origin(node: &Node, context: &mut Context<'_>) -> Option<Box<str>> {
    let text = node.as_text()?;
    match normal(text) {
        Ok(url) => {
            if url.scheme() == "http" && !url.host_str().is_some_and(|host| is_this_machine(bare(host))) {
                context.out.warn(
                    node.at,
                    format!(
                        "origin {}: pages that come in clear text can be changed on their way",
                        node.shown()
                    ),
                    "serve them over https://, as others in that network could use the credential",
                );
            }
            Some(url.origin().ascii_serialization().into())
        }
        Err((problem, help)) => {
            context.out.error(node.at, format!("origin {} {problem}", node.shown()), help);
            None
        }
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The origin as a URL, or what is wrong with it and what to write.
fn normal(text: &str) -> Result<Url, (&'static str, String)> {
    const EXAMPLE: &str = "write \"https://app.example.com\"";
    let example = || EXAMPLE.to_owned();
    match text {
        "*" => {
            return Err(("would let every web page use the credential", "write each origin in full".into()));
        }
        "null" => {
            let help = "serve the page from an address of its own, and write that";
            return Err(("is what any page can be: a file, or a frame that is sandboxed", help.into()));
        }
        _ => {}
    }
    if text.contains('@') {
        return Err(("has a user name", example()));
    }
    if text.contains('*') {
        return Err(("has a wildcard", "write each origin in full".into()));
    }
    if text.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err(("holds a space, a backslash or a control character", example()));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let is_host = !text.is_empty() && !text.contains(['/', '?', '#']);
        let help = if is_host { format!("write \"https://{text}\"") } else { example() };
        return Err(("has no scheme", help));
    };
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Err(("is not http:// or https://", example()));
    }
    let url = Url::parse(text).map_err(|_| ("is no origin", example()))?;
    if url.port() == Some(0) || url.host_str().is_none_or(str::is_empty) {
        return Err(("is no origin", example()));
    }
    if rest.contains(['/', '?', '#']) {
        let help = if url.query().is_none() && url.fragment().is_none() {
            format!("write \"{}\"", url.origin().ascii_serialization())
        } else {
            example()
        };
        return Err(("has more than scheme, host and port", help));
    }
    Ok(url)
}

fn exposed(node: &Node, context: &mut Context<'_>) -> Option<HeaderName> {
    let text = node.as_text()?;
    let problem = match HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) if name.as_str() == "*" => ("would show all of them", "write each header's name"),
        Ok(name) if name == http::header::SET_COOKIE => ("is read by no page", "leave it out"),
        Ok(name) => return Some(name),
        Err(_) => ("is no header name", "write expose = [\"X-Total-Count\"]"),
    };
    context.out.error(node.at, format!("`expose`: {} {}", node.shown(), problem.0), problem.1);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_write_it() {
        let cases = [
            ("https://app.example.com", Some("https://app.example.com")),
            ("HTTPS://App.Example.com", Some("https://app.example.com")),
            ("https://app.example.com:443", Some("https://app.example.com")),
            ("http://app.example.com:80", Some("http://app.example.com")),
            ("https://app.example.com:80", Some("https://app.example.com:80")),
            ("http://localhost:3000", Some("http://localhost:3000")),
            ("http://[::1]:3000", Some("http://[::1]:3000")),
            ("http://[0:0:0:0:0:0:0:1]", Some("http://[::1]")),
            ("https://b\u{fc}cher.example", Some("https://xn--bcher-kva.example")),
            ("https://app.example.com/", None),
            ("https://app.example.com/x", None),
            ("https://app.example.com?x", None),
            ("https://user@app.example.com", None),
            ("https://*.example.com", None),
            ("https://app.example.com:0", None),
            ("https://app.example.com:99999", None),
            ("https://", None),
            ("https:///x", None),
            ("https:app.example.com", None),
            ("app.example.com", None),
            ("file:///x", None),
            ("chrome-extension://abcdef", None),
            ("*", None),
            ("null", None),
            ("", None),
            ("https://a b", None),
            ("https://a https://b", None),
        ];
        for (text, want) in cases {
            let found = normal(text).ok().map(|url| url.origin().ascii_serialization());
            assert_eq!(found.as_deref(), want, "{text:?}");
        }
    }
}
