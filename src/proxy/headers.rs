//! Which headers pass, in both directions, and which are ours to set. Pure.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, REFERER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request::Parts;
use http::{Method, Version};
use http_body::Frame;

use super::{framing, hops};
use crate::config::{Provider, Upstream};
use crate::rights::override_of;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Makes a caller's header one that may be sent upstream, all but the credential: hop-by-hop fields go, what callers
/// may not say goes, ours are set.
pub fn to_upstream(headers: &mut HeaderMap, provider: Provider, upstream: &Upstream, received: Received<'_>) {
    let takes_trailers = headers.contains_key(TE) && has_token(headers, &TE, b"trailers");
    remove_hop_by_hop(headers);
    if takes_trailers {
        // Ours as well: trailers pass. How it is said depends on the connection.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if received.to_websocket {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    let from_browser = headers.contains_key(ORIGIN) || headers.contains_key(&SEC_FETCH_SITE);
    let doomed = |name: &HeaderName| {
        is_callers_taboo(name)
            || is_disguised(name)
            || is_reserved(name, received.reserved)
            || (from_browser && tells_of_page(name))
            || (name == COOKIE && takes_cookies(provider))
    };
    remove_where(headers, doomed);
    let host = headers.insert(HOST, upstream.host_header.clone());
    if provider == Provider::Neo4j
        && let Some(host) = host
    {
        // It builds absolute URLs in its answers from these; they must lead back here.
        let name = match way_to_tell(upstream, &host) {
            Tell::Host => Some(HOST),
            Tell::Forwarded => Some(X_FORWARDED_HOST.clone()),
            Tell::Nothing => None,
        };
        if let Some(name) = name {
            headers.insert(name, host);
            let scheme = if received.tls { "https" } else { "http" };
            headers.insert(X_FORWARDED_PROTO.clone(), HeaderValue::from_static(scheme));
        }
    }
    headers.append(VIA, HeaderValue::from_static(received.via));
}

/// How a Neo4j server is told the Host that a caller used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tell {
    Host,
    Forwarded,
    /// Not at all: the scheme alone would make its own URLs wrong.
    Nothing,
}

/// By Host, where nothing on the way chooses by it, as there is no name to choose. Else by X-Forwarded-Host, which servers
/// understand of names alone: with an address and a port, Neo4j 5.26 answers every request with 500, and versions since
/// 2026 ignore addresses, and names of this machine.
fn way_to_tell(upstream: &Upstream, host: &HeaderValue) -> Tell {
    let own = upstream.host.as_bytes();
    let is_address = own.contains(&b':') || own.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    if is_address || own == b"localhost" || own.ends_with(b".localhost") {
        return Tell::Host;
    }
    let name = host.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    // What Java's URI takes for a scheme, with the port for the rest.
    let is_name = name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    if is_name { Tell::Forwarded } else { Tell::Nothing }
}

/// How a request was received, which its header does not say or says to us alone.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// `Via`: the version of HTTP that the caller speaks, and who received it (RFC 9110 §7.6.3).
    pub via: &'static str,
    /// It asks for a WebSocket, and may.
    pub to_websocket: bool,
    /// The caller speaks TLS.
    pub tls: bool,
    /// What is said in these on its route is for sidekey to say, or for sidekey alone.
    pub reserved: &'a [HeaderName],
}

impl<'a> Received<'a> {
    /// Those of a request, before its header is cleaned.
    pub fn of(head: &Parts, tls: bool, reserved: &'a [HeaderName]) -> Self {
        let to_websocket = head.headers.contains_key(UPGRADE) && is_websocket(head);
        Self { via: hops::via(head.version), to_websocket, tls, reserved }
    }
}

/// Is it the handshake of a WebSocket, and nothing else (RFC 6455 §4.1)? Only such a request may turn its connection
/// into a tunnel: any other upgrade is left out, as RFC 9110 §7.8 allows, and the request goes on without.
fn is_websocket(head: &Parts) -> bool {
    let headers = &head.headers;
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let is_the_only =
        upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
            && upgrades.next().is_none();
    is_the_only
        && head.version == Version::HTTP_11
        && head.method == Method::GET
        && has_token(headers, &CONNECTION, b"upgrade")
        && headers.contains_key(SEC_WEBSOCKET_KEY)
        && headers.contains_key(SEC_WEBSOCKET_VERSION)
        // A body in front of a tunnel would be read as part of it by one side.
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Does a list of tokens hold this one?
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Does the caller wait to be asked for its body (RFC 9110 §10.1.1)?
pub fn asks_first(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Makes a request of HTTP/2 one that can be judged and forwarded as one of HTTP/1.1: its authority is its Host
/// (RFC 9113 §8.3.1), its cookies are one field (§8.2.3), and trailers may follow (§8.1).
pub fn of_http2(head: &mut Parts) {
    if head.headers.contains_key(TRAILER) {
        // In HTTP/1.1, nothing can follow a body of known length.
        head.headers.remove(CONTENT_LENGTH);
    }
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let mut cookies = head.headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut whole = first.as_bytes().to_vec();
        for cookie in std::iter::once(second).chain(cookies) {
            whole.extend_from_slice(b"; ");
            whole.extend_from_slice(cookie.as_bytes());
        }
        if let Ok(whole) = HeaderValue::from_maybe_shared(Bytes::from(whole)) {
            head.headers.insert(COOKIE, whole);
        }
    }
}

/// Says how a body is framed where hyper would frame it otherwise, or not send it: chunked if its length is not known,
/// and if trailers are announced to follow, which they cannot behind a length (RFC 9112 §7.1.2).
pub fn frame_for_http1(headers: &mut HeaderMap, is_length_known: bool) {
    if !headers.contains_key(CONTENT_LENGTH) && (!is_length_known || headers.contains_key(TRAILER)) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Says of this connection what HTTP/1.1 wants said of each (RFC 9110 §7.6.1, §7.8, §10.1.4).
pub fn for_http1(headers: &mut HeaderMap) {
    let said = match (headers.contains_key(UPGRADE), headers.contains_key(TE)) {
        (false, false) => return,
        (true, false) => "upgrade",
        (false, true) => "te",
        (true, true) => "upgrade, te",
    };
    headers.insert(CONNECTION, HeaderValue::from_static(said));
}

/// Makes an upstream's header one that a caller may see. It has one length.
pub fn to_caller(headers: &mut HeaderMap, provider: Provider) {
    remove_hop_by_hop(headers);
    framing::merge_lengths(headers);
    let doomed = |name: &HeaderName| {
        name.as_str().starts_with("access-control-")
            || name.as_str().starts_with("sidekey-")
            // A session that would authenticate by itself is a credential, and callers hold none.
            || (name == SET_COOKIE && takes_cookies(provider))
    };
    remove_where(headers, doomed);
}

/// Trailers, in either direction: what may not stand in a header of ours may not come in behind it, nor what decides
/// about framing, routing or authentication (RFC 9110 §6.5.1).
pub fn in_trailers(trailers: &mut HeaderMap, reserved: &[HeaderName]) {
    remove_where(trailers, |name| {
        is_hop_by_hop(name)
            || is_callers_taboo(name)
            || is_disguised(name)
            || is_reserved(name, reserved)
            || matches!(*name, HOST | CONTENT_LENGTH | COOKIE | SET_COOKIE)
            || name.as_str().starts_with("access-control-")
            // What makes it another request than rules have judged, and another access mode than they set.
            || override_of(name.as_str()).is_some()
            || matches!(name.as_str(), "access-mode" | "access_mode")
    });
}

/// The same for a piece of a body, which may be trailers.
pub fn in_frame(frame: Frame<Bytes>, reserved: &[HeaderName]) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            in_trailers(&mut trailers, reserved);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// Removes every field named in every Connection line, then those that are hop-by-hop by themselves
/// (RFC 9110 §7.6.1).
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body was framed by the other; a length that stayed would cut it (RFC 9112 §6.3).
        headers.remove(CONTENT_LENGTH);
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // Not hop-by-hop whatever a caller says: without it the message has no host or another body.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    remove_where(headers, is_hop_by_hop);
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(*name, CONNECTION | TE | TRANSFER_ENCODING | UPGRADE | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// What a caller may not say: who it is to the upstream, and where it comes from.
fn is_callers_taboo(name: &HeaderName) -> bool {
    *name == AUTHORIZATION
        || *name == FORWARDED
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with("sidekey-")
}

/// Is it a field that callers may not send, with `_` for `-`? Servers in the manner of CGI read both as the same.
fn is_disguised(name: &HeaderName) -> bool {
    name.as_str().contains('_')
        && HeaderName::from_bytes(name.as_str().replace('_', "-").as_bytes()).is_ok_and(|plain| {
            is_hop_by_hop(&plain) || is_callers_taboo(&plain) || matches!(plain, HOST | CONTENT_LENGTH)
        })
}

/// Is it one of these, as it is or with `_` for `-`?
fn is_reserved(name: &HeaderName, reserved: &[HeaderName]) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    reserved.iter().any(|reserved| name.as_str().bytes().map(plain).eq(reserved.as_str().bytes().map(plain)))
}

/// Is it a field that no caller may send, whatever the name that it is disguised with?
pub fn is_for_no_caller(name: &HeaderName, reserved: &[HeaderName]) -> bool {
    is_hop_by_hop(name) || is_callers_taboo(name) || is_disguised(name) || is_reserved(name, reserved)
}

/// Does a browser say in it how the page that it shows stands to sidekey's address? The guard has judged that, and to the
/// upstream, which is at another address, it would mean something else.
fn tells_of_page(name: &HeaderName) -> bool {
    matches!(*name, ORIGIN | REFERER) || name.as_str().starts_with("sec-fetch-")
}

/// Does the provider take a cookie for a credential?
fn takes_cookies(provider: Provider) -> bool {
    match provider {
        Provider::Aura | Provider::Neon => true,
        Provider::Neo4j | Provider::Generic => false,
    }
}

/// Most messages have nothing to remove, so the names are looked at once and nothing is allocated.
fn remove_where(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| doomed(name)).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
