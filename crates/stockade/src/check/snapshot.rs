//! Snapshots of a host, to verify that a jail leaves no trace.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::walk::{Found, Next, walk};
use crate::error::Result;
use crate::host::RUNTIME_DIRECTORY;
use crate::spec::{NETNS_DIRECTORY, Reason, reason};
use crate::sys::mounts::{self, Described};

/// The mounts, network namespaces, cgroups and chosen directories of a host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Takes a snapshot of the host.
    ///
    /// It contains the mount table, the named network namespaces, the cgroups of every mounted hierarchy, and
    /// everything below `directories`, at any depth. A path that cannot be read is an object too, with the cause. It leaves out the mounts below [`RUNTIME_DIRECTORY`], which all jails share.
    ///
    /// # Errors
    /// Returns an error if the mount table cannot be read.
    pub fn take(directories: &[&Path]) -> Result<Self> {
        let mut objects = BTreeSet::new();
        for mount in mounts::table()?.into_iter().filter(|mount| !is_shared_by_jails(&mount.point)) {
            objects.insert(Described(&mount).to_string());
            if mount.fs_type.starts_with("cgroup") {
                add(&mut objects, "cgroup", &mount.point);
            }
        }
        match fs::read_dir(NETNS_DIRECTORY) {
            Ok(entries) => objects.extend(
                entries.flatten().map(|entry| format!("network namespace {}", entry.file_name().display())),
            ),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => (),
            Err(cause) => note_unread(&mut objects, &format!("{NETNS_DIRECTORY}: {}", reason(&cause))),
        }
        for directory in directories {
            add(&mut objects, "file", directory);
        }
        Ok(Self(objects))
    }

    /// The objects that are in `later` only.
    pub fn added<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a str> {
        later.0.difference(&self.0).map(String::as_str)
    }

    /// The objects that are not in `later`.
    pub fn removed<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a str> {
        self.0.difference(&later.0).map(String::as_str)
    }
}

fn is_shared_by_jails(point: &Path) -> bool {
    point.starts_with(RUNTIME_DIRECTORY)
}

fn note_unread(objects: &mut BTreeSet<String>, what: &str) {
    objects.insert(format!("unreadable {what}"));
}

/// Adds a path and everything below it, of cgroups only the directories.
fn add(objects: &mut BTreeSet<String>, kind: &str, top: &Path) {
    let name = top.display();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(top, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return,
        // A file, or a symbolic link.
        Err(Errno::NOTDIR | Errno::LOOP) => {
            objects.insert(format!("{kind} {name}"));
            return;
        }
        Err(cause) => return note_unread(objects, &format!("{name}: {}", Reason(cause))),
    };
    let below = |path: &str| format!("{}{path}", top.display()).trim_end_matches('/').to_owned();
    let gaps = walk(opened.as_fd(), usize::MAX, &mut |found, path, _| {
        if kind == "file" || matches!(found, Found::Directory(_)) {
            objects.insert(format!("{kind} {}", below(&path.text())));
        }
        Next::Continue
    });
    for path in &gaps.unread {
        note_unread(objects, &below(path));
    }
    if gaps.unread_count > gaps.unread.len() {
        note_unread(objects, &format!("{name}: {} paths in all", gaps.unread_count));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_that_differ_are_different_objects() {
        let top = std::env::temp_dir().join(format!("stk-snapshot-{}", std::process::id()));
        fs::create_dir(&top).unwrap();
        let file = |name: &[u8]| top.join(OsStr::from_bytes(name));
        fs::write(file(b"a\xff"), "").unwrap();
        let before = Snapshot::take(&[&top]).unwrap();
        fs::rename(file(b"a\xff"), file(b"a\xfe")).unwrap();
        let after = Snapshot::take(&[&top]).unwrap();
        fs::remove_dir_all(&top).unwrap();
        let shown = format!("file {}/a\\xfe", top.display());
        assert!(before.added(&after).any(|object| object == shown));
    }
}
