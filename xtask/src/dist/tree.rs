//! The tree of packed files, laid out as below `/usr` or `/usr/local`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::bom::Bom;
use super::build::Programs;
use super::{files_below, read, recreate, write};
use crate::command::{Done, output, root};

/// The directory of manual pages.
pub(crate) const MANUAL: &str = "share/man/man1";

/// The directory of documents.
pub(crate) const DOCUMENTS: &str = "share/doc/stockade";

/// The directory of zsh's completions; Debian has another.
pub(crate) const ZSH: &str = "share/zsh/site-functions";

/// Lays out the files in a recreated directory.
pub(crate) fn lay_out(tree: &Path, programs: &Programs, bom: &Bom) -> Done {
    recreate(tree)?;
    copy(&programs.stockade, &tree.join("bin/stockade"))?;
    // Not in bin, where it could replace Firecracker's jailer.
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

/// Writes each shell's completions into the shell's directory.
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

/// Sets fixed modes, regardless of the builder's umask: only programs are executable.
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

/// A template of `packaging` with its values filled in.
pub(crate) fn filled(template: &str, values: &[(&str, &str)]) -> Done<String> {
    let text = read(&root().join("packaging").join(template))?;
    Ok(values.iter().fold(text, |text, (name, value)| text.replace(name, value)))
}
