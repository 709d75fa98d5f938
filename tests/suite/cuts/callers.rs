//! A caller goes away at every byte of its request and of the answer: nothing half is forwarded as whole, and what the
//! upstream does for it ends.

use std::collections::BTreeMap;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::exchanges::{Kind, Sent, Speaks, call, mark};
use super::http2::{
    CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, PREFACE, RST_STREAM, block, frame, read_header,
    read_request, settings,
};
use super::sweep::configuration;
use crate::support::find;
use crate::support::running::{open_route, patiently, sidekey};
use crate::support::scripted::{How, Scripted, cut, is_whole, read_head, say};

const HOWS: [How; 2] = [How::Close, How::Reset];

/// What an upstream sees of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The head of a request.
    Head,
    /// The exchange is over; was the request whole?
    End(bool),
}

/// An upstream that answers the first request of its first connection and no other, and tells what it sees of these.
async fn silent(http: &str) -> (Scripted, UnboundedReceiver<Seen>) {
    let (tell, told) = unbounded_channel();
    let by_http2 = http == "2";
    let upstream = Scripted::start_apart(move |number, stream| {
        let tell = tell.clone();
        async move {
            if by_http2 {
                let _ = see_http2(stream, number == 0, &tell).await;
            } else {
                see_http1(stream, number == 0, &tell).await;
            }
        }
    })
    .await;
    (upstream, told)
}

async fn see_http1(mut stream: TcpStream, is_warm: bool, tell: &UnboundedSender<Seen>) {
    if is_warm {
        read_head(&mut stream).await;
        say(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
    }
    let mut request = read_head(&mut stream).await.into_bytes();
    if request.ends_with(b"\r\n\r\n") {
        let _ = tell.send(Seen::Head);
        let _ = stream.read_to_end(&mut request).await;
    }
    let _ = tell.send(Seen::End(is_whole(&request)));
}

async fn see_http2(mut stream: TcpStream, is_warm: bool, tell: &UnboundedSender<Seen>) -> Option<()> {
    stream.read_exact(&mut [0; PREFACE.len()]).await.ok()?;
    say(&mut stream, settings()).await;
    if is_warm {
        let id = read_request(&mut stream).await?;
        let answer = frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&[(":status", "204")]));
        say(&mut stream, answer).await;
    }
    let mut running = None;
    while let Some((kind, flags, ..)) = read_frame(&mut stream).await {
        if kind == HEADERS {
            running = Some(false);
            let _ = tell.send(Seen::Head);
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            running = Some(true);
        }
        if kind == RST_STREAM
            && let Some(was_whole) = running.take()
        {
            let _ = tell.send(Seen::End(was_whole));
        }
    }
    let _ = tell.send(Seen::End(running?));
    Some(())
}

async fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32, usize)> {
    let header = read_header(stream).await?;
    stream.read_exact(&mut vec![0; header.3]).await.ok()?;
    Some(header)
}

/// A request, cut after so many of its bytes.
struct Cut<'a> {
    bytes: &'a [u8],
    /// With how many of them is its head whole?
    head: usize,
    at: usize,
    how: How,
}

impl Cut<'_> {
    /// Sends it; what the caller got before the end, if anything.
    async fn send(&self, addr: std::net::SocketAddr, told: &mut UnboundedReceiver<Seen>) -> Vec<u8> {
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        say(&mut stream, &self.bytes[..self.at]).await;
        let is_forwarded = self.at >= self.head;
        if is_forwarded {
            assert_eq!(patiently("the upstream", told.recv()).await, Some(Seen::Head));
        }
        let mut got = Vec::new();
        if self.how == How::Close {
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("an open connection");
            let _ = patiently("sidekey to close", stream.read_to_end(&mut got)).await;
        }
        cut(stream, self.how).await;
        if is_forwarded {
            let whole = self.at == self.bytes.len();
            let what = format!("the end upstream, {} of {} bytes, {:?}", self.at, self.bytes.len(), self.how);
            assert_eq!(patiently(&what, told.recv()).await, Some(Seen::End(whole)), "{what}");
        }
        got
    }
}

#[tokio::test]
async fn a_request_of_http_1_that_is_cut_never_reaches_an_upstream_as_whole() {
    for http in ["1.1", "2"] {
        let (upstream, mut told) = silent(http).await;
        let running = sidekey(&configuration(http, &[(Sent::Put, upstream.addr)]));
        running.settled().await;
        call(running.addr, Speaks::Http11, Sent::Get, "/c0/warm").await;
        let (mut count, mut answers, mut forwarded) = (0, BTreeMap::<String, usize>::new(), 0);
        for sent in [Sent::Get, Sent::Post, Sent::PostChunked, Sent::Put, Sent::PutChunked] {
            let bytes = sent.bytes("/c0/cut", "1.1");
            let head = find(bytes.as_bytes(), b"\r\n\r\n").expect("a head") + 4;
            for (at, how) in (0..=bytes.len()).flat_map(|at| HOWS.map(|how| (at, how))) {
                let got = Cut { bytes: bytes.as_bytes(), head, at, how }.send(running.addr, &mut told).await;
                count += 1;
                forwarded += usize::from(at >= head);
                let got = String::from_utf8_lossy(&got).into_owned();
                let status = got.lines().next().unwrap_or("nothing").to_owned();
                // Of a whole one, it is gone before there is an answer.
                assert!(got.is_empty() || got.starts_with("HTTP/1.1 400 "), "{got}");
                *answers.entry(status).or_default() += 1;
            }
        }
        if http == "1.1" {
            // The first request that is cut took the one that was there.
            assert_eq!(upstream.connections(), forwarded, "a head that was cut was forwarded");
        }
        assert!(told.try_recv().is_err());
        println!("request cut by the caller, HTTP/1.1 → HTTP/{http}: {count} cases, {answers:?}");
    }
}

#[tokio::test]
async fn a_request_of_http_2_that_is_cut_never_reaches_an_upstream_as_whole() {
    let fields =
        |method| [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", "/c0/c")];
    for http in ["1.1", "2"] {
        let (upstream, mut told) = silent(http).await;
        let running = sidekey(&configuration(http, &[(Sent::Put, upstream.addr)]));
        running.settled().await;
        call(running.addr, Speaks::Http11, Sent::Get, "/c0/warm").await;
        let begin = [PREFACE, &settings()].concat();
        let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields("GET")));
        let post = frame(HEADERS, END_HEADERS, 1, &block(&fields("POST")));
        let put = frame(HEADERS, END_HEADERS, 1, &block(&fields("PUT")));
        let data = [frame(DATA, 0, 1, b"se"), frame(DATA, END_STREAM, 1, b"nt")].concat();
        let mut count = 0;
        for (head, rest) in [(get, Vec::new()), (put, data.clone()), (post.clone(), data)] {
            let head = [begin.clone(), head].concat();
            let bytes = [head.clone(), rest].concat();
            for (at, how) in (0..=bytes.len()).flat_map(|at| HOWS.map(|how| (at, how))) {
                Cut { bytes: &bytes, head: head.len(), at, how }.send(running.addr, &mut told).await;
                count += 1;
            }
        }
        // The stream alone is taken back.
        for code in [CANCEL, NO_ERROR] {
            for data in [Vec::new(), frame(DATA, 0, 1, b"se")] {
                let mut stream = TcpStream::connect(running.addr).await.expect("connect");
                say(&mut stream, [&begin[..], &post, &data].concat()).await;
                assert_eq!(patiently("the upstream", told.recv()).await, Some(Seen::Head));
                say(&mut stream, frame(RST_STREAM, 0, 1, &code.to_be_bytes())).await;
                let end = patiently("the end upstream", told.recv()).await;
                assert_eq!(end, Some(Seen::End(false)), "{code} {data:?}");
                count += 1;
            }
        }
        println!("request cut by the caller, HTTP/2 → HTTP/{http}: {count} cases");
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_amid_an_answer_ends_it_upstream() {
    let mut count = 0;
    for kind in [Kind::Length, Kind::Chunked, Kind::UntilClose] {
        let (tell, mut told) = unbounded_channel();
        let upstream = Scripted::start_apart(move |_, mut stream| {
            let tell = tell.clone();
            async move {
                read_head(&mut stream).await;
                let answer = kind.bytes(&mark(0)).0;
                // But for its last byte.
                say(&mut stream, &answer[..answer.len() - 1]).await;
                let _ = tell.send(Seen::Head);
                let _ = stream.read_to_end(&mut Vec::new()).await;
                let _ = tell.send(Seen::End(true));
            }
        })
        .await;
        let running = sidekey(&open_route(upstream.addr, ""));
        // That much comes of each, while its last byte is missing.
        for (at, how) in (0..=60_usize).flat_map(|at| HOWS.map(|how| (at, how))) {
            let mut stream = TcpStream::connect(running.addr).await.expect("connect");
            say(&mut stream, Sent::Get.bytes("/", "1.1")).await;
            assert_eq!(patiently("the upstream", told.recv()).await, Some(Seen::Head));
            let mut seen = vec![0; at];
            patiently("a part of the answer", stream.read_exact(&mut seen)).await.expect("a part");
            let ends = tokio::spawn(cut(stream, how));
            let what = format!("the end upstream, {kind:?} {at} {how:?}");
            assert_eq!(patiently(&what, told.recv()).await, Some(Seen::End(true)));
            patiently("sidekey to close", ends).await.expect("no panic");
            count += 1;
        }
    }
    println!("answer cut by the caller, HTTP/1.1: {count} cases");
}
