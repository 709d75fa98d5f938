//! What is known of a running exchange, for the access log; its line is written when it is dropped.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri, Version};

use super::Shared;
use super::access::{Ended, Line, Peer};
use super::exchange::Exchange;
use super::marks::TraceId;
use crate::clock::Moment;
use crate::clock::ticker::Ticker;
use crate::config::CallerId;
use crate::telemetry::access_log::{Lines, Queue};

/// Lost lines are told so often at most, in milliseconds.
const INTERVAL: u64 = 1000;

/// A worker's recorder.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    lines: RefCell<Lines>,
    ticker: Rc<Ticker>,
    /// When lost lines may be told again.
    next: Cell<u64>,
    /// What still runs is cut off.
    cuts_off: Cell<bool>,
}

/// One exchange, from the end of the request's header on.
#[derive(Debug)]
pub(crate) struct Recording {
    recorder: Rc<Recorder>,
    time: SystemTime,
    start: Moment,
    peer: Option<Peer>,
    pub(crate) request_id: Option<HeaderValue>,
    trace: Option<TraceId>,
    method: Method,
    uri: Uri,
    version: Version,
    pub(crate) caller: Option<CallerId>,
    pub(crate) route: Option<usize>,
    account: Option<Box<str>>,
    status: Option<StatusCode>,
    pub(crate) code: Option<&'static str>,
    sent: Option<Moment>,
    upstream: Option<Duration>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    ended: Option<Ended>,
    end: Option<Moment>,
}

impl Recorder {
    pub(crate) fn new(shared: &Arc<Shared>, queue: Queue, ticker: &Rc<Ticker>) -> Rc<Self> {
        Rc::new(Self {
            shared: Arc::clone(shared),
            lines: RefCell::new(Lines::new(queue)),
            ticker: Rc::clone(ticker),
            next: Cell::new(0),
            cuts_off: Cell::new(false),
        })
    }

    /// A request came in, at `start`.
    pub(crate) fn begins(
        self: &Rc<Self>,
        head: &Parts,
        peer: Option<Peer>,
        start: Moment,
        exchange: &Exchange,
    ) -> Box<Recording> {
        Box::new(Recording {
            recorder: Rc::clone(self),
            time: self.shared.clock.wall(),
            start,
            peer,
            request_id: exchange.known_request_id(),
            trace: exchange.trace(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            caller: None,
            route: None,
            account: None,
            status: None,
            code: None,
            sent: None,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            ended: None,
            end: None,
        })
    }

    /// Hands over what was recorded; for the worker's tick.
    pub(crate) fn sweep(&self) {
        let mut lines = self.lines.borrow_mut();
        lines.hand_over();
        let now = self.ticker.millis();
        if now >= self.next.get() {
            self.next.set(now + INTERVAL);
            lines.tell_lost();
        }
    }

    /// Is there anything to sweep?
    pub(crate) fn is_pending(&self) -> bool {
        self.lines.borrow().are_pending()
    }

    /// From here on, what does not end by itself was stopped.
    pub(crate) fn cuts_off(&self) {
        self.cuts_off.set(true);
    }
}

impl Recording {
    /// It carries this account's token.
    pub(crate) fn is_of(&mut self, account: &str) {
        self.account = Some(account.into());
    }

    /// It begins to go to the upstream; perhaps not for the first time.
    pub(crate) fn goes_up(&mut self) {
        self.sent.get_or_insert_with(|| self.recorder.shared.clock.now());
    }

    /// The header of the upstream's answer came.
    pub(crate) fn came_back(&mut self) {
        self.upstream = self.sent.map(|sent| self.recorder.shared.clock.now().since(sent));
    }

    /// The caller is answered.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// It ends now.
    pub(crate) fn ends(&mut self, now: Moment) {
        self.end = Some(now);
    }

    /// The answer has passed, or will not be asked for (RFC 9110 §9.3.2); else, how it ended.
    pub(crate) fn passed(&mut self, is_whole: bool, otherwise: Ended) {
        let is_whole = is_whole || self.method == Method::HEAD;
        self.ended = match (is_whole, otherwise) {
            (true, _) => Some(Ended::Complete),
            // Whoever let go of it, that was why.
            (false, Ended::CallerGone) => None,
            (false, otherwise) => Some(otherwise),
        };
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let Self { recorder, .. } = self;
        let (rules, clock) = (&recorder.shared.rules, &recorder.shared.clock);
        let unsaid = if recorder.cuts_off.get() { Ended::Stopped } else { Ended::CallerGone };
        let line = Line {
            time: self.time,
            caller: self.caller.map(|caller| &**rules.callers().name(caller)),
            peer: self.peer,
            request_id: self.request_id.as_ref().and_then(|id| id.to_str().ok()),
            trace_id: self.trace.as_ref().map(TraceId::as_str),
            route: self.route.map(|route| &*rules.routes()[route].name),
            account: self.account.as_deref(),
            method: self.method.as_str(),
            path: self.uri.path(),
            status: self.status.map(|status| status.as_u16()),
            code: self.code,
            duration: self.end.unwrap_or_else(|| clock.now()).since(self.start),
            upstream: self.upstream,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            protocol: protocol(self.version),
            ended: self.ended.unwrap_or(unsaid),
        };
        recorder.lines.borrow_mut().add(|out| line.write(out));
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}
