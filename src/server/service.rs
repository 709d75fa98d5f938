//! What all connections of a worker are served with.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::clock::ticker::Ticker;
use crate::config::Limits;
use crate::proxy::exchange::CallerLimits;
use crate::proxy::{Proxy, Remains, Slot};

/// One worker's, shared by its connections.
pub(super) struct Service {
    proxy: RefCell<Rc<Proxy>>,
    /// What of earlier configurations is still in use.
    earlier: RefCell<Vec<Remains>>,
    pub(super) ticker: Rc<Ticker>,
    /// Are connections to end with the next answer on them?
    pub(super) leaving: Cell<bool>,
    /// Are they to end after what runs on them, at once if that is nothing?
    pub(super) draining: Cell<bool>,
    /// Counts the changes after which a connection has to ask whether it is to end.
    pub(super) changes: Cell<u64>,
    pub(super) times: Cell<CallerLimits>,
    pub(super) limits: Cell<Limits>,
}

impl Service {
    pub(super) fn new(proxy: Proxy, ticker: &Rc<Ticker>, times: CallerLimits, limits: Limits) -> Self {
        Self {
            proxy: RefCell::new(Rc::new(proxy)),
            earlier: RefCell::default(),
            ticker: Rc::clone(ticker),
            leaving: Cell::new(false),
            draining: Cell::new(false),
            changes: Cell::new(0),
            times: Cell::new(times),
            limits: Cell::new(limits),
        }
    }

    /// What requests are served with that come from here on.
    pub(super) fn proxy(&self) -> Rc<Proxy> {
        Rc::clone(&self.proxy.borrow())
    }

    /// From here on, requests are served by what follows from `next`; those that run go on as they began.
    pub(super) fn swap(&self, times: CallerLimits, limits: Limits, next: impl FnOnce(&Proxy) -> Proxy) {
        let now = self.proxy();
        let before = self.proxy.replace(Rc::new(next(&now)));
        let mut earlier = self.earlier.borrow_mut();
        earlier.retain(|remains| !remains.is_gone());
        earlier.push(before.remains());
        self.times.set(times);
        self.limits.set(limits);
        self.changed();
    }

    /// From here on, connections end with the next answer on them.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
        self.changed();
    }

    /// From here on, connections end after what runs on them.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.changed();
    }

    fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
        self.ticker.wake_all();
    }

    /// Is a connection on this listener to end after what runs on it?
    pub(super) fn ends(&self, slot: Slot) -> bool {
        self.draining.get() || self.proxy.borrow().shared().listener(slot).is_none()
    }

    /// As [`Proxy::sweep`], of what is in use of earlier ones as well.
    pub(super) fn sweep(&self) {
        self.proxy().sweep();
        self.earlier.borrow().iter().for_each(Remains::sweep);
    }

    /// Is there anything to sweep?
    pub(super) fn is_pending(&self) -> bool {
        self.proxy().is_pending() || self.earlier.borrow().iter().any(Remains::is_pending)
    }

    /// What still runs is cut off.
    pub(super) fn cuts_off(&self) {
        self.proxy().cuts_off();
        self.earlier.borrow().iter().for_each(Remains::cuts_off);
    }
}
