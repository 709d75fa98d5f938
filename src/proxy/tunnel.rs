//! A connection that has become a WebSocket: its bytes go to the other side untouched (RFC 6455 §5).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tracing::trace;

use super::access::Ended;
use super::recording::Recording;
use crate::dial::Stream;
use crate::telemetry::metrics::sheet::Connected;

/// The upstream's end of a tunnel.
pub struct Tunnel {
    stream: Stream,
    /// What came behind the answer that opened it.
    ahead: Bytes,
    /// Its place among the connections to the upstream, for as long as it lasts.
    _place: Option<OwnedSemaphorePermit>,
    /// Counts as a connection to the upstream, for as long as it lasts.
    _connected: Connected,
    /// For the access log, whose line is written when the tunnel ends.
    recording: Option<Box<Recording>>,
}

impl fmt::Debug for Tunnel {
    /// Without what passes through it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

impl Tunnel {
    pub(crate) fn new(
        stream: Stream,
        ahead: Bytes,
        place: Option<OwnedSemaphorePermit>,
        connected: Connected,
    ) -> Box<Self> {
        Box::new(Self { stream, ahead, _place: place, _connected: connected, recording: None })
    }

    /// The access log is told of it in this record.
    pub(crate) fn is_recorded(&mut self, recording: Option<Box<Recording>>) {
        self.recording = recording;
    }

    /// Carries bytes both ways until both sides have closed theirs, or one breaks off.
    pub async fn join(self: Box<Self>, callers: impl AsyncRead + AsyncWrite + Unpin) {
        let Self { mut stream, ahead, _place, _connected, recording } = *self;
        let mut callers = Counted { stream: callers, recording, is_broken: false };
        let joined: io::Result<_> = async {
            callers.write_all(&ahead).await?;
            drop(ahead);
            tokio::io::copy_bidirectional(&mut callers, &mut stream).await
        }
        .await;
        if let Err(error) = &joined {
            trace!(%error, "a tunnel broke off");
        }
        let Counted { recording: Some(mut recording), is_broken, .. } = callers else { return };
        let otherwise = if is_broken { Ended::CallerGone } else { Ended::UpstreamCut };
        recording.passed(joined.is_ok(), otherwise);
    }
}

/// The caller's end of a tunnel; what passes is counted for the access log.
struct Counted<S> {
    stream: S,
    recording: Option<Box<Recording>>,
    /// It was this end that broke off.
    is_broken: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.is_broken |= matches!(polled, Poll::Ready(Err(_)));
        if let Some(recording) = &mut self.recording {
            recording.bytes_in += (buf.filled().len() - before) as u64;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Counted<S> {
    fn note<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.is_broken |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(written)), Some(recording)) = (&polled, &mut self.recording) {
            recording.bytes_out += *written as u64;
        }
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.note(polled)
    }
}
