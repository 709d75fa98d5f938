//! Refusals, counted by reason: a sheet for each thread that refuses, summed up by whoever asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a refusal can be counted as: the codes of `Sidekey-Error` that say no to a caller.
pub const REASONS: [&str; 13] = [
    "bad_request",
    "forbidden_host",
    "cross_site",
    "method_refused",
    "caller_unknown",
    "not_allowed",
    "no_route",
    "rate_limited",
    "overloaded",
    "too_large",
    "target_too_long",
    "headers_too_large",
    "other",
];

/// One thread's own: on cache lines that no other thread writes to.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Sheet([AtomicU64; REASONS.len()]);

/// All of a process's.
#[derive(Debug, Default)]
pub struct Refusals {
    sheets: Vec<Arc<Sheet>>,
}

/// The reason that a code is counted as.
pub fn reason(code: &str) -> &'static str {
    REASONS[place(code)]
}

fn place(code: &str) -> usize {
    REASONS.iter().position(|known| *known == code).unwrap_or(REASONS.len() - 1)
}

impl Sheet {
    /// One more refusal with this code.
    pub fn count(&self, code: &str) {
        self.0[place(code)].fetch_add(1, Ordering::Relaxed);
    }
}

impl Refusals {
    /// None yet, by so many threads.
    pub fn new(threads: usize) -> Self {
        Self { sheets: (0..threads).map(|_| Arc::default()).collect() }
    }

    /// The sheet of the thread of that number; beyond the last, the last one's.
    pub fn sheet(&self, thread: usize) -> Arc<Sheet> {
        self.sheets.get(thread).or(self.sheets.last()).map(Arc::clone).unwrap_or_default()
    }

    /// How many there were, by reason, in the order of [`REASONS`].
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sum = |place: usize| self.sheets.iter().map(|sheet| sheet.0[place].load(Ordering::Relaxed)).sum();
        REASONS.iter().enumerate().map(move |(place, reason)| (*reason, sum(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_threads_count_is_summed_by_reason_and_nothing_goes_uncounted() {
        let refusals = Refusals::new(3);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let sheet = refusals.sheet(thread);
                scope.spawn(move || {
                    (0..10_000).for_each(|_| sheet.count("no_route"));
                    sheet.count("a_code_of_tomorrow");
                });
            }
        });
        let sums: Vec<_> = refusals.sums().filter(|(_, count)| *count > 0).collect();
        assert_eq!(sums, [("no_route", 30_000), ("other", 3)]);
        assert_eq!(reason("a_code_of_tomorrow"), "other");
    }
}
