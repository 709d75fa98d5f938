//! Where a caller's connection stands: between requests, in a header, or in an exchange; and the one alarm that
//! bounds each of these.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::counting::Count;
use super::marks::{Marks, TraceId};
use super::recording::Recording;
use super::tunnel::Tunnel;
use crate::clock::ticker::{Alarm, Ticker};
use crate::config::CallerId;

/// The most that is read ahead of a connection, in either direction, and so the most that an answer's header may hold.
pub const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// One caller's connection, as seen by its IO, its task and the exchange on it.
#[derive(Debug)]
pub struct Exchange {
    phase: Cell<Phase>,
    alarm: Alarm,
    limits: CallerLimits,
    response_timeout: Cell<Option<Duration>>,
    /// While the body goes up: is it the caller's turn, or the upstream's?
    awaits_caller: Cell<bool>,
    /// The caller's body broke off: the request can never be whole.
    is_broken: Cell<bool>,
    /// The request has a body, and nobody has taken all of it.
    leaves_body: Cell<bool>,
    /// While the answer goes down: a piece of it was handed on, and nobody asked for the next.
    is_handed: Cell<bool>,
    /// HTTP/1.0: the end of the connection may be all that tells the end of the answer.
    ends_by_closing: Cell<bool>,
    /// HTTP/2: the stream's request was answered.
    is_answered: Cell<bool>,
    /// Counts among the requests that are served at once.
    place: RefCell<Option<Place>>,
    /// What the caller's connection becomes after the answer.
    tunnel: RefCell<Option<Box<Tunnel>>>,
    /// What is counted of it when it ends.
    count: RefCell<Option<Count>>,
    /// What the access log will say of it, if there is one.
    recording: RefCell<Option<Box<Recording>>>,
    /// By what others know it.
    marks: RefCell<Marks>,
}

/// A place among the requests that a worker serves at once; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Rc<Cell<usize>>);

impl Place {
    /// One of `limit` places, if one is free.
    pub(crate) fn among(taken: &Rc<Cell<usize>>, limit: usize) -> Option<Self> {
        let now = taken.get();
        (now < limit).then(|| {
            taken.set(now + 1);
            Self(Rc::clone(taken))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Time limits that hold for every caller.
#[derive(Debug, Clone, Copy)]
pub struct CallerLimits {
    /// For the header of a request.
    pub header: Duration,
    /// Between requests, and between pieces of a body.
    pub idle: Duration,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the next request has come.
    Idle,
    /// Some of its header has come.
    Header,
    /// The request's header is whole, its body may still be on the way up.
    Sending,
    /// The request is on its way or answered.
    Waiting,
}

impl Exchange {
    /// A new connection: its first header is awaited.
    pub fn new(ticker: &Rc<Ticker>, limits: CallerLimits) -> Rc<Self> {
        let exchange = Self::at(Phase::Header, ticker, limits);
        exchange.alarm.set(limits.header);
        exchange
    }

    /// A stream of an HTTP/2 connection: its header is there.
    pub fn of_stream(ticker: &Rc<Ticker>, limits: CallerLimits) -> Rc<Self> {
        Self::at(Phase::Sending, ticker, limits)
    }

    fn at(phase: Phase, ticker: &Rc<Ticker>, limits: CallerLimits) -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(phase),
            alarm: ticker.alarm(),
            limits,
            response_timeout: Cell::new(None),
            awaits_caller: Cell::new(false),
            is_broken: Cell::new(false),
            leaves_body: Cell::new(false),
            is_handed: Cell::new(false),
            ends_by_closing: Cell::new(false),
            is_answered: Cell::new(false),
            place: RefCell::default(),
            tunnel: RefCell::default(),
            count: RefCell::default(),
            recording: RefCell::default(),
            marks: RefCell::default(),
        })
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Has the time for what it is doing passed? The task of `cx` is woken when it has.
    pub fn is_overdue(&self, cx: &Context<'_>) -> bool {
        self.alarm.wakes(cx);
        self.alarm.has_rung()
    }

    /// The caller has so long at most to say what it wants.
    pub fn hurries(&self, span: Duration) {
        self.alarm.set_sooner(span);
    }

    /// Bytes came from the caller.
    pub fn bytes_came(&self) {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Header);
            self.alarm.set(self.limits.header);
        }
    }

    /// Is it the caller who keeps the connection waiting: for a header, or by not reading the answer?
    pub fn is_callers_turn(&self) -> bool {
        self.is_handed.get() || matches!(self.phase.get(), Phase::Idle | Phase::Header)
    }

    /// A request's header is whole; from here until [`Exchange::ends`] the exchange itself watches the alarm.
    pub(crate) fn begins(&self, place: Option<Place>, has_body: bool) {
        self.place.replace(place);
        self.is_broken.set(false);
        self.leaves_body.set(has_body);
        self.phase.set(Phase::Sending);
        self.alarm.clear();
    }

    /// The request begins to go to an upstream that has so long to answer, from its last byte.
    pub(crate) fn forwarding(&self, response_timeout: Option<Duration>, has_body: bool) {
        self.response_timeout.set(response_timeout);
        // Whatever it was: the same request may have been sent before.
        self.phase.set(Phase::Sending);
        if has_body {
            self.awaits_caller.set(false);
            self.alarm.set(self.limits.idle);
        } else {
            self.request_sent();
        }
    }

    /// A piece of the caller's body came.
    pub(crate) fn request_moves(&self) {
        self.awaits_caller.set(false);
        if self.phase.get() == Phase::Sending {
            self.alarm.set(self.limits.idle);
        }
    }

    /// The upstream would take more of the body, and the caller has sent none.
    pub(crate) fn request_waits(&self) {
        self.awaits_caller.set(true);
    }

    /// The caller's body broke off.
    pub(crate) fn request_breaks(&self) {
        self.is_broken.set(true);
    }

    /// Did it?
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Is it the caller who keeps the body from moving?
    pub(crate) fn awaits_caller(&self) -> bool {
        self.phase.get() == Phase::Sending && self.awaits_caller.get()
    }

    /// The request is whole and on its way.
    pub(crate) fn request_sent(&self) {
        self.leaves_body.set(false);
        if self.phase.get() == Phase::Sending {
            self.phase.set(Phase::Waiting);
            self.alarm.set_or_clear(self.response_timeout.get());
        }
    }

    /// The head of the answer came: its body may take as long as it takes.
    pub(crate) fn answered(&self) {
        self.phase.set(Phase::Waiting);
        self.alarm.clear();
    }

    /// A piece of the answer is handed on: the caller has so long to take it.
    pub(crate) fn handed(&self) {
        self.is_handed.set(true);
        self.alarm.set(self.limits.idle);
    }

    /// The next piece of the answer is asked for: the caller has taken what there was.
    pub(crate) fn asked(&self) {
        if self.is_handed.replace(false) {
            self.alarm.clear();
        }
    }

    /// The caller may take the end of the connection for the end of an answer.
    pub fn may_end_by_closing(&self) {
        self.ends_by_closing.set(true);
    }

    /// May the caller do so?
    pub fn ends_by_closing(&self) -> bool {
        self.ends_by_closing.get()
    }

    /// The stream's request is answered.
    pub fn answers(&self) {
        self.is_answered.set(true);
    }

    /// Was the stream's request answered?
    pub fn is_answered(&self) -> bool {
        self.is_answered.get()
    }

    /// Was the last request answered before all of its body was taken?
    pub fn leaves_body(&self) -> bool {
        self.leaves_body.get()
    }

    /// After its answer, 101, the connection is one end of this tunnel.
    pub(crate) fn becomes(&self, tunnel: Box<Tunnel>) {
        self.tunnel.replace(Some(tunnel));
    }

    /// The tunnel that the connection is to become.
    pub fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }

    /// By what others know the request that begins.
    pub(crate) fn is_marked(&self, marks: Marks) {
        self.marks.replace(marks);
    }

    /// The request's id: the caller's, or one that is made where it is first asked for.
    pub(crate) fn request_id(&self) -> HeaderValue {
        let (id, is_new) = self.marks.borrow_mut().id();
        if is_new {
            self.note(|recording| recording.request_id = Some(id.clone()));
        }
        id
    }

    /// The request's id, if it has one by now.
    pub(crate) fn known_request_id(&self) -> Option<HeaderValue> {
        self.marks.borrow().known_id()
    }

    /// The trace that the request belongs to.
    pub(crate) fn trace(&self) -> Option<TraceId> {
        self.marks.borrow().trace()
    }

    /// From here on it counts.
    pub(crate) fn counts(&self, count: Count) {
        self.count.replace(Some(count));
    }

    /// Its request is this caller's and takes this route, as far as that is known.
    pub(crate) fn is_of(&self, caller: Option<CallerId>, route: Option<usize>) {
        if let Some(count) = self.count.borrow_mut().as_mut() {
            count.is_of(route);
        }
        self.note(|recording| (recording.caller, recording.route) = (caller, route));
    }

    /// The caller is answered with this status.
    pub(crate) fn answers_with(&self, status: StatusCode) {
        if let Some(count) = self.count.borrow_mut().as_mut() {
            count.answered(status);
        }
        self.note(|recording| recording.answered(status));
    }

    /// From here on it is recorded.
    pub(crate) fn records(&self, recording: Box<Recording>) {
        self.recording.replace(Some(recording));
    }

    /// Tells the access log of it, if there is one.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Recording)) {
        if let Some(recording) = self.recording.borrow_mut().as_mut() {
            note(recording);
        }
    }

    /// Something else goes on with its record.
    pub(crate) fn take_recording(&self) -> Option<Box<Recording>> {
        self.recording.take()
    }

    /// No time limit holds any more.
    pub fn is_free(&self) {
        self.alarm.clear();
    }

    /// How long the caller may be silent.
    pub(crate) fn idle_limit(&self) -> Duration {
        self.limits.idle
    }

    /// The answer has left, or broke off.
    pub(crate) fn ends(&self) {
        self.place.take();
        // One look at the clock for both.
        let end = self.count.take().map(Count::ends);
        if let (Some(mut recording), Some(end)) = (self.recording.take(), end) {
            recording.ends(end);
        }
        // They are pieces of what was read, which is not read into again as long as they are kept.
        self.marks.take();
        self.is_handed.set(false);
        self.phase.set(Phase::Idle);
        self.alarm.set(self.limits.idle);
    }
}
