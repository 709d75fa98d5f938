//! One worker's count of one route: on cache lines of its own, and written by that worker's thread alone.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::sums::{BOUNDS, CODES, FIRST_CODE, Sums};

/// Codes that share their first digit.
const CLASS: usize = 100;

/// One worker's count of one route. There is one writer, so that adding takes no locked instruction; readers see each
/// number as it was at some moment.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteSheet {
    /// Exchanges by how long they took; the last: longer than all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
    /// Made when the first of its codes comes: most routes see two or three kinds.
    classes: [OnceLock<Box<Class>>; CODES / CLASS],
    /// Of codes outside 100..=599.
    other: AtomicU64,
    active: AtomicU64,
    idle: AtomicU64,
}

#[derive(Debug)]
#[repr(align(128))]
struct Class([AtomicU64; CLASS]);

impl Default for Class {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl RouteSheet {
    /// An exchange has ended: with this status, after so long.
    pub fn count(&self, code: u16, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&self.buckets[BOUNDS.partition_point(|bound| *bound < nanos)], 1);
        add(&self.nanos, nanos);
        let place = usize::from(code).checked_sub(FIRST_CODE);
        match place.and_then(|place| Some((self.classes.get(place / CLASS)?, place % CLASS))) {
            Some((class, place)) => add(&class.get_or_init(Box::default).0[place], 1),
            None => add(&self.other, 1),
        }
    }

    /// Adds what was counted here.
    pub(super) fn add_to(&self, sums: &mut Sums) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (sum, bucket) in sums.buckets.iter_mut().zip(&self.buckets) {
            *sum += read(bucket);
        }
        sums.nanos = sums.nanos.wrapping_add(read(&self.nanos));
        for (number, class) in self.classes.iter().enumerate() {
            let Some(class) = class.get() else { continue };
            let first = FIRST_CODE + number * CLASS;
            for (code, count) in (first..).zip(&class.0).map(|(code, count)| (code, read(count))) {
                if count > 0 {
                    *sums.codes.entry(u16::try_from(code).unwrap_or_default()).or_default() += count;
                }
            }
        }
        sums.other += read(&self.other);
        sums.active = sums.active.wrapping_add(read(&self.active));
        sums.idle = sums.idle.wrapping_add(read(&self.idle));
    }
}

/// One writer: nobody else's addition can be lost.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

fn take(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
}

/// One connection to a route's upstream, counted until it is dropped. It stays on the worker's thread.
#[derive(Debug)]
pub struct Connected {
    sheet: Arc<RouteSheet>,
    is_idle: Cell<bool>,
}

impl Connected {
    /// A connection that is used.
    pub fn new(sheet: &Arc<RouteSheet>) -> Self {
        add(&sheet.active, 1);
        Self { sheet: Arc::clone(sheet), is_idle: Cell::new(false) }
    }

    /// Nobody uses it now.
    pub fn rests(&self) {
        if !self.is_idle.replace(true) {
            take(&self.sheet.active);
            add(&self.sheet.idle, 1);
        }
    }

    /// Somebody uses it.
    pub fn works(&self) {
        if self.is_idle.replace(false) {
            take(&self.sheet.idle);
            add(&self.sheet.active, 1);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        take(if self.is_idle.get() { &self.sheet.idle } else { &self.sheet.active });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(sheet: &RouteSheet) -> Sums {
        let mut sums = Sums::default();
        sheet.add_to(&mut sums);
        sums
    }

    #[test]
    fn every_code_there_can_be_is_counted_in_little_room() {
        let sheet = RouteSheet::default();
        // All that `http::StatusCode` takes.
        (100..=999).for_each(|code| sheet.count(code, Duration::ZERO));
        sheet.count(0, Duration::ZERO);
        let sums = sums(&sheet);
        assert_eq!(sums.codes.len(), CODES);
        assert!((100..600).all(|code| sums.codes[&code] == 1));
        assert_eq!((sums.other, sums.requests()), (401, 901));
        assert!(size_of::<RouteSheet>() <= 384, "{}", size_of::<RouteSheet>());
    }

    #[test]
    fn an_exchange_counts_in_the_bucket_that_its_time_just_fits_in() {
        let sheet = RouteSheet::default();
        let bound = Duration::from_nanos(BOUNDS[0]);
        let nano = Duration::from_nanos(1);
        for took in [Duration::ZERO, bound, bound + nano, Duration::from_secs(61), Duration::MAX] {
            sheet.count(200, took);
        }
        let sums = sums(&sheet);
        assert_eq!((sums.buckets[0], sums.buckets[1], sums.buckets[BOUNDS.len()]), (2, 1, 2));
    }

    #[test]
    fn a_connection_is_active_or_idle_until_it_is_gone() {
        let sheet = Arc::new(RouteSheet::default());
        let counted = || (sums(&sheet).active, sums(&sheet).idle);
        let [one, two] = [Connected::new(&sheet), Connected::new(&sheet)];
        assert_eq!(counted(), (2, 0));
        one.rests();
        one.rests();
        assert_eq!(counted(), (1, 1));
        one.works();
        one.works();
        two.rests();
        assert_eq!(counted(), (1, 1));
        drop(two);
        assert_eq!(counted(), (1, 0));
        drop(one);
        assert_eq!(counted(), (0, 0));
    }

    #[test]
    fn readers_see_numbers_that_only_grow() {
        let sheet = Arc::new(RouteSheet::default());
        std::thread::scope(|scope| {
            let writer = Arc::clone(&sheet);
            scope.spawn(move || (0..100_000).for_each(|_| writer.count(200, Duration::from_millis(2))));
            let mut last = 0;
            while last < 100_000 {
                let now = sums(&sheet).requests();
                assert!(now >= last);
                last = now;
            }
        });
        assert_eq!(sums(&sheet).codes[&200], 100_000);
    }
}
