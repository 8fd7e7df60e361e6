//! Text that a jail can influence, shown without its effects on a terminal.
//!
//! Names of files and processes, mount points, arguments and output may hold escape sequences, which set a terminal's
//! title or let it type an answer, and characters that change the order of the text around them.

use std::fmt::Write;

/// Whether a terminal, or a program that shows text, acts on this character instead of showing it.
fn acts(letter: char) -> bool {
    matches!(letter,
        // Marks, embeddings, overrides and isolates of the direction.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Ends of lines and paragraphs, invisible operators, deprecated formatting, annotations, tags.
        | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        // C0, DEL and C1.
        || letter.is_control()
}

fn push(shown: &mut String, letter: char, keep: &[char]) {
    if acts(letter) && !keep.contains(&letter) {
        shown.extend(letter.escape_default());
    } else {
        shown.push(letter);
    }
}

fn escaped(text: &str, keep: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    text.chars().for_each(|letter| push(&mut shown, letter, keep));
    shown
}

/// Untrusted text as a part of one line.
pub(crate) fn escape_control(text: &str) -> String {
    escaped(text, &[])
}

/// Text of whole lines.
pub(crate) fn escape_lines(text: &str) -> String {
    escaped(text, &['\n', '\t'])
}

/// JSON in which strings are escaped too where JSON does not ask for it. It stays the same data.
pub(crate) fn escape_json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        // Outside of strings JSON has only ASCII, and no control character but the newline.
        if acts(letter) && letter != '\n' {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Output of a VMM, which arrives in parts, for a terminal.
#[derive(Debug, Default)]
pub(crate) struct ShownOutput {
    /// The beginning of a character, or a carriage return that may belong to a newline.
    pending: Vec<u8>,
}

impl ShownOutput {
    /// The next part. A carriage return before a newline is dropped.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.pending);
        all.extend_from_slice(bytes);
        let kept = all.len() - usize::from(all.last() == Some(&b'\r'));
        let (mut rest, end) = all.split_at(kept);
        let mut shown = String::with_capacity(kept);
        loop {
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(valid) => (valid, 0),
                Err(error) => {
                    let valid = str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default();
                    // Without a length the character may be complete with the next part.
                    let open = rest.len() - valid.len();
                    (valid, error.error_len().unwrap_or(if end.is_empty() { 0 } else { open }))
                }
            };
            shown.push_str(&escape_lines(&valid.replace("\r\n", "\n")));
            let after = &rest[valid.len()..];
            if invalid == 0 {
                self.pending = [after, end].concat();
                return shown;
            }
            shown.push_str(&hexadecimal(&after[..invalid]));
            rest = &after[invalid..];
        }
    }

    /// What is left at the end of the output.
    pub(crate) fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        if rest == b"\r" {
            return escape_control("\r");
        }
        hexadecimal(&rest)
    }
}

/// Bytes that are not UTF-8.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut shown, byte| {
        let _ = write!(shown, "\\x{byte:02x}");
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_left() {
        let hostile =
            "a\u{1b}]0;t\u{7}\u{1b}[6n\r\u{8}\u{7f}\u{9b}6n\u{202e}\u{2066}\u{2028}\u{e0041}\n\tz漢é";
        let line = r"a\u{1b}]0;t\u{7}\u{1b}[6n\r\u{8}\u{7f}\u{9b}6n\u{202e}\u{2066}\u{2028}\u{e0041}\n\tz漢é";
        assert_eq!(escape_control(hostile), line);
        assert_eq!(escape_lines(hostile), line.replace(r"\n\t", "\n\t"));
    }

    #[test]
    fn json_is_the_same_data_without_effects() {
        let hostile = "\u{1b}[6n\u{7f}\u{9b}\u{202e}\u{e0041}漢";
        let text = escape_json(&serde_json::to_string_pretty(&[hostile]).expect("JSON"));
        assert_eq!(text, "[\n  \"\\u001b[6n\\u007f\\u009b\\u202e\\udb40\\udc41漢\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).expect("JSON"), [hostile]);
    }

    #[test]
    fn output_is_the_same_however_it_is_cut() {
        let hostile = b"a\r\nb\rc\x1b[6n \xe6\xbc\xa2 \xc2\x9b \xff\xe6\xbc \xf0\x9f\x98\x80\r\r\n\t\xe6\xbc";
        let whole = "a\nb\\rc\\u{1b}[6n 漢 \\u{9b} \\xff\\xe6\\xbc 😀\\r\n\t\\xe6\\xbc";
        for step in 1..=hostile.len() {
            let mut output = ShownOutput::default();
            let mut shown: String = hostile.chunks(step).map(|part| output.show(part)).collect();
            shown += &output.finish();
            assert_eq!(shown, whole, "in parts of {step}");
        }
        let mut output = ShownOutput::default();
        assert_eq!(output.show(b"\xe6\r") + &output.finish(), "\\xe6\\r");
    }
}
