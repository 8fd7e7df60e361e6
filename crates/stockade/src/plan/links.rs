//! Symbolic links on the way to a source, which the uid of a jail may have created.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::error::{Context, Operation, PlacementError, Result};
use crate::spec::SpecError;

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// Refuses a path that leads through a symbolic link of another owner than `may_be_of` accepts: root would follow it to
/// any file of the host.
///
/// # Errors
/// Returns [`PlacementError::ForeignLink`] with that symbolic link, or [`SpecError::NotFound`] if the path cannot be followed.
pub(crate) fn expect_links(path: &Path, may_be_of: impl Fn(u32) -> bool) -> Result<()> {
    let not_found = |cause| SpecError::NotFound(path.to_owned(), cause);
    let mut rest = std::path::absolute(path).map_err(|_| not_found(Errno::INVAL))?;
    for _ in 0..=MOST_LINKS {
        let Some((link, owner)) = first_link(&rest).map_err(not_found)? else { return Ok(()) };
        if !may_be_of(owner) {
            return Err(PlacementError::ForeignLink(path.to_owned(), link).into());
        }
        let target = std::fs::read_link(&link).context(Operation::Read, link.display())?;
        let behind = rest.strip_prefix(&link).unwrap_or(Path::new("")).to_owned();
        let above = link.parent().unwrap_or(Path::new("/"));
        // An absolute target replaces the directory.
        rest = above.join(target);
        if !behind.as_os_str().is_empty() {
            rest.push(behind);
        }
    }
    Err(not_found(Errno::LOOP).into())
}

/// The first symbolic link on a path, with its owner.
fn first_link(path: &Path) -> std::result::Result<Option<(PathBuf, u32)>, Errno> {
    let mut ways: Vec<&Path> = path.ancestors().collect();
    ways.reverse();
    for way in ways {
        let facts = rustix::fs::lstat(way)?;
        if FileType::from_raw_mode(facts.st_mode) == FileType::Symlink {
            return Ok(Some((way.to_owned(), facts.st_uid)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_one_by_one() {
        let directory = std::env::temp_dir().join(format!("stockade-links-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("create a directory");
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, directory.join(name)).expect("create a link");
        };
        std::fs::create_dir(directory.join("d")).expect("create a directory");
        std::fs::write(directory.join("d/file"), "").expect("write a file");
        link("d", "relative");
        link(&directory.join("relative").display().to_string(), "absolute");
        link("loop", "loop");
        let own = rustix::process::geteuid().as_raw();
        let of = |name: &str, accept: bool| expect_links(&directory.join(name), |uid| accept && uid == own);
        let results = [
            of("d/file", false).is_ok(),
            of("absolute/file", true).is_ok(),
            of("relative/../d/file", true).is_ok(),
            of("absolute/file", false).is_err(),
            of("loop", true).is_err(),
            of("d/none", true).is_err(),
        ];
        std::fs::remove_dir_all(&directory).expect("remove the directory");
        assert_eq!(results, [true; 6]);
    }
}
