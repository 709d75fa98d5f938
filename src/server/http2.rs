//! A caller's HTTP/2 connection: each of its streams is a task with an exchange of its own.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tracing::{debug, trace};

use super::service::Service;
use super::stream::Opened;
use crate::clock::ticker::Alarm;
use crate::proxy::Entry;
use crate::proxy::exchange::Exchange;

/// What a caller may send of one body ahead of the upstream that takes it. Callers are near, so little is enough.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What is kept of one answer ahead of the caller that takes it.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves an HTTP/2 connection to its end.
pub(super) async fn serve(opened: Opened, entry: Entry, service: Rc<Service>) {
    let streams = Streams::new(&service);
    let handler = service_fn(|request: Request<Incoming>| {
        let (service, streams) = (Rc::clone(&service), Rc::clone(&streams));
        async move {
            let exchange = streams.current(&service);
            let proxy = service.proxy();
            let answer = proxy.serve(request, entry, &exchange).await;
            streams.served();
            Ok::<_, Infallible>(answer)
        }
    });
    let limits = service.limits.get();
    let mut builder =
        http2::Builder::new(StreamTasks { streams: Rc::clone(&streams), service: Rc::clone(&service) });
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        // So that one body that waits for its upstream does not hold up the others.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(limits.streams).min(MAX_WINDOW))
        .max_send_buf_size(SEND_BUFFER)
        // An answer's Date is the upstream's to give.
        .auto_date_header(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(opened), handler));
    let (mut told_to_end, mut changes) = (false, 0);
    let ended = std::future::poll_fn(|cx| {
        if changes != service.changes.get() {
            changes = service.changes.get();
            if !told_to_end && service.ends(entry.slot) {
                told_to_end = true;
                connection.as_mut().graceful_shutdown();
            }
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if streams.taken_back.get() > limits.resets {
            debug!("a caller takes back too many requests; its connection is closed");
            return Poll::Ready(Ok(()));
        }
        streams.idle.wakes(cx);
        if streams.idle.has_rung() { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    if let Err(error) = ended.await {
        trace!(%error, "a connection broke off");
    }
}

/// The largest window that there is (RFC 9113 §6.9.1).
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// The streams of one connection.
struct Streams {
    running: Cell<usize>,
    /// Requests taken back before they were answered, beyond those that were answered.
    taken_back: Cell<usize>,
    /// Rings when no stream has been running for long.
    idle: Alarm,
    /// The exchange of the stream whose task is polled.
    current: RefCell<Option<Rc<Exchange>>>,
    limit: std::time::Duration,
}

impl Streams {
    fn new(service: &Service) -> Rc<Self> {
        let idle = service.ticker.alarm();
        idle.set(service.times.get().idle);
        Rc::new(Self {
            running: Cell::new(0),
            taken_back: Cell::new(0),
            idle,
            current: RefCell::default(),
            limit: service.times.get().idle,
        })
    }

    /// The exchange of the stream that asks.
    fn current(&self, service: &Service) -> Rc<Exchange> {
        // A handler runs in its stream's task and nowhere else.
        let current = self.current.borrow().clone();
        current.unwrap_or_else(|| Exchange::of_stream(&service.ticker, service.times.get()))
    }

    /// A request is answered.
    fn served(&self) {
        self.taken_back.set(self.taken_back.get().saturating_sub(1));
        if let Some(exchange) = self.current.borrow().as_ref() {
            exchange.answers();
        }
    }
}

/// Starts the tasks of a connection's streams.
#[derive(Clone)]
struct StreamTasks {
    streams: Rc<Streams>,
    service: Rc<Service>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamTasks {
    fn execute(&self, future: F) {
        let streams = Rc::clone(&self.streams);
        streams.running.set(streams.running.get() + 1);
        streams.idle.clear();
        let exchange = Exchange::of_stream(&self.service.ticker, self.service.times.get());
        spawn_local(StreamTask { future: Box::pin(future), exchange, streams });
    }
}

/// One stream's task. Gone before its request was answered, the caller has taken that back.
struct StreamTask<F> {
    future: Pin<Box<F>>,
    exchange: Rc<Exchange>,
    streams: Rc<Streams>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let before = self.streams.current.replace(Some(Rc::clone(&self.exchange)));
        let polled = self.future.as_mut().poll(cx);
        self.streams.current.replace(before);
        if polled.is_pending() && self.exchange.is_callers_turn() && self.exchange.is_overdue(cx) {
            // Dropped, the stream is reset.
            return Poll::Ready(());
        }
        polled
    }
}

impl<F> Drop for StreamTask<F> {
    fn drop(&mut self) {
        let streams = &self.streams;
        if !self.exchange.is_answered() {
            streams.taken_back.set(streams.taken_back.get() + 1);
        }
        streams.running.set(streams.running.get() - 1);
        if streams.running.get() == 0 {
            streams.idle.set(streams.limit);
        }
    }
}
