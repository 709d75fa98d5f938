//! Which requests only read, and what makes sure of it where the method does not say: Neo4j's access mode.
//!
//! For most APIs, GET, HEAD and OPTIONS read (RFC 9110 §9.2.1). A query to Neo4j is a POST whatever it does; there, a
//! transaction is begun in the access mode READ, which the Query API takes in the body and the older API in a header.

mod query;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRAILER, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::error::ProxyError;
use super::exchange::Exchange;
use super::incoming::Coming;
use crate::config::Provider;

/// How large a query may be whose body must be read whole, whatever `replay_body` says, in bytes.
pub const MIN_QUERY_BYTES: usize = 64 * 1024;

/// What the older API calls the mode.
static ACCESS_MODE: HeaderName = HeaderName::from_static("access-mode");
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
    headers
        .get_all(UPGRADE)
        .iter()
        .any(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"websocket"))
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
        ["db", _, "query", "v2"] | ["db", _, "query", "v2", "tx"] if posts => {
            (Mode::InBody { begins: true }, false)
        }
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
    query::is_plain_json(headers).map_err(ProxyError::NotAllowed)?;
    let whole = whole(body, limit, exchange).await?;
    let rewritten = query::with_mode(&whole, begins.then_some(READ)).map_err(ProxyError::NotAllowed)?;
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

#[cfg(test)]
mod tests {
    use http::Request;

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
}
