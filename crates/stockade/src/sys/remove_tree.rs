//! Removal of a whole directory: bottom up, by file descriptor, never across a mount or through a symbolic link.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RawDir, RenameFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use crate::spec::HostPath;
use crate::sys::directory_names::is_dots;
use crate::sys::open::{INSIDE, open_directory};
use crate::sys::own_name::temporary_name;

/// The outcome of a removal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It was removed.
    Removed,
    /// It did not exist.
    NeverThere,
    /// It stays for this reason, because others use it too.
    Kept(String),
    /// The path that could not be removed, and the reason.
    Left(HostPath, String),
}

/// Removes the file or directory `name` in an open directory, with everything in it.
///
/// # Arguments
/// `at` is its path, for messages.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr, at: &HostPath) -> Removal {
    remove_with_progress(parent, name, at, &mut |_| ())
}

/// The same, and calls `on_removed` with the path of each removed file or directory.
pub(crate) fn remove_with_progress(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    at: &HostPath,
    on_removed: &mut dyn FnMut(&HostPath),
) -> Removal {
    let Ok(name) = CString::new(name.as_bytes()) else { return Removal::NeverThere };
    match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
        Ok(()) => {
            on_removed(at);
            return Removal::Removed;
        }
        Err(Errno::NOENT) => return Removal::NeverThere,
        Err(Errno::ISDIR) => (),
        Err(cause) => return Removal::Left(at.clone(), reason(cause)),
    }
    let mut sweep = Sweep { moved_up: 0, left: None, on_removed };
    sweep.directory(parent, &name, at, Depth::Top);
    match sweep.left {
        Some((path, why)) => Removal::Left(path, why),
        None => Removal::Removed,
    }
}

/// The depth from which directories are moved to the top before they are removed.
///
/// Every level of the recursion holds a file descriptor, and the jail's uid can nest thousands of directories.
const DEEPEST: u32 = 32;

/// How often a directory is read again because it was not empty.
const PASSES: u32 = 64;

/// The number of moved directories after which a removal fails: a process creates them as fast as they are removed.
const MOST_MOVED_UP: u32 = 1 << 20;

#[derive(Clone, Copy)]
enum Depth<'a> {
    /// The directory to be removed.
    Top,
    /// A directory below the top, with that and the number of levels.
    Below(BorrowedFd<'a>, u32),
}

struct Sweep<'t> {
    moved_up: u32,
    /// The first path that could not be removed, and the reason.
    left: Option<(HostPath, String)>,
    on_removed: &'t mut dyn FnMut(&HostPath),
}

impl Sweep<'_> {
    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, at: &HostPath, depth: Depth<'_>) {
        let resolve = INSIDE.union(ResolveFlags::NO_XDEV);
        let directory = match open_directory(parent, Path::new(OsStr::from_bytes(name.to_bytes())), resolve) {
            Ok(directory) => directory,
            // Replaced by something else: the next pass over the directory above finds that.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return,
            Err(cause) => return self.leave(at, cause),
        };
        let directory = std::os::fd::AsFd::as_fd(&directory);
        let below = match depth {
            Depth::Top => Depth::Below(directory, 1),
            Depth::Below(top, level) => Depth::Below(top, level + 1),
        };
        let mut passes = 0;
        while passes < PASSES && self.moved_up < MOST_MOVED_UP {
            let before = self.moved_up;
            self.contents(directory, at, below);
            match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) => return (self.on_removed)(at),
                Err(Errno::NOENT | Errno::NOTDIR) => return,
                Err(Errno::NOTEMPTY) if self.left.is_none() => (),
                Err(cause) => return self.leave(at, cause),
            }
            // The next pass reads it from its start.
            if let Err(cause) = rustix::fs::seek(directory, SeekFrom::Start(0)) {
                return self.leave(at, cause);
            }
            if before == self.moved_up {
                passes += 1;
            }
        }
        self.leave(at, Errno::NOTEMPTY);
    }

    fn contents(&mut self, directory: BorrowedFd<'_>, at: &HostPath, depth: Depth<'_>) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let (name, kind) = match entry {
                Ok(entry) => (entry.file_name().to_owned(), entry.file_type()),
                // Another process has removed the directory itself.
                Err(Errno::NOENT) => return,
                Err(cause) => return self.leave(at, cause),
            };
            if !is_dots(&name) {
                self.entry(directory, &name, kind, &at.join(OsStr::from_bytes(name.to_bytes())), depth);
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
        // If the entry was replaced since it was listed, the next pass finds that.
        let unlinked = match kind {
            FileType::Directory => Err(Errno::ISDIR),
            _ => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        };
        match (unlinked, depth) {
            (Ok(()), _) => (self.on_removed)(at),
            (Err(Errno::NOENT), _) => (),
            (Err(Errno::ISDIR), Depth::Below(top, DEEPEST)) => self.move_up(parent, name, top, at),
            (Err(Errno::ISDIR), _) => self.directory(parent, name, at, depth),
            (Err(cause), _) => self.leave(at, cause),
        }
    }

    /// Renames a deep directory into the top one, where the next pass finds it.
    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, at: &HostPath) {
        self.moved_up += 1;
        let new_name = temporary_name(format_args!("deep-{}-{}", std::process::id(), self.moved_up));
        match rustix::fs::renameat_with(parent, name, top, new_name, RenameFlags::NOREPLACE) {
            // If the name exists, the next pass tries the next number.
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
