//! HTTP/2's frames and header blocks, written and read by hand.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::running::patiently;

/// What a connection begins with, and settings that leave all as it is.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame (RFC 9113 §4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The next frame; none at the end of the connection.
pub(crate) async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Frame { kind: head[3], flags: head[4], stream: id, payload })
}

/// Header fields as literals that are neither indexed nor compressed (RFC 7541 §6.2.2).
pub(crate) fn fields(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// A string's length, uncompressed, as an integer with a prefix of seven bits (RFC 7541 §5.1).
fn length(mut length: usize, block: &mut Vec<u8>) {
    if length < 127 {
        return block.push(u8::try_from(length).expect("small"));
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(u8::try_from(length % 128).expect("small") | 128);
        length /= 128;
    }
    block.push(u8::try_from(length).expect("small"));
}

/// What came of a request: a status, or `ends` where its stream or connection did.
pub(crate) async fn outcome(addr: SocketAddr, frames: &[Vec<u8>]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("it works");
    stream.write_all(&[PREFACE, &frames.concat()].concat()).await.expect("it works");
    patiently("what comes of it", async {
        loop {
            match next_frame(&mut stream).await {
                Some(Frame { kind: HEADERS, stream: 1, payload, .. }) => return status(&payload),
                // Which of them is the h2 crate's to choose: it closes on what it cannot decode.
                Some(Frame { kind: RST_STREAM, stream: 1, .. } | Frame { kind: GOAWAY, .. }) | None => {
                    return "ends".to_owned();
                }
                Some(Frame { kind: SETTINGS, flags: 0, .. }) => {
                    let _ = stream.write_all(&frame(SETTINGS, 1, 0, &[])).await;
                }
                Some(_) => {}
            }
        }
    })
    .await
}

/// The status in a header block: it comes first, indexed (RFC 7541, appendix A) or as a compressed literal.
fn status(block: &[u8]) -> String {
    let indexed = ["200", "204", "206", "304", "400", "404", "500"];
    if let Some(index) = block[0].checked_sub(0x88).filter(|index| usize::from(*index) < indexed.len()) {
        return indexed[usize::from(index)].to_owned();
    }
    assert_eq!((block[0], block[1] & 0x80), (0x48, 0x80), "a compressed literal: {block:x?}");
    let bits = block[2..6].iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
    let (mut at, mut digits) = (0, String::new());
    for _ in 0..3 {
        // Of the digits, 0 to 2 have five bits, and the others six, from 011001 (appendix B).
        let five = bits << at >> 27;
        let (digit, length) = if five < 3 { (five, 5) } else { ((bits << at >> 26) - 0b01_1001 + 3, 6) };
        let _ = write!(digits, "{digit}");
        at += length;
    }
    digits
}

/// An upstream of HTTP/2 whose frames a test writes itself: it has read the preface and sent its settings.
pub(crate) async fn greet(stream: &mut TcpStream) -> bool {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.is_ok()
        && stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_ok()
}

/// The next frame of this kind, all others being passed over, settings acknowledged.
pub(crate) async fn await_frame(stream: &mut TcpStream, kind: u8) -> Option<Frame> {
    loop {
        let frame = next_frame(stream).await?;
        if frame.kind == kind {
            return Some(frame);
        }
        if frame.kind == SETTINGS && frame.flags == 0 {
            stream.write_all(&self::frame(SETTINGS, 1, 0, &[])).await.ok()?;
        }
    }
}

/// A stream's end, for a reason (RFC 9113 §7).
pub(crate) fn reset(stream: u32, reason: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &reason.to_be_bytes())
}

/// Says goodbye, and which stream is the last that was taken.
pub(crate) fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// The header of a GET.
pub(crate) const GET: [(&[u8], &[u8]); 4] =
    [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"localhost"), (b":path", b"/")];
