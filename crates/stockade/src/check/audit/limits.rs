//! What the cgroups of a jail limit, and whether that is what was asked for.

use std::collections::BTreeMap;
use std::path::Path;

use super::facts::Setting;
use crate::error::Result;
use crate::host::CgroupLayout;
use crate::state::Receipt;
use crate::steps::Step;

/// A file of a cgroup that limits what its processes use.
pub(super) struct Limit {
    /// What of: memory, pids or cpu.
    pub(super) what: &'static str,
    /// The version that has it, 1 or 2; 0 for both.
    version: u32,
    /// Its name.
    pub(super) file: &'static str,
    /// What stands in it where there is no limit.
    none: &'static str,
    /// What to write there, as advice says it.
    pub(super) example: &'static str,
}

/// All of them; of those of one version the first for each purpose is the one to advise.
const LIMITS: [Limit; 6] = [
    Limit { what: "memory", version: 2, file: "memory.max", none: "max", example: "BYTES" },
    Limit {
        what: "memory",
        version: 1,
        file: "memory.limit_in_bytes",
        none: "9223372036854771712",
        example: "BYTES",
    },
    Limit { what: "pids", version: 0, file: "pids.max", none: "max", example: "N" },
    Limit { what: "cpu", version: 2, file: "cpu.max", none: "max 100000", example: "'QUOTA PERIOD'" },
    Limit { what: "cpu", version: 1, file: "cpu.cfs_quota_us", none: "-1", example: "MICROSECONDS" },
    Limit { what: "cpu", version: 0, file: "cpuset.cpus", none: "", example: "LIST" },
];

impl Limit {
    /// The one to advise on a host that has this controller in this version.
    pub(super) fn advised(what: &str, version: u32) -> Option<&'static Self> {
        LIMITS.iter().find(|limit| limit.what == what && [0, version].contains(&limit.version))
    }
}

/// Which version of cgroups has each controller that limits something, where one has it.
pub(super) fn versions() -> Result<BTreeMap<String, u32>> {
    let layout = CgroupLayout::read_mounts()?.with_unified(Path::new(""))?;
    let version = |controller| match (layout.v2_with(controller), layout.v1_with(controller)) {
        (Some(_), _) => Some(2),
        (None, found) => found.map(|_| 1),
    };
    let found = LIMITS.iter().filter_map(|limit| Some((limit.what.to_owned(), version(limit.what)?)));
    Ok(found.collect())
}

/// What was asked for against what is in force, and by what each of the three is limited.
pub(super) fn in_force(receipt: &Receipt) -> (Vec<Setting>, BTreeMap<String, Vec<String>>) {
    let mut settings = Vec::new();
    let mut limited: BTreeMap<String, Vec<String>> =
        LIMITS.iter().map(|limit| (limit.what.to_owned(), Vec::new())).collect();
    for step in &receipt.steps {
        let (directory, asked) = match step {
            Step::CgroupV1(cgroup) => (cgroup.directory(), &cgroup.settings),
            Step::CgroupV2(cgroup) => (cgroup.directory(), &cgroup.settings),
            _ => continue,
        };
        let found = |file: &str| {
            std::fs::read_to_string(directory.join(Path::new(file))).ok().map(|text| text.trim().to_owned())
        };
        for Limit { what, file, none, .. } in LIMITS {
            let value = found(file).filter(|value| value != none);
            if let Some(value) = value.filter(|_| asked.iter().any(|setting| setting.file == file)) {
                limited.entry(what.to_owned()).or_default().push(format!("{file}={value}"));
            }
        }
        settings.extend(asked.iter().map(|setting| Setting {
            file: setting.file.clone(),
            asked: setting.value.clone(),
            found: found(&setting.file),
        }));
    }
    (settings, limited)
}

impl Setting {
    /// Whether what is in force is what was asked for; what was left out, as the period of cpu.max, is the kernel's.
    pub(super) fn holds(&self) -> bool {
        let Some(found) = &self.found else { return false };
        let mut found = found.split_whitespace();
        let mut asked = self.asked.split_whitespace();
        asked.all(|asked| found.next().is_some_and(|found| asked == found || is_number(asked, found)))
    }
}

/// Whether the two are one number.
fn is_number(asked: &str, found: &str) -> bool {
    number(asked).is_some_and(|asked| Some(asked) == number(found))
}

/// A number as the kernel reads sizes: with a suffix for a power of 1024.
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

    #[test]
    fn values_are_compared_as_the_kernel_reads_them() {
        let holds = |asked: &str, found: &str| {
            Setting { file: "f".into(), asked: asked.into(), found: Some(found.into()) }.holds()
        };
        for (asked, found) in [
            ("64M", "67108864"),
            ("64m", "67108864"),
            ("1G", "1073741824"),
            ("max", "max"),
            ("50000", "50000 100000"),
            ("1K 2", "1024 2"),
            ("0-1", "0-1"),
        ] {
            assert!(holds(asked, found), "{asked} {found}");
        }
        for (asked, found) in
            [("64M", "64"), ("1", "max"), ("M", "M1"), ("999E", "999"), ("1 2", "1"), ("1000000", "999424")]
        {
            assert!(!holds(asked, found), "{asked} {found}");
        }
        assert!(!Setting { file: "f".into(), asked: "1".into(), found: None }.holds());
    }

    #[test]
    fn the_file_of_the_hosts_version_is_advised() {
        let file = |what, version| Limit::advised(what, version).map(|limit| limit.file);
        assert_eq!(file("memory", 1), Some("memory.limit_in_bytes"));
        assert_eq!(file("memory", 2), Some("memory.max"));
        assert_eq!([file("pids", 1), file("pids", 2)], [Some("pids.max"); 2]);
        assert_eq!(file("cpu", 1), Some("cpu.cfs_quota_us"));
        assert_eq!(file("cpu", 2), Some("cpu.max"));
        assert_eq!(file("other", 2), None);
    }
}
