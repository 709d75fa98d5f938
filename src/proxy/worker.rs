//! A worker's proxy between requests: made, swept, followed by the next.

use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::counting::Counter;
use super::recording::Recorder;
use super::report::Reporter;
use super::upstream::Upstreams;
use super::{Proxy, Share, Shared, Slot};
use crate::clock::ticker::Ticker;
use crate::config::ListenId;
use crate::tls::ListenerTls;

/// What of an earlier proxy is still in use.
#[derive(Debug)]
pub struct Remains {
    upstreams: Weak<Upstreams>,
    recorder: Weak<Recorder>,
}

impl Remains {
    /// Is nothing of it?
    pub fn is_gone(&self) -> bool {
        self.upstreams.strong_count() + self.recorder.strong_count() == 0
    }

    /// As [`Proxy::sweep`].
    pub fn sweep(&self) {
        self.upstreams.upgrade().iter().for_each(|upstreams| upstreams.sweep());
        self.recorder.upgrade().iter().for_each(|recorder| recorder.sweep());
    }

    /// As [`Proxy::is_pending`].
    pub fn is_pending(&self) -> bool {
        self.upstreams.upgrade().is_some_and(|upstreams| upstreams.has_idle())
            || self.recorder.upgrade().is_some_and(|recorder| recorder.is_pending())
    }

    /// As [`Proxy::cuts_off`].
    pub fn cuts_off(&self) {
        self.recorder.upgrade().iter().for_each(|recorder| recorder.cuts_off());
    }
}

impl Proxy {
    /// A worker's own proxy, with no upstream connections yet, for so many requests at once.
    ///
    /// `before`: the one that it follows, of which it takes over what stays the same.
    pub fn new(
        shared: Arc<Shared>,
        ticker: &Rc<Ticker>,
        share: Share,
        requests: usize,
        before: Option<&Self>,
    ) -> Self {
        let counter = Counter::new(&shared, share);
        let earlier =
            before.map(|before| (before.shared.rules.routes(), &*before.shared.tls, &*before.upstreams));
        let upstreams = Upstreams::new(shared.rules.routes(), &shared.tls, ticker, share, &counter, earlier);
        let refusals = shared.refusals.sheet(share.number);
        let reporter = Reporter::new(&shared, Rc::clone(ticker), refusals);
        let queue = shared.access_log.clone();
        let recorder = queue.map(|queue| Recorder::new(&shared, queue, ticker));
        let running = before.map(|before| Rc::clone(&before.running)).unwrap_or_default();
        Self { shared, upstreams, reporter, counter, recorder, running, max_running: requests }
    }

    /// What all workers share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// TLS towards the callers of a listener, if it has any.
    pub fn listener_tls(&self, listener: ListenId) -> Option<&ListenerTls> {
        self.shared.listener_tls[listener].as_deref()
    }

    /// Does any route that can be reached at an open listener keep the case of header names?
    pub fn keeps_header_case(&self, slot: Slot) -> bool {
        self.shared.listener(slot).is_some_and(|listener| self.shared.rules.keeps_header_case(listener))
    }

    /// Closes upstream connections that have been idle for long, and tells what is still untold; for the worker's tick.
    pub fn sweep(&self) {
        self.upstreams.sweep();
        self.reporter.sweep();
        if let Some(recorder) = &self.recorder {
            recorder.sweep();
        }
    }

    /// Is there anything to sweep?
    pub fn is_pending(&self) -> bool {
        self.upstreams.has_idle()
            || self.reporter.is_pending()
            || self.recorder.as_ref().is_some_and(|recorder| recorder.is_pending())
    }

    /// What outlives it: bodies on their way still have these.
    pub fn remains(&self) -> Remains {
        let recorder = self.recorder.as_ref().map(Rc::downgrade);
        Remains { upstreams: Rc::downgrade(&self.upstreams), recorder: recorder.unwrap_or_default() }
    }

    /// What still runs is cut off: the drain is over.
    pub fn cuts_off(&self) {
        if let Some(recorder) = &self.recorder {
            recorder.cuts_off();
        }
    }
}
