//! The jails that use a named network namespace: a list in the file under its mount.
//!
//! Each line has the mark of a receipt and the id of its jail. The namespace is removed with the last line. A file without
//! such a line belongs to another program.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

use crate::spec::{NETNS_DIRECTORY, NetnsName};
use crate::sys::flock;
use crate::sys::open::open_directory;

/// The beginning of every line.
const MARKED: &str = "stockade ";

/// The longest list that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A jail in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetnsUser {
    /// The name that belongs to the jail's receipt alone.
    pub(crate) mark: String,
    /// The jail's id; empty in a file of version 0.1.
    pub(crate) id: String,
}

impl NetnsUser {
    pub(crate) fn line(&self) -> String {
        format!("{MARKED}{} {}\n", self.mark, self.id)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(MARKED)?.split(' ');
        let mark = words.next().filter(|mark| !mark.is_empty())?.to_owned();
        Some(Self { mark, id: words.next().unwrap_or_default().to_owned() })
    }
}

/// The locked list of a namespace.
#[derive(Debug)]
pub(crate) struct NetnsUsers {
    file: File,
    /// Its jails; none if another program created the namespace.
    pub(crate) users: Vec<NetnsUser>,
}

impl NetnsUsers {
    /// Opens and locks the list of a namespace.
    ///
    /// # Errors
    /// Returns ENOENT if there is no namespace of this name, EINVAL if its file is not a file, and any other errno of the
    /// calls on the way.
    pub(crate) fn lock(directory: &OwnedFd, name: &str) -> Result<Self, Errno> {
        let file = below(directory, name, OFlags::RDWR)?;
        flock::lock(&file)?;
        // The last jail may have removed it before it was locked here.
        if rustix::fs::fstat(&file)?.st_nlink == 0 {
            return Err(Errno::NOENT);
        }
        let users = read(&file)?;
        Ok(Self { file, users })
    }

    /// Adds a jail, unless it is there.
    pub(crate) fn add(&mut self, user: NetnsUser) -> Result<(), Errno> {
        if !self.users.iter().any(|one| one.mark == user.mark) {
            self.users.push(user);
            self.write()?;
        }
        Ok(())
    }

    /// Removes a jail.
    pub(crate) fn remove(&mut self, mark: &str) -> Result<(), Errno> {
        self.users.retain(|user| user.mark != mark);
        self.write()
    }

    /// Writes the list over itself. A kill on the way leaves lines twice, or the end of a line, which is none.
    fn write(&self) -> Result<(), Errno> {
        let text: String = self.users.iter().map(NetnsUser::line).collect();
        let written = rustix::io::pwrite(&self.file, text.as_bytes(), 0)?;
        if written != text.len() {
            return Err(Errno::NOSPC);
        }
        rustix::fs::ftruncate(&self.file, text.len() as u64)
    }
}

/// The jails that use a namespace; none if it does not exist, or if another program created it.
pub(crate) fn users_of(name: &NetnsName) -> Vec<NetnsUser> {
    let directory = open_directory(CWD, Path::new(NETNS_DIRECTORY), ResolveFlags::empty());
    let file = directory.and_then(|directory| below(&directory, name.as_str(), OFlags::RDONLY));
    file.and_then(|file| read(&file)).unwrap_or_default()
}

/// Opens the file under the mount, through a clone of the directory without the mounts below it.
fn below(directory: &OwnedFd, name: &str, access: OFlags) -> Result<File, Errno> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let bare = rustix::mount::open_tree(directory, c"", flags)?;
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(bare.as_fd(), name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(Errno::INVAL),
    }
}

fn read(file: &File) -> Result<Vec<NetnsUser>, Errno> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut users: Vec<NetnsUser> = text.lines().filter_map(NetnsUser::parse).collect();
    users.dedup_by(|one, other| one.mark == other.mark);
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_versions_are_parsed() {
        let user = |mark: &str, id: &str| Some(NetnsUser { mark: mark.to_owned(), id: id.to_owned() });
        assert_eq!(NetnsUser::parse("stockade .stockade-1"), user(".stockade-1", ""));
        assert_eq!(NetnsUser::parse("stockade .stockade-1 vm"), user(".stockade-1", "vm"));
        for line in ["", "stockade ", "ade .stockade-1 vm", "ip netns"] {
            assert_eq!(NetnsUser::parse(line), None, "{line:?}");
        }
    }
}
