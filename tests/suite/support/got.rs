//! What a caller got of an answer that may have broken off.

use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::find;

/// How much of an answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    /// All of it, as far as the caller can tell.
    Whole(Answer),
    /// Its head and a part of its body, and the caller can tell.
    Aborted(Answer),
    /// Not even its head.
    Nothing,
}

/// What there is of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one answer of HTTP/1 (after any 1xx); what was read behind it stays in `buffer`. `head_only`: to HEAD.
pub(crate) async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    head_only: bool,
) -> Got {
    loop {
        let part = Part::of(buffer, head_only);
        if let Part::Whole(answer, used) = part {
            buffer.drain(..used);
            return Got::Whole(answer);
        }
        let is_reset = match stream.read_buf(buffer).await {
            Ok(0) => false,
            Ok(_) => continue,
            Err(_) => true,
        };
        buffer.clear();
        return match part {
            Part::UntilClose(answer) if !is_reset => Got::Whole(answer),
            Part::UntilClose(answer) | Part::Body(answer) => Got::Aborted(answer),
            Part::Whole(..) | Part::Nothing => Got::Nothing,
        };
    }
}

/// Reads an answer of a hyper client to its end.
pub(crate) async fn collect(answer: Result<http::Response<hyper::body::Incoming>, hyper::Error>) -> Got {
    let Ok(answer) = answer else { return Got::Nothing };
    let (head, mut incoming) = answer.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut answer = Answer { status: head.status.as_u16(), headers, body: Vec::new() };
    while let Some(frame) = incoming.frame().await {
        match frame {
            Ok(frame) => answer.body.extend(frame.into_data().unwrap_or_default()),
            Err(_) => return Got::Aborted(answer),
        }
    }
    Got::Whole(answer)
}

enum Part {
    Nothing,
    /// Its end would have been told.
    Body(Answer),
    /// It ends where the connection does.
    UntilClose(Answer),
    /// And how many bytes it took.
    Whole(Answer, usize),
}

impl Part {
    fn of(bytes: &[u8], head_only: bool) -> Self {
        let mut begin = 0;
        let (mut answer, head_end) = loop {
            let Some(length) = find(&bytes[begin..], b"\r\n\r\n") else { return Self::Nothing };
            let answer = head_of(&bytes[begin..begin + length]);
            begin += length + 4;
            if !(100..200).contains(&answer.status) {
                break (answer, begin);
            }
        };
        let body = &bytes[head_end..];
        if head_only || matches!(answer.status, 204 | 304) {
            return Self::Whole(answer, head_end);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            let (body, used) = dechunk(body);
            answer.body = body;
            return match used {
                Some(used) => Self::Whole(answer, head_end + used),
                None => Self::Body(answer),
            };
        }
        let length = answer.header("content-length").map(|length| length.parse::<usize>().expect("a length"));
        let there = length.unwrap_or(usize::MAX).min(body.len());
        answer.body = body[..there].to_vec();
        match length {
            None => Self::UntilClose(answer),
            Some(length) if length == there => Self::Whole(answer, head_end + there),
            Some(_) => Self::Body(answer),
        }
    }
}

fn head_of(head: &[u8]) -> Answer {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let status = status.unwrap_or_else(|| panic!("no status line: {head:?}"));
    Answer { status, headers: lines.filter_map(header).collect(), body: Vec::new() }
}

/// What a chunked body holds, and how many bytes it took if it is whole.
pub(crate) fn dechunk(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return (body, None) };
        let size = String::from_utf8_lossy(&bytes[at..at + line]);
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("").trim(), 16);
        let size = size.expect("a chunk size");
        at += line + 2;
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[at..bytes.len().min(at + size)]);
        at += size + 2;
        if at > bytes.len() {
            return (body, None);
        }
    }
    // Trailers, then an empty line.
    loop {
        let Some(line) = find(&bytes[at..], b"\r\n") else { return (body, None) };
        at += line + 2;
        if line == 0 {
            return (body, Some(at));
        }
    }
}
