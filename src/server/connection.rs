//! One caller's connection: its stream, watched for time limits, and the task that serves it.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tracing::trace;

use super::listen::RawStream;
use crate::config::ListenId;
use crate::proxy::Proxy;
use crate::proxy::exchange::{Exchange, MAX_BUFFER_BYTES, Phase};

/// Serves one connection to its end: closed by the caller, overdue, or drained.
pub(super) async fn serve(
    stream: RawStream,
    listener: ListenId,
    proxy: Rc<Proxy>,
    exchange: Rc<Exchange>,
    draining: Rc<Cell<bool>>,
) {
    let stream = match Stream::register(stream) {
        Ok(stream) => stream,
        Err(error) => return trace!(%error, "a connection was gone before it was served"),
    };
    let io = TokioIo::new(Watched { stream, exchange: Rc::clone(&exchange) });
    let service = service_fn(|request: Request<Incoming>| {
        let (proxy, exchange) = (Rc::clone(&proxy), Rc::clone(&exchange));
        async move { Ok::<_, Infallible>(proxy.serve(request, listener, &exchange).await) }
    });
    // Its own header timer would be a timer for each request; the exchange's alarm does the same for a store.
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut told_to_end = false;
    let ended = std::future::poll_fn(|cx| {
        if draining.get() && !told_to_end {
            told_to_end = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        let overdue = exchange.is_overdue(cx) && matches!(exchange.phase(), Phase::Idle | Phase::Header);
        if overdue { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    if let Err(error) = ended.await {
        trace!(%error, "a connection broke off");
    }
}

/// A caller's stream.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Binds it to the runtime of this thread.
    fn register(raw: RawStream) -> io::Result<Self> {
        match raw {
            RawStream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                TcpStream::from_std(stream).map(Self::Tcp)
            }
            RawStream::Unix(stream) => {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Self::Unix)
            }
        }
    }
}

/// A stream whose exchange is told when bytes come.
struct Watched {
    stream: Stream,
    exchange: Rc<Exchange>,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if buf.filled().len() > before {
            this.exchange.bytes_came();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
