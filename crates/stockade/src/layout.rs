//! Every path of a jail, computed in one place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::{HostPath, JailId, JailSpec};

/// Where a jail is on the host: `BASE/EXECUTABLE/ID/root`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    base: HostPath,
    exec_name: String,
    id: JailId,
}

impl Layout {
    /// The layout that the specification asks for.
    pub fn new(spec: &JailSpec) -> Self {
        Self { base: spec.base.clone(), exec_name: spec.exec_file.name().to_owned(), id: spec.id.clone() }
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
    pub(crate) fn id(&self) -> &JailId {
        &self.id
    }

    /// The directory of all jails of this executable.
    pub fn exec_dir(&self) -> HostPath {
        self.base.join(&self.exec_name)
    }

    /// The directory of this jail, which belongs to root.
    pub fn jail_dir(&self) -> HostPath {
        self.exec_dir().join(self.id.as_str())
    }

    /// The jail's root, which belongs to the jail's owner.
    pub fn root(&self) -> HostPath {
        self.jail_dir().join(Self::ROOT)
    }

    /// The jail's root, relative to the base.
    pub(crate) fn root_below_base(&self) -> PathBuf {
        Path::new(&self.exec_name).join(self.id.as_str()).join(Self::ROOT)
    }

    /// The file in the jail's root that tells the VMM's pid.
    pub(crate) fn pid_file(&self) -> String {
        format!("{}.pid", self.exec_name)
    }

    /// The name of the root in the jail's directory.
    pub(crate) const ROOT: &str = "root";
}
