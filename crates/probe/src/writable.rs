//! The directories that this process may write.

use rustix::fs::{Access, AtFlags, CWD};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// How far below the top directories are looked for.
const DEPTH: usize = 3;

/// Whether the real uid may make files in a directory, as far as the kernel tells without trying.
pub(crate) fn is_writable(directory: &Path) -> bool {
    rustix::fs::accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty()).is_ok()
}

/// The writable directories among `top` and those at most three below it, sorted. Links are not followed,
/// and what is below a directory that cannot be read is not seen.
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
