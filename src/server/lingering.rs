//! The end of a connection whose caller still sends: closed at once, it would take the answer with it.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};

use super::stream::Opened;

/// How long a caller may go on sending what nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is thrown away at a time.
const PIECE: usize = 16 * 1024;

/// Throws away what still comes, until the caller has seen that its answer is there (RFC 9112 §9.6).
pub(super) async fn linger(mut opened: Opened) {
    let gone = std::future::poll_fn(|cx| {
        loop {
            let mut bytes = [MaybeUninit::uninit(); PIECE];
            let mut buf = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut opened).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    // Late or gone, it is over.
    let _ = tokio::time::timeout(PATIENCE, gone).await;
}
