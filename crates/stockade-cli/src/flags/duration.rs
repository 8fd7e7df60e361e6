//! Durations on the command line and in jail files.

use std::time::Duration;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// The most digits after the point: nanoseconds.
const MAX_DECIMALS: usize = 9;

/// Parses a duration, for example `5`, `0.2`, `500ms`, `5s`, `1m`, `2h` or `7d`. Without a unit it is in seconds.
///
/// # Errors
/// Returns the cause, with the accepted forms. It does not contain the text, because clap adds it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| {
        "not a duration; use seconds, or a number with ms, s, m, h or d such as 0.2, 500ms or 1m".into()
    })
}

fn parse(text: &str) -> Option<Duration> {
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "ms" => NANOSECONDS_PER_SECOND / 1000,
        "" | "s" => NANOSECONDS_PER_SECOND,
        "m" => 60 * NANOSECONDS_PER_SECOND,
        "h" => 3_600 * NANOSECONDS_PER_SECOND,
        "d" => 86_400 * NANOSECONDS_PER_SECOND,
        _ => return None,
    };
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    if decimals.len() > MAX_DECIMALS {
        return None;
    }
    // Not by floating point, which cannot hold 64 bits of seconds.
    let nanoseconds = digits(whole)?.checked_mul(unit)?;
    let part = digits(decimals)? * unit / 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let nanoseconds = nanoseconds.checked_add(part)?;
    let seconds = u64::try_from(nanoseconds / NANOSECONDS_PER_SECOND).ok()?;
    Some(Duration::new(seconds, u32::try_from(nanoseconds % NANOSECONDS_PER_SECOND).ok()?))
}

/// A number of at least one digit, and no sign.
fn digits(text: &str) -> Option<u128> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_or_without_a_unit() {
        for (text, milliseconds) in [
            ("0", 0),
            ("5", 5_000),
            ("5s", 5_000),
            ("0.2", 200),
            ("0.25s", 250),
            ("500ms", 500),
            ("1.5m", 90_000),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse("18446744073709551615"), Some(Duration::from_secs(u64::MAX)));
        assert_eq!(parse("0.000000001"), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn another_text_is_no_duration() {
        for text in [
            "",
            ".",
            "s",
            "-1",
            "+1",
            "1.2.3",
            "1 s",
            "5S",
            "5x",
            "1m30s",
            ".5",
            "5.",
            "1e3",
            "inf",
            "NaN",
            "0.0000000001",
            "18446744073709551616",
            "18446744073709551615d",
            "5sec",
            "٣",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
