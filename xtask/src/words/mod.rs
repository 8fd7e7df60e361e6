//! Checks the words of documents, pictures, comments and messages against a list.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Done, root};
use list::{EXCEPTIONS, RULES, Rule};
use phrase::Phrase;
use text::{Kind, Text, Token, TokenKind};

mod list;
mod markdown;
mod phrase;
mod python;
mod rust;
mod sentences;
mod svg;
mod text;

/// At most one sentence in so many words begins with a relative clause.
const WORDS_PER_SENTENCE: usize = 1_000;

/// The most characters in the name of a function.
const LONGEST_NAME: usize = 60;

/// Something to write in another way.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Finding {
    file: String,
    line: usize,
    /// The phrase as it is written.
    found: String,
    instead: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: \"{}\" -> {}", self.file, self.line, self.found, self.instead)
    }
}

/// The findings of several files.
#[derive(Default)]
struct Findings {
    words: Vec<Finding>,
    documents: Sentences,
    doc_comments: Sentences,
    /// How often each of [`EXCEPTIONS`] applied.
    exceptions: Vec<usize>,
}

/// Sentences that begin with a relative clause, and how much text there is.
#[derive(Default)]
struct Sentences {
    words: usize,
    found: Vec<Finding>,
}

impl Sentences {
    fn are_too_many(&self) -> bool {
        self.found.len() * WORDS_PER_SENTENCE > self.words
    }
}

/// Prints what is to be written in another way, and fails if there is anything.
///
/// # Arguments
/// `paths`: files and directories to read; none for all.
pub(crate) fn words(paths: &[&str]) -> Done {
    let findings = if paths.is_empty() {
        read(&root(), &[root()])?
    } else {
        let here = std::env::current_dir().map_err(|e| format!("current directory: {e}"))?;
        let paths: Vec<PathBuf> = paths.iter().map(|path| here.join(path)).collect();
        if let Some(missing) = paths.iter().find(|path| !path.exists()) {
            return Err(format!("{}: no such file", missing.display()));
        }
        read(&root(), &paths)?
    };
    let mut problems = Vec::new();
    let mut per_file = BTreeMap::<&str, usize>::new();
    for finding in &findings.words {
        println!("{finding}");
        *per_file.entry(&finding.file).or_default() += 1;
    }
    if !findings.words.is_empty() {
        problems.push(format!("{} words to replace", findings.words.len()));
    }
    for (kind, sentences) in
        [(Kind::Document, &findings.documents), (Kind::DocComment, &findings.doc_comments)]
    {
        if sentences.are_too_many() {
            sentences.found.iter().for_each(|finding| println!("{finding}"));
            problems.push(format!(
                "{} sentences in {} words of {kind} begin with a relative clause (at most 1 in {WORDS_PER_SENTENCE})",
                sentences.found.len(),
                sentences.words
            ));
            for finding in &sentences.found {
                *per_file.entry(&finding.file).or_default() += 1;
            }
        }
    }
    // Part of the files may well be without those that an exception is for.
    let unused = EXCEPTIONS.iter().zip(&findings.exceptions).filter(|(_, count)| **count == 0);
    for (exception, _) in unused.filter(|_| paths.is_empty()) {
        println!(
            "xtask/src/words/list.rs: the exception \"{}\" ({}) is not needed",
            exception.text, exception.reason
        );
        problems.push("an exception is not needed".to_owned());
    }
    let mut per_file: Vec<_> = per_file.into_iter().collect();
    per_file.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (file, count) in per_file {
        println!("{count:6} {file}");
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Reads files and what is in directories.
fn read(root: &Path, paths: &[PathBuf]) -> Done<Findings> {
    let mut files = Vec::new();
    for path in paths {
        list_files(path, &mut files)?;
    }
    files.sort();
    files.dedup();
    let checker = Checker::new();
    let mut findings = Findings { exceptions: vec![0; EXCEPTIONS.len()], ..Findings::default() };
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let source = fs::read_to_string(&file).map_err(|e| format!("read {name}: {e}"))?;
        let texts = texts(&name, &source).map_err(|e| format!("{name}: {e}"))?;
        for text in &texts {
            checker.check(&name, text, &mut findings);
        }
        findings.words.extend(long_names(&name, &source));
    }
    Ok(findings)
}

/// The functions, most of them tests, whose names are too long to be read at a glance.
fn long_names(file: &str, source: &str) -> Vec<Finding> {
    let is_rust = Path::new(file).extension().is_some_and(|kind| kind == "rs");
    let keyword = if is_rust { "fn " } else { "def " };
    let names = source.lines().enumerate().filter_map(|(number, line)| {
        let (_, after) = line.split_once(keyword).filter(|(before, _)| !before.contains(['"', '/']))?;
        let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        (name.len() > LONGEST_NAME).then(|| (number + 1, name.to_owned()))
    });
    let instead = "a name of at most 60 characters";
    names.map(|(line, found)| Finding { file: file.to_owned(), line, found, instead }).collect()
}

fn list_files(path: &Path, files: &mut Vec<PathBuf>) -> Done {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_of_tools =
            name.starts_with('.') || ["target", "corpus", "__pycache__", "venv"].contains(&&*name);
        let is_text = ["md", "rs", "py", "pyi", "json", "svg"]
            .iter()
            .any(|kind| Path::new(&*name).extension().is_some_and(|e| e == *kind));
        if !is_of_tools && (is_text || entry.path().is_dir()) {
            list_files(&entry.path(), files)?;
        }
    }
    Ok(())
}

/// The prose of a file.
fn texts(name: &str, source: &str) -> Done<Vec<Text>> {
    let is_of_tests = name.contains("/tests/") || name.ends_with("/tests.rs");
    let has_messages = name.contains("/src/") && !name.starts_with("xtask/") && !is_of_tests;
    match Path::new(name).extension().and_then(|kind| kind.to_str()) {
        Some("rs") => rust::texts(source, has_messages),
        Some("json") => Ok(schema(source)),
        Some("svg") => Ok(svg::texts(source)),
        Some("py" | "pyi") => Ok(python::texts(source, has_messages)),
        _ => {
            let lines = source.lines().enumerate().map(|(number, line)| (number + 1, line));
            Ok(markdown::texts(Kind::Document, lines))
        }
    }
}

/// The descriptions in a JSON schema.
fn schema(source: &str) -> Vec<Text> {
    let descriptions = source.lines().enumerate().filter_map(|(number, line)| {
        let (_, description) = line.split_once("\"description\": \"")?;
        let mut text = Text::new(Kind::Message);
        text.push(number + 1, description.rsplit_once('"')?.0);
        Some(text.mask_code())
    });
    descriptions.collect()
}

/// The list, ready for use.
struct Checker {
    rules: Vec<(Phrase, &'static Rule)>,
}

impl Checker {
    fn new() -> Self {
        let rules =
            RULES.iter().flat_map(|rule| rule.phrases.iter().map(move |text| (Phrase::new(text), rule)));
        Self { rules: rules.collect() }
    }

    fn check(&self, file: &str, text: &Text, findings: &mut Findings) {
        let tokens = text::tokens(&text.prose);
        let prose = text.prose.to_ascii_lowercase();
        let mut at = 0;
        while at < tokens.len() {
            let Some((rule, length)) = self.rule_at(&prose, &tokens, at) else {
                at += 1;
                continue;
            };
            let (first, last) = (&tokens[at], &tokens[at + length - 1]);
            let (start, end) = (first.start, last.start + last.text.len());
            match exception(file, &prose, start, end) {
                Some(exception) => findings.exceptions[exception] += 1,
                None => findings.words.push(Finding {
                    file: file.to_owned(),
                    line: text.line(start),
                    found: text.prose[start..end].to_owned(),
                    instead: rule.instead,
                }),
            }
            at += length;
        }
        let sentences = match text.kind {
            Kind::Document => &mut findings.documents,
            Kind::DocComment => &mut findings.doc_comments,
            Kind::Comment | Kind::Message => return,
        };
        sentences.words += tokens.iter().filter(|token| token.kind == TokenKind::Word).count();
        if text.has_sentences {
            sentences.found.extend(sentences::found(&tokens).into_iter().map(|start| Finding {
                file: file.to_owned(),
                line: text.line(start),
                found: excerpt(&text.prose[start..]),
                instead: "begin with a noun",
            }));
        }
    }

    /// The first rule that a phrase at this token breaks, and the phrase's length.
    fn rule_at(&self, prose: &str, tokens: &[Token<'_>], at: usize) -> Option<(&'static Rule, usize)> {
        self.rules.iter().find_map(|(phrase, rule)| {
            let length = phrase.length_at(&tokens[at..])?;
            let is_word =
                |token: Option<&Token<'_>>, words| token.is_some_and(|token| phrase::is_one_of(token, words));
            let before = at.checked_sub(1).and_then(|before| tokens.get(before));
            let is_allowed = is_word(before, rule.unless_after)
                || is_word(tokens.get(at + length), rule.unless_before)
                || rule.unless_beside.iter().any(|beside| prose.contains(beside));
            (!is_allowed).then_some((*rule, length))
        })
    }
}

/// Which exception covers this part of a text in lower case.
fn exception(file: &str, prose: &str, start: usize, end: usize) -> Option<usize> {
    EXCEPTIONS.iter().position(|exception| {
        let wanted = exception.text.to_ascii_lowercase();
        let mut places = prose.match_indices(&wanted);
        let is_covered =
            wanted.is_empty() || places.any(|(at, found)| at <= start && end <= at + found.len());
        file.starts_with(exception.file) && is_covered
    })
}

/// The first words of a sentence.
fn excerpt(sentence: &str) -> String {
    let words: Vec<String> = sentence.split(' ').take(5).map(|word| word.replace('\u{1}', "")).collect();
    words.join(" ") + " …"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a file with this name and text.
    fn check(name: &str, source: &str) -> Findings {
        let mut findings = Findings { exceptions: vec![0; EXCEPTIONS.len()], ..Findings::default() };
        for text in texts(name, source).expect("Rust") {
            Checker::new().check(name, &text, &mut findings);
        }
        findings
    }

    fn words(name: &str, source: &str) -> Vec<(usize, String)> {
        check(name, source).words.into_iter().map(|finding| (finding.line, finding.found)).collect()
    }

    #[test]
    fn a_planted_word_is_found_with_its_line_and_what_to_write() {
        let findings = check("docs/a.md", "# Title\n\nA sentence, and\na folder.\n");
        let line = findings.words[0].to_string();
        assert_eq!(line, "docs/a.md:4: \"folder\" -> directory");
        assert_eq!(findings.words.len(), 1);
    }

    #[test]
    fn a_function_name_of_more_than_60_characters_is_found() {
        let (short, long) = ("a".repeat(60), "a".repeat(61));
        let source = format!("#[test]\nfn {short}() {{}}\n\npub(crate) fn {long}(x: u8) {{}}\n");
        let found: Vec<_> = long_names("a.rs", &source).into_iter().map(|f| (f.line, f.found)).collect();
        assert_eq!(found, [(4, long.clone())]);
        assert_eq!(long_names("a.py", &format!("    def {long}(self):\n")).len(), 1);
    }

    #[test]
    fn a_phrase_over_two_lines_is_found_at_the_first() {
        assert_eq!(words("docs/a.md", "It works all\nthe same.\n"), [(1, "all the same".to_owned())]);
    }

    #[test]
    fn code_in_markdown_is_exempt() {
        assert_eq!(words("docs/a.md", "`folder`\n```\nfolder\n```\n\n    folder\n"), []);
    }

    #[test]
    fn doc_comments_comments_and_messages_of_rust_are_read() {
        let source = "/// A folder.\nfn f() {\n    // A folder.\n    g(\"a folder\", \"folder\");\n}\n";
        let lines = |name| words(name, source).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines("crates/a/src/b.rs"), [1, 3, 4]);
        assert_eq!(lines("crates/a/tests/b.rs"), [1, 3]);
        assert_eq!(lines("xtask/src/b.rs"), [1, 3]);
    }

    #[test]
    fn words_before_and_after_may_allow_a_phrase() {
        let allowed = "A symbolic link, a file descriptor, a jail made of steps; it is left out.";
        assert_eq!(words("docs/a.md", allowed), []);
        let short_forms =
            "The dynamic loader is there. The loader follows a symbolic link, and the link is relative.";
        assert_eq!(words("docs/a.md", short_forms), []);
        let refused = "A link, a descriptor, a jail made for a VMM; it is left.";
        assert_eq!(words("docs/a.md", refused).len(), 4);
    }

    #[test]
    fn an_exception_holds_for_its_file_alone() {
        let source = "// About words.\n";
        assert_eq!(words("xtask/src/words/a.rs", source), []);
        assert_eq!(words("xtask/src/a.rs", source).len(), 1);
        assert_eq!(check("xtask/src/words/a.rs", source).exceptions[0], 1);
    }

    #[test]
    fn one_relative_clause_in_a_thousand_words_is_allowed() {
        let text = |count: usize| format!("{}. What it is.", "word ".repeat(count - 3));
        assert!(!check("docs/a.md", &text(1000)).documents.are_too_many());
        let few = check("docs/a.md", &text(999)).documents;
        assert!(few.are_too_many());
        assert_eq!(few.found[0].to_string(), "docs/a.md:1: \"What it is. …\" -> begin with a noun");
        let comment = check("crates/a/src/b.rs", "/// Whoever reads this.\nstruct A;\n");
        assert!(comment.doc_comments.are_too_many() && comment.documents.found.is_empty());
    }

    #[test]
    fn the_text_of_pictures_is_read_but_not_their_style() {
        let picture =
            "<svg>\n<style>.folder{}</style>\n<text class=\"folder\">a <tspan>folder</tspan></text>\n</svg>";
        assert_eq!(words("docs/img/a.svg", picture), [(3, "folder".to_owned())]);
    }

    #[test]
    fn descriptions_in_schemas_are_read() {
        assert_eq!(words("docs/schema/a.json", "{\n  \"description\": \"A folder.\"\n}\n").len(), 1);
    }
}
