//! The files in a jail's tree, examined from outside. The jail's uid can change the tree at any moment.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};
use serde::Serialize;

use crate::sys::directory_names::entries;
use crate::sys::jail_root::JailRoot;
use crate::sys::open::{INSIDE, open_directory};

/// The most entries to examine: the jail's uid can create any number.
const MOST: usize = 20_000;

/// The files in a tree that matter for confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TreeFacts {
    /// Device nodes.
    pub devices: Vec<Special>,
    /// Set-uid and set-gid files.
    pub set_id: Vec<Special>,
    /// Sockets.
    pub sockets: Vec<PathBuf>,
    /// Directories that the jail's uid, or every uid, can write to.
    pub writable: Vec<PathBuf>,
    /// Whether the tree has more files than are examined.
    pub cut_off: bool,
}

/// A device node, or a file with special mode bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Special {
    /// Its path in the jail.
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
        let mut left = MOST;
        let mut directories = vec![PathBuf::from(".")];
        while let Some(directory) = directories.pop() {
            // The jail's uid may have removed the directory, or replaced it by a symbolic link.
            let Ok(opened) = open_directory(tree.root(), &directory, INSIDE) else { continue };
            facts.read_directory(&opened, &directory, owner, &mut directories, &mut left);
        }
        facts.devices.sort_by(|one, other| one.path.cmp(&other.path));
        facts.set_id.sort_by(|one, other| one.path.cmp(&other.path));
        facts.sockets.sort();
        facts.writable.sort();
        facts
    }

    fn read_directory(
        &mut self,
        opened: &OwnedFd,
        directory: &Path,
        owner: u32,
        directories: &mut Vec<PathBuf>,
        left: &mut usize,
    ) {
        let in_jail = |path: &Path| Path::new("/").join(path.strip_prefix(".").unwrap_or(path));
        if let Ok(stat) = rustix::fs::fstat(opened)
            && (stat.st_mode & 0o002 != 0 || stat.st_uid == owner && stat.st_mode & 0o200 != 0)
        {
            self.writable.push(in_jail(directory));
        }
        let Ok(entries) = entries(opened.as_fd(), *left + 1) else { return };
        for name in entries.iter().map(|entry| &entry.name) {
            if *left == 0 {
                self.cut_off = true;
                return;
            }
            *left -= 1;
            let Ok(stat) = rustix::fs::statat(opened.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let path = directory.join(name.to_string_lossy().as_ref());
            let kind = FileType::from_raw_mode(stat.st_mode);
            let special = || Special {
                path: in_jail(&path),
                uid: stat.st_uid,
                block: kind == FileType::BlockDevice,
                device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            };
            match kind {
                FileType::Directory => directories.push(path),
                FileType::Socket => self.sockets.push(in_jail(&path)),
                FileType::BlockDevice | FileType::CharacterDevice => self.devices.push(special()),
                FileType::RegularFile if stat.st_mode & 0o6000 != 0 => self.set_id.push(special()),
                _ => (),
            }
        }
    }
}
