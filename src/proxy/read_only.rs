//! Which requests only read, and what makes sure of it where the method does not say: Neo4j's access mode.
//!
//! For most APIs, GET, HEAD and OPTIONS read (RFC 9110 §9.2.1). A query to Neo4j is a POST whatever it does; there, a
//! transaction is begun in the access mode READ, which the Query API takes in the body and the older API in a header.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRAILER, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::ProxyError;
use super::exchange::Exchange;
use super::incoming::Coming;
use crate::config::Provider;

/// How large a query may be whose body must be read whole, whatever `replay_body` says, in bytes.
pub const MIN_QUERY_BYTES: usize = 64 * 1024;

/// What the older API calls the mode.
static ACCESS_MODE: HeaderName = HeaderName::from_static("access-mode");
/// What the Query API calls it.
const MEMBER: &str = "accessMode";
const READ: &str = "READ";

/// What is to be done so that a request only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Where its access mode is set.
    pub mode: Mode,
    /// It belongs to a transaction, which must have been begun here.
    pub within: bool,
}

/// Where a request's access mode is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nowhere: it needs none.
    Unsaid,
    /// In its body: READ where it begins a transaction, none where it goes on with one.
    InBody {
        /// Does it begin one?
        begins: bool,
    },
    /// In its header.
    InHeader,
}

impl Access {
    /// As it came.
    pub const ANY: Self = Self { mode: Mode::Unsaid, within: false };
}

/// What is to be done so that a request only reads; none: it may not pass. `path`: normalized, behind the route's
/// prefix.
pub fn access(provider: Provider, head: &Parts, path: &str) -> Option<Access> {
    if head.headers.contains_key(UPGRADE) && is_websocket(&head.headers) {
        // What goes through a WebSocket is in nobody's view.
        return None;
    }
    if matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Some(Access::ANY);
    }
    if provider == Provider::Neo4j { of_neo4j(&head.method, path) } else { None }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"websocket"))
}

fn of_neo4j(method: &Method, path: &str) -> Option<Access> {
    let mut segments = [""; 7];
    let mut count = 0;
    for segment in path.strip_prefix('/')?.split('/') {
        // Parameters and escapes name nothing that a database or a transaction is called.
        if segment.is_empty() || segment.contains([';', '%']) {
            return None;
        }
        *segments.get_mut(count)? = segment;
        count += 1;
    }
    let (posts, deletes) = (*method == Method::POST, *method == Method::DELETE);
    let (mode, within) = match segments[..count] {
        ["db", _, "query", "v2"] | ["db", _, "query", "v2", "tx"] if posts => (Mode::InBody { begins: true }, false),
        ["db", _, "query", "v2", "tx", _] | ["db", _, "query", "v2", "tx", _, "commit"] if posts => {
            (Mode::InBody { begins: false }, true)
        }
        ["db", _, "tx"] | ["db", _, "tx", "commit"] if posts => (Mode::InHeader, false),
        ["db", _, "tx", _] | ["db", _, "tx", _, "commit"] if posts => (Mode::InHeader, true),
        ["db", _, "query", "v2", "tx", _] if deletes => (Mode::Unsaid, true),
        ["db", _, "tx", id] if deletes && id != "commit" => (Mode::Unsaid, true),
        _ => return None,
    };
    Some(Access { mode, within })
}

/// Sets the access mode in the header.
pub fn set_in_header(headers: &mut HeaderMap) {
    headers.insert(ACCESS_MODE.clone(), HeaderValue::from_static(READ));
}

/// Sets the access mode in the body, which is read whole for that, and makes the header fit it.
///
/// # Errors
/// The body is larger than `limit`, broke off, does not come, or is not one whose mode can be set.
pub(crate) async fn set_in_body(
    headers: &mut HeaderMap,
    body: Coming,
    begins: bool,
    limit: usize,
    exchange: &Rc<Exchange>,
) -> Result<Coming, ProxyError> {
    is_plain_json(headers).map_err(ProxyError::NotAllowed)?;
    let whole = whole(body, limit, exchange).await?;
    let rewritten = with_mode(&whole, begins.then_some(READ)).map_err(ProxyError::NotAllowed)?;
    for name in [CONTENT_LENGTH, EXPECT, TRAILER] {
        headers.remove(name);
    }
    // They were made of another body.
    for name in ["content-md5", "content-digest", "repr-digest", "digest"] {
        headers.remove(name);
    }
    if !rewritten.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(rewritten.len()));
    Ok(Coming::own(rewritten))
}

/// May a body with this header be read as JSON in UTF-8, by everybody?
fn is_plain_json(headers: &HeaderMap) -> Result<(), &'static str> {
    const TYPE: &str = "On this read-only route, a query must be application/json or application/vnd.neo4j.query in \
                        UTF-8: its access mode is set in the body.";
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if !encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err("On this read-only route, a query must not be compressed: its access mode is set in the body.");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(given) = types.next() else { return Ok(()) };
    let given = given.to_str().map_err(|_| TYPE)?;
    let mut parts = given.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let is_json = ["application/json", "application/vnd.neo4j.query"].iter().any(|is| essence.eq_ignore_ascii_case(is));
    let is_utf8 = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    if is_json && parts.all(is_utf8) && types.next().is_none() { Ok(()) } else { Err(TYPE) }
}

/// The whole body; the caller may be silent for as long as it may within any body.
async fn whole(mut body: Coming, limit: usize, exchange: &Rc<Exchange>) -> Result<Vec<u8>, ProxyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(ProxyError::TooLarge(limit));
    }
    let mut whole = Vec::new();
    if body.is_end_stream() {
        return Ok(whole);
    }
    exchange.forwarding(None, true);
    loop {
        let frame = poll_fn(|cx| match body.poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending if exchange.is_overdue(cx) => {
                Poll::Ready(Err(ProxyError::CallerStalled(exchange.idle_limit())))
            }
            Poll::Pending => Poll::Pending,
        });
        match frame.await? {
            None => break,
            Some(Err(_)) => {
                exchange.request_breaks();
                return Err(ProxyError::CallerBroke);
            }
            Some(Ok(frame)) => {
                exchange.request_moves();
                // Trailers end here: they belonged to another body.
                let Ok(chunk) = frame.into_data() else { continue };
                if whole.len() + chunk.len() > limit {
                    return Err(ProxyError::TooLarge(limit));
                }
                whole.extend_from_slice(&chunk);
            }
        }
    }
    exchange.request_sent();
    Ok(whole)
}

/// A query's body with this access mode, or with none; every other member as it came, byte for byte.
///
/// However often and however spelled the body says a mode, the server sees one at most.
///
/// # Errors
/// It is not one JSON object.
pub fn with_mode(body: &[u8], mode: Option<&str>) -> Result<Bytes, &'static str> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    const TEXT: &str = "On this read-only route, the body of a query must be one JSON object: its access mode is set in it.";
    let mut members = Vec::new();
    if !body.trim_ascii().is_empty() {
        let mut json = serde_json::Deserializer::from_slice(body);
        members = json.deserialize_map(Members).map_err(|_| TEXT)?;
        json.end().map_err(|_| TEXT)?;
        members.retain(|(name, _)| !is_the_mode(name));
    } else if mode.is_none() {
        return Ok(Bytes::copy_from_slice(body));
    }
    let mut out = Vec::with_capacity(body.len() + MEMBER.len() + READ.len() + 8);
    out.push(b'{');
    let mut put = |name: &str, value: &str| -> Result<(), &'static str> {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, name).map_err(|_| TEXT)?;
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
        Ok(())
    };
    for (name, value) in members {
        put(&name, value.get())?;
    }
    if let Some(mode) = mode {
        put(MEMBER, &format!("\"{mode}\""))?;
    }
    out.push(b'}');
    Ok(out.into())
}

/// Is a member of this name the access mode to any reader, also to one that tells no letters' case apart?
fn is_the_mode(name: &str) -> bool {
    name.chars().flat_map(char::to_uppercase).eq(MEMBER.chars().flat_map(char::to_uppercase))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_reads_passes_and_what_could_write_is_begun_in_the_access_mode_read() {
        let begins = Some(Access { mode: Mode::InBody { begins: true }, within: false });
        let goes_on = Some(Access { mode: Mode::InBody { begins: false }, within: true });
        let older = Some(Access { mode: Mode::InHeader, within: false });
        let within_older = Some(Access { mode: Mode::InHeader, within: true });
        let rolls_back = Some(Access { mode: Mode::Unsaid, within: true });
        let (any, no) = (Some(Access::ANY), None);
        let cases = [
            ("GET", "/", any),
            ("GET", "/db/neo4j/query/v2", any),
            ("HEAD", "/x", any),
            ("OPTIONS", "*", any),
            ("POST", "/db/neo4j/query/v2", begins),
            ("POST", "/db/neo4j/query/v2/tx", begins),
            ("POST", "/db/neo4j/query/v2/tx/a1", goes_on),
            ("POST", "/db/neo4j/query/v2/tx/a1/commit", goes_on),
            ("DELETE", "/db/neo4j/query/v2/tx/a1", rolls_back),
            ("POST", "/db/neo4j/tx", older),
            ("POST", "/db/neo4j/tx/commit", older),
            ("POST", "/db/neo4j/tx/5", within_older),
            ("POST", "/db/neo4j/tx/5/commit", within_older),
            ("DELETE", "/db/neo4j/tx/5", rolls_back),
            ("DELETE", "/db/neo4j/tx/commit", no),
            ("DELETE", "/db/neo4j/query/v2/tx/a1/commit", no),
            ("PUT", "/db/neo4j/query/v2", no),
            ("PATCH", "/db/neo4j/query/v2", no),
            ("post", "/db/neo4j/query/v2", no),
            ("get", "/", no),
            ("QUERY", "/db/neo4j/query/v2", no),
            ("POST", "/", no),
            ("POST", "/db/neo4j/query/v2/", no),
            ("POST", "/db//query/v2", no),
            ("POST", "//db/neo4j/query/v2", no),
            ("POST", "/db/neo4j/query/v3", no),
            ("POST", "/db/neo4j/query/v2/tx/a1/other", no),
            ("POST", "/db/neo4j/query/v2/tx/a1/commit/x", no),
            ("POST", "/db/neo4j;x/query/v2", no),
            ("POST", "/db/neo4j/query/v2;x", no),
            ("POST", "/db/a%3Bb/query/v2", no),
            ("POST", "/x/db/neo4j/query/v2", no),
            ("POST", "/db/data/cypher", no),
            ("POST", "/plugin/db/neo4j/tx", no),
            ("POST", "*", no),
        ];
        for (method, path, want) in cases {
            let (head, ()) = Request::builder().method(method).body(()).unwrap().into_parts();
            assert_eq!(access(Provider::Neo4j, &head, path), want, "{method} {path}");
            let elsewhere = want.filter(|access| *access == Access::ANY);
            for provider in [Provider::Aura, Provider::Neon, Provider::Generic] {
                assert_eq!(access(provider, &head, path), elsewhere, "{provider:?}: {method} {path}");
            }
        }
        let (websocket, ()) = Request::get("/").header("upgrade", "WebSocket").body(()).unwrap().into_parts();
        assert_eq!(access(Provider::Neon, &websocket, "/v2"), None);
    }

    #[test]
    fn the_body_says_one_access_mode_whatever_it_said_before() {
        let cases = [
            (r#"{"statement":"RETURN 1"}"#, r#"{"statement":"RETURN 1","accessMode":"READ"}"#),
            (r#"{"accessMode":"WRITE","statement":"x"}"#, r#"{"statement":"x","accessMode":"READ"}"#),
            (r#"{"accessMode":"READ","accessMode":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"access\u004dode":"WRITE","statement":"x"}"#, r#"{"statement":"x","accessMode":"READ"}"#),
            (r#"{"\u0061ccessMod\u0065":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"ACCESSMODE":"WRITE","accessmode":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"acce\u017f\u017fMode":"WRITE"}"#, r#"{"accessMode":"READ"}"#),
            (r#"{"accessMode":{"a":["WRITE"]},"b":1}"#, r#"{"b":1,"accessMode":"READ"}"#),
            (" { } \n", r#"{"accessMode":"READ"}"#),
            ("", r#"{"accessMode":"READ"}"#),
            ("  \n", r#"{"accessMode":"READ"}"#),
            (
                r#"{"parameters" : {"n": 123456789012345678901234567890, "f":1.10e+3, "accessMode":"WRITE", "s":"\ud83d\ude00\u0000"}}"#,
                r#"{"parameters":{"n": 123456789012345678901234567890, "f":1.10e+3, "accessMode":"WRITE", "s":"\ud83d\ude00\u0000"},"accessMode":"READ"}"#,
            ),
            (r#"{"a\"b\\":"\"accessMode\":\"WRITE\""}"#, r#"{"a\"b\\":"\"accessMode\":\"WRITE\"","accessMode":"READ"}"#),
        ];
        for (body, want) in cases {
            let got = with_mode(body.as_bytes(), Some(READ)).unwrap();
            assert_eq!(std::str::from_utf8(&got).unwrap(), want, "{body}");
        }
        let within = |body: &str| with_mode(body.as_bytes(), None).map(|got| String::from_utf8(got.to_vec()).unwrap());
        assert_eq!(within(""), Ok(String::new()));
        assert_eq!(within(r#"{"accessMode":"WRITE","statement":"x"}"#), Ok(r#"{"statement":"x"}"#.to_owned()));
        for body in [
            "[]", "1", "null", "\"x\"", "{", "{}{}", "{} x", "{'a':1}", "{a:1}", "{\"a\":1,}", "{\"a\":NaN}", "/**/{}",
            "\u{feff}{}", "{\"\\ud800\":1}", "{\"a\":1}\0",
        ] {
            assert!(with_mode(body.as_bytes(), Some(READ)).is_err(), "{body:?}");
        }
        assert!(with_mode(b"\xff\xfe{\0}\0", Some(READ)).is_err());
        assert!(with_mode(b"{\"a\xff\":1}", Some(READ)).is_err());
    }

    #[test]
    fn only_what_everybody_reads_as_utf_8_is_rewritten() {
        let with = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            is_plain_json(&headers).is_ok()
        };
        for value in [
            "application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\"",
            "application/vnd.neo4j.query", "application/vnd.neo4j.query;charset=utf-8",
        ] {
            assert!(with(&[("content-type", value)]), "{value}");
        }
        assert!(with(&[]) && with(&[("content-encoding", "identity")]));
        for value in ["application/json; charset=utf-16", "application/json;charset=utf-7", "text/plain", "application/jsonl", ""] {
            assert!(!with(&[("content-type", value)]), "{value}");
        }
        assert!(!with(&[("content-type", "application/json"), ("content-type", "application/json")]));
        assert!(!with(&[("content-encoding", "gzip")]));
    }

    proptest! {
        #[test]
        fn nothing_but_the_access_mode_changes(
            members in proptest::collection::vec(("[a-zA-Z\u{e9}\"\\\\]{0,6}|accessMode", "[ -~]{0,8}"), 0..6),
        ) {
            let quoted = |text: &str| serde_json::to_string(text).unwrap();
            let body: Vec<String> =
                members.iter().map(|(name, value)| format!("{} :  {}", quoted(name), quoted(value))).collect();
            let got = with_mode(format!("{{{}}}", body.join(" ,\n")).as_bytes(), Some(READ)).unwrap();
            let seen: Value = serde_json::from_slice(&got).unwrap();
            let mut wanted: serde_json::Map<String, Value> = serde_json::Map::new();
            for (name, value) in &members {
                wanted.insert(name.clone(), value.clone().into());
            }
            wanted.retain(|name, _| !name.eq_ignore_ascii_case(MEMBER));
            wanted.insert(MEMBER.to_owned(), READ.into());
            prop_assert_eq!(seen, Value::Object(wanted));
        }
    }
}
