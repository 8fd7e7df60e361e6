//! The root of a crate, which holds no logic.

use proc_macro2::{Delimiter, TokenTree};

use super::imports::{self, Names};
use crate::command::Done;

/// How many lines of functions `main.rs` may have: parse, dispatch to each subcommand, exit code.
const MOST_LINES: usize = 70;

/// Reads a crate's root: its names, and a line for each item that is logic.
///
/// `lib.rs` has modules, `use`, documentation and attributes; `main.rs` has a few lines of functions too.
pub(super) fn read(file: &str, source: &str) -> Done<(Names, Vec<String>)> {
    let error = |e| format!("{file}: {e}");
    let names = imports::names(source, &[]).map_err(error)?;
    let stream = source.parse::<proc_macro2::TokenStream>().map_err(|e| format!("{file}: no Rust: {e}"))?;
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let is_program = file.ends_with("main.rs");
    let mut problems = Vec::new();
    let mut lines = 0;
    let mut rest = &tokens[..];
    while !rest.is_empty() {
        let (item, after) = split_item(rest);
        rest = after;
        let Some((keyword, line)) = keyword(item) else { continue };
        match keyword.as_str() {
            "use" | "extern" => (),
            "mod" if is_empty(item) => (),
            "fn" if is_program => {
                let last = item.last().map_or(line, |token| token.span().end().line);
                lines += last - line + 1;
                if lines > MOST_LINES {
                    problems.push(format!(
                        "{file}:{line}: {lines} lines of functions by the end of this one (at most {MOST_LINES}); \
                         move logic into a room"
                    ));
                }
            }
            _ => problems.push(format!("{file}:{line}: holds logic (`{keyword}`); move it into a room")),
        }
    }
    proc_macro2::extra::invalidate_current_thread_spans();
    Ok((names, problems))
}

/// Splits off the first item: up to a semicolon or a block.
fn split_item(tokens: &[TokenTree]) -> (&[TokenTree], &[TokenTree]) {
    let is_use = keyword(tokens).is_some_and(|(keyword, _)| keyword == "use");
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace && !is_use,
        _ => false,
    };
    let end = tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1);
    tokens.split_at(end)
}

/// The first word of an item after its attributes and its visibility, with its line.
fn keyword(item: &[TokenTree]) -> Option<(String, usize)> {
    let mut words = item.iter().filter_map(|token| match token {
        TokenTree::Ident(ident) if ident != "pub" && ident != "async" => Some(ident),
        _ => None,
    });
    words.next().map(|ident| (ident.to_string(), ident.span().start().line))
}

/// Whether a module is in a file of its own, or has documentation alone.
fn is_empty(item: &[TokenTree]) -> bool {
    !matches!(item.last(), Some(TokenTree::Group(group)) if !group.stream().is_empty())
}
