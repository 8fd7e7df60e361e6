//! Findings about the VMM's resources, its tree and its neighbours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::checks::LOOK_AS_ROOT;
use super::facts::AuditFacts;
use super::limits::Limit;
use super::tree::{MOST, Special, TreeFacts};
use crate::check::doctor::{Finding, Grade};
use crate::spec::known::Known;
use crate::sys::cgroup::parse_membership;

/// The resources that the jail's cgroups can limit: check, resource, grade and effect of a missing limit.
const RESOURCES: [(&str, &str, Grade, &str); 3] = [
    ("memory-limit", "memory", Grade::Warning, "the VMM can use all memory of the host"),
    ("pids-limit", "pids", Grade::Warning, "the VMM can use every pid of the host"),
    ("cpu-limit", "cpu", Grade::Note, "the VMM can use every processor of the host"),
];

/// The advice for a cgroup file that cannot be read.
const READ_THE_FILE: &str = "read the file, or use a setting whose file can be read";

pub(super) fn cgroups(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(match facts.cgroups.result() {
        Ok(cgroups) => Finding::good("cgroup", membership(cgroups)),
        Err(reason) => Finding::unknown("cgroup", reason, LOOK_AS_ROOT),
    });
    for (check, resource, grade, effect) in RESOURCES {
        let limited = facts.limited.get(resource).map(|settings| settings.join(", ")).unwrap_or_default();
        findings.push(match facts.unread_limits.get(resource) {
            _ if !limited.is_empty() => Finding::good(check, limited),
            Some(reasons) => Finding::unknown(check, reasons.join("; "), READ_THE_FILE),
            None => {
                let versions = facts.cgroup_versions.result();
                let fix = versions.map_or_else(
                    |reason| format!("see 'stockade doctor' for this host's cgroups: {reason}"),
                    |versions| advise_limit(resource, versions.get(resource).copied()),
                );
                Finding::bad(check, grade, "none in the jail's cgroup", effect, fix)
            }
        });
    }
    for setting in &facts.settings {
        let asked = format!("{}={} was requested", setting.file, setting.asked);
        match (setting.holds(), setting.found.result()) {
            (Ok(true), _) => (),
            (Ok(false), Ok(found)) => findings.push(Finding::bad(
                "settings",
                Grade::Note,
                format!("{asked}, but the value is {found}"),
                "the kernel rounded the value, or another process changed it",
                "compare the two values",
            )),
            (Err(reason), _) | (_, Err(reason)) => {
                findings.push(Finding::unknown("settings", format!("{asked}; {reason}"), READ_THE_FILE));
            }
        }
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
    let limit = |name: &str| {
        let limits = facts.limits.result().map_err(str::to_owned)?;
        limits.get(name).copied().ok_or_else(|| format!("the kernel does not show the limit '{name}'"))
    };
    findings.push(match limit("Max open files") {
        Ok(most) => Finding::good("open-files", most.map_or("unlimited".to_owned(), |most| most.to_string())),
        Err(reason) => Finding::unknown("open-files", reason, LOOK_AS_ROOT),
    });
    findings.push(match limit("Max core file size") {
        Ok(Some(0)) => Finding::good("core-dumps", "off"),
        Ok(_) => Finding::bad(
            "core-dumps",
            Grade::Note,
            "on",
            "a crash writes the guest's memory to the target of kernel.core_pattern",
            "run 'ulimit -c 0' before the VMM is started",
        ),
        Err(reason) => Finding::unknown("core-dumps", reason, LOOK_AS_ROOT),
    });
}

/// The numbers of devices that a VMM commonly has. The number of userfaultfd differs between hosts.
const EXPECTED: [(u32, u32); 5] = [(10, 232), (10, 200), (1, 9), (1, 3), (1, 5)];

/// The advice for a tree that was not read completely.
const EXAMINE: &str = "examine it with 'stockade shell'";

pub(super) fn tree(tree: &Known<TreeFacts>, findings: &mut Vec<Finding>) {
    let tree = match tree.result() {
        Ok(tree) => tree,
        Err(reason) => {
            let checks = ["devices", "set-id", "file-capabilities", "writable", "sockets", "tree"];
            return findings.extend(checks.map(|check| Finding::unknown(check, reason, EXAMINE)));
        }
    };
    let gaps = gaps(tree);
    // An object that was not found may be among those that were not examined.
    let good = |check, fact: String| match &gaps {
        None => Finding::good(check, fact),
        Some(_) => {
            Finding::unknown(check, format!("{fact}, in the examined part of the tree (see tree)"), EXAMINE)
        }
    };
    let before = findings.len();
    findings.extend(tree.devices.iter().filter_map(device));
    if findings.len() == before {
        findings.push(good("devices", some(tree.devices.iter().map(|one| &one.path))));
    }
    let privileged = |check, files: &[Special], none: &str, effect| {
        let roots: Vec<_> = files.iter().filter(|file| file.uid == 0).map(|file| &file.path).collect();
        if roots.is_empty() {
            good(check, none.to_owned())
        } else {
            Finding::bad(check, Grade::Broken, some(roots.into_iter()), effect, "run 'stockade unplace'")
        }
    };
    findings.push(privileged(
        "set-id",
        &tree.set_id,
        "no set-uid or set-gid file belongs to root",
        "a process that executes it becomes root, at least in the jail",
    ));
    // Only root can set them, also on a file of another user.
    findings.push(if tree.capable.is_empty() {
        good("file-capabilities", "no file has capabilities".to_owned())
    } else {
        let effect = "a process that executes it gets these capabilities, at least in the jail";
        let files = some(tree.capable.iter().map(|file| &file.path));
        Finding::bad("file-capabilities", Grade::Broken, files, effect, "run 'stockade unplace'")
    });
    let writable = format!("{} directories: {}", tree.writable.len(), some(tree.writable.iter()));
    findings.push(good("writable", writable));
    findings.push(good("sockets", some(tree.sockets.iter())));
    findings.extend(gaps.map(|gaps| Finding::unknown("tree", gaps, EXAMINE)));
}

/// What was not seen of a tree; `None` if everything was.
fn gaps(tree: &TreeFacts) -> Option<String> {
    let cut_off =
        tree.cut_off.then(|| format!("the tree is larger than the {MOST} entries that audit examines"));
    let unread = (tree.unread_count > 0).then(|| {
        let more = if tree.unread_count > tree.unread.len() { ", …" } else { "" };
        format!("{} paths cannot be read: {}{more}", tree.unread_count, tree.unread.join(", "))
    });
    let gaps: Vec<String> = cut_off.into_iter().chain(unread).collect();
    (!gaps.is_empty()).then(|| gaps.join("; "))
}

/// The finding about a device node that a VMM does not commonly have.
fn device(device: &Special) -> Option<Finding> {
    let fact = format!("{} is device {}:{}", device.path.display(), device.device.0, device.device.1);
    let expected = EXPECTED.contains(&device.device) || device.path.ends_with("dev/userfaultfd");
    let fix = "run 'stockade unplace', unless the VMM needs it";
    if device.block {
        let effect = "a disk of the host is in the jail";
        return Some(Finding::bad("devices", Grade::Warning, fact, effect, fix));
    }
    let effect = "the VMM has a device that VMMs do not commonly have";
    (!expected).then(|| Finding::bad("devices", Grade::Note, fact, effect, fix))
}

/// The first few paths; `none` for none.
fn some<'p>(paths: impl Iterator<Item = &'p PathBuf>) -> String {
    let some = first_few(paths.map(|path| path.display().to_string()), " ");
    if some.is_empty() { "none".to_owned() } else { some }
}

/// Joins the first few names.
fn first_few(mut names: impl Iterator<Item = String>, separator: &str) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.by_ref().take(SHOWN).collect();
    let more = names.next().map(|_| "…".to_owned());
    shown.into_iter().chain(more).collect::<Vec<_>>().join(separator)
}

pub(super) fn neighbours(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let few = |ids: &[String]| first_few(ids.iter().cloned(), ", ");
    if facts.same_uid.is_empty() && facts.unread_jails.is_empty() {
        findings.push(Finding::good("neighbours", "no other jail with its uid is within its reach"));
    }
    if !facts.same_uid.is_empty() {
        findings.push(Finding::bad(
            "neighbours",
            Grade::Warning,
            format!("jails with its uid: {}", few(&facts.same_uid)),
            "processes of one uid can signal and trace each other",
            "use a different uid for each jail, or --new-pid-ns",
        ));
    }
    if !facts.unread_jails.is_empty() {
        let fact = format!("the uid or the state of these jails is unknown: {}", few(&facts.unread_jails));
        findings.push(Finding::unknown("neighbours", fact, "run 'stockade ps', and examine these jails"));
    }
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
