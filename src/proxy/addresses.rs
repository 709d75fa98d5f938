//! Addresses in answers: a reference to the upstream becomes one that leads its caller through the same route. Pure.
//!
//! What passes as it is: what points elsewhere, what this route cannot reach (outside the upstream's own path, or
//! where another route's prefix takes it), what could be read two ways, relative references, which resolve rightly by
//! themselves, and parameters of `Link`, `anchor` among them.

use std::net::Ipv6Addr;
use std::ops::Range;

use http::header::{CONTENT_LOCATION, HeaderMap, HeaderName, HeaderValue, LINK, LOCATION, REFRESH};

use super::path;
use super::route::RouteTable;
use crate::config::{Provider, Upstream};

#[cfg(test)]
mod tests;

/// How a caller reached a route, and so what its addresses look like from there.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// Does the caller speak TLS to sidekey?
    pub tls: bool,
    /// The Host that it used, as it wrote it.
    pub host: HeaderValue,
    /// The path prefix that was removed; empty where there was none.
    pub prefix: &'a str,
    /// Where the route was found by path: the table, in which a longer prefix may belong to another route.
    pub by_path: Option<&'a RouteTable>,
}

/// Rewrites the addresses in an upstream's header: `Location` and `Content-Location` (RFC 9110 §10.2.2, §8.7), `Link`
/// (RFC 8288 §3) and `Refresh`. Most answers have none of these, and then nothing is allocated.
pub fn to_caller(headers: &mut HeaderMap, view: &View<'_>, provider: Provider, upstream: &Upstream) {
    let way = Way { view, provider, upstream };
    for (name, value) in headers.iter_mut() {
        // What cannot be a header's value cannot come of one that is.
        if let Some(new) = way.in_field(name, value.as_bytes())
            && let Ok(new) = HeaderValue::from_maybe_shared(bytes::Bytes::from(new))
        {
            *value = new;
        }
    }
}

/// Both ends of a route.
struct Way<'a> {
    view: &'a View<'a>,
    provider: Provider,
    upstream: &'a Upstream,
}

/// How a rewritten reference begins; after it come the prefix and what is left.
struct Lead {
    origin: Origin,
    /// Where in the reference what is left begins.
    rest: usize,
}

enum Origin {
    /// The caller's scheme and host.
    Callers,
    /// So many bytes of the reference.
    Own(usize),
}

impl Way<'_> {
    fn in_field(&self, name: &HeaderName, value: &[u8]) -> Option<Vec<u8>> {
        match *name {
            LOCATION | CONTENT_LOCATION => self.rewritten(value, std::iter::once(Some(0..value.len()))),
            LINK => self.rewritten(value, targets_of_links(value)),
            REFRESH => self.rewritten(value, std::iter::once(target_of_refresh(value))),
            _ => None,
        }
    }

    /// The value with its references rewritten; none where nothing changes or the value is malformed.
    fn rewritten(
        &self,
        value: &[u8],
        references: impl Iterator<Item = Option<Range<usize>>>,
    ) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let (mut done, mut changed) = (0, false);
        for range in references {
            let Range { start, end } = range?;
            let reference = &value[start..end];
            let Some(Lead { origin, rest }) = self.lead(reference) else { continue };
            text.extend_from_slice(&value[done..start]);
            match origin {
                Origin::Callers => {
                    text.extend_from_slice(if self.view.tls { b"https://" } else { b"http://" });
                    text.extend_from_slice(self.view.host.as_bytes());
                }
                Origin::Own(end) => text.extend_from_slice(&reference[..end]),
            }
            text.extend_from_slice(self.view.prefix.as_bytes());
            (done, changed) = (start + rest, true);
        }
        changed.then(|| {
            text.extend_from_slice(&value[done..]);
            text
        })
    }

    /// What a reference is to begin with, if it points at the upstream and this route leads there.
    fn lead(&self, reference: &[u8]) -> Option<Lead> {
        let Reference { tls, authority, path: Range { start, end } } = Reference::parse(reference)?;
        let path = &reference[start..end];
        if path::judge(&String::from_utf8_lossy(path)).is_err() {
            return None;
        }
        let (prefix, base) = (self.view.prefix, self.upstream.base_path.as_str());
        let (origin, base) = match authority {
            Some(authority) if self.is_upstreams(tls, authority) => {
                (Origin::Callers, begins_with(path, base).then_some(base.len())?)
            }
            Some(authority) => {
                // A server that was told the caller's host knows all but the prefix.
                let lacks_prefix = self.provider == Provider::Neo4j
                    && self.is_callers(tls, authority)
                    && !begins_with(path, prefix);
                let base = if begins_with(path, base) { base.len() } else { 0 };
                lacks_prefix.then_some((Origin::Own(start), base))?
            }
            None if prefix.is_empty() && base.is_empty() => return None,
            None => {
                let base = begins_with(path, base).then_some(base.len())?;
                // `//` in front would begin a host.
                let is_host = prefix.is_empty() && path[base..].starts_with(b"//");
                (if is_host { Origin::Callers } else { Origin::Own(0) }, base)
            }
        };
        self.is_reachable(&path[base..], base).then_some(Lead { origin, rest: start + base })
    }

    /// Does the path behind the prefix, as a caller requests it, lead to this route and to what was meant?
    fn is_reachable(&self, rest: &[u8], base: usize) -> bool {
        let prefix = self.view.prefix;
        if prefix.is_empty() && rest.is_empty() {
            // Such a reference is requested as `/`, which behind a path is another resource.
            return base == 0;
        }
        self.view.by_path.is_none_or(|table| {
            let path = format!("{prefix}{}", String::from_utf8_lossy(rest));
            let judged = path::judge(&path);
            judged.is_ok_and(|judged| {
                table.find_path(judged.normal()).is_some_and(|found| found.prefix == Some(prefix))
            })
        })
    }

    fn is_upstreams(&self, tls: Option<bool>, authority: &[u8]) -> bool {
        let upstream = self.upstream;
        tls.is_none_or(|tls| tls == upstream.tls)
            && parse_authority(authority, upstream.tls) == Some((Host::of(&upstream.host), upstream.port))
    }

    fn is_callers(&self, tls: Option<bool>, authority: &[u8]) -> bool {
        let own = parse_authority(self.view.host.as_bytes(), self.view.tls);
        tls.is_none_or(|tls| tls == self.view.tls)
            && own.is_some()
            && parse_authority(authority, self.view.tls) == own
    }
}

/// Does a path begin with another at a segment boundary?
fn begins_with(path: &[u8], first: &str) -> bool {
    path.strip_prefix(first.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// A URI reference with a host or an absolute path (RFC 3986 §4).
struct Reference<'a> {
    /// Its scheme, if it has one: https or http.
    tls: Option<bool>,
    authority: Option<&'a [u8]>,
    path: Range<usize>,
}

impl<'a> Reference<'a> {
    fn parse(reference: &'a [u8]) -> Option<Self> {
        // Some clients drop such bytes, and others do not.
        if reference.iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
            return None;
        }
        let begins = |scheme: &[u8]| {
            reference.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        };
        let (tls, scheme) = match (begins(b"http:"), begins(b"https:")) {
            (true, _) => (Some(false), "http:".len()),
            (_, true) => (Some(true), "https:".len()),
            _ => (None, 0),
        };
        let until = |start: usize, stops: &[u8]| {
            let end = reference[start..].iter().position(|byte| stops.contains(byte));
            end.map_or(reference.len(), |end| start + end)
        };
        let (authority, start) = match &reference[scheme..] {
            [b'/', b'/', ..] => {
                let (start, end) = (scheme + 2, until(scheme + 2, b"/?#"));
                (Some(&reference[start..end]), end)
            }
            [b'/', ..] if tls.is_none() => (None, 0),
            _ => return None,
        };
        Some(Self { tls, authority, path: start..until(start, b"?#") })
    }
}

/// A host, as hosts are compared.
#[derive(Debug, Clone, Copy)]
enum Host<'a> {
    V6(Ipv6Addr),
    Name(&'a str),
}

impl<'a> Host<'a> {
    /// A name or an address, IPv6 without brackets.
    fn of(text: &'a str) -> Self {
        text.parse().map_or(Self::Name(text), Self::V6)
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::V6(one), Self::V6(other)) => one == other,
            (Self::Name(one), Self::Name(other)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

/// `host[:port]` → the host, a trailing dot removed, and the port, by default the scheme's. None where it is
/// malformed or has user information.
fn parse_authority(authority: &[u8], tls: bool) -> Option<(Host<'_>, u16)> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (Host::V6(address.parse().ok()?), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Host::Name(name.strip_suffix('.').unwrap_or(name)), port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if !port.is_empty() => return None,
        None | Some("") => {
            if tls {
                443
            } else {
                80
            }
        }
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    Some((host, port))
}

/// Where the targets of a `Link` field's links stand (RFC 8288 §3); `None` where it is malformed.
fn targets_of_links(value: &[u8]) -> impl Iterator<Item = Option<Range<usize>>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += value[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b',')).count();
        if value[at..].is_empty() {
            return None;
        }
        let start = at + 1;
        let length =
            value[at..].starts_with(b"<").then(|| value[start..].iter().position(|byte| *byte == b'>'));
        let Some(length) = length.flatten() else { return Some(None) };
        let end = start + length;
        match end_of_parameters(&value[end + 1..]) {
            Some(length) => at = end + 1 + length,
            None => return Some(None),
        }
        Some(Some(start..end))
    })
}

/// Where a link's parameters end: at a comma outside quotes. None where quotes stay open.
fn end_of_parameters(parameters: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(byte) = parameters.get(at) {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => at += 1,
            b',' if !quoted => return Some(at),
            _ => {}
        }
        at += 1;
    }
    (!quoted).then_some(parameters.len())
}

/// Where the URL of a `Refresh` field stands: `5; url=…`, `0;URL='…'`. It is read as browsers read it (the HTML
/// standard's shared declarative refresh), but only with its `url=`.
fn target_of_refresh(value: &[u8]) -> Option<Range<usize>> {
    let skip =
        |at: usize, some: fn(&u8) -> bool| at + value[at..].iter().take_while(|byte| some(byte)).count();
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let seconds = skip(0, |byte| byte.is_ascii_digit() || *byte == b'.');
    let mut at = skip(seconds, blank);
    if seconds == 0 || !matches!(value.get(at), Some(b';' | b',')) {
        return None;
    }
    at = skip(at + 1, blank);
    if !value.get(at..at + 3)?.eq_ignore_ascii_case(b"url") {
        return None;
    }
    at = skip(at + 3, blank);
    if value.get(at) != Some(&b'=') {
        return None;
    }
    at = skip(at + 1, blank);
    Some(match value.get(at) {
        Some(quote @ (b'"' | b'\'')) => {
            let end = value[at + 1..].iter().position(|byte| byte == quote);
            at + 1..end.map_or(value.len(), |end| at + 1 + end)
        }
        _ => at..value.len(),
    })
}
