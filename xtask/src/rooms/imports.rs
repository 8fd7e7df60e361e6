//! The paths in a source file that begin at the crate's root, wherever they stand: in `use` and in macros too.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::command::Done;

/// The segments of a path from the crate's root, each with its line.
pub(super) type Segments = Vec<(String, usize)>;

/// A type that a file has an `impl` of, with the line.
pub(super) type Impl = (String, usize);

/// The names in a file.
#[derive(Default)]
pub(super) struct Names {
    /// Each path from the crate's root. A path to the root itself has the segment `*` or `self`.
    pub(super) paths: Vec<Segments>,
    pub(super) impls: Vec<Impl>,
    /// Each name that a `use` brings in, with the path it stands for.
    pub(super) aliases: Vec<(String, Segments)>,
}

/// Reads a source file.
///
/// # Arguments
/// `module`: the file's path of modules from the crate's root.
pub(super) fn names(source: &str, module: &[String]) -> Done<Names> {
    let stream: TokenStream = source.parse().map_err(|e| format!("no Rust: {e}"))?;
    let mut reader = Reader { module: module.to_vec(), names: Names::default() };
    reader.stream(stream);
    proc_macro2::extra::invalidate_current_thread_spans();
    Ok(reader.names)
}

struct Reader {
    module: Vec<String>,
    names: Names,
}

impl Reader {
    fn stream(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at += self.item(&tokens[at..]);
        }
    }

    /// Reads what begins with the first token; gives how many tokens that takes.
    fn item(&mut self, tokens: &[TokenTree]) -> usize {
        match tokens {
            [TokenTree::Ident(first), TokenTree::Ident(name), TokenTree::Group(body), ..]
                if first == "mod" && body.delimiter() == Delimiter::Brace =>
            {
                self.module.push(name.to_string());
                self.stream(body.stream());
                self.module.pop();
                3
            }
            // `impl Trait + use<'a>` imports nothing.
            [TokenTree::Ident(first), next, ..] if first == "use" && !is_punct(next, '<') => {
                let end = tokens.iter().position(|token| is_punct(token, ';')).unwrap_or(tokens.len());
                self.tree(&[], &tokens[1..end]);
                end
            }
            // `pub(super)` and `pub(in crate::room)` are no imports.
            [TokenTree::Ident(first), TokenTree::Group(group), ..]
                if first == "pub"
                    && group.delimiter() == Delimiter::Parenthesis
                    && is_visibility(group.stream()) =>
            {
                2
            }
            [TokenTree::Ident(first), rest @ ..]
                if is_root(&first.to_string()) && is_path_separator(rest) =>
            {
                let (segments, length) = path(tokens);
                self.path(&segments);
                length
            }
            [TokenTree::Ident(first), ..] => {
                if first == "impl" {
                    self.names.impls.extend(implemented(&tokens[1..]));
                }
                1
            }
            [TokenTree::Group(group), ..] => {
                self.stream(group.stream());
                1
            }
            // As in `#[serde(with = "crate::room::module")]`.
            [TokenTree::Literal(literal), ..] => {
                let line = literal.span().start().line;
                let text = literal.to_string();
                if text.starts_with("\"crate::") || text.starts_with("\"super::") {
                    let names = text.trim_matches('"').split("::").map(str::trim);
                    let names =
                        names.take_while(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
                    self.path(&names.map(|name| (name.to_owned(), line)).collect::<Segments>());
                }
                1
            }
            _ => 1,
        }
    }

    /// Reads a tree of `use`, without the keyword and the semicolon.
    fn tree(&mut self, prefix: &[(String, usize)], tokens: &[TokenTree]) {
        // A comma may be last.
        for tokens in tokens.split(|token| is_punct(token, ',')).filter(|tokens| !tokens.is_empty()) {
            let mut segments = prefix.to_vec();
            let mut alias = None;
            let mut at = 0;
            while let Some(token) = tokens.get(at) {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => {
                        alias = tokens.get(at + 1).map(ToString::to_string);
                        break;
                    }
                    TokenTree::Ident(ident) => {
                        segments.push((name(&ident.to_string()), ident.span().start().line));
                    }
                    TokenTree::Punct(punct) if punct.as_char() == '*' => {
                        segments.push(("*".to_owned(), punct.span().start().line));
                    }
                    // A name of another crate.
                    TokenTree::Punct(_) if at == 0 && is_path_separator(tokens) => break,
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.tree(&segments, &inner);
                        segments.clear();
                        break;
                    }
                    _ => (),
                }
                at += 1;
            }
            if segments.is_empty() {
                continue;
            }
            // `{self}` names the prefix.
            if segments.len() > 1 && segments.last().is_some_and(|(last, _)| last == "self") {
                segments.pop();
            }
            let last = segments.last().map(|(last, _)| last.clone());
            self.names.aliases.extend(alias.or(last).map(|alias| (alias, segments.clone())));
            self.path(&segments);
        }
    }

    /// Takes note of a path, if it begins at the crate's root.
    fn path(&mut self, segments: &[(String, usize)]) {
        let mut module = self.module.clone();
        let mut rest = segments;
        let mut line = segments.first().map_or(0, |(_, line)| *line);
        match rest.split_first() {
            Some(((first, _), after)) if first == "crate" => {
                module.clear();
                rest = after;
            }
            Some(((first, _), _)) if first == "super" || first == "self" => (),
            _ => return,
        }
        while let Some(((first, at), after)) = rest.split_first() {
            match first.as_str() {
                "super" => drop(module.pop()),
                "self" => (),
                _ => break,
            }
            (line, rest) = (*at, after);
        }
        let mut absolute: Segments = module.into_iter().map(|name| (name, line)).collect();
        absolute.extend(rest.iter().cloned());
        if absolute.is_empty() {
            absolute.push(("self".to_owned(), line));
        }
        self.names.paths.push(absolute);
    }
}

/// A path at the beginning of these tokens, and how many it takes.
fn path(tokens: &[TokenTree]) -> (Segments, usize) {
    let mut segments = Segments::new();
    let mut at = 0;
    while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
        segments.push((name(&ident.to_string()), ident.span().start().line));
        at += 1;
        if !is_path_separator(&tokens[at..]) || !matches!(tokens.get(at + 2), Some(TokenTree::Ident(_))) {
            break;
        }
        at += 2;
    }
    (segments, at)
}

/// The last name of the type that an `impl` is of.
fn implemented(tokens: &[TokenTree]) -> Option<Impl> {
    let end = tokens
        .iter()
        .position(|token| matches!(token, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace));
    let mut depth = 0_usize;
    let mut last = None;
    let mut before = ' ';
    for token in &tokens[..end?] {
        match token {
            TokenTree::Punct(punct) => match punct.as_char() {
                '<' => depth += 1,
                '>' if before != '-' => depth = depth.saturating_sub(1),
                _ => (),
            },
            TokenTree::Ident(ident) if depth == 0 => match ident.to_string().as_str() {
                "for" => last = None,
                "where" => break,
                "dyn" | "mut" => (),
                name => last = Some((name.to_owned(), ident.span().start().line)),
            },
            _ => (),
        }
        before = if let TokenTree::Punct(punct) = token { punct.as_char() } else { ' ' };
    }
    last
}

/// An identifier without the mark of a raw one.
fn name(ident: &str) -> String {
    ident.strip_prefix("r#").unwrap_or(ident).to_owned()
}

fn is_root(name: &str) -> bool {
    matches!(name, "crate" | "super" | "self")
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    matches!(tokens, [first, second, ..] if is_punct(first, ':') && is_punct(second, ':'))
}

fn is_visibility(group: TokenStream) -> bool {
    let first = group.into_iter().next();
    matches!(first, Some(TokenTree::Ident(ident)) if is_root(&ident.to_string()) || ident == "in")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths in a file `src/a/b.rs`, as `LINE: PATH`.
    fn paths(source: &str) -> Vec<String> {
        let names = names(source, &["a".to_owned(), "b".to_owned()]).expect("Rust");
        let path = |path: &Segments| {
            let names: Vec<&str> = path.iter().map(|(name, _)| name.as_str()).collect();
            format!("{}: {}", path[0].1, names.join("::"))
        };
        names.paths.iter().map(path).collect()
    }

    #[test]
    fn every_form_of_use_is_read() {
        assert_eq!(paths("use crate::c::D;\npub(crate) use crate::e;"), ["1: c::D", "2: e"]);
        assert_eq!(
            paths("use crate::{\n    c::{D, e::{self, F as G}},\n    h::*,\n};"),
            ["2: c::D", "2: c::e", "2: c::e::F", "3: h::*"]
        );
        assert_eq!(paths("use std::io; use ::log::Log; fn f() -> impl A + use<'_> {}"), [""; 0]);
    }

    #[test]
    fn paths_in_code_macros_and_attributes_are_read() {
        assert_eq!(paths("fn f() {\n    crate::c::d::<u8>();\n}"), ["2: c::d"]);
        assert_eq!(
            paths("macro_rules! m { () => {\n$crate::c::D } }\nfn f() { assert!(crate::e::f()) }"),
            ["2: c::D", "3: e::f"]
        );
        assert_eq!(paths("#[serde(with = \"crate::c::d\")]\nstruct A;"), ["1: c::d"]);
        assert_eq!(paths("pub(in crate::a) struct A; pub(super) fn f() {}"), [""; 0]);
    }

    #[test]
    fn chains_of_super_are_followed_out_of_inline_modules_too() {
        assert_eq!(paths("use super::c;\nuse super::super::d::E;"), ["1: a::c", "2: d::E"]);
        assert_eq!(
            paths("mod tests {\n    use super::*;\n    use super::super::super::d;\n}"),
            ["2: a::b::*", "3: d"]
        );
        assert_eq!(paths("fn f() { self::super::super::d() }\nuse super::super::*;"), ["1: d", "2: *"]);
    }

    #[test]
    fn impls_have_the_name_of_their_type() {
        let source = "impl Store {}\nimpl<T: Fn() -> u8> a::Store<T> where T: B {}\nimpl A for Store {}\nimpl Store for B {}";
        let impls = names(source, &[]).expect("Rust").impls;
        let names: Vec<_> = impls.iter().map(|(name, line)| (name.as_str(), *line)).collect();
        assert_eq!(names, [("Store", 1), ("Store", 2), ("Store", 3), ("B", 4)]);
    }
}
