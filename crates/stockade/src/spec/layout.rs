//! Every path of a jail, computed in one place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::{HostPath, JailId, JailPath, JailSpec, SpecError};

/// Where a jail is on the host: `BASE/EXECUTABLE/ID/root`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    base: HostPath,
    exec_name: String,
    id: String,
}

impl Layout {
    /// The layout that the specification asks for.
    pub fn new(spec: &JailSpec) -> Self {
        Self {
            base: spec.base.clone(),
            exec_name: spec.exec_file.name().to_owned(),
            id: spec.id.as_str().to_owned(),
        }
    }

    /// The layout of a jail that another program makes, which may be called as that allows.
    ///
    /// # Errors
    /// [`SpecError::JailPath`] for a name that is not one plain component of a path.
    pub fn named(base: HostPath, exec_name: &str, id: &str) -> Result<Self, SpecError> {
        for name in [exec_name, id] {
            let plain = JailPath::new(name)?;
            if plain.relative() != Path::new(name) || name.contains('/') {
                return Err(SpecError::JailPath(name.into()));
            }
        }
        Ok(Self { base, exec_name: exec_name.to_owned(), id: id.to_owned() })
    }

    /// How long the path of a root may be: PATH_MAX, less its closing zero and a name beside or in the root.
    const LONGEST_ROOT: usize = 4096 - 1 - 256;

    /// Refuses what the kernel would refuse with half of the jail made.
    ///
    /// # Errors
    /// [`SpecError::RootTooLong`].
    pub(crate) fn demand_short(&self) -> Result<(), SpecError> {
        match self.root().as_path().as_os_str().len() {
            length if length > Self::LONGEST_ROOT => Err(SpecError::RootTooLong(length, Self::LONGEST_ROOT)),
            _ => Ok(()),
        }
    }

    /// The directory that jails are made in.
    pub fn base(&self) -> &HostPath {
        &self.base
    }

    /// The name of the executable.
    pub(crate) fn exec_name(&self) -> &str {
        &self.exec_name
    }

    /// The name of the jail.
    pub(crate) fn id(&self) -> JailId {
        JailId::of_directory(&self.id)
    }

    /// The directory of all jails of this executable.
    pub fn exec_dir(&self) -> HostPath {
        self.base.join(&self.exec_name)
    }

    /// The directory of this jail, which belongs to root.
    pub fn jail_dir(&self) -> HostPath {
        self.exec_dir().join(&self.id)
    }

    /// The jail's root, which belongs to the jail's owner.
    pub fn root(&self) -> HostPath {
        self.jail_dir().join(Self::ROOT)
    }

    /// Where something of the jail is on the host. What is there belongs to the jail's owner: it is to be opened
    /// with that in mind.
    pub fn on_host(&self, path: &JailPath) -> HostPath {
        self.root().join(path.relative())
    }

    /// The jail's root, relative to the base.
    pub(crate) fn root_below_base(&self) -> PathBuf {
        Path::new(&self.exec_name).join(&self.id).join(Self::ROOT)
    }

    /// The file in the jail's root that tells the VMM's pid.
    pub(crate) fn pid_file(&self) -> String {
        format!("{}.pid", self.exec_name)
    }

    /// The name of the root in the jail's directory.
    pub(crate) const ROOT: &str = "root";
}
