//! The host that a request names, read in one way only. Pure.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use http::Method;
use http::header::HOST;
use http::request::Parts;

use super::Refused;

/// Is it `localhost` or an address of the loopback range, spelled as the standards spell it?
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

/// The one host that a request names (RFC 9112 §3.2): lower case, without port and trailing dot. Any port will do: who
/// forwards one has another than the listener.
pub(super) fn of(request: &Parts) -> Result<Cow<'_, str>, Refused> {
    let mut values = request.headers.get_all(&HOST).iter();
    let Some(value) = values.next() else { return Err(Refused::BadHost("The request has no Host.")) };
    if values.next().is_some() {
        return Err(Refused::BadHost("The request has more than one Host."));
    }
    let text = value.to_str().map_err(|_| Refused::BadHost("The Host is malformed."))?;
    // The target of a CONNECT, which is refused by its method.
    let is_bare = request.uri.scheme().is_none() && request.uri.authority().is_some();
    if is_bare && request.method != Method::CONNECT {
        return Err(Refused::BadHost("The target is a host and not a path."));
    }
    if !matches!(request.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Refused::BadHost("The target is not an http URL."));
    }
    // By RFC 9112 §3.2.2 the target would win, and RFC 9113 §8.3.1 calls it malformed: two that differ are no one host.
    if let Some(authority) = request.uri.authority()
        && !authority.as_str().eq_ignore_ascii_case(text)
    {
        return Err(Refused::BadHost("The target names another host than Host does."));
    }
    name_of(text).ok_or(Refused::BadHost("The Host is malformed."))
}

/// `name[:port]` → name, lower case, without trailing dot, an IPv6 address without brackets; none where it is
/// malformed.
fn name_of(text: &str) -> Option<Cow<'_, str>> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, port)
        }
        None => {
            let (name, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
            (name.strip_suffix('.').unwrap_or(name), port)
        }
    };
    if !port.is_empty() && !is_port(port.strip_prefix(':')?) {
        return None;
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if name.is_empty() || !name.bytes().all(legal) {
        return None;
    }
    Some(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// A port, spelled in one way.
fn is_port(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && digits.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guard;
    use crate::guard::tests::request;

    fn admit(host: &str) -> Result<(), Refused> {
        let guard = Guard::new(["neon.localhost", "sidekey"]);
        guard.admit(&request(&[("host", host)]), true).map(drop)
    }

    #[test]
    fn only_hosts_that_are_ours_are_admitted() {
        let ours = [
            "localhost",
            "localhost:7600",
            "localhost:0",
            "LOCALHOST:80",
            "localhost.",
            "localhost.:7600",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.0.0.1.",
            "127.8.9.10",
            "[::1]",
            "[::1]:7600",
            "[0:0:0:0:0:0:0:1]:7600",
            "neon.localhost",
            "Neon.Localhost:7600",
            "sidekey:65535",
        ];
        for host in ours {
            assert!(admit(host).is_ok(), "{host}");
        }
        let others = [
            "localhost.evil.com",
            "evil.com",
            "evil.localhost",
            "xn--lclhost-90a5d",
            "127.0.0.1.nip.io",
            "128.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::2]",
            "[fe80::1]",
            "127.1",
            "127.0.0.01",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "localhost..",
            "127.0.0.1..",
            ".localhost",
            "notlocalhost",
            "sidekey.evil",
        ];
        for host in others {
            assert_eq!(admit(host), Err(Refused::ForbiddenHost), "{host}");
        }
        let malformed = [
            "",
            "localhost:",
            "localhost:00",
            "localhost:080",
            "localhost:x",
            "localhost:+80",
            "localhost:-1",
            "localhost:99999",
            "localhost:65536",
            "localhost:80:80",
            "localhost: 80",
            "user@localhost",
            "localhost@evil.com",
            "user:password@localhost",
            "localhost/x",
            "localhost?x",
            "localhost#x",
            "localhost\\evil",
            "localhost evil",
            "localhost\tevil",
            "http://localhost",
            "local%68ost",
            "localhost%00",
            "[::1",
            "::1",
            "[::1]x",
            "[::1].",
            "[::1]:",
            "[[::1]]",
            "[127.0.0.1]",
            "[::1%lo]",
            "[::1%25lo]",
            "[]",
            "[localhost]",
            ".",
            ":7600",
            "localhost,evil.com",
            "*",
        ];
        for host in malformed {
            let refused = admit(host);
            assert!(matches!(refused, Err(Refused::BadHost(_))), "{host}: {refused:?}");
        }
    }
}
