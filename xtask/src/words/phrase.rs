//! Phrases, and where they are in a text.

use super::text::{Token, TokenKind};

/// A phrase as it is written in the list: words with their alternatives (`is|are gone`); `..` stands for at
/// most three words.
pub(crate) struct Phrase {
    parts: Vec<Part>,
}

enum Part {
    Word(Vec<&'static str>),
    Gap,
}

/// How many words `..` may stand for.
const GAP: usize = 3;

impl Phrase {
    pub(crate) fn new(phrase: &'static str) -> Self {
        let parts = phrase.split(' ').map(|part| match part {
            ".." => Part::Gap,
            _ => Part::Word(part.split('|').collect()),
        });
        Self { parts: parts.collect() }
    }

    /// How many tokens at the beginning of these are this phrase.
    pub(crate) fn length_at(&self, tokens: &[Token<'_>]) -> Option<usize> {
        length(&self.parts, tokens)
    }
}

fn length(parts: &[Part], tokens: &[Token<'_>]) -> Option<usize> {
    match parts {
        [] => Some(0),
        [Part::Word(words), rest @ ..] => {
            let (first, after) = tokens.split_first()?;
            let is_word = first.kind == TokenKind::Word && is_one_of(first, words);
            if is_word { length(rest, after).map(|length| length + 1) } else { None }
        }
        [Part::Gap, rest @ ..] => (0..=GAP.min(tokens.len()))
            .take_while(|gap| tokens[..*gap].iter().all(|token| token.kind != TokenKind::Punctuation))
            .find_map(|gap| length(rest, &tokens[gap..]).map(|length| length + gap)),
    }
}

/// Whether a token is one of these words, in whatever case.
pub(crate) fn is_one_of(token: &Token<'_>, words: &[&str]) -> bool {
    let text = token.text.replace('’', "'").to_lowercase();
    words.contains(&text.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::text::tokens;
    use super::*;

    fn is_found(phrase: &'static str, prose: &str) -> bool {
        let (phrase, tokens) = (Phrase::new(phrase), tokens(prose));
        (0..tokens.len()).any(|at| phrase.length_at(&tokens[at..]).is_some())
    }

    #[test]
    fn alternatives_gaps_and_word_boundaries() {
        assert!(is_found("is|are gone", "they Are gone"));
        assert!(!is_found("is|are gone", "they are, gone"));
        assert!(!is_found("link", "linked, blink and link-local"));
        assert!(is_found("hands|handed .. down", "hands all controllers down"));
        assert!(is_found("hands|handed .. down", "is handed down"));
        assert!(!is_found("hands|handed .. down", "hands on; sits down"));
        assert!(!is_found("hands|handed .. down", "hands on one two three down"));
    }
}
