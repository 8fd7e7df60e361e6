//! Every test that a document names exists, so that each promise has a test.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The tests of all crates, as `file::function`.
fn tests() -> Vec<String> {
    let mut all = Vec::new();
    let mut left: Vec<PathBuf> = std::fs::read_dir(repository().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("tests"))
        .filter(|path| path.is_dir())
        .collect();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                let mut is_test = false;
                for line in text.lines().map(str::trim) {
                    if let Some(rest) = line.strip_prefix("fn ").filter(|_| is_test) {
                        all.push(format!("{file}::{}", rest.split('(').next().unwrap()));
                    }
                    is_test = line.starts_with("#[test]") || (is_test && line.starts_with("#["));
                }
            }
        }
    }
    all
}

/// The names in a document that have the form of a test.
fn named_in(document: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join(document)).unwrap();
    let names = text.split('`').skip(1).step_by(2);
    let is_test = |name: &&str| {
        name.split_once("::").is_some_and(|(file, test)| {
            let plain =
                |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            plain(file) && plain(test) && test.contains('_')
        })
    };
    names.filter(is_test).map(str::to_owned).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let tests = tests();
    assert!(tests.len() > 300, "{}", tests.len());
    for (document, least) in
        [("SECURITY.md", 30), ("docs/jailer-differences.md", 25), ("docs/inherited-state.md", 1)]
    {
        let named = named_in(document);
        assert!(named.len() >= least, "{document}: {}", named.len());
        let missing: Vec<&String> = named.iter().filter(|name| !tests.contains(name)).collect();
        assert!(missing.is_empty(), "{document}: {missing:?}");
    }
}

#[test]
fn every_promise_names_its_test() {
    let text = std::fs::read_to_string(repository().join("SECURITY.md")).unwrap();
    let promises = text.split("## Promises").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = promises.lines().filter(|line| line.starts_with("| ")).collect();
    let rows: Vec<&&str> = rows.iter().filter(|line| !line.starts_with("| promise")).collect();
    assert!(rows.len() >= 15);
    for row in rows {
        let held_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(held_by.starts_with('`') && held_by.contains("::"), "{row}");
    }
}
