//! The program that the jail is for.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{HostPath, JailPath, Owner, SpecError};

/// The VMM's executable: a regular file of the host, which is copied to the jail's root or bound there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecFile {
    path: HostPath,
    name: String,
}

impl ExecFile {
    /// The executable at `path`, all links resolved.
    ///
    /// # Errors
    /// [`SpecError::NotFound`], [`SpecError::NotAFile`], or [`SpecError::ExecName`] for a name that is not
    /// UTF-8.
    pub fn new(path: &Path) -> Result<Self, SpecError> {
        let path = HostPath::existing(path)?;
        if !path.as_path().is_file() {
            return Err(SpecError::NotAFile(path.as_path().to_owned()));
        }
        let name = path.as_path().file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| SpecError::ExecName(path.as_path().to_owned()))?.to_owned();
        Ok(Self { path, name })
    }

    /// The executable of a jail that another program makes: that looks at it itself.
    pub(crate) fn unseen(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { path: path.to_owned().into(), name }
    }

    /// That whoever this is may execute the host's own file, by its permissions.
    pub(super) fn demand_executable(&self, by: Owner) -> Result<(), SpecError> {
        let path = self.path.as_path();
        let facts = rustix::fs::stat(path).map_err(|cause| SpecError::NotFound(path.to_owned(), cause))?;
        let needed = match by {
            Owner { uid, .. } if uid == facts.st_uid => 0o100,
            Owner { gid, .. } if gid == facts.st_gid => 0o010,
            _ => 0o001,
        };
        if facts.st_mode & needed == 0 { Err(SpecError::NotForOwner(path.to_owned(), by)) } else { Ok(()) }
    }

    /// Where it is on the host.
    pub fn path(&self) -> &HostPath {
        &self.path
    }

    /// Its name, which also names the directory of its jails and their default parent cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is in the jail.
    pub fn in_jail(&self) -> JailPath {
        // The name is the last component of a resolved path, so it is one plain component.
        JailPath::new(&self.name).unwrap_or_else(|_| JailPath::root())
    }
}
