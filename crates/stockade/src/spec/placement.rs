//! Placements: the request and the result.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::file_privileges::Stripped;
use crate::spec::{HostPath, JailPath, Owner, SpecError};

/// A placement method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The cheapest method that changes nothing outside the jail.
    ///
    /// A device becomes a node, a directory a copy. A file becomes a reflink if the filesystem supports it. Otherwise
    /// it becomes a hard link, if its owner and mode fit and it has no [`FilePrivileges`](crate::FilePrivileges).
    /// Otherwise it becomes a copy. A socket or named pipe becomes a hard link if its owner fits, otherwise a bind.
    #[default]
    Auto,
    /// A hard link to the file, socket or named pipe.
    Link,
    /// A hard link to the file, socket or named pipe, which gets the owner in the jail on the host too. For what was
    /// created for this jail, such as a log that the caller reads while the VMM writes it. It may have no other hard link
    /// unless it has that owner already.
    Share,
    /// A copy; of a directory, with its contents.
    Copy,
    /// A copy of a file that shares the source's blocks until one of the two is written.
    Reflink,
    /// The host's own file or directory, attached in the jail's mount namespace alone.
    Bind,
    /// A device node.
    Node,
}

impl How {
    /// Every method that can be requested.
    pub const NAMED: [Self; 6] = [Self::Link, Self::Share, Self::Copy, Self::Reflink, Self::Bind, Self::Node];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Link => "link",
            Self::Share => "share",
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

/// A file, directory or device of the host to place into a jail.
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
    /// A placement of `source` under its own name in the jail's root, which the jail's owner may read and write.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), name: None, how: How::Auto, read_only: false, owner: None }
    }

    /// Sets the path in the jail. Missing directories on the way are created.
    #[must_use]
    pub fn named(self, path: impl Into<PathBuf>) -> Self {
        Self { name: Some(path.into()), ..self }
    }

    /// Requires a method.
    #[must_use]
    pub fn how(self, how: How) -> Self {
        Self { how, ..self }
    }

    /// Makes the placement read-only: the jail can neither write it nor change its mode. The jail can still unlink it
    /// from a directory that the jail owns.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Sets an owner other than the jail's.
    #[must_use]
    pub fn owner(self, owner: Owner) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// The requested method.
    pub fn method(&self) -> How {
        self.how
    }

    /// The path on the host, as given.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The path in the jail.
    ///
    /// # Errors
    /// * [`SpecError::NotFound`] if the source does not exist or cannot be reached
    /// * [`SpecError::JailPath`] if the path leaves the jail
    /// * [`SpecError::NotText`] if the source or the path is not UTF-8
    pub fn target(&self) -> Result<JailPath, SpecError> {
        self.target_of(&HostPath::existing(&self.source)?)
    }

    /// The path in the jail, by the name of `source` unless another is set. The source need not exist.
    pub(crate) fn target_or(&self, source: &Path) -> Result<JailPath, SpecError> {
        self.target_of(&HostPath::from(source.to_owned()))
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

/// The result of a placement. Its text is the path in the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The path in the jail.
    pub path: JailPath,
    /// The method used, never [`How::Auto`].
    pub how: How,
    /// The privileges of the host's file that its copy in the jail lacks. `None` for a bind, whose mount is nosuid:
    /// set-uid bits and file capabilities have no effect there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripped: Option<Stripped>,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}
