//! The beginning of a caller's connection: the TLS handshake, and which HTTP it speaks.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_rustls::TlsAcceptor;

use super::listen::RawStream;
use super::stream::{Opened, Stream};
use crate::proxy::exchange::Exchange;
use crate::tls::HTTP_2;

/// What an HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most requests arrive whole in a read of this.
const FIRST_READ: usize = 4096;

/// Which HTTP a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// How long a connection that was accepted may take to begin its first request once draining has begun. Who connects
/// says at once what it wants, and closed before that it would have to be told from a failure.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Opens a connection, within the time that its first header may take, or [`LAST_WORDS`] from when `draining` begins; none
/// if the caller went away, or took too long.
pub(super) async fn open(
    raw: RawStream,
    tls: Option<TlsAcceptor>,
    exchange: &Rc<Exchange>,
    draining: &Cell<bool>,
) -> io::Result<Option<(Opened, Version)>> {
    let mut opening = pin!(opened(raw, tls));
    let mut told_to_end = false;
    std::future::poll_fn(|cx| {
        let polled = opening.as_mut().poll(cx);
        if polled.is_pending() && draining.get() && !told_to_end {
            told_to_end = true;
            exchange.hurries(LAST_WORDS);
        }
        match polled {
            Poll::Pending if exchange.is_overdue(cx) => Poll::Ready(Ok(None)),
            polled => polled,
        }
    })
    .await
}

async fn opened(raw: RawStream, tls: Option<TlsAcceptor>) -> io::Result<Option<(Opened, Version)>> {
    let stream = match (Stream::register(raw)?, tls) {
        (Stream::Tcp(stream), Some(acceptor)) => {
            let stream = Box::pin(acceptor.accept(stream)).await?;
            let agreed = stream.get_ref().1.alpn_protocol();
            // Over TLS, HTTP/2 is agreed on or not spoken at all (RFC 9113 §3.2).
            let version = if agreed == Some(HTTP_2) { Version::Http2 } else { Version::Http1 };
            let opened = Opened { stream: Stream::Tls(Box::new(stream)), ahead: Bytes::new() };
            return Ok(Some((opened, version)));
        }
        (stream, _) => stream,
    };
    let mut opened = Opened { stream, ahead: Bytes::new() };
    let mut seen = BytesMut::new();
    while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
        if !more(&mut opened, &mut seen).await? {
            break;
        }
    }
    if seen.is_empty() {
        return Ok(None);
    }
    let version = if seen.starts_with(PREFACE) { Version::Http2 } else { Version::Http1 };
    opened.ahead = seen.freeze();
    Ok(Some((opened, version)))
}

/// Reads what is there; nothing is kept for a connection on which nothing comes.
async fn more(opened: &mut Opened, seen: &mut BytesMut) -> io::Result<bool> {
    std::future::poll_fn(|cx| {
        let mut bytes = [std::mem::MaybeUninit::uninit(); FIRST_READ];
        let mut buf = ReadBuf::uninit(&mut bytes);
        Pin::new(&mut *opened).poll_read(cx, &mut buf).map_ok(|()| {
            seen.extend_from_slice(buf.filled());
            !buf.filled().is_empty()
        })
    })
    .await
}
