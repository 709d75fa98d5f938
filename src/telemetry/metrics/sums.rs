//! What all workers have counted of one route, and what can be told of it; pure.

use std::collections::BTreeMap;

/// Upper bounds of the histogram's buckets, in nanoseconds: from a query on the same machine to one that takes a minute.
pub const BOUNDS: [u64; 15] = {
    const MILLI: u64 = 1_000_000;
    [
        MILLI,
        MILLI * 5 / 2,
        5 * MILLI,
        10 * MILLI,
        25 * MILLI,
        50 * MILLI,
        100 * MILLI,
        250 * MILLI,
        500 * MILLI,
        1_000 * MILLI,
        2_500 * MILLI,
        5_000 * MILLI,
        10_000 * MILLI,
        30_000 * MILLI,
        60_000 * MILLI,
    ]
};

/// The first code that is counted by itself.
pub(super) const FIRST_CODE: usize = 100;
/// How many are: 100..=599.
pub(super) const CODES: usize = 500;

/// The label of codes that are not counted by themselves.
pub const OTHER_CODE: &str = "other";

/// What was counted of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Exchanges by their status, those alone that there were.
    pub codes: BTreeMap<u16, u64>,
    /// Those whose status is outside 100..=599.
    pub other: u64,
    /// By how long they took, each in one bucket of [`BOUNDS`]; the last: longer than all.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// How long all took together, in nanoseconds.
    pub nanos: u64,
    /// Connections to the upstream that are used now.
    pub active: u64,
    /// Those that wait to be used again.
    pub idle: u64,
}

impl Sums {
    /// How many exchanges have ended.
    pub fn requests(&self) -> u64 {
        self.codes.values().sum::<u64>() + self.other
    }

    /// Exchanges by their status, as labels.
    pub fn by_code(&self) -> impl Iterator<Item = (String, u64)> {
        let other = (self.other > 0).then(|| (OTHER_CODE.to_owned(), self.other));
        self.codes.iter().map(|(code, count)| (code.to_string(), *count)).chain(other)
    }

    /// How many exchanges are in the histogram.
    pub fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How many seconds all exchanges took together.
    pub fn seconds(&self) -> f64 {
        seconds(self.nanos)
    }

    /// How long all but the slowest took, in seconds: `share` of them, 0 to 1. Within a bucket they are taken to lie
    /// evenly; beyond the last bound nothing is known but that. None: there are none.
    #[allow(clippy::cast_precision_loss, reason = "an estimate; and not below 2^53 exchanges")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = self.timed() as f64 * share;
        let (mut before, mut lower) = (0.0, 0.0);
        for (bound, count) in BOUNDS.iter().zip(&self.buckets) {
            let (count, upper) = (*count as f64, seconds(*bound));
            if count > 0.0 && before + count >= wanted {
                return Some(lower + (upper - lower) * ((wanted - before) / count));
            }
            (before, lower) = (before + count, upper);
        }
        (self.timed() > 0).then_some(lower)
    }
}

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "not below a hundred days, and then a few nanoseconds")]
pub fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(counts: &[(usize, u64)]) -> Sums {
        let mut sums = Sums::default();
        counts.iter().for_each(|(bucket, count)| sums.buckets[*bucket] = *count);
        sums
    }

    #[test]
    fn a_share_of_the_exchanges_took_at_most_so_long() {
        const LAST: usize = BOUNDS.len();
        type Counts = &'static [(usize, u64)];
        let cases: [(Counts, f64, Option<f64>); 8] = [
            (&[], 0.5, None),
            // All within a millisecond: evenly.
            (&[(0, 10)], 0.5, Some(0.0005)),
            (&[(0, 10)], 1.0, Some(0.001)),
            // Nine of ten within a millisecond, one within 100.
            (&[(0, 9), (6, 1)], 0.5, Some(0.001 * 5.0 / 9.0)),
            (&[(0, 9), (6, 1)], 0.9, Some(0.001)),
            (&[(0, 9), (6, 1)], 0.99, Some(0.05 + 0.05 * 0.9)),
            // Beyond the last bound: at least that.
            (&[(LAST, 3)], 0.5, Some(60.0)),
            (&[(0, 1), (LAST, 9)], 0.99, Some(60.0)),
        ];
        for (counts, share, want) in cases {
            let got = sums(counts).quantile(share);
            let is_near = match (got, want) {
                (Some(got), Some(want)) => (got - want).abs() < 1e-9,
                (got, want) => got == want,
            };
            assert!(is_near, "{counts:?} {share}: {got:?}, not {want:?}");
        }
    }

    #[test]
    fn bounds_grow_and_read_well_in_seconds() {
        assert!(BOUNDS.is_sorted());
        let texts: Vec<_> = BOUNDS.iter().map(|bound| seconds(*bound).to_string()).collect();
        assert_eq!(texts[..5], ["0.001", "0.0025", "0.005", "0.01", "0.025"]);
        assert_eq!(texts[9..], ["1", "2.5", "5", "10", "30", "60"]);
    }

    #[test]
    fn codes_are_labels_and_strange_ones_share_one() {
        let sums = Sums { codes: BTreeMap::from([(200, 3), (599, 1)]), other: 2, ..Sums::default() };
        let labels: Vec<_> = sums.by_code().collect();
        assert_eq!(labels, [("200".to_owned(), 3), ("599".to_owned(), 1), ("other".to_owned(), 2)]);
        assert_eq!(sums.requests(), 6);
    }
}
