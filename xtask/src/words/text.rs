//! A paragraph of prose, with the line of each of its characters.

use std::fmt;

/// Where prose stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A Markdown file, or a picture.
    Document,
    /// `///`, `//!`, or a docstring of Python.
    DocComment,
    /// `//`, `/* */` or `#`.
    Comment,
    /// A string literal.
    Message,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Document => "documents",
            Self::DocComment => "doc comments",
            Self::Comment => "comments",
            Self::Message => "messages",
        })
    }
}

/// Stands for a byte that is code, not prose.
const CODE: char = '\u{1}';

/// A paragraph, list item, heading, table cell or literal, on one line.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) kind: Kind,
    /// Whether it is made of sentences, as headings and table cells are not.
    pub(crate) has_sentences: bool,
    pub(crate) prose: String,
    /// Offset in `prose` and line in the file, of the beginning of each line.
    lines: Vec<(usize, usize)>,
}

impl Text {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, has_sentences: true, prose: String::new(), lines: Vec::new() }
    }

    pub(crate) fn without_sentences(mut self) -> Self {
        self.has_sentences = false;
        self
    }

    /// Appends a line; a space replaces the line break.
    pub(crate) fn push(&mut self, number: usize, line: &str) {
        if !self.prose.is_empty() {
            self.prose.push(' ');
        }
        self.lines.push((self.prose.len(), number));
        self.prose.push_str(line.trim());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.prose.trim().is_empty()
    }

    /// The line in the file of an offset in `prose`.
    pub(crate) fn line(&self, offset: usize) -> usize {
        let after = self.lines.partition_point(|(start, _)| *start <= offset);
        self.lines.get(after.saturating_sub(1)).map_or(0, |(_, line)| *line)
    }

    /// Masks inline code, URLs, HTML tags and, in messages, the placeholders of `format!`.
    pub(crate) fn mask_code(mut self) -> Self {
        self.mask_backticks();
        self.mask_between("](", ')');
        self.mask_between("<!--", '>');
        self.mask_between("</", '>');
        // Names in docstrings of Python.
        self.mask_between(":param ", ':');
        self.mask_urls();
        if self.kind == Kind::Message {
            self.mask_between("{", '}');
        }
        self
    }

    fn mask_backticks(&mut self) {
        let mut from = 0;
        while let Some(start) = self.prose[from..].find('`').map(|at| from + at) {
            let width = self.prose[start..].len() - self.prose[start..].trim_start_matches('`').len();
            let fence = "`".repeat(width);
            let Some(length) = self.prose[start + width..].find(&fence) else { break };
            let end = start + width + length + width;
            self.mask(start, end);
            from = end;
        }
    }

    fn mask_between(&mut self, open: &str, close: char) {
        let mut from = 0;
        while let Some(start) = self.prose[from..].find(open).map(|at| from + at) {
            let Some(length) = self.prose[start + open.len()..].find(close) else { break };
            let end = start + open.len() + length + close.len_utf8();
            self.mask(start, end);
            from = end;
        }
    }

    fn mask_urls(&mut self) {
        let mut from = 0;
        while let Some(at) = self.prose[from..].find("://").map(|at| from + at) {
            let start = self.prose[..at].rfind(|c: char| !c.is_alphanumeric()).map_or(0, |before| before + 1);
            let end = self.prose[at..].find([' ', ')', '>']).map_or(self.prose.len(), |length| at + length);
            // A character before a scheme may be wider than a byte.
            let start = (start..=at).find(|start| self.prose.is_char_boundary(*start)).unwrap_or(at);
            self.mask(start, end);
            from = end;
        }
    }

    fn mask(&mut self, start: usize, end: usize) {
        let code = CODE.to_string().repeat(end - start);
        self.prose.replace_range(start..end, &code);
    }
}

/// A piece of prose.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    pub(crate) start: usize,
    pub(crate) text: &'a str,
    pub(crate) kind: TokenKind,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TokenKind {
    Word,
    /// Inline code, a path, a flag or an identifier.
    Code,
    Punctuation,
}

/// Splits prose into words, code and punctuation.
pub(crate) fn tokens(prose: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    for run in prose.split(' ') {
        split_run(run, start, &mut tokens);
        start += run.len() + 1;
    }
    tokens
}

/// Splits a run without spaces.
fn split_run<'a>(run: &'a str, start: usize, tokens: &mut Vec<Token<'a>>) {
    let core = run.trim_matches(|c: char| "\"'()[],.;:!?*“”’".contains(c));
    let is_code = core.contains("::")
        || core.contains(['_', '=', '\\', '$', '@', '<', '>'])
        || core.starts_with(['/', '-', '~', '%', '#', '&'])
        || core.as_bytes().windows(3).any(|w| w[1] == b'.' && w[0].is_ascii_alphanumeric() && w[2] != b'.');
    let mut rest = run;
    while let Some(first) = rest.chars().next() {
        let offset = start + run.len() - rest.len();
        let (kind, length) = if first == CODE {
            (TokenKind::Code, rest.len() - rest.trim_start_matches(CODE).len())
        } else if first.is_alphanumeric() {
            let length = rest.find(|c: char| !is_inside_word(c)).unwrap_or(rest.len());
            // A hyphen or apostrophe at the end of a word is punctuation.
            let word = rest[..length].trim_end_matches(['-', '\'', '’']);
            (if is_code { TokenKind::Code } else { TokenKind::Word }, word.len())
        } else {
            (if is_code { TokenKind::Code } else { TokenKind::Punctuation }, first.len_utf8())
        };
        tokens.push(Token { start: offset, text: &rest[..length], kind });
        rest = &rest[length..];
    }
}

fn is_inside_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '\'' | '’')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(prose: &str) -> Vec<String> {
        let mut text = Text::new(Kind::Message);
        text.push(1, prose);
        let text = text.mask_code();
        let tokens = tokens(&text.prose);
        let words = tokens.iter().filter(|token| token.kind == TokenKind::Word);
        words.map(|word| word.text.to_owned()).collect()
    }

    #[test]
    fn code_paths_flags_and_placeholders_are_no_words() {
        assert_eq!(
            words("run `a folder` or --folder in /a/folder, not {folder}"),
            ["run", "or", "in", "not"]
        );
        assert_eq!(
            words("see [the page](https://example.com/folder) or http://x/folder"),
            ["see", "the", "page", "or"]
        );
        assert_eq!(words("Store::visit reads old_folder and cgroup.procs"), ["reads", "and"]);
    }

    #[test]
    fn hyphens_and_apostrophes_are_inside_words() {
        assert_eq!(words("a link-local 'jail's place'"), ["a", "link-local", "jail's", "place"]);
    }

    #[test]
    fn an_offset_has_the_line_it_came_from() {
        let mut text = Text::new(Kind::Comment);
        text.push(7, "first line");
        text.push(8, "second");
        assert_eq!([text.line(0), text.line(9), text.line(11)], [7, 7, 8]);
    }
}
