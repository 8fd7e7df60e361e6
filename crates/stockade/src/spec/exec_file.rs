//! The VMM's executable.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HostPath, JailPath, Owner, SpecError};

/// The VMM's executable: a regular file of the host, to be copied or bound into the jail's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecFile {
    path: HostPath,
    name: String,
}

impl ExecFile {
    /// The executable at `path`, with all symbolic links resolved.
    ///
    /// # Errors
    /// * [`SpecError::NotFound`] if the path cannot be resolved
    /// * [`SpecError::NotAFile`] if it is not a regular file
    /// * [`SpecError::ExecName`] if its name is not UTF-8
    pub fn new(path: &Path) -> Result<Self, SpecError> {
        let path = HostPath::existing(path)?;
        if !path.as_path().is_file() {
            return Err(SpecError::NotAFile(path.as_path().to_owned()));
        }
        let name = path.as_path().file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| SpecError::ExecName(path.as_path().to_owned()))?.to_owned();
        Ok(Self { path, name })
    }

    /// An unchecked executable, for a jail that another program creates: that program checks it.
    pub(crate) fn unseen(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { path: path.to_owned().into(), name }
    }

    /// Refuses a file whose permissions do not let this user execute it.
    pub(super) fn check_executable(&self, by: Owner) -> Result<(), SpecError> {
        let path = self.path.as_path();
        let facts = rustix::fs::stat(path).map_err(|cause| SpecError::NotFound(path.to_owned(), cause))?;
        let needed = match by {
            Owner { uid, .. } if uid == facts.st_uid => 0o100,
            Owner { gid, .. } if gid == facts.st_gid => 0o010,
            _ => 0o001,
        };
        if facts.st_mode & needed == 0 { Err(SpecError::NotForOwner(path.to_owned(), by)) } else { Ok(()) }
    }

    /// The path on the host.
    pub fn path(&self) -> &HostPath {
        &self.path
    }

    /// The file's name, which also names the directory of its jails and their default parent cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path in the jail.
    pub fn in_jail(&self) -> JailPath {
        // The last component of a resolved path is one plain component.
        JailPath::new(&self.name).unwrap_or_else(|_| JailPath::root())
    }
}
