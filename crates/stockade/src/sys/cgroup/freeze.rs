//! Freezing: a frozen process does nothing, and in cgroup v1 it does not even exit when it is killed.

use rustix::io::Errno;

use super::{for_each_below, write_existing};
use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::procfs::read_file;

/// The file that freezes a cgroup by itself, not through a cgroup above it.
struct Freezer {
    /// The file that shows it, with the text.
    shown_by: (&'static str, &'static str),
    /// The file to write, with the text that thaws.
    file: &'static str,
    thaw: &'static str,
}

const FREEZERS: [Freezer; 2] = [
    Freezer { shown_by: ("cgroup.freeze", "1"), file: "cgroup.freeze", thaw: "0" },
    Freezer { shown_by: ("freezer.self_freezing", "1"), file: "freezer.state", thaw: "THAWED" },
];

/// What freezes a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frozen {
    /// The file of the cgroup, or of one above it.
    pub(crate) file: HostPath,
    /// The text that thaws it.
    pub(crate) thaw: &'static str,
}

/// What freezes a cgroup: its own file, or that of the nearest cgroup above it. `None` if nothing does, or if the cgroup
/// does not exist.
pub(crate) fn frozen_by(cgroup: &HostPath) -> Result<Option<Frozen>> {
    for directory in cgroup.as_path().ancestors() {
        let directory = HostPath::from(directory.to_owned());
        let mut has_file = false;
        for freezer in &FREEZERS {
            match state_of(&directory, freezer)? {
                Some(true) => {
                    return Ok(Some(Frozen { file: directory.join(freezer.file), thaw: freezer.thaw }));
                }
                Some(false) => has_file = true,
                None => (),
            }
        }
        // The root of a hierarchy has no such file, nor has a cgroup of another v1 hierarchy.
        if !has_file {
            break;
        }
    }
    Ok(None)
}

/// Thaws a cgroup and all below it.
pub(crate) fn thaw(cgroup: &HostPath) -> Result<()> {
    for_each_below(cgroup, &mut |below| {
        for freezer in &FREEZERS {
            if state_of(below, freezer)? == Some(true) {
                let file = below.join(freezer.file);
                match write_existing(&file, freezer.thaw) {
                    Ok(()) | Err(Errno::NOENT | Errno::NODEV) => (),
                    Err(cause) => return Err(cause).context(Operation::Write, file),
                }
            }
        }
        Ok(())
    })
}

/// Whether this file freezes the cgroup; `None` if the cgroup has no such file.
fn state_of(cgroup: &HostPath, freezer: &Freezer) -> Result<Option<bool>> {
    let (name, frozen) = freezer.shown_by;
    let file = cgroup.join(name);
    match read_file(&file) {
        Ok(text) => Ok(Some(text.trim_end() == frozen)),
        // ENODEV: the cgroup was removed between opening and reading.
        Err(e) if matches!(errno(&e), Errno::NOENT | Errno::NOTDIR | Errno::NODEV) => Ok(None),
        Err(e) => Err(e).context(Operation::Read, file),
    }
}
