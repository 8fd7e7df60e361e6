//! What is to be placed into a jail, as it is asked for, and what became of it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::spec::powers::Stripped;
use crate::spec::{HostPath, JailPath, Owner, SpecError};

/// How something is to be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// A device as a node; a file as a reflink where the filesystem has them, as a link where that needs no
    /// change of owner or mode and the file has no powers ([`FilePrivileges`](crate::FilePrivileges)), and otherwise as a copy; a
    /// directory as a copy.
    #[default]
    Auto,
    /// A further name of the same file.
    Link,
    /// A copy; of a directory, with everything in it.
    Copy,
    /// A copy of a file that shares the source's blocks until one of the two is written to.
    Reflink,
    /// The host's own file or directory, attached in the jail alone.
    Bind,
    /// A device node.
    Node,
}

impl How {
    /// Every way that can be asked for by name.
    pub const NAMED: [Self; 5] = [Self::Link, Self::Copy, Self::Reflink, Self::Bind, Self::Node];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Link => "link",
            Self::Copy => "copy",
            Self::Reflink => "reflink",
            Self::Bind => "bind",
            Self::Node => "node",
        })
    }
}

impl Serialize for How {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A file, directory or device of the host that is to be placed into a jail.
///
/// ```
/// use stockade::{How, Placement};
///
/// let root_image = Placement::new("/images/root.img").named("drives/root.img").how(How::Bind).read_only();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub(crate) source: PathBuf,
    name: Option<PathBuf>,
    pub(crate) how: How,
    pub(crate) read_only: bool,
    pub(crate) owner: Option<Owner>,
}

impl Placement {
    /// This file, under its own name in the jail's root, for the jail's owner to read and write.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), name: None, how: How::Auto, read_only: false, owner: None }
    }

    /// Under this path in the jail; folders on the way are made.
    #[must_use]
    pub fn named(self, path: impl Into<PathBuf>) -> Self {
        Self { name: Some(path.into()), ..self }
    }

    /// In this way and no other.
    #[must_use]
    pub fn how(self, how: How) -> Self {
        Self { how, ..self }
    }

    /// For the jail to read only: it can neither write it nor change who may. What is in a folder of the
    /// jail's own it can still unlink.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Owned by somebody else than the jail's owner.
    #[must_use]
    pub fn owner(self, owner: Owner) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Where it is on the host, as it was given.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Where it goes in the jail.
    ///
    /// # Errors
    /// [`SpecError::NotFound`], [`SpecError::JailPath`] for a name that leaves the jail, [`SpecError::NotText`].
    pub fn target(&self) -> Result<JailPath, SpecError> {
        self.target_of(&HostPath::existing(&self.source)?)
    }

    pub(crate) fn target_of(&self, source: &HostPath) -> Result<JailPath, SpecError> {
        let own_name = || Path::new(source.as_path().file_name().unwrap_or_default());
        let name = self.name.as_deref().unwrap_or_else(own_name);
        if let Some(path) = [source.as_path(), name].into_iter().find(|path| path.to_str().is_none()) {
            return Err(SpecError::NotText(path.to_owned()));
        }
        JailPath::new(name)
    }
}

impl From<&Path> for Placement {
    fn from(source: &Path) -> Self {
        Self::new(source)
    }
}

impl From<PathBuf> for Placement {
    fn from(source: PathBuf) -> Self {
        Self::new(source)
    }
}

impl From<&PathBuf> for Placement {
    fn from(source: &PathBuf) -> Self {
        Self::new(source)
    }
}

impl From<&str> for Placement {
    fn from(source: &str) -> Self {
        Self::new(source)
    }
}

/// What was placed: where, and how. Displayed it is the path as the jail sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// Where the jail sees it.
    pub path: JailPath,
    /// The way that was taken, never [`How::Auto`].
    pub how: How,
    /// What the host's file has and the jail's has not. A bind has nothing taken away: its mount leaves no effect
    /// to set-uid bits and file capabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripped: Option<Stripped>,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
