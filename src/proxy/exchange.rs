//! Where a caller's connection stands: between requests, in a header, or in an exchange; and the one alarm that
//! bounds each of these.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use crate::clock::ticker::{Alarm, Ticker};

/// The most that is read ahead of a connection, in either direction, and so the most that a header may hold.
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
        let exchange = Self {
            phase: Cell::new(Phase::Header),
            alarm: ticker.alarm(),
            limits,
            response_timeout: Cell::new(None),
            awaits_caller: Cell::new(false),
        };
        exchange.alarm.set(limits.header);
        Rc::new(exchange)
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

    /// Bytes came from the caller.
    pub fn bytes_came(&self) {
        if self.phase.get() == Phase::Idle {
            self.phase.set(Phase::Header);
            self.alarm.set(self.limits.header);
        }
    }

    /// A request's header is whole; from here until [`Exchange::ends`] the exchange itself watches the alarm.
    pub(crate) fn begins(&self) {
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

    /// Is it the caller who keeps the body from moving?
    pub(crate) fn awaits_caller(&self) -> bool {
        self.phase.get() == Phase::Sending && self.awaits_caller.get()
    }

    /// The request is whole and on its way.
    pub(crate) fn request_sent(&self) {
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

    /// How long the caller may be silent.
    pub(crate) fn idle_limit(&self) -> Duration {
        self.limits.idle
    }

    /// The answer has left, or broke off.
    pub(crate) fn ends(&self) {
        self.phase.set(Phase::Idle);
        self.alarm.set(self.limits.idle);
    }
}
