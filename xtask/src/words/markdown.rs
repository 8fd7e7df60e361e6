//! The prose of Markdown: without code blocks, a text for each paragraph, list item, heading and table cell.

use super::text::{Kind, Text};

/// Splits lines with their numbers into texts.
pub(crate) fn texts<'a>(kind: Kind, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Text> {
    let mut reader = Reader::new(kind);
    for (number, line) in lines {
        reader.line(number, line);
    }
    reader.finish();
    reader.texts
}

struct Reader<'a> {
    kind: Kind,
    texts: Vec<Text>,
    paragraph: Text,
    /// The end of the current code block, if there is one.
    fence: Option<&'a str>,
    /// Whether an indented line would be code: not inside a list, and not inside a paragraph.
    is_after_blank: bool,
    is_in_list: bool,
    is_in_html_comment: bool,
}

impl<'a> Reader<'a> {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            texts: Vec::new(),
            paragraph: Text::new(kind),
            fence: None,
            is_after_blank: true,
            is_in_list: false,
            is_in_html_comment: false,
        }
    }

    fn line(&mut self, number: usize, line: &'a str) {
        let trimmed = line.trim_start().trim_start_matches('>').trim_start();
        if let Some(fence) = self.fence {
            if trimmed.starts_with(fence) {
                self.fence = None;
            }
            return;
        }
        if self.is_in_html_comment || trimmed.starts_with("<!--") {
            self.is_in_html_comment = !trimmed.contains("-->");
            return;
        }
        if let Some(fence) = ["```", "~~~"].into_iter().find(|fence| trimmed.starts_with(fence)) {
            self.finish();
            self.fence = Some(fence);
            return;
        }
        if trimmed.is_empty() {
            self.finish();
            self.is_after_blank = true;
            return;
        }
        let is_indented = line.starts_with("    ") || line.starts_with('\t');
        if is_indented && self.is_after_blank && !self.is_in_list {
            return;
        }
        self.is_after_blank = false;
        if trimmed.starts_with('#') {
            self.finish();
            self.add(number, trimmed.trim_start_matches('#'));
        } else if trimmed.starts_with('|') {
            self.finish();
            for cell in trimmed.replace("\\|", "  ").split('|') {
                self.add(number, cell);
            }
        } else if is_reference(trimmed) {
            self.finish();
        } else if let Some(item) = list_item(trimmed) {
            self.finish();
            self.is_in_list = true;
            self.paragraph.push(number, item);
        } else {
            self.is_in_list &= self.is_in_list && (line.starts_with(' ') || !self.paragraph.is_empty());
            self.paragraph.push(number, trimmed);
        }
    }

    /// Adds a line that is no sentence.
    fn add(&mut self, number: usize, line: &str) {
        let mut text = Text::new(self.kind).without_sentences();
        text.push(number, line);
        if !text.is_empty() {
            self.texts.push(text.mask_code());
        }
    }

    fn finish(&mut self) {
        let paragraph = std::mem::replace(&mut self.paragraph, Text::new(self.kind));
        if !paragraph.is_empty() {
            self.texts.push(paragraph.mask_code());
        }
    }
}

/// Whether a line is the target of a reference, as `[name]: URL`.
fn is_reference(line: &str) -> bool {
    line.starts_with('[') && line.split_once("]:").is_some_and(|(name, _)| !name.contains(' '))
}

/// A list item without its bullet or number.
fn list_item(line: &str) -> Option<&str> {
    let bullet = ["* ", "- ", "+ "].into_iter().find_map(|bullet| line.strip_prefix(bullet));
    bullet.or_else(|| {
        let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
        (rest.len() < line.len()).then(|| rest.strip_prefix(". ")).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prose(markdown: &str) -> Vec<String> {
        let lines = markdown.lines().enumerate().map(|(number, line)| (number + 1, line));
        texts(Kind::Document, lines).into_iter().map(|text| text.prose).collect()
    }

    #[test]
    fn code_blocks_are_left_out() {
        assert_eq!(prose("a\n```sh\ncode\n```\nb\n\n    code\n    code\n\nc"), ["a", "b", "c"]);
        assert_eq!(prose("<!-- note\nnote -->\na"), ["a"]);
    }

    #[test]
    fn items_cells_and_headings_stand_alone() {
        assert_eq!(
            prose("# h\np\nq\n* i\n  j\n\n    k\n1. l\n| c | d |"),
            ["h", "p q", "i j", "k", "l", "c", "d"]
        );
    }
}
