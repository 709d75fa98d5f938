//! The URL of an egress proxy, taken apart. Pure.

use ::url::{Host, Url};

use crate::config::ProxyLogin;
use crate::secret::{Secret, SecretSource};

/// A proxy's URL, taken apart. Without `Debug`: it may hold a secret.
pub(super) struct Parsed {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) login: Option<ProxyLogin>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    NoScheme,
    Tls,
    Scheme,
    /// A user name or password that is not text.
    UserInfo,
    /// Path, query or fragment.
    More,
    Malformed,
}

/// Pure. The login is taken out before anything else looks at the text.
pub(super) fn parse(text: &str) -> Result<Parsed, Problem> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(if text.contains('@') { Problem::UserInfo } else { Problem::NoScheme });
    };
    // A password may hold `/`, `?` and `#` as they are, against the rules.
    let (login, address) = match rest.rsplit_once('@') {
        Some((userinfo, address)) => (Some(userinfo), address),
        None => (None, rest),
    };
    let login = login.map(|userinfo| read_login(userinfo).ok_or(Problem::UserInfo)).transpose()?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" => return Err(Problem::Tls),
        _ => return Err(Problem::Scheme),
    }
    if address.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control()) {
        return Err(Problem::Malformed);
    }
    let url = Url::parse(&format!("http://{address}")).map_err(|_| Problem::Malformed)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::More);
    }
    let host = match url.host().ok_or(Problem::Malformed)? {
        Host::Domain(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(Problem::Malformed)?;
    Ok(Parsed { host, port, login })
}

/// `user:password`, each percent-encoded (RFC 3986 §3.2.1).
fn read_login(userinfo: &str) -> Option<ProxyLogin> {
    let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let read = |text: &str| {
        let text = Secret::new(String::from_utf8(decoded(text)).ok()?);
        (!text.expose().chars().any(char::is_control)).then_some(text)
    };
    let username = read(username).filter(|name| !name.expose().contains(':'))?;
    Some(ProxyLogin { username, password: SecretSource::Value(read(password)?) })
}

/// What is no percent-encoding stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let Some((first, after)) = rest.split_first() {
        let pair = match (first, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match pair {
            Some((high, low)) => {
                bytes.push(high * 16 + low);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_url_is_a_host_a_port_and_perhaps_a_login() {
        let cases = [
            ("http://proxy.corp:3128", Ok(("proxy.corp", 3128, None))),
            ("HTTP://Proxy.Corp.:3128/", Ok(("proxy.corp", 3128, None))),
            ("http://proxy.corp", Ok(("proxy.corp", 80, None))),
            ("http://[2001:db8::1]:8080", Ok(("2001:db8::1", 8080, None))),
            ("http://u:p@proxy.corp:1", Ok(("proxy.corp", 1, Some(("u", "p"))))),
            ("http://key@proxy.corp:1", Ok(("proxy.corp", 1, Some(("key", ""))))),
            ("http://:@proxy.corp:1", Ok(("proxy.corp", 1, Some(("", ""))))),
            (
                "http://u%40corp:p%3a%2F%25%zz@proxy.corp:1",
                Ok(("proxy.corp", 1, Some(("u@corp", "p:/%%zz")))),
            ),
            ("http://u:p@/w?#@proxy.corp:1", Ok(("proxy.corp", 1, Some(("u", "p@/w?#"))))),
            ("http://u%3Ax:p@proxy.corp:1", Err(Problem::UserInfo)),
            ("http://u:%0d%0a@proxy.corp:1", Err(Problem::UserInfo)),
            ("http://u:p%0a@proxy.corp:1", Err(Problem::UserInfo)),
            ("http://u:%ff@proxy.corp:1", Err(Problem::UserInfo)),
            ("u:p@proxy.corp:1", Err(Problem::UserInfo)),
            ("proxy.corp:3128", Err(Problem::NoScheme)),
            ("https://proxy.corp:3128", Err(Problem::Tls)),
            ("socks5://proxy.corp:1080", Err(Problem::Scheme)),
            ("http://proxy.corp:3128/path", Err(Problem::More)),
            ("http://proxy.corp:3128?q", Err(Problem::More)),
            ("http://proxy.corp:3128#f", Err(Problem::More)),
            ("http://", Err(Problem::Malformed)),
            ("http://proxy.corp:0", Err(Problem::Malformed)),
            ("http://proxy.corp:99999", Err(Problem::Malformed)),
            ("http://proxy corp:1", Err(Problem::Malformed)),
            ("http://proxy.corp\\x:1", Err(Problem::Malformed)),
        ];
        for (text, want) in cases {
            let got = parse(text);
            let login = |login: &ProxyLogin| match &login.password {
                SecretSource::Value(password) => {
                    (login.username.expose().to_owned(), password.expose().to_owned())
                }
                other => panic!("{other:?}"),
            };
            let got = got.map(|parsed| (parsed.host, parsed.port, parsed.login.as_ref().map(login)));
            let want = want.map(|(host, port, login)| {
                (host.to_owned(), port, login.map(|(name, password)| (name.to_owned(), password.to_owned())))
            });
            assert_eq!(got, want, "{text}");
        }
    }
}
