//! One caller's connection, from its first byte to its last, in whichever HTTP it speaks.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsAcceptor;
use tracing::trace;

use super::http2;
use super::lingering;
use super::listen::Accepted;
use super::opening;
use super::service::Service;
use super::stream::{Opened, Watched};
use crate::proxy::Entry;
use crate::proxy::exchange::{Exchange, MAX_BUFFER_BYTES, Phase};

/// Lines of a header that hyper takes without being told a number.
const DEFAULT_HEADERS: usize = 100;

/// Serves one connection to its end: closed by the caller, overdue, or drained.
pub(super) async fn serve(Accepted { stream, slot, remote }: Accepted, service: Rc<Service>) {
    let exchange = Exchange::new(&service.ticker, service.times.get());
    let proxy = service.proxy();
    // It was closed a moment ago.
    let Some(listener) = proxy.shared().listener(slot) else { return };
    let tls = proxy.listener_tls(listener).map(|tls| TlsAcceptor::from(tls.current()));
    drop(proxy);
    let (opened, version) = match opening::open(stream, tls, &exchange, &service.draining).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(error) => return trace!(%error, "a connection was gone before it was served"),
    };
    let entry = Entry { slot, peer: opened.stream.peer(), remote };
    match version {
        opening::Version::Http1 => http1(opened, entry, &service, exchange).await,
        opening::Version::Http2 => {
            drop(exchange);
            Box::pin(http2::serve(opened, entry, service)).await;
        }
    }
}

async fn http1(opened: Opened, entry: Entry, service: &Rc<Service>, exchange: Rc<Exchange>) {
    // Of TLS: it was opened without a word of a request.
    let is_fresh = opened.ahead.is_empty();
    let io = TokioIo::new(Watched::new(opened, &exchange));
    let handler = service_fn(|request: Request<Incoming>| {
        if request.version() == Version::HTTP_10 {
            exchange.may_end_by_closing();
        }
        let (proxy, exchange) = (service.proxy(), Rc::clone(&exchange));
        async move { Ok::<_, Infallible>(proxy.serve(request, entry, &exchange).await) }
    });
    let mut builder = http1::Builder::new();
    // Its own header timer would be a timer for each request; the exchange's alarm does the same for a store.
    builder.header_read_timeout(None);
    // An answer's Date is the upstream's to give.
    builder.auto_date_header(false);
    let limits = service.limits.get();
    builder.max_buf_size(limits.header_size.max(MAX_BUFFER_BYTES)).max_header_size(limits.header_size);
    if limits.headers != DEFAULT_HEADERS {
        // Said even if it is the default, it would cost an allocation for each request.
        builder.max_headers(limits.headers);
    }
    builder.preserve_header_case(service.proxy().keeps_header_case(entry.slot));
    let mut connection = builder.serve_connection(io, handler);
    let (mut ends, mut told_to_end, mut was_overdue, mut changes) = (false, false, false, 0);
    let ended = std::future::poll_fn(|cx| {
        // First: a request that is there already is served, whatever begins meanwhile.
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended);
        }
        if changes != service.changes.get() {
            changes = service.changes.get();
            ends = service.ends(entry.slot);
        }
        if ends && !told_to_end {
            if is_fresh && exchange.phase() == Phase::Header {
                exchange.hurries(opening::LAST_WORDS);
            } else {
                told_to_end = true;
                Pin::new(&mut connection).graceful_shutdown();
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(ended);
                }
            }
        }
        was_overdue = exchange.is_overdue(cx) && exchange.is_callers_turn();
        if was_overdue { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    if let Err(error) = ended.await {
        return trace!(%error, "a connection broke off");
    }
    if was_overdue {
        return;
    }
    if let Some(tunnel) = exchange.take_tunnel() {
        let parts = connection.into_parts();
        exchange.is_free();
        let mut callers = parts.io.into_inner().opened;
        // What came behind the request belongs to the tunnel already.
        callers.ahead = [parts.read_buf, callers.ahead].concat().into();
        tunnel.join(callers).await;
    } else if exchange.leaves_body() && !told_to_end {
        let opened = connection.into_parts().io.into_inner().opened;
        Box::pin(lingering::linger(opened)).await;
    }
}
