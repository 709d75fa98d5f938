//! Upstreams that answer well for the most part, and cut, reset, answer early, or say what nobody asked for.

use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;
use h2::Reason;
use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::ledger::{Ask, Ledger};
use crate::support::find;
use crate::support::got::dechunk;
use crate::support::scripted::{How, cut};

/// Of so many requests, one makes its token invalid.
const ROTATION: usize = 400;

const STRAY: &str = "HTTP/1.1 200 OK\r\nMark: stray\r\nContent-Length: 5\r\n\r\nstray";

/// What becomes of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Good,
    /// The connection or stream ends before the body of the request is read, and there is no answer.
    Unanswered,
    /// Answered before the body of the request is read.
    Early,
    /// The answer breaks off.
    Broken,
    /// More follows the answer at once.
    Surplus,
    /// More follows the answer a moment later.
    Unasked,
}

impl Fate {
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(..100) {
            0..=4 => Self::Unanswered,
            5..=8 => Self::Early,
            9..=13 => Self::Broken,
            14..=15 => Self::Surplus,
            16..=17 => Self::Unasked,
            _ => Self::Good,
        }
    }
}

async fn a_moment(rng: &mut Rng) {
    for _ in 0..rng.u8(..40) {
        tokio::task::yield_now().await;
    }
}

/// What was asked, told from the header; a target or method that is another request's is wrong.
fn asked(ledger: &Ledger, method: &str, target: &str, mark: &str) -> Option<Ask> {
    let (_, times) = target.rsplit_once('/')?;
    let method = method.parse().ok()?;
    let ask = Ask { method, mark: mark.to_owned(), times: times.parse().ok()?, chunked: false };
    if ask.target() != target {
        ledger.wrong(format!("{ask:?} came with the target {target}"));
    }
    Some(ask)
}

fn compare(ledger: &Ledger, ask: &Ask, body: &[u8]) {
    let wanted = if ask.has_body() { ask.body() } else { String::new() };
    if body != wanted.as_bytes() {
        ledger.wrong(format!("{ask:?} came with another body, of {} bytes", body.len()));
    }
}

/// One connection of HTTP/1.1.
pub(crate) async fn http1(mut stream: TcpStream, mut rng: Rng, ledger: &Ledger) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let length = loop {
            match find(&buffer, b"\r\n\r\n") {
                Some(length) => break length,
                None => more(&mut stream, &mut buffer).await?,
            }
        };
        let head = String::from_utf8(buffer.drain(..length + 4).collect()).expect("text");
        let line: Vec<&str> = head.split(' ').collect();
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let ask = asked(ledger, line[0], line[1], value("mark:")?)?;
        let refused = ledger.sees(&ask, value("authorization:"), rng.usize(..ROTATION) == 0);
        let (fate, how) = (Fate::any(&mut rng), if rng.bool() { How::Close } else { How::Reset });
        if fate == Fate::Unanswered && !refused {
            a_moment(&mut rng).await;
            cut(stream, how).await;
            return None;
        }
        if fate != Fate::Early {
            let length = value("content-length:").map(|length| length.parse().expect("a length"));
            let is_chunked = value("transfer-encoding:").is_some();
            let body = read_body(&mut stream, &mut buffer, length, is_chunked).await?;
            compare(ledger, &ask, &body);
        }
        a_moment(&mut rng).await;
        let (answer, until_close) = answer(&ask, refused, &mut rng);
        let seen = if fate == Fate::Broken { rng.usize(..answer.len()) } else { answer.len() };
        let more = if fate == Fate::Surplus && !until_close { STRAY } else { "" };
        stream.write_all(&[&answer.as_bytes()[..seen], more.as_bytes()].concat()).await.ok()?;
        match fate {
            // A close would be its end.
            Fate::Broken if until_close => cut(stream, How::Reset).await,
            Fate::Broken => cut(stream, how).await,
            Fate::Early | Fate::Surplus => cut(stream, How::Close).await,
            Fate::Unasked if !until_close => {
                a_moment(&mut rng).await;
                stream.write_all(STRAY.as_bytes()).await.ok()?;
                cut(stream, How::Close).await;
            }
            _ if until_close => cut(stream, How::Close).await,
            _ => continue,
        }
        return None;
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(read) if read > 0 => Some(()),
        _ => None,
    }
}

async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    length: Option<usize>,
    is_chunked: bool,
) -> Option<Vec<u8>> {
    if is_chunked {
        loop {
            if let (body, Some(used)) = dechunk(buffer) {
                buffer.drain(..used);
                return Some(body);
            }
            more(stream, buffer).await?;
        }
    }
    let length = length.unwrap_or_default();
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Some(buffer.drain(..length).collect())
}

/// An answer, and does it end where the connection does?
fn answer(ask: &Ask, refused: bool, rng: &mut Rng) -> (String, bool) {
    let (mark, body) = (&ask.mark, ask.body());
    let status = if refused {
        "401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\""
    } else {
        "200 OK"
    };
    let before = if rng.u8(..10) == 0 { "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" } else { "" };
    let head = format!("{before}HTTP/1.1 {status}\r\nMark: {mark}\r\n");
    match rng.u8(..10) {
        0 => (format!("{head}\r\n{body}"), true),
        1..=4 if !body.is_empty() => (
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            false,
        ),
        _ => (format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()), false),
    }
}

/// One connection of HTTP/2, which goes away after a while.
pub(crate) async fn http2(stream: TcpStream, mut rng: Rng, ledger: Arc<Ledger>) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    let mut left = rng.usize(1..300);
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.ok()?;
        let (ledger, fork) = (Arc::clone(&ledger), rng.fork());
        tokio::spawn(async move { stream_of(request, respond, fork, &ledger).await });
        left = left.wrapping_sub(1);
        if left == 0 && rng.bool() {
            connection.graceful_shutdown();
        } else if left == 0 {
            a_moment(&mut rng).await;
            // With what was not read yet, this is a reset.
            return None;
        }
    }
    None
}

async fn stream_of(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    mut rng: Rng,
    ledger: &Ledger,
) -> Option<()> {
    let (head, mut incoming) = request.into_parts();
    let value = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let ask = asked(ledger, head.method.as_str(), head.uri.path(), value("mark")?)?;
    let refused = ledger.sees(&ask, value("authorization"), rng.usize(..ROTATION) == 0);
    let fate = Fate::any(&mut rng);
    let reasons = [Reason::CANCEL, Reason::INTERNAL_ERROR, Reason::NO_ERROR, Reason::REFUSED_STREAM];
    a_moment(&mut rng).await;
    if fate == Fate::Unanswered && !refused {
        let reason = reasons[rng.usize(..4)];
        if reason == Reason::REFUSED_STREAM {
            ledger.did_nothing(&ask);
        }
        respond.send_reset(reason);
        return None;
    }
    if fate != Fate::Early {
        let mut body = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data.ok()?;
            let _ = incoming.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        compare(ledger, &ask, &body);
    }
    let status = if refused { 401 } else { 200 };
    let mut answer = Response::builder().status(status).header("mark", &ask.mark);
    if refused {
        answer = answer.header("www-authenticate", "Bearer error=\"invalid_token\"");
    }
    let body = Bytes::from(ask.body());
    if rng.bool() {
        answer = answer.header("content-length", body.len());
    }
    let mut sending = respond.send_response(answer.body(()).expect("an answer"), false).ok()?;
    let (first, second) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    sending.send_data(first, false).ok()?;
    a_moment(&mut rng).await;
    if fate == Fate::Broken {
        // It may overtake the head; then REFUSED_STREAM would say that nothing was done.
        sending.send_reset(reasons[rng.usize(..3)]);
        return None;
    }
    if rng.bool() {
        sending.send_data(second, true).ok()?;
    } else {
        sending.send_data(second, false).ok()?;
        a_moment(&mut rng).await;
        sending.send_trailers(HeaderMap::new()).ok()?;
    }
    Some(())
}
