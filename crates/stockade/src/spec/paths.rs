//! Paths on the host and paths in a jail, as types that cannot be confused.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{SpecError, errno, not_expanded};

/// A path on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPath(PathBuf);

impl HostPath {
    /// An existing file or directory, with all symbolic links resolved.
    ///
    /// # Errors
    /// Returns [`SpecError::NotFound`] if it does not exist or cannot be reached.
    pub fn existing(path: &Path) -> Result<Self, SpecError> {
        let resolved = path.canonicalize().or_else(|e| resolve_magic(path).ok_or(e));
        resolved.map(Self).map_err(|e| SpecError::NotFound(path.to_owned(), errno(&e)))
    }

    /// An existing directory, with all symbolic links resolved.
    ///
    /// # Errors
    /// * [`SpecError::NotFound`] if it does not exist or cannot be reached
    /// * [`SpecError::NotADirectory`] if it is not a directory
    pub fn directory(path: &Path) -> Result<Self, SpecError> {
        let resolved = Self::existing(path)?;
        match resolved.0.metadata() {
            Ok(facts) if facts.is_dir() => Ok(resolved),
            Ok(_) => Err(SpecError::NotADirectory(resolved.0)),
            // Removed since it was resolved, as a base is together with its last jail.
            Err(e) => Err(SpecError::NotFound(path.to_owned(), errno(&e))),
        }
    }

    /// A directory that may be missing. Its existing part is resolved, the rest is kept as given.
    ///
    /// # Errors
    /// * [`SpecError::NotADirectory`] if a file is in the way
    /// * [`SpecError::NotFound`] if it cannot be reached, or begins with a `~` that no shell expanded
    pub fn future_directory(path: &Path) -> Result<Self, SpecError> {
        if not_expanded(path).is_some() {
            return Err(SpecError::NotFound(path.to_owned(), Errno::NOENT));
        }
        let path = std::path::absolute(path).map_err(|e| SpecError::NotFound(path.to_owned(), errno(&e)))?;
        match Self::directory(&path) {
            Err(SpecError::NotFound(_, Errno::NOENT)) => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(SpecError::NotADirectory(path));
                };
                Ok(Self::future_directory(parent)?.join(name))
            }
            other => other,
        }
    }

    /// The path `below` in this directory.
    #[must_use]
    pub fn join(&self, below: impl AsRef<Path>) -> Self {
        Self(self.0.join(below))
    }

    /// The path as the standard library's type.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// Resolves a symbolic link such as `/proc/PID/ns/net`, which leads to a file although its text is no path.
fn resolve_magic(path: &Path) -> Option<PathBuf> {
    path.metadata().ok()?;
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

impl From<PathBuf> for HostPath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// A path in a jail: absolute, without `.`, `..` and empty components.
///
/// It is stored without the leading slash, relative to the jail's root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct JailPath(PathBuf);

impl JailPath {
    /// The jail's root.
    pub fn root() -> Self {
        Self(PathBuf::new())
    }

    /// `path` below the jail's root, with or without a leading slash.
    ///
    /// # Errors
    /// Returns [`SpecError::JailPath`] if a component is `..`, or if the path has no components.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, SpecError> {
        let path = path.as_ref();
        let mut inside = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) if !name.as_bytes().contains(&0) => inside.push(name),
                Component::RootDir | Component::CurDir => (),
                _ => return Err(SpecError::JailPath(path.to_owned())),
            }
        }
        if inside.as_os_str().is_empty() {
            Err(SpecError::JailPath(path.to_owned()))
        } else {
            Ok(Self(inside))
        }
    }

    /// The path relative to the jail's root; empty for the root itself.
    pub(crate) fn relative(&self) -> &Path {
        &self.0
    }

    /// The parent directory, relative to the jail's root, and the file name.
    pub(crate) fn split(&self) -> (&Path, &OsStr) {
        (self.0.parent().unwrap_or(Path::new("")), self.0.file_name().unwrap_or(OsStr::new(".")))
    }

    /// Whether `other` is this path or below it.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The path `name` in the same directory.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self(self.0.with_file_name(name))
    }

    /// The path in the jail, with the leading slash.
    pub fn absolute(&self) -> PathBuf {
        Path::new("/").join(&self.0)
    }

    pub(crate) fn to_c_string(&self) -> std::ffi::CString {
        // `new` lets no NUL through.
        std::ffi::CString::new(self.absolute().into_os_string().into_vec()).unwrap_or_default()
    }

    /// The path relative to the jail's root, for a process whose working directory that is.
    pub(crate) fn to_relative_c_string(&self) -> std::ffi::CString {
        std::ffi::CString::new(self.0.as_os_str().as_bytes()).unwrap_or_default()
    }
}

impl TryFrom<PathBuf> for JailPath {
    type Error = SpecError;

    fn try_from(path: PathBuf) -> Result<Self, SpecError> {
        if path == Path::new("/") { Ok(Self::root()) } else { Self::new(path) }
    }
}

impl From<JailPath> for PathBuf {
    fn from(path: JailPath) -> Self {
        path.absolute()
    }
}

impl fmt::Display for JailPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jail_path_cannot_leave_the_jail() {
        for bad in ["..", "a/../b", "/..", "", "/", "."] {
            assert!(JailPath::new(bad).is_err(), "{bad:?} must be refused");
        }
        assert_eq!(JailPath::new("/run//./sock").expect("a plain path").to_string(), "/run/sock");
    }

    #[test]
    fn a_missing_directory_in_an_existing_one_is_a_future_one() {
        let path =
            HostPath::future_directory(Path::new("/proc/../nowhere/at/all")).expect("nothing is in the way");
        assert_eq!(path.as_path(), Path::new("/nowhere/at/all"));
        assert!(matches!(
            HostPath::future_directory(Path::new("/proc/version/x")),
            Err(SpecError::NotADirectory(_) | SpecError::NotFound(..))
        ));
    }

    #[test]
    fn a_directory_removed_while_resolved_is_a_future_directory() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let path = std::env::temp_dir().join(format!("stockade-paths-{}", std::process::id()));
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    let _ = std::fs::create_dir(&path);
                    let _ = std::fs::remove_dir(&path);
                }
            });
            let all: Vec<_> = (0..20_000).map(|_| HostPath::future_directory(&path)).collect();
            is_done.store(true, Ordering::Relaxed);
            let wrong =
                all.into_iter().find(|found| found.as_ref().ok().map(HostPath::as_path) != Some(&path));
            assert_eq!(wrong, None);
        });
    }
}
