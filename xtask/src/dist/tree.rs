//! Everything laid out as below `/usr` or `/usr/local`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::bom::Bom;
use super::build::Programs;
use super::{files_below, make_anew, read, write};
use crate::command::{Done, output, root};

/// Where the manual pages are.
pub(crate) const MANUAL: &str = "share/man/man1";

/// Where the documents are.
pub(crate) const DOCUMENTS: &str = "share/doc/stockade";

/// Where zsh looks for completions; Debian's looks elsewhere.
pub(crate) const ZSH: &str = "share/zsh/site-functions";

/// Lays everything out in a new directory.
pub(crate) fn lay_out(tree: &Path, programs: &Programs, bom: &Bom) -> Done {
    make_anew(tree)?;
    copy(&programs.stockade, &tree.join("bin/stockade"))?;
    // Not in bin: there it might be in the way of Firecracker's own.
    copy(&programs.jailer, &tree.join("lib/stockade/jailer"))?;
    completions(tree, &programs.stockade)?;
    output(
        std::process::Command::new(&programs.stockade).args(["man", "--write-to"]).arg(tree.join(MANUAL)),
    )?;
    let packaging = root().join("packaging");
    copy_all(&packaging.join("man"), &tree.join(MANUAL))?;
    copy_all(&packaging.join("systemd"), &tree.join("lib/systemd/system"))?;
    copy_all(&packaging.join("tmpfiles"), &tree.join("lib/tmpfiles.d"))?;
    let documents = tree.join(DOCUMENTS);
    for name in ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"] {
        copy(&root().join(name), &documents.join(name))?;
    }
    for name in ["docs", "examples"] {
        copy_all(&root().join(name), &documents.join(name))?;
    }
    write(&documents.join("stockade.cdx.json"), bom.document.as_bytes())?;
    write(&documents.join("THIRD-PARTY"), bom.licenses.as_bytes())?;
    set_modes(tree)
}

/// Each shell's script, where the shell looks for it.
fn completions(tree: &Path, stockade: &Path) -> Done {
    for (shell, path) in [
        ("bash", "share/bash-completion/completions/stockade".to_owned()),
        ("zsh", format!("{ZSH}/_stockade")),
        ("fish", "share/fish/vendor_completions.d/stockade.fish".to_owned()),
    ] {
        let script = output(std::process::Command::new(stockade).args(["completions", shell]))?;
        write(&tree.join(path), script.as_bytes())?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Done {
    let bytes = fs::read(from).map_err(|e| format!("read {}: {e}", from.display()))?;
    write(to, &bytes)
}

fn copy_all(from: &Path, to: &Path) -> Done {
    files_below(from)?.iter().try_for_each(|file| copy(&from.join(file), &to.join(file)))
}

/// The same for everyone who builds, whatever their umask: only programs can be executed.
fn set_modes(tree: &Path) -> Done {
    output(std::process::Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(tree))?;
    for file in files_below(tree)? {
        let path = tree.join(&file);
        let mode = if file.starts_with("bin") || file.starts_with("lib/stockade") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))
            .map_err(|e| format!("set the mode of {}: {e}", path.display()))?;
    }
    Ok(())
}

/// A template of `packaging` with its variables filled in.
pub(crate) fn filled(template: &str, words: &[(&str, &str)]) -> Done<String> {
    let text = read(&root().join("packaging").join(template))?;
    Ok(words.iter().fold(text, |text, (name, value)| text.replace(name, value)))
}
