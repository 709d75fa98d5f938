//! Pacing: a route's requests are spread so that they stay below its upstream's limit.
//!
//! Each rate of a route is a schedule: one number that says when the next request is due. A request reserves its slot
//! by moving that number, and sleeps until the slot comes; so it is first come, first served across all workers,
//! without a lock and without a queue. Slots are nanoseconds since the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::error::ProxyError;
use crate::config::{MAX_RATES, Rate, Route};

/// The share of a rate that may pass at once after a pause: one in so many.
const BURST: u32 = 10;
/// Each period is kept to as if it were longer by one part in so many: requests that the network delays unevenly come
/// to the upstream closer together than they left.
const MARGIN: u64 = 50;

/// The paces of all routes, shared by all workers.
#[derive(Debug)]
pub struct Paces(Box<[Option<Arc<Pace>>]>);

/// A route's pace.
#[derive(Debug)]
struct Pace {
    start: Instant,
    /// Every one of them holds.
    lanes: Box<[Lane]>,
    longest_wait: u64,
}

/// One rate and where its schedule stands.
#[derive(Debug)]
struct Lane {
    spacing: Spacing,
    /// When the next request is due if all are evenly spaced. Earlier than now: the route has been idle.
    due: AtomicU64,
}

/// How one rate spaces its requests: the generic cell rate algorithm (ITU-T I.371), as virtual scheduling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spacing {
    /// Between requests, while they keep coming.
    interval: u64,
    /// How much earlier than due a request may pass.
    slack: u64,
}

/// Why a request gets no slot: it could have one if it came again after this long, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused(u64);

/// A reserved slot. Dropped before the request has gone, it is given back if nobody has reserved one behind it.
#[derive(Debug)]
struct Place<'a> {
    pace: &'a Pace,
    slot: u64,
    /// Each lane's due before and after, of the lanes that are reserved.
    moved: [(u64, u64); MAX_RATES],
    reserved: usize,
}

impl Paces {
    /// The paces of these routes, which begin now as if nothing had been sent before; but for those that `before`, of
    /// an earlier configuration, has the same of: their upstreams remember.
    pub fn new(routes: &[Route], before: Option<(&Self, &[Route])>) -> Self {
        let start = Instant::now();
        let same = |route: &Route| {
            let (paces, routes) = before?;
            let index = routes.iter().position(|earlier| {
                (&earlier.name, &earlier.upstream, &earlier.pace, earlier.pace_wait)
                    == (&route.name, &route.upstream, &route.pace, route.pace_wait)
            })?;
            paces.0[index].clone()
        };
        let new = |route: &Route| {
            (!route.pace.is_empty()).then(|| Arc::new(Pace::new(start, &route.pace, route.pace_wait)))
        };
        Self(routes.iter().map(|route| same(route).or_else(|| new(route))).collect())
    }

    /// Waits for the turn of a request. A caller that goes away meanwhile gives its turn back if it is the last in the
    /// queue; else the slot passes unused.
    ///
    /// # Errors
    /// At once, if the turn would come later than the route lets requests wait.
    pub(crate) async fn turn(&self, route: usize) -> Result<(), ProxyError> {
        let Some(pace) = &self.0[route] else { return Ok(()) };
        let now = pace.now();
        let place = pace.reserve(now).map_err(|Refused(span)| ProxyError::RateLimited {
            longest_wait: Duration::from_nanos(pace.longest_wait),
            retry_after: Duration::from_nanos(span),
        })?;
        if place.slot > now {
            // Of its own, so that the requests of other routes need no room for it.
            Box::pin(sleep_until(pace.start + Duration::from_nanos(place.slot))).await;
        }
        place.go();
        Ok(())
    }

    /// Counts a request that is sent once more. It does not wait; those that come after it wait the longer.
    pub(crate) fn owe(&self, route: usize) {
        if let Some(pace) = &self.0[route] {
            pace.owe(pace.now());
        }
    }
}

impl Pace {
    fn new(start: Instant, rates: &[Rate], longest_wait: Duration) -> Self {
        let mut rates = rates.to_vec();
        // Where two workers meet between lanes, the last one is kept nonetheless: that of the longest period, as it
        // takes longest to get out of its limit.
        rates.sort_by_key(|rate| rate.per);
        let lane = |rate: &Rate| Lane { spacing: Spacing::of(*rate), due: AtomicU64::new(0) };
        let lanes = rates.iter().take(MAX_RATES).map(lane).collect();
        Self { start, lanes, longest_wait: nanos(longest_wait) }
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Reserves the next slot that every rate allows.
    ///
    /// The lanes stand one behind the other: what leaves one is what comes to the next, which can only delay it, and
    /// delays in order do not undo the spacing that was there before.
    fn reserve(&self, now: u64) -> Result<Place<'_>, Refused> {
        let latest = now.saturating_add(self.longest_wait);
        // A look before anything is moved: what one lane has given, another must not refuse.
        let due = |lane: &Lane| lane.due.load(Ordering::Relaxed);
        let slot = self.lanes.iter().fold(now, |slot, lane| lane.spacing.slot(due(lane), slot).0);
        if slot > latest {
            return Err(Refused(slot - latest));
        }
        let mut place = Place { pace: self, slot: now, moved: [(0, 0); MAX_RATES], reserved: 0 };
        for lane in &self.lanes {
            let mut before = due(lane);
            loop {
                let (slot, after) = lane.spacing.slot(before, place.slot);
                if slot > latest {
                    // Another worker was quicker; the lanes before this one are given back.
                    return Err(Refused(slot - latest));
                }
                match lane.due.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        place.slot = slot;
                        place.moved[place.reserved] = (before, after);
                        place.reserved += 1;
                        break;
                    }
                    Err(moved) => before = moved,
                }
            }
        }
        Ok(place)
    }

    fn owe(&self, now: u64) {
        for lane in &self.lanes {
            let after = |due: u64| Some(due.max(now).saturating_add(lane.spacing.interval));
            let _ = lane.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        }
    }
}

impl Spacing {
    /// The spacing with which no period, its margin included, has more than the rate's requests: with `b` of them at
    /// once, two that are `requests` apart in order are at least `requests - b + 1` intervals apart in time.
    fn of(rate: Rate) -> Self {
        let requests = u64::from(rate.requests.max(1));
        let burst = u64::from((rate.requests / BURST).max(1));
        let period = nanos(rate.per);
        let interval = (period + period / MARGIN).div_ceil(requests - burst + 1);
        Self { interval, slack: interval * (burst - 1) }
    }

    /// The slot of a request that comes at `now`, and when the one after it is due.
    fn slot(self, due: u64, now: u64) -> (u64, u64) {
        let slot = now.max(due.saturating_sub(self.slack));
        (slot, due.max(slot).saturating_add(self.interval))
    }
}

impl Place<'_> {
    /// The request goes: the slot is used.
    fn go(mut self) {
        self.reserved = 0;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        for (lane, (before, after)) in self.pace.lanes.iter().zip(self.moved).take(self.reserved) {
            // If the schedule stands where this request left it, then no slot behind this one is taken, and it can
            // stand where it was before. It comes back to the same number only when all behind were given back.
            let _ = lane.due.compare_exchange(after, before, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
