//! A connection that is no longer HTTP: its bytes go to the other side untouched (RFC 6455 §5).

use std::{fmt, io};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tracing::trace;

use crate::dial::Stream;

/// The upstream's end of a tunnel.
pub struct Tunnel {
    stream: Stream,
    /// What came behind the answer that opened it.
    ahead: Bytes,
    /// Its place among the connections to the upstream, for as long as it lasts.
    _place: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Tunnel {
    /// Without what passes through it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

impl Tunnel {
    pub(crate) fn new(stream: Stream, ahead: Bytes, place: Option<OwnedSemaphorePermit>) -> Box<Self> {
        Box::new(Self { stream, ahead, _place: place })
    }

    /// Carries bytes both ways until both sides have closed theirs, or one breaks off.
    pub async fn join(mut self: Box<Self>, mut callers: impl AsyncRead + AsyncWrite + Unpin) {
        let joined: io::Result<_> = async {
            callers.write_all(&std::mem::take(&mut self.ahead)).await?;
            tokio::io::copy_bidirectional(&mut callers, &mut self.stream).await
        }
        .await;
        if let Err(error) = joined {
            trace!(%error, "a tunnel broke off");
        }
    }
}
