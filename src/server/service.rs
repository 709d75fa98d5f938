//! What all connections of a worker are served with.

use std::cell::Cell;
use std::rc::Rc;

use crate::clock::ticker::Ticker;
use crate::config::Limits;
use crate::proxy::Proxy;
use crate::proxy::exchange::CallerLimits;

/// One worker's, shared by its connections.
pub(super) struct Service {
    pub(super) proxy: Rc<Proxy>,
    pub(super) ticker: Rc<Ticker>,
    /// Are connections to end after what runs on them?
    pub(super) draining: Cell<bool>,
    pub(super) times: CallerLimits,
    pub(super) limits: Limits,
}
