//! What goes wrong with requests, told to the log: each kind at once, then at most once a second with a count. What
//! refuses them is counted as well.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use tracing::{info, warn};

use super::Shared;
use super::access::{Cut, Peer};
use super::error::ProxyError;
use super::exchange::Exchange;
use super::marks::TraceId;
use crate::clock::ticker::Ticker;
use crate::config::CallerId;
use crate::telemetry::chain;
use crate::telemetry::limiter::Limiter;
use crate::telemetry::refusals::Sheet;

/// One kind of trouble is told so often at most, in milliseconds.
const INTERVAL: u64 = 1000;
/// The most that is told of a path and of a method, in bytes.
const MAX_PATH: usize = 128;
const MAX_METHOD: usize = 32;

/// A worker's reporter.
#[derive(Debug)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    ticker: Rc<Ticker>,
    refusals: Arc<Sheet>,
    limiter: RefCell<Limiter<Kind>>,
}

/// What counts as the same: its code, and whose request on which route it was.
type Kind = (&'static str, Option<CallerId>, Option<usize>);

/// The request that it went wrong with.
#[derive(Debug)]
pub(crate) struct Trouble<'a> {
    pub(crate) caller: Option<CallerId>,
    pub(crate) route: Option<usize>,
    pub(crate) peer: Option<Peer>,
    pub(crate) method: &'a Method,
    /// Without a query.
    pub(crate) path: &'a str,
    pub(crate) exchange: &'a Exchange,
}

impl Reporter {
    pub(crate) fn new(shared: &Arc<Shared>, ticker: Rc<Ticker>, refusals: Arc<Sheet>) -> Self {
        let limiter = RefCell::new(Limiter::new(INTERVAL));
        Self { shared: Arc::clone(shared), ticker, refusals, limiter }
    }

    /// Tells of an error, unless the same kind was told of a moment ago.
    pub(crate) fn report(&self, error: &ProxyError, request: &Trouble<'_>) {
        let (code, status) = (error.code(), error.status());
        let is_refusal = status.is_client_error() || code == "overloaded";
        if is_refusal {
            self.refusals.count(code);
        }
        let kind = (code, request.caller, request.route);
        let Some(unsaid) = self.limiter.borrow_mut().tells(kind, self.ticker.millis()) else { return };
        let (caller, route) = self.names(kind);
        let peer = request.peer.map(tracing::field::display);
        let method = tracing::field::display(Cut(request.method.as_str(), MAX_METHOD));
        // It may be anything that a caller makes up; `Debug` of a text has no control characters.
        let path = Cut(request.path, MAX_PATH).to_string();
        let (id, trace) = (request.exchange.request_id(), request.exchange.trace());
        let (request_id, trace_id) = (id.to_str().ok(), trace.as_ref().map(TraceId::as_str));
        let text = chain(error);
        if status.is_server_error() && !is_refusal {
            warn!(code, route, caller, peer, method, path, request_id, trace_id, unsaid, "{text}");
        } else {
            info!(code, route, caller, peer, method, path, request_id, trace_id, unsaid, "refused: {text}");
        }
    }

    /// Is there anything to sweep?
    pub(crate) fn is_pending(&self) -> bool {
        self.limiter.borrow().holds_back()
    }

    /// Tells of what was held back and has not happened since; for the worker's tick.
    pub(crate) fn sweep(&self) {
        self.tell_unsaid(self.ticker.millis());
    }

    fn tell_unsaid(&self, now: u64) {
        let (due, beyond) = self.limiter.borrow_mut().overdue(now);
        for (kind, unsaid) in due {
            let (caller, route) = self.names(kind);
            info!(code = kind.0, route, caller, unsaid, "the same, and no more since");
        }
        if beyond > 0 {
            info!(unsaid = beyond, "requests went wrong in more ways than are told apart");
        }
    }

    fn names(&self, (_, caller, route): Kind) -> (Option<&str>, Option<&str>) {
        let rules = &self.shared.rules;
        let caller = caller.map(|caller| &**rules.callers().name(caller));
        (caller, route.map(|route| &*rules.routes()[route].name))
    }
}

impl Drop for Reporter {
    /// Nothing that was held back stays untold.
    fn drop(&mut self) {
        self.tell_unsaid(u64::MAX);
    }
}
