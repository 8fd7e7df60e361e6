//! Removal of a whole directory: bottom up, by descriptor, never across a mount, never through a link.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RawDir, RenameFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use crate::spec::HostPath;
use crate::sys::directory_names::is_dots;
use crate::sys::jail_root::{INSIDE, open_directory};

/// What became of something that was to be removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It is gone.
    Removed,
    /// It was not there.
    NeverThere,
    /// It serves others too, and stays for this reason.
    Kept(String),
    /// Some of it is still there: where, and why.
    Left(HostPath, String),
}

/// Removes the entry `name` of an open directory, with everything in it. `at` is its path, for messages.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr, at: &HostPath) -> Removal {
    remove_with_progress(parent, name, at, &mut |_| ())
}

/// The same, telling of each thing that is gone.
pub(crate) fn remove_with_progress(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    at: &HostPath,
    tell: &mut dyn FnMut(&HostPath),
) -> Removal {
    let Ok(name) = CString::new(name.as_bytes()) else { return Removal::NeverThere };
    match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
        Ok(()) => {
            tell(at);
            return Removal::Removed;
        }
        Err(Errno::NOENT) => return Removal::NeverThere,
        Err(Errno::ISDIR) => (),
        Err(cause) => return Removal::Left(at.clone(), reason(cause)),
    }
    let mut sweep = Sweep { brought_up: 0, left: None, tell };
    sweep.folder(parent, &name, at, Depth::Top);
    match sweep.left {
        Some((path, why)) => Removal::Left(path, why),
        None => Removal::Removed,
    }
}

/// How deep a removal descends before it brings what is deeper up to the top: every level holds a
/// descriptor, and the jail's uid may have nested folders by the thousand.
const DEEPEST: u32 = 32;

/// How often a folder is read again because something was in it after all.
const PASSES: u32 = 64;

/// How many deep folders are brought up before a removal is given up: somebody is making them as fast.
const MOST_BROUGHT_UP: u32 = 1 << 20;

#[derive(Clone, Copy)]
enum Depth<'a> {
    /// The folder that is being removed.
    Top,
    /// So many levels below it.
    Below(BorrowedFd<'a>, u32),
}

struct Sweep<'t> {
    brought_up: u32,
    /// The first thing that could not be removed.
    left: Option<(HostPath, String)>,
    /// Reported of each thing that is gone.
    tell: &'t mut dyn FnMut(&HostPath),
}

impl Sweep<'_> {
    fn folder(&mut self, parent: BorrowedFd<'_>, name: &CStr, at: &HostPath, depth: Depth<'_>) {
        let resolve = INSIDE.union(ResolveFlags::NO_XDEV);
        let folder = match open_directory(parent, Path::new(OsStr::from_bytes(name.to_bytes())), resolve) {
            Ok(folder) => folder,
            // Swapped for something else meanwhile: the next pass over the folder above finds that.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return,
            Err(cause) => return self.leave(at, cause),
        };
        let folder = std::os::fd::AsFd::as_fd(&folder);
        let below = match depth {
            Depth::Top => Depth::Below(folder, 1),
            Depth::Below(top, level) => Depth::Below(top, level + 1),
        };
        let mut passes = 0;
        while passes < PASSES && self.brought_up < MOST_BROUGHT_UP {
            let before = self.brought_up;
            self.contents(folder, at, below);
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) => return (self.tell)(at),
                Err(Errno::NOENT | Errno::NOTDIR) => return,
                Err(Errno::NOTEMPTY) if self.left.is_none() => (),
                Err(cause) => return self.leave(at, cause),
            }
            // To be read once more from its beginning.
            if let Err(cause) = rustix::fs::seek(folder, SeekFrom::Start(0)) {
                return self.leave(at, cause);
            }
            if before == self.brought_up {
                passes += 1;
            }
        }
        self.leave(at, Errno::NOTEMPTY);
    }

    fn contents(&mut self, folder: BorrowedFd<'_>, at: &HostPath, depth: Depth<'_>) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let (name, kind) = match entry {
                Ok(entry) => (entry.file_name().to_owned(), entry.file_type()),
                // Somebody has removed the folder itself.
                Err(Errno::NOENT) => return,
                Err(cause) => return self.leave(at, cause),
            };
            if !is_dots(&name) {
                self.entry(folder, &name, kind, &at.join(OsStr::from_bytes(name.to_bytes())), depth);
            }
        }
    }

    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
        at: &HostPath,
        depth: Depth<'_>,
    ) {
        // What has become something else since it was listed is found by the next pass.
        let unlinked = match kind {
            FileType::Directory => Err(Errno::ISDIR),
            _ => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        };
        match (unlinked, depth) {
            (Ok(()), _) => (self.tell)(at),
            (Err(Errno::NOENT), _) => (),
            (Err(Errno::ISDIR), Depth::Below(top, DEEPEST)) => self.bring_up(parent, name, top, at),
            (Err(Errno::ISDIR), _) => self.folder(parent, name, at, depth),
            (Err(cause), _) => self.leave(at, cause),
        }
    }

    /// Renames a deep folder into the top one, where the next pass finds it.
    fn bring_up(&mut self, parent: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, at: &HostPath) {
        self.brought_up += 1;
        let fresh = format!(".stockade-deep-{}-{}", std::process::id(), self.brought_up);
        match rustix::fs::renameat_with(parent, name, top, fresh, RenameFlags::NOREPLACE) {
            // A name that is taken is tried again by the next pass, with the next number.
            Ok(()) | Err(Errno::NOENT | Errno::EXIST) => (),
            Err(cause) => self.leave(at, cause),
        }
    }

    fn leave(&mut self, at: &HostPath, cause: Errno) {
        self.left.get_or_insert((at.clone(), reason(cause)));
    }
}

fn reason(cause: Errno) -> String {
    match cause {
        Errno::XDEV | Errno::BUSY => "something is mounted there".to_owned(),
        other => other.to_string(),
    }
}
