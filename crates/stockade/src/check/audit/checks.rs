//! Findings about the VMM's process.

use super::facts::{AuditFacts, Reach};
use crate::check::doctor::{Finding, Grade};

pub(super) fn identity(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let (uid, gid) = facts.asked_owner;
    let all = |ids: &[u32], wanted: u32| !ids.is_empty() && ids.iter().all(|id| *id == wanted);
    findings.push(if facts.uids.contains(&0) || facts.gids.contains(&0) {
        let fact = format!("uids {:?}, gids {:?}: root is among them", facts.uids, facts.gids);
        Finding::bad("owner", Grade::Broken, fact, "root is in no jail", "another --uid and --gid")
    } else if all(&facts.uids, uid) && all(&facts.gids, gid) {
        Finding::good("owner", format!("uid {uid}, gid {gid}, in all four places"))
    } else {
        let fact = format!("uids {:?}, gids {:?}, and {uid}:{gid} were asked for", facts.uids, facts.gids);
        Finding::bad("owner", Grade::Broken, fact, "the VMM is not who it was to be", "start it anew")
    });
    findings.push(if facts.groups.is_empty() {
        Finding::good("groups", "no supplementary ones")
    } else {
        let fact = format!("{:?}", facts.groups);
        Finding::bad(
            "groups",
            Grade::Warning,
            fact,
            "these groups' files are open to the VMM",
            "start it anew",
        )
    });
}

pub(super) fn privileges(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let set = |name: &str| facts.capabilities.get(name).copied().unwrap_or(u64::MAX);
    let held: Vec<&str> =
        ["CapEff", "CapPrm", "CapInh", "CapAmb"].into_iter().filter(|name| set(name) != 0).collect();
    findings.push(if held.is_empty() {
        Finding::good("capabilities", "none: effective, permitted, inheritable and ambient sets are empty")
    } else {
        let sets: Vec<String> = held.iter().map(|name| format!("{name} {:#x}", set(name))).collect();
        let breaks = "each of these is a piece of root";
        Finding::bad("capabilities", Grade::Broken, sets.join(", "), breaks, "start it anew as another uid")
    });
    let bounding = set("CapBnd");
    findings.push(match (bounding, facts.no_new_privs) {
        (0, _) => Finding::good("bounding-set", "empty: no program can give it a capability"),
        (_, true) => Finding::good("bounding-set", format!("{bounding:#x}, of no use with no_new_privs")),
        (_, false) => Finding::bad(
            "bounding-set",
            Grade::Note,
            format!("{bounding:#x}"),
            "a set-uid program of root in the jail would get these capabilities",
            "keep such programs out (see set-id), or have the VMM set no_new_privs",
        ),
    });
    findings.push(if facts.no_new_privs {
        Finding::good("no-new-privs", "set")
    } else {
        Finding::bad(
            "no-new-privs",
            Grade::Note,
            "not set",
            "set-uid programs have their effect",
            "have the VMM set it, as Firecracker does with its seccomp filter",
        )
    });
    findings.push(match facts.seccomp {
        2 => Finding::good("seccomp", "a filter is in force"),
        1 => Finding::good("seccomp", "strict"),
        _ => Finding::bad(
            "seccomp",
            Grade::Warning,
            "no filter",
            "the VMM can make every system call of the kernel",
            "a VMM that brings its filter, as Firecracker does unless told --no-seccomp",
        ),
    });
}

/// The kernel shows the domains of no process, and a visitor is in none of the VMM's. But it takes a thread that has
/// given up new privileges, or one with a capability, to enter one.
pub(super) fn landlock(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let privileged = facts.capabilities.get("CapPrm").is_none_or(|set| *set != 0);
    let own_users = !facts.shared_namespaces.iter().any(|kind| kind == "user");
    findings.push(Finding::good(
        "landlock",
        match (facts.landlock, facts.no_new_privs_threads) {
            (None, _) => "none: the kernel offers it to nobody here".to_owned(),
            (_, 0) if !privileged && !own_users => "in no domain: no thread has set no_new_privs".to_owned(),
            (_, threads) => format!(
                "cannot be told: the kernel shows no domain from outside or to a visitor; threads that may be in one: \
                 {threads}"
            ),
        },
    ));
}

pub(super) fn namespaces(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let shares = |kind: &str| facts.shared_namespaces.iter().any(|shared| shared == kind);
    findings.push(if shares("mnt") {
        let breaks = "the host's mounts are its own";
        Finding::bad("mount-namespace", Grade::Broken, "the host's", breaks, "start it anew")
    } else {
        Finding::good("mount-namespace", "its own")
    });
    findings.push(if shares("net") {
        Finding::bad(
            "network-namespace",
            Grade::Warning,
            format!("the host's, with {} abstract sockets", facts.abstract_sockets),
            "the VMM can connect to whatever listens on the host",
            "--netns or --new-net-ns",
        )
    } else {
        Finding::good("network-namespace", "its own")
    });
    findings.push(if shares("pid") {
        Finding::bad(
            "pid-namespace",
            Grade::Note,
            "the host's",
            "the VMM can signal whatever else runs as its uid",
            "--new-pid-ns",
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
            "every file of the host can be named",
            "start it anew",
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
        Finding::good("mounts", points.join(", "))
    } else {
        Finding::bad(
            "mounts",
            Grade::Warning,
            format!("{}: file systems of the kernel", found.join(", ")),
            "they tell of the host, and some change it",
            "place what the VMM needs of them as copies",
        )
    });
}

/// Where standard streams may well lead.
const HARMLESS: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

pub(super) fn descriptors(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for descriptor in &facts.descriptors {
        let fact = format!("{} leads to {}", descriptor.number, descriptor.target);
        let mend = "close it before the VMM is started, or give --daemonize";
        match descriptor.reach {
            Reach::OutsideDirectory => {
                let breaks = "from a directory of the host all of its files can be reached";
                findings.push(Finding::bad("descriptors", Grade::Broken, fact, breaks, mend));
            }
            Reach::OutsideFile if !HARMLESS.contains(&descriptor.target.as_str()) => {
                let terminal =
                    descriptor.target.starts_with("/dev/pts/") || descriptor.target.starts_with("/dev/tty");
                let breaks = if terminal {
                    "the VMM reads what is typed at this terminal"
                } else {
                    "the VMM has a file of the host open"
                };
                findings.push(Finding::bad("descriptors", Grade::Warning, fact, breaks, mend));
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
        let names = facts.environment.join(", ");
        let breaks = "what was in the caller's environment is the VMM's to read";
        Finding::bad("environment", Grade::Note, names, breaks, "start it anew")
    });
}
