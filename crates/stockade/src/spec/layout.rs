//! The paths of a jail.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::{HostPath, JailId, JailPath, JailSpec, SpecError};

/// The paths of a jail on the host: `BASE/EXECUTABLE/ID/root`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    base: HostPath,
    exec_name: String,
    id: String,
}

impl Layout {
    /// The layout of a specification.
    pub fn new(spec: &JailSpec) -> Self {
        Self::unchecked(spec.base.clone(), spec.exec_file.name(), spec.id.as_str())
    }

    /// The layout of a jail that another program creates, with the names that program allows.
    ///
    /// # Errors
    /// Returns [`SpecError::JailPath`] if a name is not one plain path component.
    pub fn named(base: HostPath, exec_name: &str, id: &str) -> Result<Self, SpecError> {
        for name in [exec_name, id] {
            let plain = JailPath::new(name)?;
            if plain.relative() != Path::new(name) || name.contains('/') {
                return Err(SpecError::JailPath(name.into()));
            }
        }
        Ok(Self::unchecked(base, exec_name, id))
    }

    /// The layout of a root that has no directory of its own, at `BASE/BELOW/root`: that of an id which is not the name
    /// of a directory, such as the empty one. No jailer accepts such an id.
    ///
    /// # Errors
    /// Returns [`SpecError::JailPath`] if `below` is empty, or not UTF-8, or leaves the base.
    pub fn lone_root(base: HostPath, below: &Path) -> Result<Self, SpecError> {
        let text = JailPath::new(below)?.relative().to_str().map(str::to_owned);
        let text = text.ok_or_else(|| SpecError::NotText(below.to_owned()))?;
        Ok(Self::unchecked(base, &text, Self::LONE))
    }

    /// The id in the layout of a root without a directory of its own: the path of its directory stays the same.
    const LONE: &str = ".";

    /// Whether the root has no directory of its own, so that the directories of other jails are beside it.
    pub(crate) fn has_lone_root(&self) -> bool {
        self.id == Self::LONE
    }

    /// The layout with these names, which may be no plain path components.
    pub(crate) fn unchecked(base: HostPath, exec_name: &str, id: &str) -> Self {
        Self { base, exec_name: exec_name.to_owned(), id: id.to_owned() }
    }

    /// The longest path of a root: PATH_MAX without its final NUL and without a name in the root or beside it.
    const LONGEST_ROOT: usize = 4096 - 1 - 256;

    /// Refuses a path that the kernel would refuse after half of the jail was created.
    ///
    /// # Errors
    /// Returns [`SpecError::RootTooLong`] if the path of the root exceeds [`Self::LONGEST_ROOT`].
    pub(crate) fn check_length(&self) -> Result<(), SpecError> {
        match self.root().as_path().as_os_str().len() {
            length if length > Self::LONGEST_ROOT => Err(SpecError::RootTooLong(length, Self::LONGEST_ROOT)),
            _ => Ok(()),
        }
    }

    /// The directory that contains jails.
    pub fn base(&self) -> &HostPath {
        &self.base
    }

    pub(crate) fn exec_name(&self) -> &str {
        &self.exec_name
    }

    pub(crate) fn id(&self) -> JailId {
        JailId::of_directory(&self.id)
    }

    /// The directory of all jails with this executable.
    pub fn exec_dir(&self) -> HostPath {
        self.base.join(&self.exec_name)
    }

    /// The jail's directory, owned by root.
    pub fn jail_dir(&self) -> HostPath {
        self.exec_dir().join(&self.id)
    }

    /// The jail's root, owned by the jail's owner.
    pub fn root(&self) -> HostPath {
        self.jail_dir().join(Self::ROOT)
    }

    /// The path on the host of a file in the jail.
    ///
    /// The jail's owner controls that file and every directory on the way. Open it without following symbolic links.
    pub fn on_host(&self, path: &JailPath) -> HostPath {
        self.root().join(path.relative())
    }

    pub(crate) fn root_below_base(&self) -> PathBuf {
        Path::new(&self.exec_name).join(&self.id).join(Self::ROOT)
    }

    /// The file in the jail's root that contains the VMM's pid.
    pub(crate) fn pid_file(&self) -> String {
        format!("{}.pid", self.exec_name)
    }

    /// The root's name in the jail's directory.
    pub(crate) const ROOT: &str = "root";
}
