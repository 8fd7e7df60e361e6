//! The directories that this process can write to.

use rustix::fs::{Access, AtFlags, CWD};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The depth of the search.
const DEPTH: usize = 3;

/// Whether the real uid can create files in a directory, as reported by `faccessat`.
pub(crate) fn is_writable(directory: &Path) -> bool {
    rustix::fs::accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).is_ok()
}

/// Lists the writable directories from `top` down to three levels below it, sorted.
///
/// Symbolic links are not followed, and directories below an unreadable one are not found.
pub(crate) fn directories(top: &Path) -> Vec<String> {
    let mut level = vec![top.to_owned()];
    let mut all = level.clone();
    for _ in 0..DEPTH {
        level = level.iter().flat_map(|directory| subdirectories(directory).unwrap_or_default()).collect();
        all.extend_from_slice(&level);
    }
    let mut writable: Vec<String> =
        all.iter().filter(|path| is_writable(path)).map(|path| path.display().to_string()).collect();
    writable.sort_unstable();
    writable
}

fn subdirectories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.filter_map(Result::ok);
    Ok(entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}
