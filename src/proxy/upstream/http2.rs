//! HTTP/2 towards an upstream: many exchanges at a time on a connection, which drives itself.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tracing::trace;

use super::{On, SendError, overdue};
use crate::clock::ticker::Ticker;
use crate::config::Route;
use crate::dial::Stream;
use crate::proxy::error::ProxyError;
use crate::proxy::exchange::Exchange;
use crate::proxy::request_body::{RequestBody, sending};
use crate::telemetry::metrics::sheet::Connected;

/// What an upstream may send of one answer ahead of the caller that takes it.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Exchanges at once on one connection, so that each has its whole window: a caller that does not read holds up no
/// other.
const STREAMS: u32 = 64;
/// What is kept of one request's body ahead of the upstream that takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// The most that an answer's header may hold.
const HEADER_LIST: u32 = 64 * 1024;

/// One connection to an upstream.
#[derive(Debug)]
pub(super) struct Shared {
    sender: SendRequest<RequestBody>,
    /// Exchanges on it.
    streams: Cell<usize>,
    /// As many as the upstream allows, as far as is known.
    allowed: Rc<Cell<usize>>,
    /// Looks at what the upstream allows.
    driver: Rc<RefCell<Option<Waker>>>,
    /// Has an answer come over it before?
    reused: Cell<bool>,
    /// Something went wrong on it: what runs may end, nothing new begins.
    retired: Cell<bool>,
    /// The ticker's milliseconds.
    pub(super) born: u64,
    /// How many were made before it and with it.
    pub(super) number: u64,
    /// Since when it has had no exchange; the ticker's milliseconds.
    pub(super) idle_since: Cell<u64>,
    connected: Connected,
}

/// An exchange's place on a connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Streaming {
    shared: Rc<Shared>,
    now: Rc<Ticker>,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get() - 1);
        self.shared.idle_since.set(self.now.millis());
        if self.shared.is_idle() {
            self.shared.connected.rests();
        }
    }
}

impl Shared {
    pub(super) async fn new(
        stream: Stream,
        born: u64,
        number: u64,
        connected: Connected,
    ) -> Result<Rc<Self>, ProxyError> {
        let mut builder = Builder::new(Local);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(HEADER_LIST);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(ProxyError::Closed)?;
        let allowed = Rc::new(Cell::new(connection.current_max_send_streams()));
        let driver = Rc::new(RefCell::new(None));
        let shared = Rc::new(Self {
            sender,
            streams: Cell::new(0),
            allowed: Rc::clone(&allowed),
            driver: Rc::clone(&driver),
            reused: Cell::new(false),
            retired: Cell::new(false),
            born,
            number,
            idle_since: Cell::new(born),
            connected,
        });
        let mut connection = Box::pin(connection);
        spawn_local(async move {
            let ended = std::future::poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                allowed.set(connection.current_max_send_streams());
                driver.replace(Some(cx.waker().clone()));
                polled
            });
            if let Err(error) = ended.await {
                trace!(%error, "an upstream connection broke off");
            }
        });
        Ok(shared)
    }

    /// Has it room for one more exchange?
    pub(super) fn has_room(&self) -> bool {
        let limit = self.allowed.get().min(STREAMS as usize);
        !self.is_closed() && self.streams.get() < limit
    }

    /// Does it take no more?
    pub(super) fn is_closed(&self) -> bool {
        self.retired.get() || self.sender.is_closed()
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.get() == 0
    }

    /// Takes a place on it.
    pub(super) fn place(self: &Rc<Self>, now: &Rc<Ticker>) -> Streaming {
        self.streams.set(self.streams.get() + 1);
        self.connected.works();
        Streaming { shared: Rc::clone(self), now: Rc::clone(now) }
    }
}

impl Streaming {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
        route: &Route,
        exchange: &Exchange,
        made: u64,
    ) -> Result<Response<Incoming>, SendError> {
        let mut sender = self.shared.sender.clone();
        let mut answer = pin!(sender.try_send_request(request));
        let answered = std::future::poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if exchange.is_overdue(cx) => {
                // Perhaps it is dead, and nobody has said so.
                self.shared.retired.set(!exchange.awaits_caller() || self.shared.retired.get());
                Poll::Ready(Err(overdue(exchange, route)))
            }
            Poll::Pending => Poll::Pending,
        });
        match answered.await.map_err(SendError::Failed)? {
            Ok(response) => {
                if !self.shared.reused.replace(true)
                    && let Some(driver) = self.shared.driver.take()
                {
                    // The upstream's settings came before its first answer.
                    driver.wake();
                }
                Ok(response)
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                let error = failed.into_error();
                let fate = fate(&error);
                if !h2_error(&error).is_some_and(h2::Error::is_reset) {
                    // More than this one stream went wrong.
                    self.shared.retired.set(true);
                }
                let unprocessed = unsent.is_some() || matches!(fate, Fate::Unprocessed | Fate::Refused);
                let stale = unprocessed || (fate == Fate::Unknown && self.shared.reused.get());
                let error = match fate {
                    Fate::Malformed => ProxyError::Protocol(error),
                    Fate::Refused | Fate::Unprocessed | Fate::Unknown => ProxyError::Closed(error),
                };
                Err(if stale {
                    let is_open = fate == Fate::Refused && !self.shared.is_closed();
                    let again = if is_open { On::Any } else { On::After(made) };
                    SendError::Stale { unsent, unprocessed, again, error }
                } else {
                    SendError::Failed(error)
                })
            }
        }
    }
}

/// What became of a request that got no answer.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The upstream says that it did nothing for it, but may for another.
    Refused,
    /// The upstream says that it did nothing for it, and goes away.
    Unprocessed,
    /// The connection broke off, or the upstream gave up.
    Unknown,
    /// What the upstream sent is no HTTP/2, or no valid answer.
    Malformed,
}

/// A stream that was refused, or that lies beyond the last one that a server going away has taken, was not processed
/// (RFC 9113 §8.7).
fn fate(error: &hyper::Error) -> Fate {
    let Some(error) = h2_error(error) else { return Fate::Unknown };
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => Fate::Refused,
        // Streams up to the last one that it took get no such error: they go on, whatever the reason.
        Some(_) if error.is_remote() && error.is_go_away() => Fate::Unprocessed,
        Some(_) if error.is_library() => Fate::Malformed,
        Some(h2::Reason::PROTOCOL_ERROR) => Fate::Malformed,
        _ => Fate::Unknown,
    }
}

/// What HTTP/2 says of an error.
fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>())
}

/// Makes a request's target and authority those of HTTP/2 (RFC 9113 §8.3.1). The authority is its Host, which nearly always
/// is the upstream's.
pub(super) fn dress(request: &mut Request<RequestBody>, scheme: Scheme, upstreams: &Authority) {
    let host = request.headers_mut().remove(http::header::HOST);
    let other = host.filter(|host| host.as_bytes() != upstreams.as_str().as_bytes());
    let other = other.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = other.unwrap_or_else(|| upstreams.clone());
    let target = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    // Of three parts, each of which is one; it cannot fail.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = http::Version::HTTP_2;
}

/// Runs what a connection needs to have run on the worker's own thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(sending(future));
    }
}
