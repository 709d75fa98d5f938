//! When to refresh, when to try again: pure functions of values, and tables for tests.

use std::time::Duration;

pub use crate::oauth::answer::MAX_LIFETIME;

/// How long a wish of the server's (`Retry-After`) is honoured at most.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// After which part of its lifetime a token is to be refreshed.
///
/// `draw` in `0.0..=1.0` spreads the moments: by default over 75–85 % of the lifetime; with a `margin`, over the
/// tenth before it. The margin is clamped to half of the lifetime, so that no margin makes a busy loop.
/// The result lies strictly between zero and `lifetime` for every lifetime of at least 1 ms.
pub fn refresh_after(lifetime: Duration, margin: Option<Duration>, draw: f64) -> Duration {
    let draw = if draw.is_finite() { draw.clamp(0.0, 1.0) } else { 0.5 };
    match margin {
        None => lifetime.mul_f64(0.75 + 0.10 * draw),
        Some(margin) => {
            let latest = lifetime - margin.min(lifetime / 2).max(lifetime / 100);
            latest.mul_f64(1.0 - 0.10 * draw)
        }
    }
}

/// How long to wait before the next fetch after `failures` failed ones in a row (at least 1).
///
/// Exponential with full jitter: a uniform draw from zero to a ceiling that doubles, but never less than
/// [`MIN_PAUSE`]. A permanent error has a higher ceiling. A server's `Retry-After` is a lower bound.
pub fn backoff(failures: u32, permanent: bool, retry_after: Option<Duration>, draw: f64) -> Duration {
    let draw = if draw.is_finite() { draw.clamp(0.0, 1.0) } else { 1.0 };
    let (first, most) = if permanent { PERMANENT_CEILING } else { PASSING_CEILING };
    let doublings = failures.saturating_sub(1).min(16);
    let ceiling = first.saturating_mul(1 << doublings).min(most);
    // A permanent error is not worth a quick second look: half of its ceiling is certain.
    let floor = if permanent { ceiling / 2 } else { MIN_PAUSE };
    let pause = floor + (ceiling - floor.min(ceiling)).mul_f64(draw);
    pause.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// The least pause between two fetches.
pub const MIN_PAUSE: Duration = Duration::from_millis(100);
/// A token that is refused within this was refused for another reason than its age.
pub const JUST_FETCHED: Duration = Duration::from_secs(5);
/// A fetch that is due within this is worth waiting for with a refused request.
pub const SOON: Duration = Duration::from_secs(1);
/// First and last ceiling of the pause after passing errors.
const PASSING_CEILING: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// First and last ceiling of the pause after permanent errors.
const PERMANENT_CEILING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// How long refusals cost no fetch after `rounds` futile ones in a row (at least 1): 5 s, doubling to 10 min.
pub fn quiet_time(rounds: u32) -> Duration {
    Duration::from_secs(5).saturating_mul(1 << rounds.saturating_sub(1).min(7)).min(Duration::from_secs(600))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_default_a_token_is_refreshed_between_75_and_85_percent_of_its_lifetime() {
        let hour = Duration::from_secs(3600);
        assert_eq!(refresh_after(hour, None, 0.0), Duration::from_secs(2700));
        assert_eq!(refresh_after(hour, None, 1.0), Duration::from_secs(3060));
    }

    #[test]
    fn a_margin_larger_than_half_the_lifetime_counts_as_half() {
        let at = refresh_after(Duration::from_secs(60), Some(Duration::from_secs(300)), 0.0);
        assert_eq!(at, Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn the_refresh_point_lies_inside_the_lifetime(
            millis in 1u64..=10 * 365 * 24 * 3_600_000,
            margin in proptest::option::of(any::<u64>()),
            draw in any::<f64>(),
        ) {
            let lifetime = Duration::from_millis(millis);
            let at = refresh_after(lifetime, margin.map(Duration::from_millis), draw);
            prop_assert!(at > Duration::ZERO && at < lifetime, "{at:?} of {lifetime:?}");
            prop_assert!(at >= lifetime.mul_f64(0.449), "{at:?} of {lifetime:?}: a busy loop");
        }

        #[test]
        fn the_pause_is_bounded_and_honours_retry_after(
            failures in any::<u32>(),
            permanent in any::<bool>(),
            wish in proptest::option::of(any::<u64>()),
            draw in any::<f64>(),
        ) {
            let wish = wish.map(Duration::from_secs);
            let pause = backoff(failures, permanent, wish, draw);
            let least = wish.unwrap_or_default().min(MAX_RETRY_AFTER).max(MIN_PAUSE);
            prop_assert!(pause >= least);
            let most = if permanent { PERMANENT_CEILING.1 } else { PASSING_CEILING.1 };
            prop_assert!(pause <= least.max(most));
        }

        #[test]
        fn quiet_times_are_bounded(rounds in any::<u32>()) {
            let time = quiet_time(rounds);
            prop_assert!(time >= Duration::from_secs(5) && time <= Duration::from_secs(600));
        }
    }
}
