//! A caller's stream: TCP or a Unix socket, with TLS or without, and what was read of it before it was served.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::listen::RawStream;
use crate::config::Peer;
use crate::proxy::exchange::Exchange;

/// A caller's stream.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Binds it to the runtime of this thread.
    pub(super) fn register(raw: RawStream) -> io::Result<Self> {
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

impl Stream {
    /// Who is at the other end of a Unix socket, as the system saw it connect.
    pub(super) fn peer(&self) -> Option<Peer> {
        match self {
            // Unknown, it is no caller.
            Self::Unix(stream) => {
                stream.peer_cred().ok().map(|peer| Peer { uid: peer.uid(), gid: peer.gid() })
            }
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }

    /// Is a drop to reset it? A Unix socket cannot be.
    fn breaks_when_dropped(&self, breaks: bool) {
        let tcp = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Unix(_) => return,
        };
        // It fails where the connection is gone already.
        let _ = sockopt::set_socket_linger(tcp, breaks.then_some(Duration::ZERO));
    }
}

/// The same call on whichever stream it is.
macro_rules! on {
    ($stream:expr, $one:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($one) => $call,
            Stream::Unix($one) => $call,
            Stream::Tls($one) => $call,
        }
    };
}

/// A stream, before which comes what was read of it already.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) ahead: Bytes,
}

impl AsyncRead for Opened {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return on!(&mut this.stream, stream => Pin::new(stream).poll_read(cx, buf));
        }
        let length = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead[..length]);
        this.ahead.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        on!(&mut self.get_mut().stream, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(&mut self.get_mut().stream, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Sockets have nothing to flush, TLS does.
        on!(&mut self.get_mut().stream, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.get_mut().stream, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A stream whose exchange is told when bytes come. Where the caller may take the end of the connection for the end of
/// an answer, one that breaks off is reset, however that comes about (RFC 9112 §8).
pub(super) struct Watched {
    pub(super) opened: Opened,
    exchange: Rc<Exchange>,
    /// Is it reset if it is dropped as it is?
    breaks: bool,
}

impl Watched {
    pub(super) fn new(opened: Opened, exchange: &Rc<Exchange>) -> Self {
        Self { opened, exchange: Rc::clone(exchange), breaks: false }
    }

    fn writes(&mut self) {
        if !self.breaks && self.exchange.ends_by_closing() {
            self.breaks = true;
            self.opened.stream.breaks_when_dropped(true);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.opened).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.exchange.bytes_came();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.writes();
        Pin::new(&mut this.opened).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.writes();
        Pin::new(&mut this.opened).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().opened).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.breaks) {
            this.opened.stream.breaks_when_dropped(false);
        }
        Pin::new(&mut this.opened).poll_shutdown(cx)
    }
}
