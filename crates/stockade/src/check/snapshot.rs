//! What a host looks like, to be compared before and after: a jail leaves no trace.

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
    /// Looks at the mount table, the named network namespaces, the cgroups of every mounted hierarchy, and
    /// everything below `directories`. What stockade keeps for all jails in [`RUNTIME_DIRECTORY`] is not looked at.
    ///
    /// # Errors
    /// What the kernel says of reading the mount table.
    pub fn take(directories: &[&Path]) -> Result<Self> {
        let mut seen = BTreeSet::new();
        for mount in mounts::table()?.into_iter().filter(|mount| !is_stockades_own(&mount.point)) {
            seen.insert(Described(&mount).to_string());
            if mount.fs_type.starts_with("cgroup") {
                below(&mount.point, true, &mut |path| {
                    seen.insert(format!("cgroup {}", path.display()));
                });
            }
        }
        for entry in fs::read_dir(NETNS_DIRECTORY).into_iter().flatten().flatten() {
            seen.insert(format!("network namespace {}", entry.file_name().display()));
        }
        for directory in directories {
            below(directory, false, &mut |path| {
                seen.insert(format!("file {}", path.display()));
            });
        }
        Ok(Self(seen))
    }

    /// What is there in `later` and was not here.
    pub fn added<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a str> {
        later.0.difference(&self.0).map(String::as_str)
    }

    /// What was here and is gone in `later`.
    pub fn removed<'a>(&'a self, later: &'a Self) -> impl Iterator<Item = &'a str> {
        self.0.difference(&later.0).map(String::as_str)
    }
}

fn is_stockades_own(point: &Path) -> bool {
    point.starts_with(RUNTIME_DIRECTORY)
}

/// Visits everything below a directory, that itself included if it exists; what vanishes meanwhile is gone.
fn below(path: &Path, directories_only: bool, visit: &mut dyn FnMut(&Path)) {
    let Ok(facts) = fs::symlink_metadata(path) else { return };
    if !facts.is_dir() && directories_only {
        return;
    }
    visit(path);
    if facts.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            below(&entry.path(), directories_only, visit);
        }
    }
}
