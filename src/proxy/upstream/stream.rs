//! An upstream connection's bytes: an answer that came is read although the upstream takes no more of the request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::dial::Stream;

/// A stream whose writes succeed into the void once the peer has closed its end: what it said before counts, and
/// reading tells it, or the error (RFC 9112 §9.5). hyper itself would give up without looking.
#[derive(Debug)]
pub(super) struct Attentive {
    stream: Stream,
    is_deaf: bool,
}

impl Attentive {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, is_deaf: false }
    }

    /// The stream itself.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// What a write is to say that `length` bytes were offered to.
    fn heard(&mut self, wrote: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match wrote {
            Poll::Ready(Err(error)) if is_closed(&error) => {
                self.is_deaf = true;
                Poll::Ready(Ok(length))
            }
            other => other,
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncRead for Attentive {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Attentive {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let wrote = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.heard(wrote, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if this.is_deaf {
            return Poll::Ready(Ok(length));
        }
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.heard(wrote, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx).map_ok(|()| 0);
        this.heard(flushed, 0).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
