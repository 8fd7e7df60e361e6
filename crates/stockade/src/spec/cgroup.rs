//! The cgroup settings of a jail.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// One setting: a cgroup file and the value to write to it, for example `cpu.shares=2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSetting {
    /// The file's name: one component, with its controller before the first dot.
    pub file: String,
    /// The value to write.
    pub value: String,
}

impl CgroupSetting {
    /// The controller that the file belongs to.
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }
}

impl FromStr for CgroupSetting {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = text.split('=');
        let (Some(file), Some(value), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SpecError::CgroupFormat(text.to_owned()));
        };
        if value.is_empty() {
            return Err(SpecError::CgroupFormat(text.to_owned()));
        }
        // One plain component: the file cannot be outside the jail's cgroup.
        let mut components = Path::new(file).components();
        let plain = matches!((components.next(), components.next()), (Some(Component::Normal(name)), None) if name == file);
        if !plain {
            return Err(SpecError::CgroupFile(text.to_owned()));
        }
        if !file.contains('.') {
            return Err(SpecError::CgroupFile(file.to_owned()));
        }
        Ok(Self { file: file.to_owned(), value: value.to_owned() })
    }
}

impl fmt::Display for CgroupSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.file, self.value)
    }
}

/// The parent cgroup of jails: a path of plain components, relative to the hierarchy's mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParentCgroup(PathBuf);

impl ParentCgroup {
    /// The path relative to the hierarchy's mount.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The number of components.
    pub fn depth(&self) -> usize {
        self.0.components().count()
    }
}

impl FromStr for ParentCgroup {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let path = PathBuf::from(text);
        // `components` normalises `a/./b`, so the text itself is checked too.
        let dots = text.split('/').any(|part| part == "." || part == "..");
        let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
        if dots || !plain { Err(SpecError::ParentCgroup(text.to_owned())) } else { Ok(Self(path)) }
    }
}

/// A version of the cgroup interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// cgroup v1: a directory in the hierarchy of each controller.
    V1,
    /// cgroup v2: one directory in the unified hierarchy.
    V2,
    /// A number that is no version. Firecracker's jailer fails only when the version is needed.
    Unknown(u8),
}

impl fmt::Display for CgroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::Unknown(number) => *number,
        };
        write!(f, "v{number}")
    }
}

impl FromStr for CgroupVersion {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text.parse() {
            Ok(1) => Ok(Self::V1),
            Ok(2) => Ok(Self::V2),
            Ok(number) => Ok(Self::Unknown(number)),
            Err(_) => Err(SpecError::CgroupVersion(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_file_an_equals_sign_and_a_value() {
        let setting: CgroupSetting = "cpuset.cpus=0-1".parse().expect("a plain setting");
        assert_eq!((setting.controller(), setting.value.as_str()), ("cpuset", "0-1"));
        for bad in ["", "cpu.shares", "cpu.shares=", "cpu.shares=1=2"] {
            assert!(matches!(bad.parse::<CgroupSetting>(), Err(SpecError::CgroupFormat(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_setting_cannot_leave_its_cgroup() {
        for bad in ["../x.y=1", "./cpu.x=1", "/cpu.x=1", "a/cpu.x=1", "..=1", "nodot=1", "=1", "cpu.x/=1"] {
            assert!(matches!(bad.parse::<CgroupSetting>(), Err(SpecError::CgroupFile(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_parent_is_relative_and_plain() {
        assert_eq!("a/b".parse::<ParentCgroup>().expect("two components").depth(), 2);
        for bad in ["/a", "../a", "a/../b", "a/./b", "."] {
            assert_eq!(bad.parse::<ParentCgroup>(), Err(SpecError::ParentCgroup(bad.to_owned())), "{bad:?}");
        }
    }
}
