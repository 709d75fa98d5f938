//! The exchanges that are cut: requests, answers, and callers of each version of HTTP.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::got::{Got, collect, read_answer};
use crate::support::scripted::say;

/// What a caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Get,
    Head,
    Delete,
    /// Its body is kept, since it carries a credential.
    Put,
    /// Its body is not kept, since nothing can refuse it.
    PutOpen,
    PutChunked,
    Post,
    PostChunked,
}

impl Sent {
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Head => Method::HEAD,
            Self::Delete => Method::DELETE,
            Self::Put | Self::PutOpen | Self::PutChunked => Method::PUT,
            Self::Post | Self::PostChunked => Method::POST,
        }
    }

    fn has_body(self) -> bool {
        matches!(self, Self::Put | Self::PutOpen | Self::PutChunked | Self::Post | Self::PostChunked)
    }

    /// The route's credential.
    pub(crate) fn credential(self) -> &'static str {
        if self == Self::PutOpen { "false" } else { "\"key\"" }
    }

    /// As bytes of HTTP/1.
    pub(crate) fn bytes(self, target: &str, version: &str) -> String {
        let (method, host) = (self.method(), "Host: localhost");
        let begin = format!("{method} {target} HTTP/{version}\r\n{host}\r\n");
        match self {
            _ if !self.has_body() => format!("{begin}\r\n"),
            Self::PostChunked | Self::PutChunked => {
                format!("{begin}Transfer-Encoding: chunked\r\n\r\n2\r\nse\r\n2\r\nnt\r\n0\r\n\r\n")
            }
            _ => format!("{begin}Content-Length: 4\r\n\r\nsent"),
        }
    }

    fn body(self) -> Full<Bytes> {
        Full::new(Bytes::from_static(if self.has_body() { b"sent" } else { b"" }))
    }
}

/// How a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http10,
    Http11,
    Http2,
}

/// Sends a request on a connection of its own, and takes what comes.
pub(crate) async fn call(addr: SocketAddr, speaks: Speaks, sent: Sent, target: &str) -> Got {
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    // Closed in peace, so many connections would use up the system's ports.
    stream.set_zero_linger().expect("a socket");
    let version = match speaks {
        Speaks::Http10 => "1.0",
        Speaks::Http11 => "1.1",
        Speaks::Http2 => return call_by_http2(stream, sent, target).await,
    };
    say(&mut stream, sent.bytes(target, version)).await;
    read_answer(&mut stream, &mut Vec::new(), sent == Sent::Head).await
}

async fn call_by_http2(stream: TcpStream, sent: Sent, target: &str) -> Got {
    let io = TokioIo::new(stream);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = handshake.expect("a handshake");
    let connection = tokio::spawn(connection);
    let target = format!("http://localhost{target}");
    let request = Request::builder().method(sent.method()).uri(target).body(sent.body()).expect("a request");
    let got = collect(sender.send_request(request).await).await;
    connection.abort();
    got
}

/// Marks are of one length, so that every case has the same offsets.
pub(crate) fn mark(number: usize) -> String {
    format!("m{number:07}")
}

/// How an upstream answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Length,
    Chunked,
    /// It ends where the connection does.
    UntilClose,
    /// An answer to HEAD.
    Head,
    NoContent,
    /// With a 103 before it.
    Informed,
}

impl Kind {
    pub(crate) const TO_GET: [Self; 5] =
        [Self::Length, Self::Chunked, Self::UntilClose, Self::NoContent, Self::Informed];

    /// The bytes, and how many of them are the head.
    pub(crate) fn bytes(self, mark: &str) -> (String, usize) {
        let (before, status, framing, body) = match self {
            Self::Length => ("", "200 OK", "Content-Length: 12\r\n", format!("body{mark}")),
            Self::Chunked => (
                "",
                "200 OK",
                "Transfer-Encoding: chunked\r\n",
                format!("4\r\nbody\r\n8\r\n{mark}\r\n0\r\nSum: 7\r\n\r\n"),
            ),
            Self::UntilClose => ("", "200 OK", "", format!("body{mark}")),
            Self::Head => ("", "200 OK", "Content-Length: 12\r\n", String::new()),
            Self::NoContent => ("", "204 No Content", "", String::new()),
            Self::Informed => (
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
                "200 OK",
                "Content-Length: 12\r\n",
                format!("body{mark}"),
            ),
        };
        let head = format!("{before}HTTP/1.1 {status}\r\nMark: {mark}\r\n{framing}\r\n");
        (format!("{head}{body}"), head.len())
    }

    /// What the body holds.
    pub(crate) fn content(self, mark: &str) -> String {
        match self {
            Self::Head | Self::NoContent => String::new(),
            _ => format!("body{mark}"),
        }
    }
}
