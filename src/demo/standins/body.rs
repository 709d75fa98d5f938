//! Bodies that are made while they are sent, and readers for those that come in.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use tokio::time::Sleep;

/// The body of every answer of a stand-in.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a stand-in reads of a body that it has to hold at once, in bytes.
const READ_LIMIT: usize = 1024 * 1024;

const CHUNK: usize = 64 * 1024;

/// 64 KiB that no one would send by accident: the bytes 0 to 250 in a row, over and over.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..=250_u8).cycle().take(CHUNK).collect());

/// A body that is in memory.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `length` bytes of a fixed pattern in chunks of 64 KiB.
pub(super) fn pattern(length: u64) -> Body {
    Stream::new(pattern_chunks(length), length).boxed_unsync()
}

/// Announces `length` bytes and breaks off after half of them.
pub(super) fn cut(length: u64) -> Body {
    Stream::new(pattern_chunks(length / 2), length).boxed_unsync()
}

/// One byte each second, the first after a second.
pub(super) fn trickle(bytes: Bytes) -> Body {
    let length = bytes.len() as u64;
    let single = (0..bytes.len()).map(move |at| bytes.slice(at..=at));
    let mut stream = Stream::new(single, length);
    stream.pause = Some((Duration::from_secs(1), Box::pin(tokio::time::sleep(Duration::from_secs(1)))));
    stream.boxed_unsync()
}

/// `before`, `padding` letters, `after`.
pub(super) fn padded(before: Bytes, padding: u64, after: Bytes) -> Body {
    let length = before.len() as u64 + padding + after.len() as u64;
    let letters = Bytes::from_static(&[b'x'; CHUNK]);
    let chunks = std::iter::once(before).chain(cut_to(letters, padding)).chain(std::iter::once(after));
    Stream::new(chunks, length).boxed_unsync()
}

fn pattern_chunks(length: u64) -> impl Iterator<Item = Bytes> {
    cut_to(PATTERN.clone(), length)
}

/// A chunk, over and over, to `length` bytes in all.
fn cut_to(chunk: Bytes, length: u64) -> impl Iterator<Item = Bytes> {
    let whole = length / CHUNK as u64;
    // Less than CHUNK, so it fits.
    let rest = usize::try_from(length % CHUNK as u64).unwrap_or(0);
    let last = (rest > 0).then(|| chunk.slice(..rest));
    (0..whole).map(move |_| chunk.clone()).chain(last)
}

/// Chunks with an announced length, and an error if there are fewer.
struct Stream<I> {
    chunks: I,
    left: u64,
    pause: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl<I: Iterator<Item = Bytes> + Send + Unpin + 'static> Stream<I> {
    fn new(chunks: I, length: u64) -> Self {
        Self { chunks, left: length, pause: None }
    }
}

impl<I: Iterator<Item = Bytes> + Unpin> http_body::Body for Stream<I> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if let Some((every, sleep)) = &mut this.pause {
            ready!(sleep.as_mut().poll(cx));
            sleep.as_mut().reset(tokio::time::Instant::now() + *every);
        }
        match this.chunks.next() {
            Some(chunk) => {
                this.left = this.left.saturating_sub(chunk.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            None => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A whole body, of at most 1 MiB.
pub(super) async fn read(body: Incoming) -> io::Result<Bytes> {
    let collected = Limited::new(body, READ_LIMIT).collect().await.map_err(io::Error::other)?;
    Ok(collected.to_bytes())
}

/// Reads a body to its end without keeping it, and shows each piece to `look`.
pub(super) async fn pass(mut body: Incoming, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(io::Error::other)?.data_ref() {
            look(data);
        }
    }
    Ok(())
}

/// A running checksum (64-bit FNV-1a) and length, to compare two bodies without holding them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    hash: u64,
    length: u64,
}

impl Checksum {
    /// Of no bytes.
    pub fn new() -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, length: 0 }
    }

    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::new();
        sum.add(bytes);
        sum
    }

    /// Goes on with more bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hash = bytes
            .iter()
            .fold(self.hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.length += bytes.len() as u64;
    }

    /// How many bytes there were.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The checksum as 16 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.hash)
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_streamed_body_has_exactly_the_length_it_announces() {
        for length in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let body = pattern(length);
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(length));
            assert_eq!(body.collect().await.unwrap().to_bytes().len() as u64, length);
        }
        assert!(cut(1_000).collect().await.is_err());
    }

    #[test]
    fn a_checksum_is_the_same_however_the_bytes_are_split() {
        let mut sum = Checksum::new();
        sum.add(b"foo");
        sum.add(b"bar");
        assert_eq!(sum, Checksum::of(b"foobar"));
        assert_eq!(sum.hex(), "85944171f73967e8");
        assert_eq!(sum.length(), 6);
    }
}
