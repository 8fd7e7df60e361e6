//! Snapshots of a host, to verify that a jail leaves no trace.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::error::Result;
use crate::host::RUNTIME_DIRECTORY;
use crate::spec::NETNS_DIRECTORY;
use crate::sys::mounts::{self, Described};

/// The mounts, network namespaces, cgroups and chosen directories of a host at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Takes a snapshot of the host.
    ///
    /// It contains the mount table, the named network namespaces, the cgroups of every mounted hierarchy, and
    /// everything below `directories`. It leaves out the mounts below [`RUNTIME_DIRECTORY`], which all jails share.
    ///
    /// # Errors
    /// Returns an error if the mount table cannot be read.
    pub fn take(directories: &[&Path]) -> Result<Self> {
        let mut objects = BTreeSet::new();
        for mount in mounts::table()?.into_iter().filter(|mount| !is_shared_by_jails(&mount.point)) {
            objects.insert(Described(&mount).to_string());
            if mount.fs_type.starts_with("cgroup") {
                walk(&mount.point, true, &mut |path| {
                    objects.insert(format!("cgroup {}", path.display()));
                });
            }
        }
        for entry in fs::read_dir(NETNS_DIRECTORY).into_iter().flatten().flatten() {
            objects.insert(format!("network namespace {}", entry.file_name().display()));
        }
        for directory in directories {
            walk(directory, false, &mut |path| {
                objects.insert(format!("file {}", path.display()));
            });
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

/// Calls back for a path and everything below it, and skips files that vanish during the walk.
fn walk(path: &Path, directories_only: bool, callback: &mut dyn FnMut(&Path)) {
    let Ok(facts) = fs::symlink_metadata(path) else { return };
    if !facts.is_dir() && directories_only {
        return;
    }
    callback(path);
    if facts.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), directories_only, callback);
        }
    }
}
