//! Checks the hyperlinks between the documents of the repository.

use std::fs;
use std::path::Path;

use crate::command::{Done, command, root};

/// Documents whose hyperlinks are names of Rust items, which rustdoc checks.
const OF_RUSTDOC: &str = "crates/stockade/docs/";

/// Checks that each relative hyperlink of a Markdown file has a file. The guide's headings are checked by its own task.
pub(crate) fn hyperlinks() -> Done {
    let listed = command("git", &["ls-files", "*.md"]).output().map_err(|e| format!("git ls-files: {e}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut broken = Vec::new();
    for name in listed.lines().filter(|name| !name.starts_with(OF_RUSTDOC)) {
        let file = root().join(name);
        let text = fs::read_to_string(&file).map_err(|e| format!("read {name}: {e}"))?;
        let lines = text.lines().zip(1..);
        let targets = lines.flat_map(|(line, number)| targets(line).map(move |target| (number, target)));
        for (line, target) in targets.filter(|(_, target)| !exists(&file, target)) {
            broken.push(format!("{name}:{line}: {target}"));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    Err(format!("hyperlinks of documents without a target:\n{}", broken.join("\n")))
}

/// The targets of the hyperlinks and pictures in a line of Markdown.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Whether a hyperlink is external, within its document, or leads to a file.
fn exists(document: &Path, target: &str) -> bool {
    let file = target.split(['#', ' ']).next().unwrap_or_default();
    file.is_empty() || file.contains("://") || document.with_file_name("").join(file).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hyperlink_without_a_file_is_found() {
        let readme = root().join("README.md");
        let found: Vec<_> =
            targets("[a](docs/none.md), ![b](docs/img), [c](https://x.org/y)[d](#there)").collect();
        let missing: Vec<_> = found.into_iter().filter(|target| !exists(&readme, target)).collect();
        assert_eq!(missing, ["docs/none.md"]);
    }
}
