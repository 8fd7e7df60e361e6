//! Sentences that begin with a relative clause instead of a noun.

use super::phrase::Phrase;
use super::text::{Token, TokenKind};

const BEGINNINGS: &[&str] = &["what|who|whoever|nobody|somebody", "one that", "that which"];

/// Offsets of the sentences that begin so. Questions do not count.
pub(crate) fn found(tokens: &[Token<'_>]) -> Vec<usize> {
    let phrases: Vec<Phrase> = BEGINNINGS.iter().map(|beginning| Phrase::new(beginning)).collect();
    let begins = |at: &usize| {
        is_beginning(tokens, *at) && phrases.iter().any(|phrase| phrase.length_at(&tokens[*at..]).is_some())
    };
    let at = (0..tokens.len()).filter(begins).filter(|at| !is_question(&tokens[*at..]));
    at.map(|at| tokens[at].start).collect()
}

/// Whether a capital word stands at the beginning of the text or after the end of a sentence.
fn is_beginning(tokens: &[Token<'_>], at: usize) -> bool {
    let before = tokens[..at]
        .iter()
        .rev()
        .find(|token| !matches!(token.text, "*" | "\"" | "(" | ")" | "“" | "”" | "["));
    tokens[at].text.starts_with(char::is_uppercase) && before.is_none_or(is_end)
}

fn is_question(sentence: &[Token<'_>]) -> bool {
    sentence.iter().find(|token| is_end(token)).is_some_and(|end| end.text == "?")
}

fn is_end(token: &Token<'_>) -> bool {
    token.kind == TokenKind::Punctuation && matches!(token.text, "." | "!" | "?")
}

#[cfg(test)]
mod tests {
    use super::super::text::tokens;
    use super::*;

    #[test]
    fn relative_clauses_as_subjects_are_found() {
        let count = |prose| found(&tokens(prose)).len();
        assert_eq!(count("What is placed is removed. Whoever reads it knows. One that ends is over."), 3);
        assert_eq!(count("**What** is that? It is what it was: What else. One jail. That is all."), 0);
    }
}
