//! A worker's own upstream connections: kept alive, driven by the exchange that uses them, without a task each.

mod stream;

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;

use self::stream::Attentive;
use super::error::ProxyError;
use super::exchange::{Exchange, MAX_BUFFER_BYTES, Phase};
use super::request_body::RequestBody;
use crate::clock::ticker::Ticker;
use crate::config::Route;
use crate::dial::dial;

/// How long an unused connection is kept: less than the 30 s after which many servers close theirs.
const KEEP_IDLE: Duration = Duration::from_secs(25);

/// A worker's connections to all upstreams.
#[derive(Debug)]
pub(crate) struct Upstreams {
    /// By route; the last used is the first taken.
    idle: RefCell<Box<[Vec<Idle>]>>,
    ticker: Rc<Ticker>,
}

#[derive(Debug)]
struct Idle {
    link: Box<Link>,
    /// The ticker's milliseconds.
    since: u64,
}

/// One connection to an upstream. Whoever holds it drives it.
#[derive(Debug)]
struct Link {
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<Attentive>, RequestBody>,
    /// Has an answer come over it before?
    reused: bool,
}

/// Why a request got no answer.
pub(crate) enum SendError {
    /// The connection had been idle and was dead. The request is here if it surely never left.
    Stale {
        /// The request, if it never left.
        unsent: Option<Box<Request<RequestBody>>>,
        /// What to answer if it cannot be sent again.
        error: ProxyError,
    },
    /// It failed.
    Failed(ProxyError),
}

impl SendError {
    pub(crate) fn into_error(self) -> ProxyError {
        match self {
            Self::Stale { error, .. } | Self::Failed(error) => error,
        }
    }
}

impl Upstreams {
    pub(crate) fn new(routes: usize, ticker: &Rc<Ticker>) -> Rc<Self> {
        let idle = std::iter::repeat_with(Vec::new).take(routes).collect();
        Rc::new(Self { idle: RefCell::new(idle), ticker: Rc::clone(ticker) })
    }

    /// Sends a request on an idle connection, or on a new one where there is none or `fresh` asks for it.
    pub(crate) async fn send(
        self: &Rc<Self>,
        index: usize,
        route: &Route,
        tls: Option<&TlsConnector>,
        request: Request<RequestBody>,
        exchange: &Rc<Exchange>,
        fresh: bool,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let idle = if fresh { None } else { self.take_idle(index).await };
        let mut link = match idle {
            Some(link) => link,
            None => connect(route, tls).await.map_err(SendError::Failed)?,
        };
        let has_body = !request.body().is_end_stream();
        exchange.forwarding(route.response_timeout, has_body);
        let mut answer = pin!(link.sender.try_send_request(request));
        let mut open = true;
        let answered = std::future::poll_fn(|cx| {
            // A closed connection has told the answer why.
            open = open && Pin::new(&mut link.connection).poll(cx).is_pending();
            match answer.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Ok(done)),
                Poll::Pending if exchange.is_overdue(cx) => Poll::Ready(Err(overdue(exchange, route))),
                Poll::Pending => Poll::Pending,
            }
        });
        let response = match answered.await.map_err(SendError::Failed)? {
            Ok(response) => response,
            Err(mut failed) => {
                let unsent = failed.take_message();
                let stale = link.reused && (unsent.is_some() || is_early_close(failed.error()));
                let error = classify(failed.into_error());
                return Err(if stale {
                    SendError::Stale { unsent: unsent.map(Box::new), error }
                } else {
                    SendError::Failed(error)
                });
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Failed(ProxyError::Switched));
        }
        exchange.answered();
        let (head, incoming) = response.into_parts();
        let mut body = UpstreamBody { incoming, link: open.then_some(link), home: Rc::clone(self), index };
        if body.incoming.is_end_stream() {
            std::future::poll_fn(|cx| {
                body.finish(cx);
                Poll::Ready(())
            })
            .await;
        }
        Ok(Response::from_parts(head, body))
    }

    /// Drops connections that were closed or have been idle for long. For the worker's tick.
    pub(crate) fn sweep(&self) {
        let oldest =
            self.ticker.millis().saturating_sub(u64::try_from(KEEP_IDLE.as_millis()).unwrap_or(u64::MAX));
        let mut cx = Context::from_waker(Waker::noop());
        for connections in self.idle.borrow_mut().iter_mut() {
            connections.retain_mut(|idle| {
                idle.since >= oldest && Pin::new(&mut idle.link.connection).poll(&mut cx).is_pending()
            });
            if connections.is_empty() {
                connections.shrink_to_fit();
            }
        }
    }

    /// Are there connections to sweep?
    pub(crate) fn has_idle(&self) -> bool {
        self.idle.borrow().iter().any(|connections| !connections.is_empty())
    }

    async fn take_idle(&self, index: usize) -> Option<Box<Link>> {
        std::future::poll_fn(|cx| {
            loop {
                let Some(mut idle) = self.idle.borrow_mut()[index].pop() else { return Poll::Ready(None) };
                // Has the upstream closed it meanwhile?
                if Pin::new(&mut idle.link.connection).poll(cx).is_pending() && idle.link.sender.is_ready() {
                    return Poll::Ready(Some(idle.link));
                }
            }
        })
        .await
    }
}

fn overdue(exchange: &Exchange, route: &Route) -> ProxyError {
    match (exchange.phase(), route.response_timeout) {
        (Phase::Waiting, Some(limit)) => ProxyError::Timeout(limit),
        _ if exchange.awaits_caller() => ProxyError::CallerStalled(exchange.idle_limit()),
        _ => ProxyError::UpstreamStalled(exchange.idle_limit()),
    }
}

async fn connect(route: &Route, tls: Option<&TlsConnector>) -> Result<Box<Link>, ProxyError> {
    let stream = dial(&route.upstream, tls, route.connect_timeout).await?;
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_BUFFER_BYTES);
    let io = TokioIo::new(Attentive::new(stream));
    let (sender, connection) = builder.handshake(io).await.map_err(ProxyError::Closed)?;
    Ok(Box::new(Link { sender, connection, reused: false }))
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

/// An upstream's answer on its way to the caller. Driving it drives the connection; when it has passed whole, the
/// connection is idle again, and when it is dropped before, the connection is closed.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    incoming: Incoming,
    link: Option<Box<Link>>,
    home: Rc<Upstreams>,
    index: usize,
}

impl UpstreamBody {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() {
            self.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.incoming.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended {
            self.finish(cx);
        }
        polled
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(link) = &mut self.link
            && Pin::new(&mut link.connection).poll(cx).is_ready()
        {
            self.link = None;
        }
    }

    /// The answer has passed whole: the connection is idle if it can be used again.
    fn finish(&mut self, cx: &mut Context<'_>) {
        self.drive(cx);
        if let Some(mut link) = self.link.take()
            && link.sender.is_ready()
        {
            link.reused = true;
            let since = self.home.ticker.millis();
            self.home.idle.borrow_mut()[self.index].push(Idle { link, since });
        }
    }
}
