//! A connection that is no longer HTTP: its bytes go to the other side untouched (RFC 6455 §5).

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tracing::trace;

use super::stream::Attentive;

/// The upstream's end of a tunnel.
pub struct Tunnel {
    stream: Attentive,
    /// What came behind the answer that opened it.
    ahead: Bytes,
}

impl Tunnel {
    pub(super) fn new(stream: Attentive, ahead: Bytes) -> Box<Self> {
        Box::new(Self { stream, ahead })
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
