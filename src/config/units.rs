//! Durations, sizes and rates as they are written: one number and one unit.

use std::time::Duration;

/// The longest duration that makes sense anywhere: a year. Clocks can be counted forward by it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The units that a rate may have, and so how many rates can hold at once.
const PERIODS: [(&str, Duration); MAX_RATES] =
    [("/s", Duration::from_secs(1)), ("/min", Duration::from_secs(60)), ("/h", Duration::from_secs(60 * 60))];

/// One rate for each unit.
pub const MAX_RATES: usize = 3;

/// More in a second, a minute or an hour need no pacing.
const FASTEST: u32 = 1_000_000;

/// So many requests in a time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub requests: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// Why a text is no duration, size or rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitError {
    /// Not one number and one unit.
    Malformed,
    /// More than can be meant.
    TooLarge,
}

/// `"250ms"`, `"30s"`, `"5m"` or `"1h"`; at most a year.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(UnitError::Malformed),
    };
    let duration = Duration::from_millis(milliseconds.ok_or(UnitError::TooLarge)?);
    if duration > LONGEST { Err(UnitError::TooLarge) } else { Ok(duration) }
}

/// `"512B"`, `"64KiB"`, `"1MiB"` or `"1GiB"`, in bytes.
pub(crate) fn size(text: &str) -> Result<usize, UnitError> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => Some(number),
        "KiB" => number.checked_mul(1 << 10),
        "MiB" => number.checked_mul(1 << 20),
        "GiB" => number.checked_mul(1 << 30),
        _ => return Err(UnitError::Malformed),
    };
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        // An allocation larger than this is refused by the allocator's own types.
        .filter(|bytes| isize::try_from(*bytes).is_ok())
        .ok_or(UnitError::TooLarge)
}

/// `"20/s"`, `"125/min"` or `"1000/h"`; 0 as well, though that is no rate; at most a million.
pub(crate) fn rate(text: &str) -> Result<Rate, UnitError> {
    let (number, unit) = split(text)?;
    let (_, per) = PERIODS.iter().find(|(known, _)| *known == unit).ok_or(UnitError::Malformed)?;
    let requests = u32::try_from(number).ok().filter(|requests| *requests <= FASTEST);
    Ok(Rate { requests: requests.ok_or(UnitError::TooLarge)?, per: *per })
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Malformed);
    }
    let number = number.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        let cases = [
            ("250ms", Ok(Duration::from_millis(250))),
            ("30s", Ok(Duration::from_secs(30))),
            ("5m", Ok(Duration::from_secs(300))),
            ("1h", Ok(Duration::from_secs(3600))),
            ("0s", Ok(Duration::ZERO)),
            ("8760h", Ok(LONGEST)),
            ("8761h", Err(UnitError::TooLarge)),
            ("18446744073709551615h", Err(UnitError::TooLarge)),
            ("18446744073709551616s", Err(UnitError::TooLarge)),
            ("1h30m", Err(UnitError::Malformed)),
            ("30", Err(UnitError::Malformed)),
            ("s", Err(UnitError::Malformed)),
            ("", Err(UnitError::Malformed)),
            ("-1s", Err(UnitError::Malformed)),
            ("1.5s", Err(UnitError::Malformed)),
            ("1 s", Err(UnitError::Malformed)),
            ("1d", Err(UnitError::Malformed)),
        ];
        for (text, want) in cases {
            assert_eq!(duration(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_size_is_one_number_and_one_binary_unit() {
        let cases = [
            ("512B", Ok(512)),
            ("64KiB", Ok(65_536)),
            ("1MiB", Ok(1_048_576)),
            ("0B", Ok(0)),
            ("64KB", Err(UnitError::Malformed)),
            ("64k", Err(UnitError::Malformed)),
            ("64", Err(UnitError::Malformed)),
            ("18446744073709551615GiB", Err(UnitError::TooLarge)),
            ("18446744073709551615B", Err(UnitError::TooLarge)),
        ];
        for (text, want) in cases {
            assert_eq!(size(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_rate_is_one_number_and_one_unit_of_time() {
        let of = |requests, seconds| Ok(Rate { requests, per: Duration::from_secs(seconds) });
        let cases = [
            ("20/s", of(20, 1)),
            ("125/min", of(125, 60)),
            ("1000000/h", of(1_000_000, 3600)),
            ("0/s", of(0, 1)),
            ("1000001/h", Err(UnitError::TooLarge)),
            ("18446744073709551616/s", Err(UnitError::TooLarge)),
            ("125", Err(UnitError::Malformed)),
            ("/min", Err(UnitError::Malformed)),
            ("125/m", Err(UnitError::Malformed)),
            ("125/MIN", Err(UnitError::Malformed)),
            ("125 /min", Err(UnitError::Malformed)),
            ("125/ min", Err(UnitError::Malformed)),
            ("1.5/s", Err(UnitError::Malformed)),
            ("-1/s", Err(UnitError::Malformed)),
            ("125/60s", Err(UnitError::Malformed)),
            ("125 per minute", Err(UnitError::Malformed)),
        ];
        for (text, want) in cases {
            assert_eq!(rate(text), want, "{text:?}");
        }
    }
}
