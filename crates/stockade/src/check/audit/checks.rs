//! Findings about the VMM's process.

use super::facts::{AuditFacts, Reach};
use crate::check::doctor::{Finding, Grade};
use crate::check::finding::listed;

pub(super) fn identity(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let (uid, gid) = facts.asked_owner;
    let all = |ids: &[u32], wanted: u32| !ids.is_empty() && ids.iter().all(|id| *id == wanted);
    findings.push(if facts.uids.contains(&0) || facts.gids.contains(&0) {
        let fact = format!("uids {:?}, gids {:?}: root is among them", facts.uids, facts.gids);
        Finding::bad("owner", Grade::Broken, fact, "no jail confines root", "use another --uid and --gid")
    } else if all(&facts.uids, uid) && all(&facts.gids, gid) {
        Finding::good("owner", format!("uid {uid}, gid {gid}: real, effective, saved and filesystem"))
    } else {
        let fact = format!("uids {:?}, gids {:?}, but {uid}:{gid} was requested", facts.uids, facts.gids);
        Finding::bad(
            "owner",
            Grade::Broken,
            fact,
            "the VMM does not run as the requested user",
            "start it again",
        )
    });
    findings.push(if facts.groups.is_empty() {
        Finding::good("groups", "no supplementary groups")
    } else {
        let fact = format!("{:?}", facts.groups);
        Finding::bad(
            "groups",
            Grade::Warning,
            fact,
            "the VMM can open the files of these groups",
            "start it again",
        )
    });
}

pub(super) fn privileges(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let set = |name: &str| facts.capabilities.get(name).copied().unwrap_or(u64::MAX);
    let held: Vec<&str> =
        ["CapEff", "CapPrm", "CapInh", "CapAmb"].into_iter().filter(|name| set(name) != 0).collect();
    findings.push(if held.is_empty() {
        Finding::good(
            "capabilities",
            "none: the effective, permitted, inheritable and ambient sets are empty",
        )
    } else {
        let sets: Vec<String> = held.iter().map(|name| format!("{name} {:#x}", set(name))).collect();
        let effect = "each capability is a part of root's privileges";
        Finding::bad("capabilities", Grade::Broken, sets.join(", "), effect, "start it again as another uid")
    });
    let bounding = set("CapBnd");
    findings.push(match (bounding, facts.no_new_privs) {
        (0, _) => Finding::good("bounding-set", "empty: no program can give the VMM a capability"),
        (_, true) => {
            Finding::good("bounding-set", format!("{bounding:#x}, without effect because of no_new_privs"))
        }
        (_, false) => Finding::bad(
            "bounding-set",
            Grade::Note,
            format!("{bounding:#x}"),
            "a set-uid program of root in the jail would get these capabilities",
            "keep such programs out (see set-id), or let the VMM set no_new_privs",
        ),
    });
    findings.push(if facts.no_new_privs {
        Finding::good("no-new-privs", "set")
    } else {
        Finding::bad(
            "no-new-privs",
            Grade::Note,
            "not set",
            "set-uid programs take effect",
            "let the VMM set it, as Firecracker does with its seccomp filter",
        )
    });
    findings.push(match facts.seccomp {
        2 => Finding::good("seccomp", "a filter is in force"),
        1 => Finding::good("seccomp", "strict"),
        _ => Finding::bad(
            "seccomp",
            Grade::Warning,
            "no filter",
            "the VMM can make every system call",
            "use a VMM with a filter, such as Firecracker without --no-seccomp",
        ),
    });
}

/// Checks whether the VMM can be in a Landlock domain.
///
/// The kernel does not show the domain of a process, and an exec process is in none of the VMM's domains. But only a
/// thread with `no_new_privs`, or with CAP_SYS_ADMIN in its user namespace, can enter a domain.
pub(super) fn landlock(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let privileged = facts.capabilities.get("CapPrm").is_none_or(|set| *set != 0);
    let own_users = !facts.shared_namespaces.iter().any(|kind| kind == "user");
    findings.push(Finding::good(
        "landlock",
        match (facts.landlock, facts.no_new_privs_threads) {
            (None, _) => "none: the kernel does not offer it here".to_owned(),
            (_, 0) if !privileged && !own_users => "in no domain: no thread has set no_new_privs".to_owned(),
            (_, threads) => format!(
                "unknown: the kernel shows a domain neither from outside nor to an exec process; threads that may be in \
                 one: {threads}"
            ),
        },
    ));
}

pub(super) fn namespaces(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let shares = |kind: &str| facts.shared_namespaces.iter().any(|shared| shared == kind);
    findings.push(if shares("mnt") {
        let effect = "the VMM has the host's mounts";
        Finding::bad("mount-namespace", Grade::Broken, "the host's", effect, "start it again")
    } else {
        Finding::good("mount-namespace", "its own")
    });
    findings.push(if shares("net") {
        Finding::bad(
            "network-namespace",
            Grade::Warning,
            format!("the host's, with {} abstract sockets", facts.abstract_sockets),
            "the VMM can connect to every service on the host",
            "use --netns or --new-net-ns",
        )
    } else {
        Finding::good("network-namespace", "its own")
    });
    findings.push(if shares("pid") {
        Finding::bad(
            "pid-namespace",
            Grade::Note,
            "the host's",
            "the VMM can signal every other process of its uid",
            "use --new-pid-ns",
        )
    } else {
        Finding::good("pid-namespace", "its own")
    });
    let others = ["cgroup", "ipc", "time", "user", "uts"].into_iter().filter(|kind| shares(kind));
    let others: Vec<&str> = others.collect();
    if !others.is_empty() {
        findings.push(Finding::good("other-namespaces", format!("the host's {}", others.join(", "))));
    }
}

pub(super) fn root(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(if facts.root_is_the_hosts {
        Finding::bad(
            "root",
            Grade::Broken,
            "the host's",
            "the VMM can reach every file of the host by its path",
            "start it again",
        )
    } else {
        Finding::good("root", "its own")
    });
    let points: Vec<String> = facts
        .mounts
        .iter()
        .map(|(point, kind, read_only)| format!("{point} ({kind}{})", if *read_only { ", ro" } else { "" }))
        .collect();
    let dangerous = ["proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "devtmpfs"];
    let found = facts.mounts.iter().filter(|(_, kind, _)| dangerous.contains(&kind.as_str()));
    let found: Vec<&str> = found.map(|(point, ..)| point.as_str()).collect();
    findings.push(if found.is_empty() {
        Finding::good("mounts", listed(points))
    } else {
        Finding::bad(
            "mounts",
            Grade::Warning,
            format!("kernel filesystems at {}", listed(found)),
            "they reveal facts about the host, and some can change it",
            "place copies of the files that the VMM needs from them",
        )
    });
}

/// Harmless targets of standard streams.
const HARMLESS: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

pub(super) fn descriptors(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for descriptor in &facts.descriptors {
        let fact = format!("file descriptor {} leads to {}", descriptor.number, descriptor.target);
        let fix = "close it before the VMM is started, or use --daemonize";
        match descriptor.reach {
            Reach::OutsideDirectory => {
                let effect = "every file of the host can be reached from one of its directories";
                findings.push(Finding::bad("descriptors", Grade::Broken, fact, effect, fix));
            }
            Reach::OutsideFile if !HARMLESS.contains(&descriptor.target.as_str()) => {
                let terminal =
                    descriptor.target.starts_with("/dev/pts/") || descriptor.target.starts_with("/dev/tty");
                let effect = if terminal {
                    "the VMM reads the input of this terminal"
                } else {
                    "the VMM has a file of the host open"
                };
                findings.push(Finding::bad("descriptors", Grade::Warning, fact, effect, fix));
            }
            _ => (),
        }
    }
    if findings.len() == before {
        findings.push(Finding::good("descriptors", "none leads to a file of the host"));
    }
    findings.push(if facts.environment.is_empty() {
        Finding::good("environment", "empty")
    } else {
        let names = listed(&facts.environment);
        let effect = "the VMM can read these variables of its caller";
        Finding::bad("environment", Grade::Note, names, effect, "start it again")
    });
}
