//! Findings about what the VMM may use, and what is around it.

use std::collections::BTreeMap;

use super::facts::AuditFacts;
use super::limits::Limit;
use super::tree::TreeFacts;
use crate::check::doctor::{Finding, Grade};

/// What a cgroup of the jail may limit: the check, what it is of, how bad it is if not, and what that breaks.
const RESOURCES: [(&str, &str, Grade, &str); 3] = [
    ("memory-limit", "memory", Grade::Warning, "the VMM may take all memory of the host"),
    ("pids-limit", "pids", Grade::Warning, "the VMM may take every pid of the host"),
    ("cpu-limit", "cpu", Grade::Note, "the VMM may take every processor of the host"),
];

pub(super) fn cgroups(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(Finding::good("cgroup", membership(&facts.cgroups)));
    for (check, what, grade, breaks) in RESOURCES {
        let limited = facts.limited.get(what).map(|settings| settings.join(", ")).unwrap_or_default();
        findings.push(if limited.is_empty() {
            let mend = limit_here(what, facts.cgroup_versions.get(what).copied());
            Finding::bad(check, grade, "none by the jail's cgroup", breaks, mend)
        } else {
            Finding::good(check, limited)
        });
    }
    for setting in facts.settings.iter().filter(|setting| !setting.holds()) {
        let found = setting.found.as_deref().unwrap_or("not to be read");
        findings.push(Finding::bad(
            "settings",
            Grade::Note,
            format!("{}={} was asked for, and it is {found}", setting.file, setting.asked),
            "the kernel rounds some values; others were changed since",
            "compare the two",
        ));
    }
}

/// The flag that limits this on a host that has the controller in this version.
fn limit_here(what: &str, version: Option<u32>) -> String {
    match version.and_then(|version| Limit::advised(what, version)) {
        Some(limit) => format!("--cgroup {}={}", limit.file, limit.example),
        None => format!("mount a cgroup hierarchy with the controller {what}"),
    }
}

/// Where it is in each hierarchy, but for those where it is at the root: `PATH (CONTROLLERS)`.
fn membership(lines: &[String]) -> String {
    let mut at: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in lines {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        if path != "/" {
            at.entry(path).or_default().push(if controllers.is_empty() { "version 2" } else { controllers });
        }
    }
    if at.is_empty() {
        return "the root of every hierarchy".to_owned();
    }
    let places = at.iter().map(|(path, controllers)| format!("{path} ({})", controllers.join(", ")));
    places.collect::<Vec<_>>().join("; ")
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
            "a crash writes the guest's memory to wherever the host's core_pattern says",
            "ulimit -c 0 before the VMM is started",
        ),
    });
}

/// Devices that a VMM may well have, by their numbers; that of userfaultfd differs from host to host.
const EXPECTED: [(u32, u32); 5] = [(10, 232), (10, 200), (1, 9), (1, 3), (1, 5)];

pub(super) fn tree(tree: &TreeFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for device in &tree.devices {
        let fact = format!("{} is device {}:{}", device.path.display(), device.device.0, device.device.1);
        let expected = EXPECTED.contains(&device.device) || device.path.ends_with("dev/userfaultfd");
        let mend = "stockade unplace, unless it is the VMM's to use";
        if device.block {
            let breaks = "a disk of the host is in the jail";
            findings.push(Finding::bad("devices", Grade::Warning, fact, breaks, mend));
        } else if !expected {
            let breaks = "it is none that every VMM has";
            findings.push(Finding::bad("devices", Grade::Note, fact, breaks, mend));
        }
    }
    if findings.len() == before {
        let names: Vec<String> = tree.devices.iter().map(|one| one.path.display().to_string()).collect();
        findings.push(Finding::good(
            "devices",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        ));
    }
    let roots: Vec<String> =
        tree.set_id.iter().filter(|file| file.uid == 0).map(|file| file.path.display().to_string()).collect();
    findings.push(if roots.is_empty() {
        Finding::good("set-id", "no set-uid or set-gid file is root's")
    } else {
        let breaks = "who executes it is root, in the jail at least";
        Finding::bad("set-id", Grade::Broken, roots.join(", "), breaks, "stockade unplace")
    });
    findings.push(Finding::good(
        "writable",
        format!("{} folders: {}", tree.writable.len(), some(&tree.writable)),
    ));
    findings.push(Finding::good(
        "sockets",
        if tree.sockets.is_empty() { "none".into() } else { some(&tree.sockets) },
    ));
    if tree.cut_off {
        findings.push(Finding::bad(
            "tree",
            Grade::Note,
            "the tree has more entries than are looked at",
            "the findings about it may lack some",
            "look at it by stockade shell",
        ));
    }
}

fn some(paths: &[std::path::PathBuf]) -> String {
    first_few(paths.iter().map(|path| path.display().to_string()), " ")
}

/// The first few, with this between them.
fn first_few(mut names: impl Iterator<Item = String>, between: &str) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.by_ref().take(SHOWN).collect();
    let more = names.next().map(|_| "…".to_owned());
    shown.into_iter().chain(more).collect::<Vec<_>>().join(between)
}

pub(super) fn neighbours(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(if facts.same_uid.is_empty() {
        Finding::good("neighbours", "no other jail runs as its uid within its reach")
    } else {
        Finding::bad(
            "neighbours",
            Grade::Warning,
            format!("{} as its uid", first_few(facts.same_uid.iter().cloned(), ", ")),
            "processes of one uid may signal and trace each other",
            "a uid for each jail, or --new-pid-ns",
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_a_jail_is_advised_in_the_words_of_this_host() {
        assert_eq!(limit_here("memory", Some(1)), "--cgroup memory.limit_in_bytes=BYTES");
        assert_eq!(limit_here("cpu", Some(2)), "--cgroup cpu.max='QUOTA PERIOD'");
        assert_eq!(limit_here("pids", None), "mount a cgroup hierarchy with the controller pids");
    }

    #[test]
    fn the_cgroups_that_a_vmm_is_in_are_told_once_each() {
        let told =
            |lines: &[&str]| membership(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        let lines = ["9:name=systemd:/", "8:pids:/vm/a", "4:memory:/vm/a", "1:cpu,cpuacct:/", "0::/b:c"];
        assert_eq!(told(&lines), "/b:c (version 2); /vm/a (pids, memory)");
        assert_eq!(told(&["0::/"]), "the root of every hierarchy");
    }
}
