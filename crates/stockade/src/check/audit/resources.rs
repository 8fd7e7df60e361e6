//! Findings about the VMM's resources, its tree and its neighbours.

use std::collections::BTreeMap;

use super::facts::AuditFacts;
use super::limits::Limit;
use super::tree::TreeFacts;
use crate::check::doctor::{Finding, Grade};
use crate::check::finding::listed;
use crate::sys::cgroup::parse_membership;

/// The resources that the jail's cgroups can limit: check, resource, grade and effect of a missing limit.
const RESOURCES: [(&str, &str, Grade, &str); 3] = [
    ("memory-limit", "memory", Grade::Warning, "the VMM can use all memory of the host"),
    ("pids-limit", "pids", Grade::Warning, "the VMM can use every pid of the host"),
    ("cpu-limit", "cpu", Grade::Note, "the VMM can use every processor of the host"),
];

pub(super) fn cgroups(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(Finding::good("cgroup", membership(&facts.cgroups)));
    for (check, resource, grade, effect) in RESOURCES {
        let limited = facts.limited.get(resource).map(|settings| settings.join(", ")).unwrap_or_default();
        findings.push(if limited.is_empty() {
            let fix = advise_limit(resource, facts.cgroup_versions.get(resource).copied());
            Finding::bad(check, grade, "none in the jail's cgroup", effect, fix)
        } else {
            Finding::good(check, limited)
        });
    }
    for setting in facts.settings.iter().filter(|setting| !setting.holds()) {
        let found = setting.found.as_deref().unwrap_or("unreadable");
        findings.push(Finding::bad(
            "settings",
            Grade::Note,
            format!("{}={} was requested, but the value is {found}", setting.file, setting.asked),
            "the kernel rounded the value, or another process changed it",
            "compare the two values",
        ));
    }
}

/// The advice that limits this resource on a host with the controller in this cgroup version.
fn advise_limit(resource: &str, version: Option<u32>) -> String {
    match version.and_then(|version| Limit::advised(resource, version)) {
        Some(limit) => format!("use --cgroup {}={}", limit.file, limit.example),
        None => format!("mount a cgroup hierarchy with the controller {resource}"),
    }
}

/// The VMM's cgroups without the root cgroups, as `PATH (CONTROLLERS)`.
fn membership(lines: &[String]) -> String {
    let mut cgroups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (controllers, path) in lines.iter().filter_map(|line| parse_membership(line)) {
        if path != "/" {
            let name = if controllers.is_empty() { "cgroup v2" } else { controllers };
            cgroups.entry(path).or_default().push(name);
        }
    }
    if cgroups.is_empty() {
        return "the root of every hierarchy".to_owned();
    }
    let cgroups = cgroups.iter().map(|(path, controllers)| format!("{path} ({})", controllers.join(", ")));
    cgroups.collect::<Vec<_>>().join("; ")
}

pub(super) fn limits(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let limit = |name: &str| facts.limits.get(name).copied().flatten();
    let files = limit("Max open files").map_or("unlimited".to_owned(), |most| most.to_string());
    findings.push(Finding::good("open-files", files));
    findings.push(match limit("Max core file size") {
        Some(0) => Finding::good("core-dumps", "off"),
        _ => Finding::bad(
            "core-dumps",
            Grade::Note,
            "on",
            "a crash writes the guest's memory to the target of kernel.core_pattern",
            "run 'ulimit -c 0' before the VMM is started",
        ),
    });
}

/// The numbers of devices that a VMM commonly has. The number of userfaultfd differs between hosts.
const EXPECTED: [(u32, u32); 5] = [(10, 232), (10, 200), (1, 9), (1, 3), (1, 5)];

pub(super) fn tree(tree: &TreeFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for device in &tree.devices {
        let fact = format!("{} is device {}:{}", device.path.display(), device.device.0, device.device.1);
        let expected = EXPECTED.contains(&device.device) || device.path.ends_with("dev/userfaultfd");
        let fix = "run 'stockade unplace', unless the VMM needs it";
        if device.block {
            let effect = "a disk of the host is in the jail";
            findings.push(Finding::bad("devices", Grade::Warning, fact, effect, fix));
        } else if !expected {
            let effect = "the VMM has a device that VMMs do not commonly have";
            findings.push(Finding::bad("devices", Grade::Note, fact, effect, fix));
        }
    }
    if findings.len() == before {
        let names = listed(tree.devices.iter().map(|one| one.path.display()));
        findings.push(Finding::good("devices", if names.is_empty() { "none".to_owned() } else { names }));
    }
    let roots: Vec<String> =
        tree.set_id.iter().filter(|file| file.uid == 0).map(|file| file.path.display().to_string()).collect();
    findings.push(if roots.is_empty() {
        Finding::good("set-id", "no set-uid or set-gid file belongs to root")
    } else {
        let effect = "a process that executes it becomes root, at least in the jail";
        Finding::bad("set-id", Grade::Broken, listed(roots), effect, "run 'stockade unplace'")
    });
    findings.push(Finding::good(
        "writable",
        format!("{} directories: {}", tree.writable.len(), some(&tree.writable)),
    ));
    findings.push(Finding::good(
        "sockets",
        if tree.sockets.is_empty() { "none".into() } else { some(&tree.sockets) },
    ));
    if tree.cut_off {
        findings.push(Finding::bad(
            "tree",
            Grade::Note,
            "the tree has more files than audit examines",
            "the findings about the tree may be incomplete",
            "examine it with 'stockade shell'",
        ));
    }
}

fn some(paths: &[std::path::PathBuf]) -> String {
    first_few(paths.iter().map(|path| path.display().to_string()), " ")
}

/// Joins the first few names.
fn first_few(mut names: impl Iterator<Item = String>, separator: &str) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.by_ref().take(SHOWN).collect();
    let more = names.next().map(|_| "…".to_owned());
    shown.into_iter().chain(more).collect::<Vec<_>>().join(separator)
}

pub(super) fn neighbours(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(if facts.same_uid.is_empty() {
        Finding::good("neighbours", "no other jail with its uid is within its reach")
    } else {
        Finding::bad(
            "neighbours",
            Grade::Warning,
            format!("jails with its uid: {}", first_few(facts.same_uid.iter().cloned(), ", ")),
            "processes of one uid can signal and trace each other",
            "use a different uid for each jail, or --new-pid-ns",
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_limits_of_the_hosts_cgroup_version() {
        assert_eq!(advise_limit("memory", Some(1)), "use --cgroup memory.limit_in_bytes=BYTES");
        assert_eq!(advise_limit("cpu", Some(2)), "use --cgroup cpu.max='QUOTA PERIOD'");
        assert_eq!(advise_limit("pids", None), "mount a cgroup hierarchy with the controller pids");
    }

    #[test]
    fn each_cgroup_of_a_vmm_is_listed_once() {
        let listed =
            |lines: &[&str]| membership(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        let lines = ["9:name=systemd:/", "8:pids:/vm/a", "4:memory:/vm/a", "1:cpu,cpuacct:/", "0::/b:c"];
        assert_eq!(listed(&lines), "/b:c (cgroup v2); /vm/a (pids, memory)");
        assert_eq!(listed(&["0::/"]), "the root of every hierarchy");
    }
}
