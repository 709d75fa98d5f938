//! What goes wrong with requests, told to the log: each kind at once, then at most once a second with a count.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tracing::{info, warn};

use super::error::ProxyError;
use crate::clock::ticker::Ticker;
use crate::config::Route;
use crate::telemetry::chain;

/// One kind of trouble is told so often at most, in milliseconds.
const INTERVAL: u64 = 1000;

/// A worker's reporter.
#[derive(Debug)]
pub(crate) struct Reporter {
    ticker: Rc<Ticker>,
    told: RefCell<HashMap<(&'static str, Option<usize>), Told>>,
}

#[derive(Debug, Default)]
struct Told {
    next: u64,
    unsaid: u64,
}

impl Reporter {
    pub(crate) fn new(ticker: Rc<Ticker>) -> Self {
        Self { ticker, told: RefCell::default() }
    }

    /// Tells of an error, unless the same kind was told of for the same route a moment ago.
    pub(crate) fn report(&self, error: &ProxyError, route: Option<(usize, &Route)>) {
        let now = self.ticker.millis();
        let mut told = self.told.borrow_mut();
        let entry = told.entry((error.code(), route.map(|(index, _)| index))).or_default();
        if now < entry.next {
            entry.unsaid += 1;
            return;
        }
        entry.next = now + INTERVAL;
        let unsaid = std::mem::take(&mut entry.unsaid);
        let name = route.map_or("", |(_, route)| &route.name);
        let code = error.code();
        let text = chain(error);
        if error.status().is_server_error() {
            warn!(code, route = name, unsaid, "{text}");
        } else {
            info!(code, route = name, unsaid, "refused: {text}");
        }
    }
}
