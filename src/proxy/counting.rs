//! What is counted of an exchange: once, when it ends, however it ends.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use super::{Share, Shared};
use crate::clock::{Clock, Moment};
use crate::telemetry::metrics::sheet::RouteSheet;
use crate::telemetry::metrics::{NO_ANSWER, WorkerTraffic};

/// One worker's way to count.
#[derive(Debug)]
pub(crate) struct Counter {
    clock: Clock,
    traffic: WorkerTraffic,
}

/// One exchange, from the end of the request's header on; counted when it is dropped.
#[derive(Debug)]
pub(crate) struct Count {
    counter: Rc<Counter>,
    start: Moment,
    route: Option<usize>,
    status: Option<StatusCode>,
    end: Option<Moment>,
}

impl Counter {
    pub(crate) fn new(shared: &Shared, share: Share) -> Rc<Self> {
        Rc::new(Self { clock: shared.clock.clone(), traffic: shared.traffic.of_worker(share.number) })
    }

    /// The sheet of a route.
    pub(crate) fn sheet(&self, route: usize) -> &Arc<RouteSheet> {
        self.traffic.sheet(Some(route))
    }

    /// A request came in.
    pub(crate) fn begins(self: &Rc<Self>) -> Count {
        Count { counter: Rc::clone(self), start: self.clock.now(), route: None, status: None, end: None }
    }
}

impl Count {
    /// When its request came in.
    pub(crate) fn start(&self) -> Moment {
        self.start
    }

    /// It is this route's.
    pub(crate) fn is_of(&mut self, route: Option<usize>) {
        self.route = route;
    }

    /// The caller is answered.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// It ends; when that was.
    pub(crate) fn ends(mut self) -> Moment {
        *self.end.insert(self.counter.clock.now())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let end = self.end.unwrap_or_else(|| self.counter.clock.now());
        let code = self.status.map_or(NO_ANSWER, |status| status.as_u16());
        self.counter.traffic.sheet(self.route).count(code, end.since(self.start));
    }
}
