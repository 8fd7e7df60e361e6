//! The prose of Rust: doc comments, comments, and string literals that hold more than one word.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::markdown;
use super::text::{Kind, Text};
use crate::command::Done;

/// Reads a source file.
///
/// # Arguments
/// `has_messages`: whether its string literals are help and messages, as those of tests are not.
pub(crate) fn texts(source: &str, has_messages: bool) -> Done<Vec<Text>> {
    let stream: TokenStream = source.parse().map_err(|e| format!("no Rust: {e}"))?;
    let mut reader = Reader { source, has_messages, texts: Vec::new(), docs: Vec::new(), end: 0 };
    reader.stream(stream, false);
    reader.gap(source.len());
    reader.finish_docs();
    // Spans of files that are done are of no use.
    proc_macro2::extra::invalidate_current_thread_spans();
    Ok(reader.texts)
}

struct Reader<'a> {
    source: &'a str,
    has_messages: bool,
    texts: Vec<Text>,
    /// Lines of the doc comment that is being read.
    docs: Vec<(usize, &'a str)>,
    /// End of the last token.
    end: usize,
}

impl<'a> Reader<'a> {
    fn stream(&mut self, stream: TokenStream, is_test: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        // Whether the next item is compiled for tests alone.
        let mut is_test_item = false;
        let mut rest = &tokens[..];
        while let [token, after @ ..] = rest {
            rest = after;
            if let Some((group, after)) = attribute(token, after) {
                if group.span().byte_range() == token.span().byte_range() {
                    self.doc_comment(group);
                    rest = after;
                    continue;
                }
                is_test_item |= group.stream().to_string().replace(' ', "") == "cfg(test)";
            }
            match token {
                TokenTree::Group(group) => {
                    self.token(group.span_open().byte_range());
                    self.stream(group.stream(), is_test || is_test_item);
                    self.token(group.span_close().byte_range());
                    is_test_item &= group.delimiter() != Delimiter::Brace;
                }
                TokenTree::Literal(literal) => {
                    let range = literal.span().byte_range();
                    self.token(range.clone());
                    if self.has_messages && !is_test && !is_test_item {
                        self.literal(range.start, &self.source[range]);
                    }
                }
                TokenTree::Punct(punct) => {
                    self.token(punct.span().byte_range());
                    is_test_item &= punct.as_char() != ';';
                }
                TokenTree::Ident(ident) => self.token(ident.span().byte_range()),
            }
        }
    }

    /// Takes note of a token, and reads the comments before it.
    fn token(&mut self, range: std::ops::Range<usize>) {
        self.finish_docs();
        self.gap(range.start);
        self.end = self.end.max(range.end);
    }

    fn doc_comment(&mut self, group: &Group) {
        let range = group.span().byte_range();
        if range.start < self.end {
            return;
        }
        self.gap(range.start);
        let source: &'a str = &self.source[range.clone()];
        let first = self.line(range.start);
        // Those of a module and of its first item follow each other.
        if self.docs.last().is_some_and(|(last, _)| last + 1 < first) {
            self.finish_docs();
        }
        for (number, line) in source.lines().enumerate() {
            self.docs.push((first + number, without_marks(line)));
        }
        self.end = range.end;
    }

    fn finish_docs(&mut self) {
        let docs = std::mem::take(&mut self.docs);
        self.texts.extend(markdown::texts(Kind::DocComment, docs.into_iter()));
    }

    /// Reads what stands between the last token and this offset: blanks and comments.
    fn gap(&mut self, start: usize) {
        let Some(gap) =
            self.source.get(self.end..start).filter(|gap| gap.contains("//") || gap.contains("/*"))
        else {
            return;
        };
        self.finish_docs();
        let first = self.line(self.end);
        let lines = gap.lines().enumerate().map(|(number, line)| (first + number, without_marks(line)));
        self.texts.extend(markdown::texts(Kind::Comment, lines));
    }

    fn literal(&mut self, start: usize, literal: &str) {
        let Some((prefix, body)) = literal.split_once('"') else { return };
        let body = body.trim_end_matches('#').trim_end_matches('"');
        let prose = if prefix.contains('r') { body.to_owned() } else { without_escapes(body) };
        if !prose.trim().contains([' ', '\n']) {
            return;
        }
        let first = self.line(start);
        let mut text = Text::new(Kind::Message);
        for (number, line) in prose.lines().enumerate() {
            text.push(first + number, line);
        }
        self.texts.push(text.mask_code());
    }

    fn line(&self, offset: usize) -> usize {
        self.source[..offset].matches('\n').count() + 1
    }
}

/// The group of an attribute that begins with this token, and what follows it.
fn attribute<'t>(token: &TokenTree, after: &'t [TokenTree]) -> Option<(&'t Group, &'t [TokenTree])> {
    let is_punct = |token: &TokenTree, wanted| matches!(token, TokenTree::Punct(p) if p.as_char() == wanted);
    let after = match after {
        [bang, after @ ..] if is_punct(bang, '!') => after,
        _ => after,
    };
    match after {
        [TokenTree::Group(group), after @ ..] if is_punct(token, '#') => Some((group, after)),
        _ => None,
    }
}

/// A line of a comment without what marks it as such.
fn without_marks(line: &str) -> &str {
    let line = line.trim();
    let bare =
        ["///", "//!", "//", "/**", "/*!", "/*", "* "].into_iter().find_map(|mark| line.strip_prefix(mark));
    let bare = bare.unwrap_or(line);
    let bare = bare.strip_suffix("*/").unwrap_or(bare);
    bare.strip_prefix(' ').unwrap_or(bare)
}

/// A literal's text with two blanks for each escape, and its line breaks as they are.
fn without_escapes(body: &str) -> String {
    let mut prose = String::with_capacity(body.len());
    let mut characters = body.chars();
    while let Some(character) = characters.next() {
        match (character, if character == '\\' { characters.next() } else { None }) {
            ('\\', Some('\n')) => prose.push('\n'),
            ('\\', _) => prose.push_str("  "),
            _ => prose.push(character),
        }
    }
    prose
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
//! The module
//! docs.

/// What it is.
///
/// ```
/// code
/// ```
#[error("two words")]
fn f() {
    // A reason,
    // on two lines.
    let x = "one"; // After code.
    println!("first {x} \
        second");
    /* A block. */
}

#[cfg(test)]
mod tests {
    // In a test.
    const A: &str = "not a message";
}

const B: &str = "a message";
"#;

    #[test]
    fn comments_and_literals_have_their_kind_and_line() {
        let texts = texts(SOURCE, true).expect("Rust");
        let found: Vec<_> =
            texts.iter().map(|t| (t.kind, t.line(0), t.prose.replace('\u{1}', "~"))).collect();
        let expected = [
            (Kind::DocComment, 2, "The module docs."),
            (Kind::DocComment, 5, "What it is."),
            (Kind::Message, 10, "two words"),
            (Kind::Comment, 12, "A reason, on two lines."),
            (Kind::Comment, 14, "After code."),
            (Kind::Message, 15, "first ~~~ second"),
            (Kind::Comment, 17, "A block."),
            (Kind::Comment, 22, "In a test."),
            (Kind::Message, 26, "a message"),
        ];
        let expected = expected.map(|(kind, line, prose)| (kind, line, prose.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn literals_of_tests_are_no_messages() {
        assert!(texts(SOURCE, false).expect("Rust").iter().all(|text| text.kind != Kind::Message));
    }
}
