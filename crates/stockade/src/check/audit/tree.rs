//! The files in a jail's tree, examined from outside. The jail's uid can change the tree at any moment.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use serde::Serialize;
use stockade_syscalls::descriptors::fd_path;

use crate::check::walk::{Found, Gaps, Next, WalkPath, walk};
use crate::sys::file_id::FileId;
use crate::sys::jail_root::JailRoot;
use crate::sys::open::open_path;

/// The most entries to examine: the jail's uid can create any number.
pub(super) const MOST: usize = 20_000;

/// The most bytes of paths to list: the jail's uid can nest directories to any depth.
const MOST_BYTES: usize = 8 << 20;

/// The files in a tree that matter for confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TreeFacts {
    /// Device nodes.
    pub devices: Vec<Special>,
    /// Set-uid and set-gid files.
    pub set_id: Vec<Special>,
    /// Files with capabilities (`security.capability`) that hold outside of a user namespace too.
    pub capable: Vec<Special>,
    /// Sockets.
    pub sockets: Vec<PathBuf>,
    /// Directories that the jail's uid, or every uid, can write to.
    pub writable: Vec<PathBuf>,
    /// Whether the tree has more files than are examined.
    pub cut_off: bool,
    /// The first paths that could not be read, each with its cause.
    pub unread: Vec<String>,
    /// The number of paths that could not be read.
    pub unread_count: usize,
}

/// A device node, or a file with special mode bits or capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Special {
    /// Its path in the jail. Bytes that are not UTF-8 are written as `\xNN`.
    pub path: PathBuf,
    /// Its owner.
    pub uid: u32,
    /// Whether it is a block device.
    pub block: bool,
    /// The major and minor number of a device.
    pub device: (u32, u32),
}

impl TreeFacts {
    /// Walks the tree as the host sees it: without the mounts that exist only in the VMM's mount namespace.
    pub(crate) fn read(tree: &JailRoot) -> Self {
        let mut facts = Self::default();
        let owner = rustix::fs::fstat(tree.root()).map_or(u32::MAX, |stat| stat.st_uid);
        let mut bytes_left = MOST_BYTES;
        let gaps = walk(tree.root(), MOST, &mut |found, path, gaps| {
            for list in lists_of(found, owner, path, gaps) {
                let text = path.text();
                let Some(left) = bytes_left.checked_sub(text.len()) else { return Next::Stop };
                bytes_left = left;
                facts.add(list, found, text.into());
            }
            Next::Continue
        });
        (facts.cut_off, facts.unread, facts.unread_count) = (gaps.cut_off, gaps.unread, gaps.unread_count);
        let by_path = |one: &Special, other: &Special| one.path.cmp(&other.path);
        facts.devices.sort_by(by_path);
        facts.set_id.sort_by(by_path);
        facts.capable.sort_by(by_path);
        facts.sockets.sort();
        facts.writable.sort();
        facts
    }

    fn add(&mut self, list: List, found: &Found<'_>, path: PathBuf) {
        let (Found::Directory(stat) | Found::File(_, _, stat)) = *found;
        let special = |path| Special {
            path,
            uid: stat.st_uid,
            block: kind_of(stat) == FileType::BlockDevice,
            device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        };
        match list {
            List::Devices => self.devices.push(special(path)),
            List::SetId => self.set_id.push(special(path)),
            List::Capable => self.capable.push(special(path)),
            List::Sockets => self.sockets.push(path),
            List::Writable => self.writable.push(path),
        }
    }
}

/// A list of [`TreeFacts`].
#[derive(Clone, Copy)]
enum List {
    Devices,
    SetId,
    Capable,
    Sockets,
    Writable,
}

/// The lists that a file or directory belongs to.
fn lists_of(found: &Found<'_>, owner: u32, path: &WalkPath, gaps: &mut Gaps) -> Vec<List> {
    let mut lists = Vec::new();
    match *found {
        Found::Directory(stat) => {
            if stat.st_mode & 0o002 != 0 || stat.st_uid == owner && stat.st_mode & 0o200 != 0 {
                lists.push(List::Writable);
            }
        }
        Found::File(directory, name, stat) => match kind_of(stat) {
            FileType::Socket => lists.push(List::Sockets),
            FileType::BlockDevice | FileType::CharacterDevice => lists.push(List::Devices),
            FileType::RegularFile => {
                if stat.st_mode & 0o6000 != 0 {
                    lists.push(List::SetId);
                }
                match has_capabilities(directory, name, stat) {
                    Ok(true) => lists.push(List::Capable),
                    Ok(false) => (),
                    Err(cause) => gaps.add(&path.text(), cause),
                }
            }
            _ => (),
        },
    }
    lists
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether a regular file gives capabilities to a process that executes it. Those of a user namespace hold only there,
/// and an unprivileged process can set them.
fn has_capabilities(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<bool, Errno> {
    let file = match open_path(directory, name) {
        Ok(file) => file,
        // The owner of the tree has removed or replaced it.
        Err(Errno::NOENT | Errno::LOOP) => return Ok(false),
        Err(cause) => return Err(cause),
    };
    if FileId::of(file.as_fd())? != FileId::from(stat) {
        return Ok(false);
    }
    // Through `/proc`: an `O_PATH` file descriptor has no attributes, and opening the file could have effects.
    let mut value = [0; 64];
    match rustix::fs::getxattr(fd_path(&file), "security.capability", &mut value) {
        Ok(length) => Ok(holds_outside(&value[..length])),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Whether capabilities in the kernel's format hold outside of a user namespace.
fn holds_outside(value: &[u8]) -> bool {
    const REVISION: u32 = 0xff00_0000;
    const OF_A_NAMESPACE: u32 = 0x0300_0000;
    let number = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    match (number(0).map(|magic| magic & REVISION), number(20)) {
        (Some(OF_A_NAMESPACE), Some(root)) => root == 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_a_user_namespace_hold_only_there() {
        let value = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        assert!(holds_outside(&value(&[0x0200_0001, 2, 0, 0, 0])));
        assert!(holds_outside(&value(&[0x0300_0001, 2, 0, 0, 0, 0])));
        assert!(!holds_outside(&value(&[0x0300_0001, 2, 0, 0, 0, 1234])));
        // A format that is not known counts.
        assert!(holds_outside(&value(&[0x0400_0000])) && holds_outside(&[]));
    }
}
