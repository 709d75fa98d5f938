//! Small HTTP clients for tests: one that sends bytes as they are, one that is a hyper client. Below, what tests
//! start: a sidekey, an upstream that follows a script, TLS.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod authorization_server;
pub(crate) mod browser;
#[cfg(feature = "demo")]
pub(crate) mod callers;
pub(crate) mod egress_proxy;
pub(crate) mod faulty;
#[cfg(feature = "demo")]
pub(crate) mod frames;
pub(crate) mod got;
#[cfg(feature = "demo")]
pub(crate) mod http2;
#[cfg(feature = "demo")]
pub(crate) mod logins;
#[cfg(feature = "demo")]
pub(crate) mod recorder;
#[cfg(feature = "demo")]
pub(crate) mod running;
pub(crate) mod scripted;
#[cfg(feature = "demo")]
pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a test waits for an answer at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// Headers to send, in order.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In order; from `raw` with the names as sent, from the hyper client in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The first value of a header, the name in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }
}

/// Sends these bytes on a connection of their own and reads one answer (after any 1xx).
pub(crate) async fn raw(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    stream.write_all(bytes.as_ref()).await.expect("send");
    read_reply(&mut stream).await
}

/// Sends these bytes and gives back everything until the server closes, as it came.
pub(crate) async fn raw_to_end(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    stream.write_all(bytes.as_ref()).await.expect("send");
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("the server closes");
    // A reset after the answer is also an end.
    drop(read);
    all
}

/// Sends these bytes to a Unix socket and reads one answer.
pub(crate) async fn raw_unix(path: &std::path::Path, bytes: impl AsRef<[u8]>) -> Reply {
    let mut stream = tokio::net::UnixStream::connect(path).await.expect("connect");
    stream.write_all(bytes.as_ref()).await.expect("send");
    read_reply(&mut stream).await
}

/// Reads one answer (after any 1xx) from a connection that goes on to be used.
pub(crate) async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> Reply {
    tokio::time::timeout(PATIENCE, async {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = find(&buffer, b"\r\n\r\n") {
                    break at;
                }
                assert!(
                    more(stream, &mut buffer).await,
                    "closed within the head: {:?}",
                    String::from_utf8_lossy(&buffer)
                );
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 4);
            let mut lines = head.split("\r\n");
            let status =
                lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
            let status: u16 = status.expect("a status line");
            if (100..200).contains(&status) {
                continue;
            }
            let headers: Vec<(String, String)> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            let mut reply = Reply { status, headers, body: Bytes::new() };
            reply.body = read_body(stream, &reply, buffer).await;
            return reply;
        }
    })
    .await
    .expect("an answer in time")
}

async fn read_body(stream: &mut (impl AsyncRead + Unpin), reply: &Reply, mut buffer: Vec<u8>) -> Bytes {
    if reply.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        let mut body = Vec::new();
        loop {
            while find(&buffer, b"\r\n").is_none() {
                assert!(more(stream, &mut buffer).await, "closed within a chunk");
            }
            let line = find(&buffer, b"\r\n").expect("just seen");
            let size = String::from_utf8_lossy(&buffer[..line]);
            let size =
                usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16).expect("a chunk size");
            while buffer.len() < line + 2 + size + 2 {
                assert!(more(stream, &mut buffer).await, "closed within a chunk");
            }
            body.extend_from_slice(&buffer[line + 2..line + 2 + size]);
            buffer.drain(..line + 2 + size + 2);
            if size == 0 {
                return body.into();
            }
        }
    }
    let length = reply.header("content-length").map(|value| value.parse::<usize>().expect("a length"));
    let length = if matches!(reply.status, 204 | 304) { Some(0) } else { length };
    while length.is_none_or(|length| buffer.len() < length) {
        if !more(stream, &mut buffer).await {
            assert!(length.is_none(), "closed after {} bytes of {length:?}", buffer.len());
            break;
        }
    }
    buffer.into()
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> bool {
    stream.read_buf(buffer).await.is_ok_and(|read| read > 0)
}

pub(crate) fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

/// GET with a hyper client on a connection of its own.
pub(crate) async fn get(addr: SocketAddr, target: &str, headers: Headers<'_>) -> Reply {
    send(addr, Method::GET, target, headers, "").await
}

/// POST with a hyper client on a connection of its own.
pub(crate) async fn post(
    addr: SocketAddr,
    target: &str,
    headers: Headers<'_>,
    body: impl Into<Bytes>,
) -> Reply {
    send(addr, Method::POST, target, headers, body).await
}

/// Any method with a hyper client on a connection of its own; panics if there is no whole answer.
pub(crate) async fn send(
    addr: SocketAddr,
    method: Method,
    target: &str,
    headers: Headers<'_>,
    body: impl Into<Bytes>,
) -> Reply {
    try_send(addr, method, target, headers, body).await.expect("a whole answer")
}

/// The same, for answers that may break off.
pub(crate) async fn try_send(
    addr: SocketAddr,
    method: Method,
    target: &str,
    headers: Headers<'_>,
    body: impl Into<Bytes>,
) -> Result<Reply, hyper::Error> {
    let stream = TcpStream::connect(addr).await.expect("connect");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::new(Full::new(body.into()));
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().expect("a target");
    let host = HeaderValue::from_str(&addr.to_string()).expect("an address");
    request.headers_mut().insert(http::header::HOST, host);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
        if name == http::header::HOST {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    let answered = tokio::time::timeout(PATIENCE, async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(Reply { status: head.status.as_u16(), headers, body })
    });
    let reply = answered.await.expect("an answer in time");
    connection.abort();
    reply
}

/// An address that nobody else binds until this test does: on a loopback address of its own, where no connection of
/// others has its end, as it might at a port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let second = 1 + TAKEN.fetch_add(1, Ordering::Relaxed) % 60;
    let listener =
        std::net::TcpListener::bind(SocketAddr::from(([127, second, high, low], 0))).expect("a port");
    listener.local_addr().expect("bound")
}

/// The same at `localhost`, for what is known by that name: at a port below those that the system gives to connections.
pub(crate) fn free_at_localhost() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let begin = u16::from_be_bytes([high, low]);
    loop {
        let next = TAKEN.fetch_add(1, Ordering::Relaxed).wrapping_add(begin);
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + next % 12_000));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// `Basic` and base64 of `user:password`.
pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// `Bearer` and the token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
