//! The width of text in terminal cells: a character may take two cells or none.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The width of a text in cells.
pub(crate) fn of(text: &str) -> usize {
    text.width()
}

/// Appends spaces up to this width.
pub(crate) fn padded(text: &str, width: usize) -> String {
    format!("{text}{:1$}", "", width.saturating_sub(of(text)))
}

/// Cuts a text to this width, with an ellipsis for the rest.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if of(text) <= width {
        return text.to_owned();
    }
    let mut left = width;
    let fits = |letter: &char| {
        // One cell is reserved for the ellipsis.
        let fits = letter.width().unwrap_or(0) < left;
        left = left.saturating_sub(letter.width().unwrap_or(0));
        fits
    };
    let kept: String = text.chars().take_while(fits).collect();
    if width == 0 { kept } else { kept + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_a_column() {
        for (text, padded) in [("漢", "漢  |"), ("abc", "abc |"), ("漢字b", "漢字b|")] {
            assert_eq!(super::padded(text, 4) + "|", padded);
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        for (width, text) in
            [(0, ""), (1, "…"), (2, "a…"), (3, "a…"), (4, "a漢…"), (5, "a漢…"), (6, "a漢字b")]
        {
            assert_eq!(cut("a漢字b", width), text, "{width}");
        }
    }
}
