//! What a stand-in received, as a test or the demo wants to look at it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};

/// How many exchanges a record keeps; the oldest go first.
pub const KEPT: usize = 10_000;

/// Headers whose values [`Seen`] never shows.
const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "neon-connection-string",
    "sidekey-token",
];

/// One exchange. `Debug` and `Display` redact the values that authenticate; the fields hold them in full.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The request target as received: path and query.
    pub target: String,
    /// The headers with lower-case names, names in the order of their first line, the lines of one name in order.
    /// A value that is not UTF-8 is read as Latin-1.
    pub headers: Vec<(String, String)>,
    /// The status answered; `None` while there is no answer.
    pub status: Option<u16>,
    /// Whether it went to a token endpoint.
    pub token_request: bool,
    /// The body, of token and revocation requests only.
    pub body: Bytes,
}

impl Seen {
    /// The first value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a header, by lower-case name, in order.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The parameters of a token or revocation request's form.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    fn redacted(&self) -> impl Iterator<Item = (&str, &str, &'static str)> {
        self.headers.iter().map(|(name, value)| {
            let (shown, ellipsis) = redact(name, value);
            (name.as_str(), shown, ellipsis)
        })
    }
}

/// The part of a value that may be shown, and what stands for the rest.
fn redact<'a>(name: &str, value: &'a str) -> (&'a str, &'static str) {
    if !SECRET_HEADERS.contains(&name) {
        return (value, "");
    }
    let scheme = value.split_once(' ').map_or("", |(scheme, _)| scheme);
    match scheme.to_ascii_lowercase().as_str() {
        "basic" | "bearer" if name.ends_with("authorization") => (scheme, " …"),
        _ => ("", "…"),
    }
}

impl fmt::Display for Seen {
    /// The request line, the status, and one indented line for each header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} → ", self.method, self.target)?;
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("no answer")?,
        }
        for (name, shown, ellipsis) in self.redacted() {
            write!(f, "\n    {name}: {shown}{ellipsis}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<String> =
            self.redacted().map(|(name, shown, ellipsis)| format!("{name}: {shown}{ellipsis}")).collect();
        f.debug_struct("Seen")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("headers", &headers)
            .field("status", &self.status)
            .field("token_request", &self.token_request)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// Everything that a stand-in received: the last [`KEPT`] exchanges, and counts of all of them.
#[derive(Debug)]
pub struct Record {
    kept: Mutex<Kept>,
    recording: AtomicBool,
    token_requests: AtomicU64,
    api_requests: AtomicU64,
    refusals: AtomicU64,
    connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the first exchange in `seen`.
    first: u64,
    seen: VecDeque<Seen>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::default(),
            recording: AtomicBool::new(true),
            token_requests: AtomicU64::new(0),
            api_requests: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    /// The exchanges so far, oldest first, those without an answer yet among them.
    pub fn requests(&self) -> Vec<Seen> {
        self.kept().seen.iter().cloned().collect()
    }

    /// The same, and forgets them. The counts stay.
    pub fn take(&self) -> Vec<Seen> {
        let mut kept = self.kept();
        let taken: Vec<Seen> = kept.seen.drain(..).collect();
        kept.first += taken.len() as u64;
        taken
    }

    /// Whether exchanges are kept from now on: yes unless turned off, as under load. The counts go on.
    pub fn recording(&self, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
    }

    /// How many requests went to the token endpoint, answered or not.
    pub fn token_requests(&self) -> u64 {
        self.token_requests.load(Ordering::Relaxed)
    }

    /// How many requests went anywhere else, answered or not.
    pub fn api_requests(&self) -> u64 {
        self.api_requests.load(Ordering::Relaxed)
    }

    /// How many of those were answered with 401 or 403.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a request before it is answered. Gives its number, if it is kept.
    pub(super) fn arrived<B>(&self, request: &Request<B>, token_request: bool) -> Option<u64> {
        let count = if token_request { &self.token_requests } else { &self.api_requests };
        count.fetch_add(1, Ordering::Relaxed);
        if !self.recording.load(Ordering::Relaxed) {
            return None;
        }
        let seen = Seen {
            method: request.method().to_string(),
            target: request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned(),
            headers: header_list(request.headers()),
            status: None,
            token_request,
            body: Bytes::new(),
        };
        let mut kept = self.kept();
        if kept.seen.len() == KEPT {
            kept.seen.pop_front();
            kept.first += 1;
        }
        kept.seen.push_back(seen);
        Some(kept.first + kept.seen.len() as u64 - 1)
    }

    /// Notes the answer to a request that `arrived` gave the number of.
    pub(super) fn answered(&self, number: Option<u64>, token_request: bool, status: StatusCode) {
        if !token_request && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        self.update(number, |seen| seen.status = Some(status.as_u16()));
    }

    pub(super) fn body(&self, number: Option<u64>, body: &Bytes) {
        self.update(number, |seen| seen.body = body.clone());
    }

    fn update(&self, number: Option<u64>, change: impl FnOnce(&mut Seen)) {
        let Some(number) = number else { return };
        let mut kept = self.kept();
        let place = number.checked_sub(kept.first).and_then(|place| usize::try_from(place).ok());
        if let Some(seen) = place.and_then(|place| kept.seen.get_mut(place)) {
            change(seen);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Headers as a list of texts.
pub(super) fn header_list(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn text(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|&byte| char::from(byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: &'static str) -> Request<()> {
        Request::get("/x?y=1").header("authorization", value).body(()).unwrap()
    }

    #[test]
    fn what_authenticates_is_kept_but_never_shown() {
        let record = Record::new();
        let mut request = request("Bearer canary");
        for name in ["cookie", "neon-connection-string", "sidekey-token", "proxy-authorization"] {
            request.headers_mut().insert(name, HeaderValue::from_static("x canary"));
        }
        record.arrived(&request, false);
        let seen = record.requests().remove(0);
        assert_eq!(seen.header("authorization"), Some("Bearer canary"));
        for shown in [format!("{seen:?}"), format!("{seen:#?}"), format!("{seen}"), format!("{record:?}")] {
            assert!(!shown.contains("canary"), "{shown}");
            assert!(shown.contains("Bearer …"), "{shown}");
        }
    }

    #[test]
    fn an_answer_finds_its_request_after_others_were_dropped_or_taken() {
        let record = Record::new();
        let early = record.arrived(&request("a"), false);
        for _ in 0..KEPT {
            record.arrived(&request("b"), true);
        }
        assert_eq!(record.requests().len(), KEPT);
        record.answered(early, false, StatusCode::OK);
        assert!(record.take().iter().all(|seen| seen.status.is_none()));
        let late = record.arrived(&request("c"), false);
        record.answered(late, false, StatusCode::NO_CONTENT);
        assert_eq!(record.requests()[0].status, Some(204));

        record.recording(false);
        assert_eq!(record.arrived(&request("d"), false), None);
        record.answered(None, false, StatusCode::UNAUTHORIZED);
        record.answered(None, true, StatusCode::UNAUTHORIZED);
        assert_eq!((record.api_requests(), record.token_requests()), (3, KEPT as u64));
        assert_eq!(record.refusals(), 1, "a token endpoint's are not among them");
    }
}
