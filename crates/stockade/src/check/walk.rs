//! A walk through a tree that another user may change at any moment.
//!
//! The walk holds one directory open at a time, so neither depth nor the length of a path limits it. It goes down with
//! `openat2`, by one name at a time, and up through `..`, whose identity it compares with the directory that it came
//! from.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::spec::Reason;
use crate::sys::directory_names::entries;
use crate::sys::file_id::FileId;
use crate::sys::open::{INSIDE, open_directory};

/// A file or directory that the walk found.
pub(super) enum Found<'w> {
    /// An open directory, before its entries.
    Directory(&'w Stat),
    /// An entry that is no directory: the directory that it is in, its name, its attributes.
    File(BorrowedFd<'w>, &'w CStr, &'w Stat),
}

/// What a walk did not see.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// Whether the tree has more entries than the walk may examine.
    pub(super) cut_off: bool,
    /// The first paths that could not be read, each with its cause.
    pub(super) unread: Vec<String>,
    /// The number of these paths.
    pub(super) unread_count: usize,
}

impl Gaps {
    /// The most paths to list.
    const MOST: usize = 8;

    pub(super) fn add(&mut self, path: &str, cause: Errno) {
        self.unread_count += 1;
        if self.unread.len() < Self::MOST {
            self.unread.push(format!("{path}: {}", Reason(cause)));
        }
    }
}

/// What the callback wants next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Continue,
    /// End the walk, which then counts as cut off.
    Stop,
}

/// Called with each found file and its path.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&Found<'_>, &WalkPath, &mut Gaps) -> Next;

/// The path of a found file, from the top of the walk.
#[derive(Debug, Default)]
pub(super) struct WalkPath(Vec<u8>);

impl WalkPath {
    /// The most bytes of a path in a text.
    const LONGEST: usize = 4096;
    /// The bytes that a longer path keeps at each end.
    const KEPT: usize = 512;

    /// The path as a text that begins with `/`. Bytes that are not UTF-8 are written as `\xNN`. The middle of a path that
    /// is longer than any system call accepts is left out.
    pub(super) fn text(&self) -> String {
        let path = &self.0;
        match path.len() {
            0 => "/".to_owned(),
            length if length > Self::LONGEST => format!(
                "{}…({} bytes)…{}",
                escaped(&path[..Self::KEPT]),
                length - 2 * Self::KEPT,
                escaped(&path[length - Self::KEPT..])
            ),
            _ => escaped(path),
        }
    }

    fn push(&mut self, name: &CStr) {
        self.0.push(b'/');
        self.0.extend_from_slice(name.to_bytes());
    }
}

/// A text with `\xNN` for bytes that are not UTF-8.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

/// A directory on the way from the top to the open directory.
struct Level {
    name: CString,
    identity: FileId,
    /// The length of its path.
    length: usize,
    /// Its subdirectories that are still to be read.
    pending: Vec<CString>,
}

struct Walk<'v> {
    visit: Visit<'v>,
    left: usize,
    path: WalkPath,
    gaps: Gaps,
    stopped: bool,
    /// How often the way down is searched again after a directory was moved.
    searches_left: u32,
}

/// The number of moved directories after which the walk ends: a process moves them all the time.
const MOST_SEARCHES: u32 = 64;

/// Calls back for the directory `top` and everything below it, at most `most` entries.
pub(super) fn walk(top: BorrowedFd<'_>, most: usize, visit: Visit<'_>) -> Gaps {
    let (path, gaps) = (WalkPath::default(), Gaps::default());
    let mut walk = Walk { visit, left: most, path, gaps, stopped: false, searches_left: MOST_SEARCHES };
    walk.run(top);
    walk.gaps
}

impl Walk<'_> {
    fn run(&mut self, top: BorrowedFd<'_>) {
        let opened = open_directory(top, Path::new("."), INSIDE);
        let read = opened.and_then(|opened| Ok((self.read(&opened, c".".to_owned())?, opened)));
        let (first, mut current) = match read {
            Ok(read) => read,
            Err(cause) => return self.gaps.add("/", cause),
        };
        let mut levels = vec![first];
        while let Some(level) = levels.last_mut() {
            if self.stopped {
                return;
            }
            if let Some(name) = level.pending.pop() {
                if let Some((below, directory)) = self.descend(&current, name) {
                    levels.push(below);
                    current = directory;
                }
                continue;
            }
            levels.pop();
            let Some(above) = levels.last() else { return };
            self.path.0.truncate(above.length);
            match ascend(&current, above).or_else(|cause| self.search(top, &levels).ok_or(cause)) {
                Ok(directory) => current = directory,
                // Moved, with everything that is still to be read.
                Err(cause) => return self.gaps.add(&self.path.text(), cause),
            }
        }
    }

    fn descend(&mut self, from: &OwnedFd, name: CString) -> Option<(Level, OwnedFd)> {
        let above = self.path.0.len();
        self.path.push(&name);
        let opened = open_directory(from.as_fd(), Path::new(OsStr::from_bytes(name.to_bytes())), INSIDE);
        let read = opened.and_then(|opened| Ok((self.read(&opened, name)?, opened)));
        match read {
            Ok(read) => return Some(read),
            // The owner of the tree has removed it, or replaced it by something else.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => (),
            Err(cause) => self.gaps.add(&self.path.text(), cause),
        }
        self.path.0.truncate(above);
        None
    }

    /// Calls back for an open directory and its files, and lists its subdirectories.
    fn read(&mut self, directory: &OwnedFd, name: CString) -> Result<Level, Errno> {
        let stat = rustix::fs::fstat(directory)?;
        let mut level =
            Level { name, identity: FileId::from(&stat), length: self.path.0.len(), pending: Vec::new() };
        self.visit(&Found::Directory(&stat));
        for entry in entries(directory.as_fd(), self.left.saturating_add(1))? {
            if self.stopped || self.left == 0 {
                self.gaps.cut_off = true;
                break;
            }
            self.left -= 1;
            let name = entry.name;
            match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    level.pending.push(name);
                }
                found => {
                    self.path.push(&name);
                    match found {
                        Ok(stat) => self.visit(&Found::File(directory.as_fd(), &name, &stat)),
                        Err(Errno::NOENT) => (),
                        Err(cause) => self.gaps.add(&self.path.text(), cause),
                    }
                    self.path.0.truncate(level.length);
                }
            }
        }
        Ok(level)
    }

    fn visit(&mut self, found: &Found<'_>) {
        if (self.visit)(found, &self.path, &mut self.gaps) == Next::Stop {
            (self.stopped, self.gaps.cut_off) = (true, true);
        }
    }

    /// Searches the deepest of these directories again, from the top.
    fn search(&mut self, top: BorrowedFd<'_>, levels: &[Level]) -> Option<OwnedFd> {
        self.searches_left = self.searches_left.checked_sub(1)?;
        let mut found = open_directory(top, Path::new("."), INSIDE).ok()?;
        for level in levels.iter().skip(1) {
            let name = Path::new(OsStr::from_bytes(level.name.to_bytes()));
            found = open_directory(found.as_fd(), name, INSIDE).ok()?;
        }
        let deepest = levels.last()?;
        FileId::of(&found).is_ok_and(|identity| identity == deepest.identity).then_some(found)
    }
}

/// Opens the directory above, if that is still the one that the walk came from.
fn ascend(from: &OwnedFd, above: &Level) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::fs::openat2(from, c"..", flags, Mode::empty(), resolve)?;
    if FileId::of(&opened)? == above.identity { Ok(opened) } else { Err(Errno::STALE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_with_every_byte_and_a_bounded_length() {
        let text = |bytes: &[u8]| WalkPath(bytes.to_vec()).text();
        assert_eq!(text(b""), "/");
        assert_eq!(text(b"/a\xff\xfeb/\xc3\xa4"), "/a\\xff\\xfeb/ä");
        let long = text(&b"/x".repeat(1 << 20));
        assert!(long.len() < 1200 && long.contains("…(2096128 bytes)…"), "{long}");
    }
}
