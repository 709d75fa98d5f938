//! Time as a value: a clock that runs through suspend, beside the wall clock.

pub mod ticker;

use std::ops::{Add, Sub};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A moment on the clock that runs through suspend and that nobody can set: nanoseconds since some start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment `nanos` nanoseconds after the clock's start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Time since `earlier`; zero where it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Tells the time. The system's in a run; in tests the runtime's, which can be paused and turned.
#[derive(Debug, Clone)]
pub struct Clock(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System,
    Runtime(Arc<Simulated>),
}

#[derive(Debug)]
struct Simulated {
    start: tokio::time::Instant,
    turned: Mutex<Turned>,
}

/// What a test has done to the time.
#[derive(Debug, Default, Clone, Copy)]
struct Turned {
    suspended: Duration,
    wall: Duration,
}

/// Where a simulated wall clock begins: some time in 2026.
const SIMULATED_EPOCH: Duration = Duration::from_secs(1_780_000_000);

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self(Kind::System)
    }

    /// The clock of the current tokio runtime: with paused time it moves only as the test says.
    ///
    /// # Panics
    /// Outside a tokio runtime with paused time it follows real time.
    pub fn of_runtime() -> Self {
        let start = tokio::time::Instant::now();
        Self(Kind::Runtime(Arc::new(Simulated { start, turned: Mutex::default() })))
    }

    /// Now, on the clock that runs through suspend.
    pub fn now(&self) -> Moment {
        match &self.0 {
            Kind::System => boot_time(),
            // One hour in, so that a moment before the start can be said.
            Kind::Runtime(simulated) => {
                Moment::default()
                    + Duration::from_secs(3600)
                    + simulated.start.elapsed()
                    + simulated.turned().suspended
            }
        }
    }

    /// Now, on the wall clock, which may jump.
    #[allow(clippy::disallowed_methods)] // the one place that asks
    pub fn wall(&self) -> SystemTime {
        match &self.0 {
            Kind::System => SystemTime::now(),
            Kind::Runtime(simulated) => {
                let turned = simulated.turned();
                SystemTime::UNIX_EPOCH
                    + SIMULATED_EPOCH
                    + simulated.start.elapsed()
                    + turned.suspended
                    + turned.wall
            }
        }
    }

    /// Simulates a suspended machine: timers stand still, this clock does not. No effect on the system's.
    pub fn suspend(&self, span: Duration) {
        self.turn(|turned| turned.suspended += span);
    }

    /// Simulates a wall clock that is set forward. No effect on the system's.
    pub fn step_wall(&self, forward: Duration) {
        self.turn(|turned| turned.wall += forward);
    }

    fn turn(&self, change: impl FnOnce(&mut Turned)) {
        if let Kind::Runtime(simulated) = &self.0 {
            change(&mut simulated.turned.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Simulated {
    fn turned(&self) -> Turned {
        *self.turned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The monotonic clock stands still in suspend on Linux; the boot-time clock does not.
fn boot_time() -> Moment {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let id = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_does_not_go_backwards() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    #[tokio::test(start_paused = true)]
    async fn suspend_moves_the_clock_but_not_the_timers() {
        let clock = Clock::of_runtime();
        let (before, timer) = (clock.now(), tokio::time::Instant::now());
        clock.suspend(Duration::from_secs(60));
        assert_eq!(clock.now().since(before), Duration::from_secs(60));
        assert_eq!(timer.elapsed(), Duration::ZERO);
    }
}
