//! A check of the documents: each command line in a block must parse.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::Cli;

#[test]
fn the_command_lines_of_the_documents_are_understood() {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a workspace above the crate");
    let mut seen = 0;
    for document in documents(workspace) {
        let text = std::fs::read_to_string(&document).expect("read a document");
        for line in command_lines(&text) {
            let arguments = shlex::split(&line).unwrap_or_else(|| panic!("{}: {line}", document.display()));
            // The shell takes the rest.
            let own =
                arguments.iter().take_while(|argument| !["|", ">", "&&", "||"].contains(&argument.as_str()));
            Cli::try_parse_from(own).unwrap_or_else(|e| panic!("{}: {line}: {e}", document.display()));
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen} command lines");
}

fn documents(workspace: &Path) -> Vec<PathBuf> {
    let directories = ["docs", "docs/guide/src"].map(|directory| workspace.join(directory));
    let files =
        directories.iter().flat_map(|directory| std::fs::read_dir(directory).expect("list documents"));
    let files = files.map(|file| file.expect("list documents").path());
    let markdown = files.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    markdown.chain([workspace.join("README.md")]).collect()
}

/// Command lines at the beginning of lines in fenced or indented blocks, with or without `$` and `sudo`.
///
/// Lines that are shown to fail, and lines with a command substitution, are omitted.
fn command_lines(text: &str) -> Vec<String> {
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    let mut fenced = false;
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let Some(line) = line.strip_prefix("    ").or(fenced.then_some(line)) else { continue };
        let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
        if !line.starts_with("stockade ") {
            continue;
        }
        let mut command = line.to_owned();
        loop {
            if let Some(more) = lines.next_if(|next| next.starts_with("> ")) {
                command.push_str(&more[1..]);
            } else if command.ends_with('\\') {
                command.pop();
                command.push_str(lines.next().unwrap_or_default());
            } else {
                break;
            }
        }
        let fails = lines.peek().is_some_and(|next| next.starts_with("? "));
        if !fails && !command.contains("$(") {
            found.push(command);
        }
    }
    found
}

#[test]
fn command_lines_are_found_in_blocks_alone() {
    let text = "stockade text\n    stockade ps  # those\n```console\n$ stockade run \\\n  --id a\nstockade: no\n\
                $ stockade ps\n? 1\n$ stockade rm\n> a\n```\nstockade ps\n";
    assert_eq!(command_lines(text), ["stockade ps  # those", "stockade run   --id a", "stockade rm a"]);
}
