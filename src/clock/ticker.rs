//! Time limits of one worker: alarms that are a store to set, and one coarse tick that rings them all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How often alarms are looked at. An alarm rings never early and at most two ticks late.
pub const TICK: Duration = Duration::from_millis(250);

const NEVER: u64 = u64::MAX;

/// The alarms of one worker. Not shared between threads.
#[derive(Debug)]
pub struct Ticker {
    start: Instant,
    /// Milliseconds since the start, as of the last tick.
    now: Cell<u64>,
    alarms: RefCell<Vec<Rc<Bell>>>,
    /// Told when the first alarm comes, so that an idle worker does not tick.
    first: Notify,
}

#[derive(Debug)]
struct Bell {
    /// Milliseconds since the ticker's start.
    deadline: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    /// Its place in the ticker's list.
    place: Cell<usize>,
}

impl Ticker {
    /// A ticker without alarms. Its user calls [`Ticker::tick`] about every [`TICK`] while [`Ticker::wanted`] says so.
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            now: Cell::new(0),
            alarms: RefCell::default(),
            first: Notify::new(),
        })
    }

    /// Milliseconds since the start, at most two ticks old.
    pub fn millis(&self) -> u64 {
        self.now.get()
    }

    /// Looks at the clock and wakes those whose alarm has rung.
    pub fn tick(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1);
        self.now.set(now);
        for bell in self.alarms.borrow().iter().filter(|bell| bell.deadline.get() <= now) {
            bell.wake();
        }
    }

    /// Wakes everyone who has an alarm, whether it has rung or not.
    pub fn wake_all(&self) {
        self.alarms.borrow().iter().for_each(|bell| bell.wake());
    }

    /// Returns at once while there are alarms, else when the first one has come, which may be gone again: what it was
    /// about may have left something to tick for.
    pub async fn wanted(&self) {
        if self.alarms.borrow().is_empty() {
            self.first.notified().await;
        }
    }

    /// A new alarm, not set.
    pub fn alarm(self: &Rc<Self>) -> Alarm {
        let mut alarms = self.alarms.borrow_mut();
        if alarms.is_empty() {
            // Nobody ticked meanwhile.
            self.now.set(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1));
            self.first.notify_one();
        }
        let bell = Rc::new(Bell {
            deadline: Cell::new(NEVER),
            waker: RefCell::default(),
            place: Cell::new(alarms.len()),
        });
        alarms.push(Rc::clone(&bell));
        Alarm { ticker: Rc::clone(self), bell }
    }
}

impl Bell {
    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

/// One time limit. Setting and clearing it are single stores.
#[derive(Debug)]
pub struct Alarm {
    ticker: Rc<Ticker>,
    bell: Rc<Bell>,
}

impl Alarm {
    /// Rings once at least `span` has passed.
    pub fn set(&self, span: Duration) {
        // The clock is up to one tick behind; an alarm must not ring early.
        let span = u64::try_from((span + TICK).as_millis()).unwrap_or(NEVER);
        self.bell.deadline.set(self.ticker.now.get().saturating_add(span).min(NEVER - 1));
    }

    /// Rings once at least `span` has passed, or when it would have rung anyway, if that is sooner.
    pub fn set_sooner(&self, span: Duration) {
        let deadline = self.bell.deadline.get();
        self.set(span);
        self.bell.deadline.set(self.bell.deadline.get().min(deadline));
    }

    /// Does not ring any more.
    pub fn clear(&self) {
        self.bell.deadline.set(NEVER);
    }

    /// Sets it, or clears it for none.
    pub fn set_or_clear(&self, span: Option<Duration>) {
        match span {
            Some(span) => self.set(span),
            None => self.clear(),
        }
    }

    /// Has its time passed?
    pub fn has_rung(&self) -> bool {
        self.bell.deadline.get() <= self.ticker.now.get()
    }

    /// The task of `cx` is woken when it rings.
    pub fn wakes(&self, cx: &Context<'_>) {
        let mut waker = self.bell.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut alarms = self.ticker.alarms.borrow_mut();
        let place = self.bell.place.get();
        alarms.swap_remove(place);
        if let Some(moved) = alarms.get(place) {
            moved.place.set(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_alarm_rings_never_early_and_at_most_two_ticks_late() {
        let ticker = Ticker::new();
        let alarm = ticker.alarm();
        alarm.set(Duration::from_secs(1));
        let start = Instant::now();
        while !alarm.has_rung() {
            tokio::time::advance(TICK).await;
            ticker.tick();
        }
        let after = start.elapsed();
        assert!(after >= Duration::from_secs(1) && after <= Duration::from_secs(1) + 2 * TICK, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_an_alarm_leaves_the_others_in_place() {
        let ticker = Ticker::new();
        let alarms: Vec<_> = (0..5).map(|_| ticker.alarm()).collect();
        let mut alarms: Vec<_> = alarms.into_iter().map(Some).collect();
        for index in [0, 3, 1] {
            alarms[index] = None;
        }
        alarms.iter().flatten().for_each(|alarm| alarm.set(Duration::ZERO));
        tokio::time::advance(2 * TICK).await;
        ticker.tick();
        assert!(alarms.iter().flatten().all(Alarm::has_rung));
        drop(alarms);
        assert!(ticker.alarms.borrow().is_empty());
    }
}
