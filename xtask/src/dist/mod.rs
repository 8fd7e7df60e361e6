//! The release files: an archive, a Debian package, a bill of materials, and checksums.
//!
//! The same sources and tools give the same bytes at any place and time; `dist --twice` checks that.

mod archive;
mod bom;
mod build;
mod debian;
mod release;
mod tree;
mod twice;

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Done, command, output, root};
use build::Programs;
use release::Release;
pub(crate) use twice::twice;

/// The created files, in a directory of their own.
pub(crate) struct Dist {
    pub(crate) directory: PathBuf,
    /// The Debian package.
    pub(crate) package: PathBuf,
    /// The tree of packed files.
    pub(crate) tree: PathBuf,
}

/// Builds the programs and packs them into `target/packages`.
pub(crate) fn dist() -> Done {
    // Not target/dist, which is cargo's directory for the profile.
    let dist = pack(&root().join("target/packages"))?;
    eprintln!("{}", fs::read_to_string(dist.directory.join(SUMS)).unwrap_or_default().trim_end());
    eprintln!("all in {}", dist.directory.display());
    Ok(())
}

/// Builds the programs and packs them into a recreated directory.
///
/// # Arguments
/// `directory`: the directory of the results. The tree of packed files is created beside it, with the suffix `.tree`.
pub(crate) fn pack(directory: &Path) -> Done<Dist> {
    let programs = Programs::build()?;
    let release = Release::of_this_tree()?;
    recreate(directory)?;
    let bom = bom::of(&build::PACKAGES, &release)?;
    write(&directory.join(format!("{}.cdx.json", release.name())), bom.document.as_bytes())?;
    let tree = directory.with_extension("tree");
    tree::lay_out(&tree, &programs, &bom)?;
    archive::pack(&tree, directory, &release)?;
    let package = debian::pack(&tree, directory, &release)?;
    write_sums(directory)?;
    Ok(Dist { directory: directory.to_owned(), package, tree })
}

/// The name of the file of checksums.
const SUMS: &str = "SHA256SUMS";

fn write_sums(directory: &Path) -> Done {
    let names = files_below(directory)?;
    let sums = output(command("sha256sum", &["--"]).args(&names).current_dir(directory))?;
    write(&directory.join(SUMS), sums.as_bytes())
}

/// Creates an empty directory, and removes an existing one first.
fn recreate(directory: &Path) -> Done {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(|e| format!("remove {}: {e}", directory.display()))?;
    }
    fs::create_dir_all(directory).map_err(|e| format!("create {}: {e}", directory.display()))
}

/// Writes a file, and creates its directory if necessary.
fn write(path: &Path, content: &[u8]) -> Done {
    let failed = |e| format!("write {}: {e}", path.display());
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
    fs::write(path, content).map_err(failed)
}

fn read(path: &Path) -> Done<String> {
    fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))
}

/// The relative paths of the files below a directory, sorted.
fn files_below(directory: &Path) -> Done<Vec<PathBuf>> {
    let found = output(command("find", &["-type", "f", "-printf", "%P\\n"]).current_dir(directory))?;
    let mut files: Vec<PathBuf> = found.lines().map(PathBuf::from).collect();
    files.sort();
    Ok(files)
}
