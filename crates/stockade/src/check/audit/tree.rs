//! What is in a jail's tree, looked at from outside while its uid may change it at any moment.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType};
use serde::Serialize;

use crate::sys::jail_root::{INSIDE, JailRoot, open_directory};

/// How many entries are looked at: the jail's uid may make any number.
const MOST: usize = 20_000;

/// What is in a tree that deserves a look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TreeFacts {
    /// Device nodes.
    pub devices: Vec<Special>,
    /// Files that change the uid or gid of who executes them.
    pub set_id: Vec<Special>,
    /// Sockets.
    pub sockets: Vec<PathBuf>,
    /// Folders that the jail's uid may write to, or anybody.
    pub writable: Vec<PathBuf>,
    /// Whether there was more than is looked at.
    pub cut_off: bool,
}

/// A file that is no plain one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Special {
    /// Where it is, as the jail sees it.
    pub path: PathBuf,
    /// Whose it is.
    pub uid: u32,
    /// Whether it is a block device.
    pub block: bool,
    /// The numbers of a device.
    pub device: (u32, u32),
}

impl TreeFacts {
    /// Walks the tree, without the mounts in it that the VMM alone has.
    pub(crate) fn read(tree: &JailRoot) -> Self {
        let mut facts = Self::default();
        let owner = rustix::fs::fstat(tree.root()).map_or(u32::MAX, |stat| stat.st_uid);
        let mut left = MOST;
        let mut folders = vec![PathBuf::from(".")];
        while let Some(folder) = folders.pop() {
            // What has gone since it was seen, or leads elsewhere by now, is passed over.
            let Ok(opened) = open_directory(tree.root(), &folder, INSIDE) else { continue };
            facts.look_at(&opened, &folder, owner, &mut folders, &mut left);
        }
        facts.devices.sort_by(|one, other| one.path.cmp(&other.path));
        facts.set_id.sort_by(|one, other| one.path.cmp(&other.path));
        facts.sockets.sort();
        facts.writable.sort();
        facts
    }

    fn look_at(
        &mut self,
        opened: &OwnedFd,
        folder: &Path,
        owner: u32,
        folders: &mut Vec<PathBuf>,
        left: &mut usize,
    ) {
        let seen = |path: &Path| Path::new("/").join(path.strip_prefix(".").unwrap_or(path));
        if let Ok(stat) = rustix::fs::fstat(opened)
            && (stat.st_mode & 0o002 != 0 || stat.st_uid == owner && stat.st_mode & 0o200 != 0)
        {
            self.writable.push(seen(folder));
        }
        let Ok(entries) = Dir::read_from(opened) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if *left == 0 {
                self.cut_off = true;
                return;
            }
            *left -= 1;
            let Ok(stat) = rustix::fs::statat(opened.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let path = folder.join(name.to_string_lossy().as_ref());
            let kind = FileType::from_raw_mode(stat.st_mode);
            let special = || Special {
                path: seen(&path),
                uid: stat.st_uid,
                block: kind == FileType::BlockDevice,
                device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            };
            match kind {
                FileType::Directory => folders.push(path),
                FileType::Socket => self.sockets.push(seen(&path)),
                FileType::BlockDevice | FileType::CharacterDevice => self.devices.push(special()),
                FileType::RegularFile if stat.st_mode & 0o6000 != 0 => self.set_id.push(special()),
                _ => (),
            }
        }
    }
}
