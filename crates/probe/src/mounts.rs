//! The mounts that are visible inside the jail.

use crate::errno;
use crate::known::Known;
use serde::Serialize;
use stockade_syscalls::mount_table;

/// One mount.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mount {
    point: String,
    #[serde(rename = "type")]
    fs_type: String,
    /// `null` if the kernel does not report it.
    source: Option<String>,
}

/// The mounts of this process: from `/proc`, or by system calls without `/proc`.
pub(crate) fn read() -> Known<Vec<Mount>> {
    let mounts = mount_table::own().map(|mounts| mounts.into_iter().map(Mount::from).collect());
    mounts.map_err(|error| format!("listmount: {}", errno::name_of(&error))).into()
}

impl From<mount_table::Mount> for Mount {
    fn from(mount: mount_table::Mount) -> Self {
        Self {
            point: mount.point.to_string_lossy().into_owned(),
            fs_type: mount.fs_type,
            source: mount.source.map(|source| source.to_string_lossy().into_owned()),
        }
    }
}
