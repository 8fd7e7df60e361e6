//! The cgroup settings of a jail.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{SpecError, parse_size};

/// Files of cgroup v1, each with its equivalent in v2 or the closest one.
const COUNTERPARTS: &[(&str, &str)] = &[
    ("memory.limit_in_bytes", "memory.max"),
    ("memory.soft_limit_in_bytes", "memory.high"),
    ("memory.memsw.limit_in_bytes", "memory.swap.max"),
    ("cpu.shares", "cpu.weight"),
    ("cpu.cfs_quota_us", "cpu.max"),
    ("cpu.cfs_period_us", "cpu.max"),
    ("cpu.cfs_burst_us", "cpu.max.burst"),
    ("cpuset.cpu_exclusive", "cpuset.cpus.partition"),
    ("blkio.weight", "io.weight"),
    ("blkio.bfq.weight", "io.bfq.weight"),
    ("blkio.throttle.read_bps_device", "io.max"),
    ("blkio.throttle.write_bps_device", "io.max"),
    ("blkio.throttle.read_iops_device", "io.max"),
    ("blkio.throttle.write_iops_device", "io.max"),
];

/// The sizes in the value of a cgroup file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sizes {
    /// The value is a size.
    Only,
    /// A size follows a device, as in `8:0 1048576`.
    LastWord,
    /// Sizes follow `rbps=` and `wbps=`.
    InPairs,
}

impl Sizes {
    fn of(file: &str) -> Option<Self> {
        const V2: [&str; 7] = [
            "memory.min",
            "memory.low",
            "memory.high",
            "memory.max",
            "memory.swap.high",
            "memory.swap.max",
            "memory.zswap.max",
        ];
        let hugetlb = file.strip_prefix("hugetlb.").and_then(|rest| rest.rsplit('.').next()) == Some("max");
        if file.ends_with("limit_in_bytes") || hugetlb || V2.contains(&file) {
            Some(Self::Only)
        } else if file.starts_with("blkio.throttle.") && file.ends_with("_bps_device") {
            Some(Self::LastWord)
        } else {
            ["io.max", "io.low", "io.cost.model"].contains(&file).then_some(Self::InPairs)
        }
    }
}

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

    /// The setting with all sizes as numbers of bytes.
    ///
    /// The kernel understands K, M, G and T in some of these files, MiB in none, and in others it ignores every unit: `8:0
    /// 1M` in `blkio.throttle.read_bps_device` would be one byte per second.
    ///
    /// # Errors
    /// Returns [`SpecError::CgroupSize`] if a size is none.
    pub(super) fn in_bytes(self) -> Result<Self, SpecError> {
        let bytes = |text: &str| -> Result<String, SpecError> {
            match text {
                "max" | "-1" => Ok(text.to_owned()),
                text if text.starts_with("0x") => Ok(text.to_owned()),
                text => parse_size(text)
                    .map(|bytes| bytes.to_string())
                    .map_err(|_| SpecError::CgroupSize(self.file.clone(), text.to_owned())),
            }
        };
        let words: Vec<&str> = self.value.split_whitespace().collect();
        let value = match (Sizes::of(&self.file), &words[..]) {
            (Some(Sizes::Only), _) => bytes(self.value.trim())?,
            (Some(Sizes::LastWord), [before @ .., last]) if !before.is_empty() => {
                [before, &[&*bytes(last)?]].concat().join(" ")
            }
            (Some(Sizes::InPairs), words) => {
                let pair = |word: &&str| -> Result<String, SpecError> {
                    match word.split_once('=') {
                        Some((key @ ("rbps" | "wbps"), size)) => Ok(format!("{key}={}", bytes(size)?)),
                        _ => Ok((*word).to_owned()),
                    }
                };
                words.iter().map(pair).collect::<Result<Vec<_>, _>>()?.join(" ")
            }
            _ => return Ok(self),
        };
        Ok(Self { value, ..self })
    }

    /// Refuses a file that exists only in the other version; the error names the equivalent.
    pub(crate) fn check_version(&self, version: CgroupVersion) -> Result<(), SpecError> {
        let (theirs, instead) = match version {
            CgroupVersion::V1 => (2, COUNTERPARTS.iter().find(|(_, v2)| *v2 == self.file).map(|(v1, _)| v1)),
            CgroupVersion::V2 => (1, COUNTERPARTS.iter().find(|(v1, _)| *v1 == self.file).map(|(_, v2)| v2)),
            CgroupVersion::Unknown(_) => return Ok(()),
        };
        let refused = |instead: &&'static str| SpecError::OtherCgroupVersion {
            file: self.file.clone(),
            theirs,
            instead,
        };
        instead.map_or(Ok(()), |instead| Err(refused(instead)))
    }
}

impl FromStr for CgroupSetting {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        // The value may contain more of them, as in `io.max=254:0 rbps=1048576`.
        let parts = text.split_once('=').filter(|(_, value)| !value.is_empty());
        let (file, value) = parts.ok_or_else(|| SpecError::CgroupFormat(text.to_owned()))?;
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
        for bad in ["", "cpu.shares", "cpu.shares="] {
            assert!(matches!(bad.parse::<CgroupSetting>(), Err(SpecError::CgroupFormat(_))), "{bad:?}");
        }
    }

    #[test]
    fn a_value_may_contain_equals_signs() {
        for (text, file, value) in [
            ("io.max=254:0 rbps=1048576 wiops=120", "io.max", "254:0 rbps=1048576 wiops=120"),
            ("io.weight==", "io.weight", "="),
            ("io.cost.qos=8:16 enable=1 ctrl=user", "io.cost.qos", "8:16 enable=1 ctrl=user"),
        ] {
            let setting: CgroupSetting = text.parse().expect("a setting");
            assert_eq!((setting.file.as_str(), setting.value.as_str()), (file, value));
            assert_eq!(setting.to_string(), text);
        }
    }

    #[test]
    fn a_size_may_have_a_unit_in_the_files_that_take_one() {
        for (text, in_bytes) in [
            ("memory.max=512m", "memory.max=536870912"),
            ("memory.limit_in_bytes=1GiB", "memory.limit_in_bytes=1073741824"),
            ("memory.memsw.limit_in_bytes=2G", "memory.memsw.limit_in_bytes=2147483648"),
            ("memory.swap.max= 1K", "memory.swap.max=1024"),
            ("hugetlb.2MB.max=4M", "hugetlb.2MB.max=4194304"),
            ("hugetlb.2MB.rsvd.limit_in_bytes=4M", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"),
            ("io.max=8:0 rbps=1M wbps=max riops=100", "io.max=8:0 rbps=1048576 wbps=max riops=100"),
            ("blkio.throttle.read_bps_device=8:0 1M", "blkio.throttle.read_bps_device=8:0 1048576"),
            // Values that are no sizes, and files that take none.
            ("memory.max=max", "memory.max=max"),
            ("memory.limit_in_bytes=-1", "memory.limit_in_bytes=-1"),
            ("memory.max=0x1000", "memory.max=0x1000"),
            ("pids.max=1K", "pids.max=1K"),
            ("blkio.throttle.read_iops_device=8:0 1K", "blkio.throttle.read_iops_device=8:0 1K"),
            ("cpu.max=1K 2K", "cpu.max=1K 2K"),
        ] {
            let setting: CgroupSetting = text.parse().expect("a setting");
            assert_eq!(
                setting.in_bytes().map(|setting| setting.to_string()),
                Ok(in_bytes.to_owned()),
                "{text}"
            );
        }
        for (text, size) in [
            ("memory.max=lots", "lots"),
            ("memory.max=1.5G", "1.5G"),
            ("io.max=8:0 rbps=1Mb/s", "1Mb/s"),
            ("blkio.throttle.write_bps_device=8:0 fast", "fast"),
        ] {
            let setting: CgroupSetting = text.parse().expect("a setting");
            let refused = SpecError::CgroupSize(setting.file.clone(), size.to_owned());
            assert_eq!(setting.in_bytes(), Err(refused), "{text}");
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

    #[test]
    fn a_file_of_the_other_version_is_refused_with_its_counterpart() {
        let check = |setting: &str, version| {
            let setting: CgroupSetting = setting.parse().expect("a setting");
            setting.check_version(version).map_err(|e| e.to_string())
        };
        let line =
            "'memory.max' exists only in cgroup v2, but this jail uses v1; use 'memory.limit_in_bytes'";
        assert_eq!(check("memory.max=1", CgroupVersion::V1), Err(line.to_owned()));
        let line = "'cpu.shares' exists only in cgroup v1, but this jail uses v2; use 'cpu.weight'";
        assert_eq!(check("cpu.shares=1", CgroupVersion::V2), Err(line.to_owned()));
        for both in ["pids.max=1", "cpuset.cpus=0", "memory.numa_stat=1"] {
            assert_eq!(check(both, CgroupVersion::V1).and(check(both, CgroupVersion::V2)), Ok(()));
        }
    }
}
