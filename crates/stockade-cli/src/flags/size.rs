//! Sizes on the command line.

use crate::terminal::output::Failure;

/// Parses a size in bytes, or in KiB, MiB or GiB with the suffix K, M or G.
pub(crate) fn size(flag: &str, text: &str) -> Result<u64, Failure> {
    let (digits, factor) = match text.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        text if text.ends_with('K') => (text[..text.len() - 1].to_owned(), 1 << 10),
        text if text.ends_with('M') => (text[..text.len() - 1].to_owned(), 1 << 20),
        text if text.ends_with('G') => (text[..text.len() - 1].to_owned(), 1 << 30),
        text => (text.to_owned(), 1),
    };
    let bytes =
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| Failure::flag(flag, format!("'{text}' is not a size, such as 1M")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("1K", 1 << 10), ("2MiB", 2 << 20), ("1gb", 1 << 30)] {
            assert_eq!(size("x", text).ok(), Some(bytes), "{text}");
        }
        for text in ["", "0", "M", "-1", "1T", "99999999999G"] {
            assert!(size("x", text).is_err(), "{text}");
        }
    }
}
