//! Privileges of the host's files that a jail does not get: special mode bits and file capabilities.
//!
//! A file of root's with such a privilege would make a VMM root in its jail, or give it a capability. A copy does not
//! get them. A hard link is the host's own file and keeps them, so such a file is never linked.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, fgetxattr, getxattr};
use rustix::io::Errno;
use serde::Serialize;

use crate::spec::HostPath;

/// The extended attribute with a file's capabilities.
const CAPABILITY: &str = "security.capability";

/// A special mode bit, or the capabilities of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilePrivilege {
    /// The file runs as its owner.
    SetUid,
    /// The file runs with its group; files created in a directory get the directory's group.
    SetGid,
    /// Only an owner removes files from the directory; on a file it has no effect.
    Sticky,
    /// The file runs with capabilities.
    Capabilities,
    /// The file's capabilities cannot be read.
    UnknownCapabilities,
}

impl fmt::Display for FilePrivilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetUid => "set-uid bit",
            Self::SetGid => "set-gid bit",
            Self::Sticky => "sticky bit",
            Self::Capabilities => "file capabilities",
            Self::UnknownCapabilities => "file capabilities (which cannot be read)",
        })
    }
}

/// The privileges of one file or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FilePrivileges(Vec<FilePrivilege>);

impl FilePrivileges {
    /// The privileges of an open file.
    pub(crate) fn of_file(file: impl AsFd, mode: u32) -> Self {
        Self::of_mode(mode).and_capabilities(fgetxattr(file, CAPABILITY, &mut [0; 0]))
    }

    /// The privileges of the file that has this path now.
    pub(crate) fn at(path: &Path, mode: u32) -> Self {
        Self::of_mode(mode).and_capabilities(getxattr(path, CAPABILITY, &mut [0; 0]))
    }

    /// The privileges of a directory, which has no capabilities.
    pub(crate) fn of_mode(mode: u32) -> Self {
        let bits = [
            (Mode::SUID, FilePrivilege::SetUid),
            (Mode::SGID, FilePrivilege::SetGid),
            (Mode::SVTX, FilePrivilege::Sticky),
        ];
        let mode = Mode::from_raw_mode(mode);
        Self(
            bits.into_iter().filter(|(bit, _)| mode.contains(*bit)).map(|(_, privilege)| privilege).collect(),
        )
    }

    /// Adds the result of reading the capabilities. Only ENODATA and EOPNOTSUPP mean that the file has none.
    fn and_capabilities(mut self, found: Result<usize, Errno>) -> Self {
        match found {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => (),
            Ok(_) => self.0.push(FilePrivilege::Capabilities),
            Err(_) => self.0.push(FilePrivilege::UnknownCapabilities),
        }
        self
    }

    /// The privileges, each once.
    pub fn iter(&self) -> impl Iterator<Item = FilePrivilege> + '_ {
        self.0.iter().copied()
    }

    /// Whether the file has no privileges.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the file must not be hard-linked into a jail. The sticky bit has no effect on a file.
    pub(crate) fn forbid_link(&self) -> bool {
        self.iter().any(|privilege| privilege != FilePrivilege::Sticky)
    }
}

impl fmt::Display for FilePrivileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, privilege) in self.0.iter().enumerate() {
            let before = match number {
                0 => "",
                _ if number + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            write!(f, "{before}{privilege}")?;
        }
        Ok(())
    }
}

/// Privileges of the host's file or directory that its copy in the jail lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stripped {
    /// The host's file. Of a copied directory it is the first file or directory in it with privileges, or itself.
    pub path: HostPath,
    /// The privileges of that file.
    pub powers: FilePrivileges,
    /// The number of files and directories with privileges: above 1 only in a copied directory.
    pub count: usize,
}

impl Stripped {
    /// The privileges of one file or directory; `None` if it has none.
    pub(crate) fn of(path: &HostPath, powers: FilePrivileges) -> Option<Self> {
        (!powers.is_empty()).then(|| Self { path: path.clone(), powers, count: 1 })
    }

    /// Counts another file of the same directory.
    pub(crate) fn add(known: &mut Option<Self>, further: Option<Self>) {
        match (known, further) {
            (Some(known), Some(_)) => known.count += 1,
            (known @ None, further) => *known = further,
            (Some(_), None) => (),
        }
    }
}

impl fmt::Display for Stripped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} of {}", self.powers, self.path)?;
        match self.count {
            1 => Ok(()),
            count => write!(f, ", and the like of {} more in the directory", count - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreadable_capabilities_do_not_count_as_none() {
        let of = |found| FilePrivileges::of_mode(0o100_755).and_capabilities(found);
        assert!(of(Err(Errno::NODATA)).is_empty() && of(Err(Errno::OPNOTSUPP)).is_empty());
        assert_eq!(of(Ok(20)), FilePrivileges(vec![FilePrivilege::Capabilities]));
        for cause in [Errno::IO, Errno::ACCESS, Errno::PERM, Errno::OVERFLOW, Errno::NOMEM, Errno::INVAL] {
            assert_eq!(of(Err(cause)), FilePrivileges(vec![FilePrivilege::UnknownCapabilities]), "{cause}");
            assert!(of(Err(cause)).forbid_link());
        }
        assert!(!FilePrivileges::of_mode(0o101_755).forbid_link(), "the sticky bit does nothing on a file");
    }

    #[test]
    fn privileges_are_printed_as_a_list() {
        let text = |mode, found| FilePrivileges::of_mode(mode).and_capabilities(found).to_string();
        assert_eq!(text(0o4755, Err(Errno::NODATA)), "set-uid bit");
        assert_eq!(text(0o7755, Ok(20)), "set-uid bit, set-gid bit, sticky bit and file capabilities");
        assert_eq!(text(0o2755, Err(Errno::IO)), "set-gid bit and file capabilities (which cannot be read)");
    }
}
