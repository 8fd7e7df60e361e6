//! FilePrivileges of the host's files that a jail does not get: set-uid and set-gid bits, and file capabilities.
//!
//! A file of root's with such a power would make a VMM root in its jail, or give it a capability. A copy is made
//! without them. A link is the host's own file and keeps them, so there is no link of such a file.

use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, fgetxattr, getxattr};
use rustix::io::Errno;
use serde::Serialize;

use crate::spec::HostPath;

/// Where the kernel keeps a file's capabilities.
const CAPABILITY: &str = "security.capability";

/// Something that makes a file more than its content and its permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilePrivilege {
    /// It is executed with its owner's rights.
    SetUid,
    /// It is executed with its group's rights; what is made in a directory gets the directory's group.
    SetGid,
    /// Only the owner takes something out of a directory; on a file it has no effect.
    Sticky,
    /// It is executed with capabilities.
    Capabilities,
    /// Whether it is executed with capabilities cannot be found out.
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

/// The powers of one file or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FilePrivileges(Vec<FilePrivilege>);

impl FilePrivileges {
    /// Those of an open file.
    pub(crate) fn of_file(file: impl AsFd, mode: u32) -> Self {
        Self::of_mode(mode).and_capabilities(fgetxattr(file, CAPABILITY, &mut [0; 0]))
    }

    /// Those of a file that has this path now.
    pub(crate) fn at(path: &Path, mode: u32) -> Self {
        Self::of_mode(mode).and_capabilities(getxattr(path, CAPABILITY, &mut [0; 0]))
    }

    /// Those of a directory, which has no capabilities.
    pub(crate) fn of_mode(mode: u32) -> Self {
        let bits = [
            (Mode::SUID, FilePrivilege::SetUid),
            (Mode::SGID, FilePrivilege::SetGid),
            (Mode::SVTX, FilePrivilege::Sticky),
        ];
        let mode = Mode::from_raw_mode(mode);
        Self(bits.into_iter().filter(|(bit, _)| mode.contains(*bit)).map(|(_, power)| power).collect())
    }

    /// An answer other than "there are none" and "this filesystem has none" does not say that there are none.
    fn and_capabilities(mut self, found: Result<usize, Errno>) -> Self {
        match found {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => (),
            Ok(_) => self.0.push(FilePrivilege::Capabilities),
            Err(_) => self.0.push(FilePrivilege::UnknownCapabilities),
        }
        self
    }

    /// Each of them, without repetition.
    pub fn iter(&self) -> impl Iterator<Item = FilePrivilege> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a jail must not have the file as it is. On a file the sticky bit does nothing.
    pub(crate) fn forbid_link(&self) -> bool {
        self.iter().any(|power| power != FilePrivilege::Sticky)
    }
}

impl fmt::Display for FilePrivileges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, power) in self.0.iter().enumerate() {
            let before = match number {
                0 => "",
                _ if number + 1 == self.0.len() => " and ",
                _ => ", ",
            };
            write!(f, "{before}{power}")?;
        }
        Ok(())
    }
}

/// FilePrivileges that the host's file or directory has, and its copy in the jail has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stripped {
    /// The host's file; of a directory that is copied, the first in it that has powers, or itself.
    pub path: HostPath,
    /// Its powers.
    pub powers: FilePrivileges,
    /// How many files and directories have powers: more than one only in a directory that is copied.
    pub count: usize,
}

impl Stripped {
    /// What one file or directory has; `None` if it has no powers.
    pub(crate) fn of(path: &HostPath, powers: FilePrivileges) -> Option<Self> {
        (!powers.is_empty()).then(|| Self { path: path.clone(), powers, count: 1 })
    }

    /// Counts a further one of the same directory.
    pub(crate) fn add(known: &mut Option<Self>, further: Option<Self>) {
        match (known, further) {
            (Some(known), Some(_)) => known.count += 1,
            (known @ None, further) => *known = further,
            (Some(_), None) => (),
        }
    }
}

/// What the copy is without.
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
    fn what_cannot_be_read_is_not_taken_for_nothing() {
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
    fn powers_are_told_in_words() {
        let told = |mode, found| FilePrivileges::of_mode(mode).and_capabilities(found).to_string();
        assert_eq!(told(0o4755, Err(Errno::NODATA)), "set-uid bit");
        assert_eq!(told(0o7755, Ok(20)), "set-uid bit, set-gid bit, sticky bit and file capabilities");
        assert_eq!(told(0o2755, Err(Errno::IO)), "set-gid bit and file capabilities (which cannot be read)");
    }
}
