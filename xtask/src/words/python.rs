//! The prose of Python: docstrings, comments, and string literals that hold more than one word.

use super::markdown;
use super::text::{Kind, Text};

/// Reads a source file.
///
/// # Arguments
/// `has_messages`: whether its string literals are messages, as those of tests are not.
pub(crate) fn texts(source: &str, has_messages: bool) -> Vec<Text> {
    let mut texts = Vec::new();
    let mut comment: Vec<(usize, &str)> = Vec::new();
    let mut rest = source;
    let mut number = 1;
    // Whether nothing but blanks stands before this on the line.
    let mut is_first = true;
    while let Some(character) = rest.chars().next() {
        let mut length = character.len_utf8();
        if character == '#' {
            length = rest.find('\n').unwrap_or(rest.len());
            comment.push((number, rest[1..length].trim_start()));
        } else if let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| rest.starts_with(q)) {
            flush(&mut texts, &mut comment);
            let body = quoted(&rest[quote.len()..], quote);
            let lines = body.lines().enumerate().map(|(line, text)| (number + line, text));
            if is_first && quote.len() == 3 {
                texts.extend(markdown::texts(Kind::DocComment, dedented(lines.collect()).into_iter()));
            } else if has_messages && body.trim().contains(' ') {
                let mut text = Text::new(Kind::Message);
                lines.for_each(|(number, line)| text.push(number, line));
                texts.push(text.mask_code());
            }
            length = (quote.len() + body.len() + quote.len()).min(rest.len());
        } else if !character.is_whitespace() {
            flush(&mut texts, &mut comment);
        }
        let passed = &rest[..length];
        is_first = if passed.contains('\n') && passed.trim().is_empty() {
            true
        } else {
            is_first && character.is_whitespace()
        };
        number += passed.matches('\n').count();
        rest = &rest[length..];
    }
    flush(&mut texts, &mut comment);
    texts
}

fn flush(texts: &mut Vec<Text>, comment: &mut Vec<(usize, &str)>) {
    texts.extend(markdown::texts(Kind::Comment, std::mem::take(comment).into_iter()));
}

/// The text before the closing quote.
fn quoted<'a>(rest: &'a str, quote: &str) -> &'a str {
    let mut from = 0;
    loop {
        let Some(at) = rest[from..].find([quote.chars().next().unwrap_or('"'), '\\']).map(|at| from + at)
        else {
            return rest;
        };
        if rest[at..].starts_with(quote) {
            return &rest[..at];
        }
        let skipped = if rest[at..].starts_with('\\') { 2 } else { 1 };
        from = (at + skipped..rest.len()).find(|from| rest.is_char_boundary(*from)).unwrap_or(rest.len());
    }
}

/// Lines of a docstring without the indentation that they have in common.
fn dedented(lines: Vec<(usize, &str)>) -> Vec<(usize, &str)> {
    let filled = lines.iter().skip(1).filter(|(_, line)| !line.trim().is_empty());
    let common = filled.map(|(_, line)| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines
        .into_iter()
        .map(|(number, line)| (number, line.get(common..).unwrap_or(line.trim_start())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docstrings_comments_and_messages_are_found() {
        let source = "\"\"\"The module.\n\nMore.\n\"\"\"\nx = 'it\\'s one two'  # Why\n# so.\ny = 'one'\n";
        let texts = texts(source, true);
        let found: Vec<_> = texts.iter().map(|t| (t.kind, t.line(0), t.prose.as_str())).collect();
        assert_eq!(
            found,
            [
                (Kind::DocComment, 1, "The module."),
                (Kind::DocComment, 3, "More."),
                (Kind::Message, 5, "it\\'s one two"),
                (Kind::Comment, 5, "Why so."),
            ]
        );
    }
}
