//! Host names as configuration takes them: lower case, no scheme, no port, no trailing dot.

use std::net::IpAddr;

use crate::config::context::Context;
use crate::config::document::Node;

/// The host name that the node gives, or an error.
pub(super) fn host(node: &Node, context: &mut Context<'_>) -> Option<String> {
    let text = node.as_text()?;
    match normal(text) {
        Ok(host) => Some(host),
        Err((problem, help)) => {
            context.out.error(node.at, format!("host {} {problem}", node.shown()), help);
            None
        }
    }
}

/// Is it a name or address of this machine itself: `localhost`, `*.localhost` or an address of the loopback range?
pub fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The name as it is compared, or what is wrong with it and what to write.
pub(in crate::config) fn normal(text: &str) -> Result<String, (&'static str, String)> {
    let name = |host: &str| format!("write the name alone, as \"{host}\"");
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        let help = if host.contains(['@', '?']) { name("api.example.com") } else { name(host) };
        return Err(("has a scheme", help));
    }
    if let Some((host, _)) = text.split_once('/') {
        return Err(("has a path", if host.contains('@') { name("api.example.com") } else { name(host) }));
    }
    if let Ok(IpAddr::V6(address)) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    if let Some((host, _)) = text.rsplit_once(':') {
        return Err(("has a port", if host.contains('@') { name("api.example.com") } else { name(host) }));
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host.contains('*') {
        return Err(("has a wildcard", "write each name in full".to_owned()));
    }
    if !host.is_ascii() {
        return Err(("is not ASCII", "write its xn-- form".to_owned()));
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(("is not a host name", name("api.example.com")));
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_alone_in_lower_case() {
        let cases = [
            ("Neon.LocalHost", Some("neon.localhost")),
            ("api.example.com.", Some("api.example.com")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[::1]", Some("::1")),
            ("::1", Some("::1")),
            ("api.example.com:80", None),
            ("http://api.example.com", None),
            ("api.example.com/", None),
            ("*.example.com", None),
            ("a..b", None),
            ("", None),
            (".", None),
            ("käse.example", None),
            ("a b", None),
        ];
        for (text, want) in cases {
            assert_eq!(normal(text).ok().as_deref(), want, "{text:?}");
        }
    }
}
