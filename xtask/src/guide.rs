//! Builds the guide, an mdBook, and checks its hyperlinks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Done, command, root, run};
use crate::setup;

/// Builds the guide to `target/guide` without the network, and checks that its hyperlinks have targets.
pub(crate) fn guide() -> Done {
    setup::mdbook()?;
    run(&mut command("mdbook", &["build", "docs/guide"]))?;
    let book = root().join("target/guide");
    let pages: Vec<PathBuf> = files(&book)?.into_iter().filter(|path| is_page(path)).collect();
    let mut broken = BTreeSet::new();
    for page in &pages {
        let html = read(page)?;
        let hyperlinks = ["href=\"", "src=\""].iter().flat_map(|attribute| html.split(attribute).skip(1));
        for hyperlink in hyperlinks.filter_map(|rest| rest.split('"').next()) {
            if !has_target(page, hyperlink) {
                let name = page.strip_prefix(&book).unwrap_or(page);
                broken.insert(format!("{}: {hyperlink}", name.display()));
            }
        }
    }
    if !broken.is_empty() {
        let lines: Vec<String> = broken.into_iter().collect();
        return Err(format!("hyperlinks of the guide without a target:\n{}", lines.join("\n")));
    }
    eprintln!("guide: {} pages in {}", pages.len(), book.display());
    Ok(())
}

/// Whether a file is a page of the guide. `print.html` repeats all pages with other hyperlinks.
fn is_page(path: &Path) -> bool {
    let own = ["print.html", "404.html", "toc.html"];
    path.extension().is_some_and(|kind| kind == "html") && !own.iter().any(|name| path.ends_with(name))
}

/// Whether a hyperlink is external, or has a file and a heading in the book.
fn has_target(page: &Path, hyperlink: &str) -> bool {
    if hyperlink.is_empty() || hyperlink.contains("://") || hyperlink.starts_with("data:") {
        return true;
    }
    let (file, anchor) = hyperlink.split_once('#').unwrap_or((hyperlink, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
    let id = format!("id=\"{anchor}\"");
    fs::read(&target).is_ok_and(|bytes| anchor.is_empty() || String::from_utf8_lossy(&bytes).contains(&id))
}

fn files(directory: &Path) -> Done<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(|e| format!("read {}: {e}", directory.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

fn read(path: &Path) -> Done<String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}
