//! HTTP/1.1 towards an upstream: one exchange at a time on a connection, which whoever holds it drives.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::places::Place;
use super::stream::Attentive;
use super::{On, SendError, overdue};
use crate::config::Route;
use crate::dial::Stream;
use crate::proxy::error::ProxyError;
use crate::proxy::exchange::{Exchange, MAX_BUFFER_BYTES};
use crate::proxy::headers;
use crate::proxy::request_body::RequestBody;
use crate::proxy::tunnel::Tunnel;
use crate::telemetry::metrics::sheet::Connected;

/// One connection to an upstream.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<Attentive>, RequestBody>,
    /// Has an answer come over it before?
    reused: bool,
    /// The ticker's milliseconds.
    pub(super) born: u64,
    /// How long it is kept unused: what the route says, or less where the upstream closes it earlier.
    pub(super) keep: Duration,
    connected: Connected,
}

impl Link {
    pub(super) async fn new(
        stream: Stream,
        route: &Route,
        born: u64,
        connected: Connected,
    ) -> Result<Box<Self>, ProxyError> {
        let mut builder = Builder::new();
        builder.max_buf_size(MAX_BUFFER_BYTES).preserve_header_case(route.preserve_header_case);
        let io = TokioIo::new(Attentive::new(stream));
        let (sender, connection) = builder.handshake(io).await.map_err(ProxyError::Closed)?;
        Ok(Box::new(Self { sender, connection, reused: false, born, keep: route.idle_timeout, connected }))
    }

    /// Sends a request and waits for the head of its answer; tells whether the connection is still open then.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
        route: &Route,
        exchange: &Exchange,
        made: u64,
    ) -> Result<(Response<Incoming>, bool), SendError> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let mut open = true;
        let answered = std::future::poll_fn(|cx| {
            // A closed connection has told the answer why.
            open = open && Pin::new(&mut self.connection).poll(cx).is_pending();
            match answer.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending if exchange.is_overdue(cx) => Poll::Ready(Err(overdue(exchange, route))),
                Poll::Pending => Poll::Pending,
            }
        });
        match answered.await.map_err(SendError::Failed)? {
            Ok(response) => {
                if response.version() == Version::HTTP_10 {
                    // hyper would go on in the older version, which knows no chunks.
                    self.keep = Duration::ZERO;
                } else if !self.reused {
                    self.keep = self.keep.min(keep_alive(response.headers()).unwrap_or(Duration::MAX));
                }
                Ok((response, open))
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                let stale = self.reused && (unsent.is_some() || is_early_close(failed.error()));
                let error = classify(failed.into_error());
                Err(if stale {
                    SendError::Stale { unsent, unprocessed: false, again: On::After(made), error }
                } else {
                    SendError::Failed(error)
                })
            }
        }
    }

    /// Moves what there is to move; true once the connection is closed.
    pub(super) fn is_closed(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.connection).poll(cx).is_ready()
    }

    /// Could it take a request now?
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// An exchange on it has ended well; it waits for the next.
    pub(super) fn rests(&mut self) {
        self.reused = true;
        self.connected.rests();
    }

    /// An exchange takes it.
    pub(super) fn works(&self) {
        self.connected.works();
    }

    /// The connection after a 101: no longer HTTP.
    pub(super) async fn into_tunnel(mut self: Box<Self>, is_open: bool, place: Option<Place>) -> Box<Tunnel> {
        if is_open {
            // Until hyper has let go of it. What it says then, the tunnel will meet itself.
            let _ = std::future::poll_fn(|cx| Pin::new(&mut self.connection).poll(cx)).await;
        }
        let parts = self.connection.into_parts();
        let stream = parts.io.into_inner().into_stream();
        Tunnel::new(stream, parts.read_buf, place.map(Place::into_inner), self.connected)
    }
}

/// How long a server keeps an unused connection, as its `Keep-Alive: timeout=5` says (RFC 2068 §19.7.1.1), less a
/// second: a request that crosses its closing would fail.
fn keep_alive(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = value.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| value.trim().parse::<u64>().ok()).flatten()
    })?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

/// Did the connection end before the head of an answer was whole?
fn is_early_close(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_reset(error)
}

fn is_reset(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| {
        matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
    })
}

fn classify(error: hyper::Error) -> ProxyError {
    if error.is_parse() { ProxyError::Protocol(error) } else { ProxyError::Closed(error) }
}

/// Makes a request one of HTTP/1.1. One that was to go out by HTTP/2 before and never left keeps its target.
pub(super) fn dress(request: &mut Request<RequestBody>) {
    if request.version() == Version::HTTP_2 {
        *request.version_mut() = Version::HTTP_11;
        if let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        let target = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    headers::for_http1(request.headers_mut());
    if !http_body::Body::is_end_stream(request.body()) {
        let is_length_known = http_body::Body::size_hint(request.body()).exact().is_some();
        headers::frame_for_http1(request.headers_mut(), is_length_known);
    }
}

/// Is it an answer to a WebSocket's handshake (RFC 6455 §4.2.2)?
pub(super) fn switches_to_websocket(answer: &Response<Incoming>) -> bool {
    let upgrade = answer.headers().get(http::header::UPGRADE);
    answer.status() == StatusCode::SWITCHING_PROTOCOLS
        && upgrade.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_server_keeps_connections_is_read_from_its_header() {
        let told = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", value.parse().unwrap());
            keep_alive(&headers).map(|keep| keep.as_secs())
        };
        let cases = [
            ("timeout=5", Some(4)),
            ("timeout=5, max=1000", Some(4)),
            ("max=1000, Timeout = 30", Some(29)),
            ("timeout=0", Some(0)),
            ("timeout=soon", None),
            ("5", None),
            ("", None),
        ];
        for (value, want) in cases {
            assert_eq!(told(value), want, "{value}");
        }
        assert_eq!(keep_alive(&HeaderMap::new()), None);
    }
}
