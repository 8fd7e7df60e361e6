//! Sizes as text.

use super::SpecError;

/// The units, each 1024 times the one before.
const UNITS: &str = "KMGTPE";

/// Parses a number of bytes, with or without a unit, for example `1048576`, `512m` or `1GiB`.
///
/// A unit is K, M, G, T, P or E in upper or lower case, alone or before `B` or `iB`. Each is a power of 1024.
///
/// # Errors
/// Returns [`SpecError::Size`] if the text is not such a number, or if it exceeds 64 bits.
pub fn parse_size(text: &str) -> Result<u64, SpecError> {
    bytes(text).ok_or_else(|| SpecError::Size(text.to_owned()))
}

fn bytes(text: &str) -> Option<u64> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let unit = unit.to_ascii_uppercase();
    let power = match unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit) {
        "" if unit.len() < 2 => 0,
        letter if letter.len() == 1 => UNITS.find(letter)? + 1,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_or_without_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("7b", 7),
            ("1K", 1 << 10),
            ("512m", 512 << 20),
            ("2MiB", 2 << 20),
            ("1gb", 1 << 30),
            ("1G", 1 << 30),
            ("1GiB", 1 << 30),
            ("3tib", 3 << 40),
            ("1E", 1 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn another_text_is_no_size() {
        for text in [
            "",
            "M",
            "-1",
            "+1",
            "1iB",
            "1X",
            "1KK",
            "1KiBB",
            "1 M",
            "1.5G",
            "0x10",
            "16E",
            "1Kb/s",
            "1µ",
            "max",
            "18446744073709551616",
        ] {
            assert_eq!(parse_size(text), Err(SpecError::Size(text.to_owned())), "{text}");
        }
    }
}
