//! An HTTP/2 upstream cuts the connection at every byte of its frames and of those it reads, or says that it goes.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::exchanges::{Sent, Speaks, mark};
use super::oracle::Want;
use super::sweep::{Sweepable, run};
use crate::support::scripted::{How, cut, say};

/// The first bytes of a connection (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
pub(crate) const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;

/// A frame (RFC 9113 §4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// A header block of literals without indexing (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("a short text");
    let literal = |(name, value): &(&str, &str)| {
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    fields.iter().flat_map(literal).collect()
}

/// How an upstream answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Length,
    Trailers,
    NoContent,
    Informed,
}

impl Kind {
    fn body(self, mark: &str) -> String {
        if self == Self::NoContent { String::new() } else { format!("body{mark}") }
    }

    /// The frames, and how many of their bytes are the head.
    fn frames(self, stream: u32, mark: &str) -> (Vec<u8>, usize) {
        let headers =
            |flags: u8, fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | flags, stream, &block(fields));
        let body = self.body(mark);
        let data = |flags: u8| frame(DATA, flags, stream, body.as_bytes());
        let (head, rest) = match self {
            Self::Length => (
                headers(0, &[(":status", "200"), ("mark", mark), ("content-length", "12")]),
                data(END_STREAM),
            ),
            Self::Trailers => (
                headers(0, &[(":status", "200"), ("mark", mark)]),
                [data(0), headers(END_STREAM, &[("sum", "7")])].concat(),
            ),
            Self::NoContent => (headers(END_STREAM, &[(":status", "204"), ("mark", mark)]), Vec::new()),
            Self::Informed => (
                [
                    headers(0, &[(":status", "103"), ("link", "</x>")]),
                    headers(0, &[(":status", "200"), ("mark", mark)]),
                ]
                .concat(),
                data(END_STREAM),
            ),
        };
        let length = head.len();
        ([head, rest].concat(), length)
    }
}

/// What an upstream does instead of answering in peace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Cuts before the request is sent.
    Idle,
    /// Cuts when it has read so many bytes of the connection.
    Connection(usize),
    /// Cuts when it has read so many bytes behind the beginning of the request.
    Request(usize),
    /// Cuts when it has sent so many bytes: of its settings, on a new connection, and of the answer.
    Answer(usize),
    /// Resets the stream with this code when it has sent so many bytes of the answer, and goes on.
    Stream(usize, u32),
    /// Says that it goes and that it has taken this stream, or not, then sends so many bytes of the answer and cuts.
    GoAway(bool, usize),
}

#[derive(Debug, Clone, Copy)]
struct Case {
    speaks: Speaks,
    sent: Sent,
    kind: Kind,
    reused: bool,
    place: Place,
    how: How,
}

const HOWS: [How; 2] = [How::Close, How::Reset];
const SENT: [Sent; 3] = [Sent::Get, Sent::Put, Sent::Post];
const KINDS: [Kind; 4] = [Kind::Length, Kind::Trailers, Kind::NoContent, Kind::Informed];
/// An upper bound of the bytes of a request, HEADERS and DATA.
const REQUEST: usize = 80;

fn cases(
    speaks: Speaks,
    sent: Sent,
    kind: Kind,
    places: impl Iterator<Item = Place> + Clone,
) -> impl Iterator<Item = Case> {
    HOWS.into_iter().flat_map(|how| [(how, false), (how, true)]).flat_map(move |(how, reused)| {
        places.clone().map(move |place| Case { speaks, sent, kind, reused, place, how })
    })
}

#[tokio::test]
async fn an_http_2_connection_that_is_cut_while_the_request_is_read_gives_a_safe_retry_or_a_502() {
    let mut all = Vec::new();
    for sent in SENT {
        all.extend(cases(Speaks::Http11, sent, Kind::Length, (0..=REQUEST).map(Place::Request)));
        let fresh = cases(Speaks::Http11, sent, Kind::Length, (0..=70).map(Place::Connection));
        all.extend(fresh.filter(|case| !case.reused));
        let idle = cases(Speaks::Http11, sent, Kind::Length, std::iter::once(Place::Idle));
        all.extend(idle.filter(|case| case.reused));
    }
    run("request cut upstream, HTTP/2", all).await;
}

#[tokio::test]
async fn an_http_2_answer_that_is_cut_is_whole_retried_a_502_or_aborted() {
    let mut all = Vec::new();
    for (sent, kinds) in [(Sent::Get, &KINDS[..]), (Sent::Post, &[Kind::Trailers])] {
        for kind in kinds {
            // Of a new connection, the settings come first.
            let length = kind.frames(1, &mark(0)).0.len() + 18;
            let places = (0..=length).map(Place::Answer);
            let is_there = |case: &Case| match case.place {
                Place::Answer(seen) => !case.reused || seen + 18 <= length,
                _ => true,
            };
            all.extend(cases(Speaks::Http11, sent, *kind, places.clone()).filter(is_there));
            if sent == Sent::Get {
                all.extend(cases(Speaks::Http2, sent, *kind, places).filter(is_there));
            }
        }
    }
    run("answer cut upstream, HTTP/2", all).await;
}

#[tokio::test]
async fn an_http_2_request_goes_out_again_where_the_upstream_has_not_taken_it_and_nowhere_else() {
    let mut all = Vec::new();
    for sent in SENT {
        for kind in [Kind::Length, Kind::Trailers] {
            let (answer, head) = kind.frames(1, &mark(0));
            let places = (0..=answer.len()).map(|seen| Place::GoAway(true, seen));
            let codes = [CANCEL, NO_ERROR, REFUSED_STREAM];
            let unanswered = codes.map(|code| Place::Stream(0, code));
            let aborted = codes.map(|code| Place::Stream(head, code));
            let whole = [CANCEL, NO_ERROR].map(|code| Place::Stream(answer.len(), code));
            let places: Vec<_> = places
                .chain([Place::GoAway(false, 0)])
                .chain(unanswered)
                .chain(aborted)
                .chain(whole)
                .collect();
            all.extend(cases(Speaks::Http11, sent, kind, places.into_iter()));
        }
    }
    run("GOAWAY and RST_STREAM, HTTP/2", all).await;
}

impl Sweepable for Case {
    const HTTP: &'static str = "2";

    fn sent(&self) -> Sent {
        self.sent
    }

    fn speaks(&self) -> Speaks {
        self.speaks
    }

    fn content(&self, mark: &str) -> String {
        self.kind.body(mark)
    }

    fn is_warm(&self) -> bool {
        self.reused
    }

    fn is_cut_before(&self) -> bool {
        self.place == Place::Idle
    }

    fn wants(&self) -> Vec<(Want, usize)> {
        let whole = Want::Whole(self.kind.body("8-a-mark").len());
        let is_safe = self.sent != Sent::Post;
        let unanswered = if self.reused && is_safe { (whole, 2) } else { (Want::BadGateway, 1) };
        let (answer, head) = self.kind.frames(1, "8-a-mark");
        let of_answer = |seen: usize| match seen {
            _ if seen < head => unanswered,
            _ if seen < answer.len() => (Want::Aborted, 1),
            _ => (whole, 1),
        };
        match self.place {
            // The request may not have left, or may have been seen.
            Place::Connection(_) => vec![(whole, 2), (Want::BadGateway, 1)],
            Place::Request(_) => vec![unanswered],
            Place::Answer(seen) if self.reused => vec![of_answer(seen)],
            Place::Answer(seen) if seen < 18 => vec![unanswered],
            Place::Answer(seen) => vec![of_answer(seen - 18)],
            // Refused for now, on a connection that lives on.
            Place::Stream(0, REFUSED_STREAM) => vec![(whole, 1)],
            Place::Idle | Place::GoAway(false, _) => vec![(whole, 2)],
            Place::Stream(seen, _) | Place::GoAway(true, seen) => vec![of_answer(seen)],
        }
    }

    async fn serve(self, mark: String, number: usize, mut stream: TcpStream, is_cut: Arc<Semaphore>) {
        if number > 0 {
            return answering(self, &mark, &mut stream).await.unwrap_or_default();
        }
        let _ = cutting(self, &mark, &mut stream, &is_cut).await;
        if self.place == Place::Idle && self.how == How::Close {
            let _ = stream.shutdown().await;
            is_cut.add_permits(1);
        }
        cut(stream, self.how).await;
        is_cut.add_permits(1);
    }
}

pub(crate) fn settings() -> Vec<u8> {
    [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()
}

/// The first connection's part before the cut; none if the peer goes first.
async fn cutting(case: Case, mark: &str, stream: &mut TcpStream, is_cut: &Semaphore) -> Option<()> {
    let mut before = Vec::new();
    if let Place::Connection(seen) = case.place {
        stream.read_exact(&mut vec![0; seen]).await.ok()?;
        return None;
    }
    stream.read_exact(&mut [0; PREFACE.len()]).await.ok()?;
    if case.reused {
        let id = read_request(stream).await?;
        say(stream, [settings(), Kind::Length.frames(id, mark).0].concat()).await;
    } else {
        before = settings();
    }
    let id = match case.place {
        Place::Idle => return None,
        Place::Request(seen) => {
            loop {
                let (kind, flags, _, length) = read_header(stream).await?;
                if kind == HEADERS {
                    // And DATA behind it, where there is any.
                    let all = length + if flags & END_STREAM == 0 { 13 } else { 0 };
                    stream.read_exact(&mut vec![0; seen.min(all)]).await.ok()?;
                    return None;
                }
                stream.read_exact(&mut vec![0; length]).await.ok()?;
            }
        }
        _ => read_request(stream).await?,
    };
    let answer = case.kind.frames(id, mark).0;
    match case.place {
        Place::Answer(seen) => say(stream, &[before, answer].concat()[..seen]).await,
        Place::Stream(seen, code) => {
            let reset = frame(RST_STREAM, 0, id, &code.to_be_bytes());
            say(stream, [&before, &answer[..seen], &reset].concat()).await;
            // The connection lives on, and takes what is sent on it again.
            is_cut.add_permits(1);
            while let Some(id) = read_request(stream).await {
                say(stream, case.kind.frames(id, mark).0).await;
            }
        }
        Place::GoAway(taken, seen) => {
            let last = if taken { id } else { id - 1 };
            let goes = frame(GOAWAY, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat());
            say(stream, [&before, &goes, &answer[..seen]].concat()).await;
        }
        Place::Idle | Place::Connection(_) | Place::Request(_) => {}
    }
    Some(())
}

async fn answering(case: Case, mark: &str, stream: &mut TcpStream) -> Option<()> {
    stream.read_exact(&mut [0; PREFACE.len()]).await.ok()?;
    say(stream, settings()).await;
    loop {
        let id = read_request(stream).await?;
        say(stream, case.kind.frames(id, mark).0).await;
    }
}

/// Kind, flags, stream and length of the next frame.
pub(crate) async fn read_header(stream: &mut TcpStream) -> Option<(u8, u8, u32, usize)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let [a, b, c, kind, flags, rest @ ..] = header;
    Some((kind, flags, u32::from_be_bytes(rest), u32::from_be_bytes([0, a, b, c]) as usize))
}

/// Reads up to the end of a request; its stream.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<u32> {
    loop {
        let (kind, flags, id, length) = read_header(stream).await?;
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            return Some(id);
        }
    }
}
