//! The limits of a jail's cgroups, and whether they are as requested.

use std::collections::BTreeMap;
use std::path::Path;

use super::facts::Setting;
use crate::error::{Context, Operation, Result};
use crate::host::CgroupLayout;
use crate::spec::known::known;
use crate::state::Receipt;
use crate::steps::Step;
use crate::sys::procfs::read_file;

/// A cgroup file that limits a resource.
pub(super) struct Limit {
    /// The resource: memory, pids or cpu.
    pub(super) resource: &'static str,
    /// The cgroup version that has the file, 1 or 2; 0 for both.
    version: u32,
    /// The name of the file.
    pub(super) file: &'static str,
    /// The content that means no limit.
    none: &'static str,
    /// A placeholder for the value, for advice.
    pub(super) example: &'static str,
}

/// All limits. The first of each resource and version is the one to advise.
const LIMITS: [Limit; 6] = [
    Limit { resource: "memory", version: 2, file: "memory.max", none: "max", example: "BYTES" },
    Limit {
        resource: "memory",
        version: 1,
        file: "memory.limit_in_bytes",
        none: "9223372036854771712",
        example: "BYTES",
    },
    Limit { resource: "pids", version: 0, file: "pids.max", none: "max", example: "N" },
    Limit { resource: "cpu", version: 2, file: "cpu.max", none: "max 100000", example: "'QUOTA PERIOD'" },
    Limit { resource: "cpu", version: 1, file: "cpu.cfs_quota_us", none: "-1", example: "MICROSECONDS" },
    Limit { resource: "cpu", version: 0, file: "cpuset.cpus", none: "", example: "LIST" },
];

impl Limit {
    /// The limit to advise on a host that has the controller in this cgroup version.
    pub(super) fn advised(resource: &str, version: u32) -> Option<&'static Self> {
        LIMITS.iter().find(|limit| limit.resource == resource && [0, version].contains(&limit.version))
    }
}

/// The cgroup version of each controller with a limit, if this host has the controller.
pub(super) fn versions() -> Result<BTreeMap<String, u32>> {
    let layout = CgroupLayout::read_mounts()?.with_controllers()?;
    let version = |controller| match (layout.v2_with(controller), layout.v1_with(controller)) {
        (Some(_), _) => Some(2),
        (None, found) => found.map(|_| 1),
    };
    let found = LIMITS.iter().filter_map(|limit| Some((limit.resource.to_owned(), version(limit.resource)?)));
    Ok(found.collect())
}

/// The settings that hold for each resource, or the reasons why they are unknown.
type ByResource = BTreeMap<String, Vec<String>>;

/// The requested settings with the values in force, the limits of each resource, and the limits that cannot be read.
pub(super) fn in_force(receipt: &Receipt) -> (Vec<Setting>, ByResource, ByResource) {
    let mut settings = Vec::new();
    let mut limited: ByResource =
        LIMITS.iter().map(|limit| (limit.resource.to_owned(), Vec::new())).collect();
    let mut unread = ByResource::new();
    for step in &receipt.steps {
        let (directory, asked) = match step {
            Step::CgroupV1(cgroup) => (cgroup.directory(), &cgroup.settings),
            Step::CgroupV2(cgroup) => (cgroup.directory(), &cgroup.settings),
            _ => continue,
        };
        for asked in asked {
            let at = directory.join(Path::new(&asked.file));
            let found = known(read_file(&at).context(Operation::Read, &at));
            let found = found.map(|text| text.trim().to_owned());
            for limit in LIMITS.iter().filter(|limit| limit.file == asked.file) {
                let resource = limit.resource.to_owned();
                match found.result() {
                    Ok(value) if value == limit.none => (),
                    Ok(value) => limited.entry(resource).or_default().push(format!("{}={value}", asked.file)),
                    Err(reason) => unread.entry(resource).or_default().push(reason.to_owned()),
                }
            }
            settings.push(Setting { file: asked.file.clone(), asked: asked.value.clone(), found });
        }
    }
    (settings, limited, unread)
}

impl Setting {
    /// Whether the value in force is the requested one. An omitted part, as the period of `cpu.max`, is the kernel's
    /// choice.
    ///
    /// # Errors
    /// Returns the reason if the value in force is unknown.
    pub(super) fn holds(&self) -> std::result::Result<bool, &str> {
        // A file such as `io.max` has a line for each device.
        Ok(self.found.result()?.lines().any(|line| self.is_in(line)))
    }

    /// Whether each requested part is at its position; one with a key, as in `io.max`, may be anywhere.
    fn is_in(&self, found: &str) -> bool {
        let found: Vec<&str> = found.split_whitespace().collect();
        self.asked.split_whitespace().enumerate().all(|(at, asked)| {
            let same = |found: &&str| asked == *found || is_same_number(asked, found);
            if asked.contains('=') { found.iter().any(same) } else { found.get(at).is_some_and(same) }
        })
    }
}

/// Whether both texts are the same number.
fn is_same_number(asked: &str, found: &str) -> bool {
    number(asked).is_some_and(|asked| Some(asked) == number(found))
}

/// Parses a number as the kernel parses sizes: with a suffix for a power of 1024.
fn number(text: &str) -> Option<u64> {
    const SUFFIXES: &str = "KMGTPE";
    let suffix = text.chars().next_back().and_then(|last| SUFFIXES.find(last.to_ascii_uppercase()));
    let digits = if suffix.is_some() { &text[..text.len() - 1] } else { text };
    let shift = suffix.map_or(0, |at| 10 * (at + 1));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::known::Known;

    #[test]
    fn values_are_compared_as_the_kernel_reads_them() {
        let holds = |asked: &str, found: &str| {
            Setting { file: "f".into(), asked: asked.into(), found: found.to_owned().into() }.holds()
                == Ok(true)
        };
        for (asked, found) in [
            ("64M", "67108864"),
            ("64m", "67108864"),
            ("1G", "1073741824"),
            ("max", "max"),
            ("50000", "50000 100000"),
            ("1K 2", "1024 2"),
            ("0-1", "0-1"),
            (
                "8:0 wiops=9 rbps=5",
                "7:0 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=5 wbps=max riops=max wiops=9",
            ),
        ] {
            assert!(holds(asked, found), "{asked} {found}");
        }
        for (asked, found) in [
            ("64M", "64"),
            ("1", "max"),
            ("M", "M1"),
            ("999E", "999"),
            ("1 2", "1"),
            ("1000000", "999424"),
            ("8:0 rbps=5", "8:0 rbps=max\n7:0 rbps=5"),
        ] {
            assert!(!holds(asked, found), "{asked} {found}");
        }
        let unread = Setting { file: "f".into(), asked: "1".into(), found: Known::unknown("why") };
        assert_eq!(unread.holds(), Err("why"));
    }

    #[test]
    fn the_file_of_the_hosts_version_is_advised() {
        let file = |resource, version| Limit::advised(resource, version).map(|limit| limit.file);
        assert_eq!(file("memory", 1), Some("memory.limit_in_bytes"));
        assert_eq!(file("memory", 2), Some("memory.max"));
        assert_eq!([file("pids", 1), file("pids", 2)], [Some("pids.max"); 2]);
        assert_eq!(file("cpu", 1), Some("cpu.cfs_quota_us"));
        assert_eq!(file("cpu", 2), Some("cpu.max"));
        assert_eq!(file("other", 2), None);
    }
}
