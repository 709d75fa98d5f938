//! Durations and sizes as they are written: one number and one unit.

use std::time::Duration;

/// The longest duration that makes sense anywhere: a year. Clocks can be counted forward by it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a text is no duration or size.
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
}
