//! The prose of SVG pictures: a text for each `<text>`, `<title>` and `<desc>`, with the `<tspan>`s in it.

use super::text::{Kind, Text};

/// The elements whose text a reader sees or hears.
const ELEMENTS: &[&str] = &["text", "tspan", "title", "desc"];

/// Characters that are written as entities. `&` is last, so that `&amp;lt;` remains `&lt;`.
const ENTITIES: &[(&str, &str)] =
    &[("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];

pub(crate) fn texts(source: &str) -> Vec<Text> {
    let mut texts = Vec::new();
    let mut text = new();
    // How many elements of the list are open.
    let mut depth = 0_usize;
    let mut number = 1;
    let mut rest = source;
    while !rest.is_empty() {
        let is_markup = rest.starts_with('<');
        let end = if rest.starts_with("<!--") { "-->" } else { ">" };
        let length = if is_markup { rest.find(end).map(|at| at + end.len()) } else { rest.find('<') };
        let (piece, after) = rest.split_at(length.unwrap_or(rest.len()));
        if is_markup {
            depth = depth_after(piece, depth);
        } else if depth > 0 {
            for (line, part) in piece.lines().enumerate().filter(|(_, part)| !part.trim().is_empty()) {
                let characters =
                    ENTITIES.iter().fold(part.to_owned(), |text, (entity, of)| text.replace(entity, of));
                text.push(number + line, &characters);
            }
        }
        if depth == 0 && !text.is_empty() {
            texts.push(std::mem::replace(&mut text, new()).mask_code());
        }
        number += piece.matches('\n').count();
        rest = after;
    }
    texts
}

/// A label is seldom a sentence.
fn new() -> Text {
    Text::new(Kind::Document).without_sentences()
}

/// How many elements of the list are open after a tag.
fn depth_after(tag: &str, depth: usize) -> usize {
    let name = tag.trim_start_matches(['<', '/']);
    let name = name.split(|c: char| c.is_whitespace() || matches!(c, '/' | '>')).next();
    if !name.is_some_and(|name| ELEMENTS.contains(&name)) || tag.ends_with("/>") {
        depth
    } else if tag.starts_with("</") {
        depth.saturating_sub(1)
    } else {
        depth + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(picture: &str) -> Vec<(usize, String)> {
        texts(picture).into_iter().map(|text| (text.line(0), text.prose)).collect()
    }

    #[test]
    fn texts_titles_and_descriptions_are_found_with_their_lines() {
        let picture = "<svg>\n<title>A title</title>\n<desc>Of\ntwo lines</desc>\n\
                       <text class=\"b\">a &lt;b&gt; <tspan x=\"1\">c</tspan> d</text><text/>\n</svg>\n";
        let expected = [(2, "A title"), (3, "Of two lines"), (5, "a <b> c d")];
        assert_eq!(found(picture), expected.map(|(line, text)| (line, text.to_owned())));
    }

    #[test]
    fn styles_attributes_and_comments_are_left_out() {
        let picture = "<style>text{fill:red}</style><!-- <text>no</text> --><g class=\"no\">no</g><textPath>no</textPath>";
        assert_eq!(found(picture), []);
    }
}
