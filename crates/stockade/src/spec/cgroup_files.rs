//! Files with the same effect in cgroup v1 and v2 under different names.

use super::{CgroupSetting, CgroupVersion, SpecError};

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

impl CgroupSetting {
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

#[cfg(test)]
mod tests {
    use super::*;

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
