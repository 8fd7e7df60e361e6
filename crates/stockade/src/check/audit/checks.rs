//! Findings about the VMM's process.

use super::facts::{AuditFacts, Descriptor, Reach};
use crate::check::doctor::{Finding, Grade};
use crate::check::finding::listed;

/// The advice for a fact that only a process with CAP_SYS_PTRACE in the initial user namespace sees.
pub(super) const LOOK_AS_ROOT: &str =
    "run audit as root of the host, with CAP_SYS_PTRACE and an unrestricted /proc";

pub(super) fn identity(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let (uid, gid) = facts.asked_owner;
    let all = |ids: &[u32], wanted: u32| !ids.is_empty() && ids.iter().all(|id| *id == wanted);
    findings.push(if all(&facts.uids, uid) && all(&facts.gids, gid) && uid != 0 && gid != 0 {
        Finding::good("owner", format!("uid {uid}, gid {gid}: real, effective, saved and filesystem"))
    } else if facts.ids_are_mapped || facts.uids.is_empty() || facts.gids.is_empty() {
        let fact = format!(
            "uids {:?}, gids {:?} as seen from a user namespace; {uid}:{gid} was requested",
            facts.uids, facts.gids
        );
        Finding::unknown("owner", fact, LOOK_AS_ROOT)
    } else if facts.uids.contains(&0) || facts.gids.contains(&0) {
        let fact = format!("uids {:?}, gids {:?}: root is among them", facts.uids, facts.gids);
        Finding::bad("owner", Grade::Broken, fact, "no jail confines root", "use another --uid and --gid")
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
    findings.push(capabilities(facts));
    findings.push(match (facts.capabilities.get("CapBnd"), facts.no_new_privs) {
        (Some(0), _) => Finding::good("bounding-set", "empty: no program can give the VMM a capability"),
        (Some(bounding), true) => {
            Finding::good("bounding-set", format!("{bounding:#x}, without effect because of no_new_privs"))
        }
        (Some(bounding), false) => Finding::bad(
            "bounding-set",
            Grade::Note,
            format!("{bounding:#x}"),
            "a set-uid program of root in the jail would get these capabilities",
            "keep such programs out (see set-id), or let the VMM set no_new_privs",
        ),
        (None, _) => Finding::unknown("bounding-set", "the kernel does not show CapBnd", LOOK_AS_ROOT),
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

fn capabilities(facts: &AuditFacts) -> Finding {
    let check = "capabilities";
    let sets = ["CapEff", "CapPrm", "CapInh", "CapAmb"].map(|name| (name, facts.capabilities.get(name)));
    let missing: Vec<&str> = sets.iter().filter(|(_, set)| set.is_none()).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        return Finding::unknown(
            check,
            format!("the kernel does not show {}", missing.join(", ")),
            LOOK_AS_ROOT,
        );
    }
    let held = sets.iter().filter_map(|(name, set)| set.filter(|set| **set != 0).map(|set| (name, set)));
    let held: Vec<String> = held.map(|(name, set)| format!("{name} {set:#x}")).collect();
    if held.is_empty() {
        return Finding::good(
            check,
            "none: the effective, permitted, inheritable and ambient sets are empty",
        );
    }
    let held = held.join(", ");
    match facts.shares("user") {
        Ok(true) => {
            let effect = "each capability is a part of root's privileges";
            Finding::bad(check, Grade::Broken, held, effect, "start it again as another uid")
        }
        // The sets hold for the objects of that namespace, and the kernel does not list those.
        Ok(false) => Finding::unknown(
            check,
            format!("{held}, in a user namespace of its own, where they may be harmless"),
            "examine the namespace, or forbid the VMM to create one (sysctl user.max_user_namespaces=0)",
        ),
        Err(reason) => {
            Finding::unknown(check, format!("{held}, in an unknown user namespace: {reason}"), LOOK_AS_ROOT)
        }
    }
}

/// Checks whether the VMM can be in a Landlock domain.
///
/// The kernel does not show the domain of a process, and an exec process is in none of the VMM's domains. But only a
/// thread with `no_new_privs`, or with CAP_SYS_ADMIN in its user namespace, can enter a domain.
pub(super) fn landlock(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let privileged = facts.capabilities.get("CapPrm").is_none_or(|set| *set != 0);
    let may_own_users = facts.shares("user") != Ok(true);
    let unknown = |reason: &str| Finding::unknown("landlock", reason, "examine the VMM's source or its log");
    findings.push(match (facts.landlock.result(), facts.no_new_privs_threads.result()) {
        (Ok(None), _) => Finding::good("landlock", "none: the kernel does not offer it here"),
        (_, Ok(0)) if !privileged && !may_own_users => {
            Finding::good("landlock", "in no domain: no thread has set no_new_privs")
        }
        (Ok(Some(_)), Ok(threads)) => unknown(&format!(
            "unknown: the kernel shows a domain neither from outside nor to an exec process; threads that may be in \
             one: {threads}"
        )),
        (Err(reason), _) | (_, Err(reason)) => unknown(&format!("unknown: {reason}")),
    });
}

pub(super) fn namespaces(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let of = |check, kind: &str, shared: Finding| match facts.shares(kind) {
        Ok(true) => shared,
        Ok(false) => Finding::good(check, "its own"),
        Err(reason) => Finding::unknown(check, reason, LOOK_AS_ROOT),
    };
    let effect = "the VMM has the host's mounts";
    let shared = Finding::bad("mount-namespace", Grade::Broken, "the host's", effect, "start it again");
    findings.push(of("mount-namespace", "mnt", shared));
    let sockets = match facts.abstract_sockets.result() {
        Ok(count) => format!("the host's, with {count} abstract sockets"),
        Err(reason) => format!("the host's, with an unknown number of abstract sockets: {reason}"),
    };
    let shared = Finding::bad(
        "network-namespace",
        Grade::Warning,
        sockets,
        "the VMM can connect to every service on the host",
        "use --netns or --new-net-ns",
    );
    findings.push(of("network-namespace", "net", shared));
    let shared = Finding::bad(
        "pid-namespace",
        Grade::Note,
        "the host's",
        "the VMM can signal every other process of its uid",
        "use --new-pid-ns",
    );
    findings.push(of("pid-namespace", "pid", shared));
    let others = ["cgroup", "ipc", "time", "user", "uts"];
    let shared: Vec<&str> = others.into_iter().filter(|kind| facts.shares(kind) == Ok(true)).collect();
    if !shared.is_empty() {
        findings.push(Finding::good("other-namespaces", format!("the host's {}", shared.join(", "))));
    }
    let unseen: Vec<&str> = others.into_iter().filter_map(|kind| facts.shares(kind).err()).collect();
    if !unseen.is_empty() {
        findings.push(Finding::unknown("other-namespaces", unseen.join("; "), LOOK_AS_ROOT));
    }
}

pub(super) fn root(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    findings.push(match facts.root_is_the_hosts.result() {
        Ok(true) => Finding::bad(
            "root",
            Grade::Broken,
            "the host's",
            "the VMM can reach every file of the host by its path",
            "start it again",
        ),
        Ok(false) => Finding::good("root", "its own"),
        Err(reason) => Finding::unknown("root", reason, LOOK_AS_ROOT),
    });
    findings.push(match facts.mounts.result() {
        Ok(mounts) => kernel_filesystems(mounts),
        Err(reason) => Finding::unknown("mounts", reason, LOOK_AS_ROOT),
    });
}

fn kernel_filesystems(mounts: &[(String, String, bool)]) -> Finding {
    let points: Vec<String> = mounts
        .iter()
        .map(|(point, kind, read_only)| format!("{point} ({kind}{})", if *read_only { ", ro" } else { "" }))
        .collect();
    let dangerous = ["proc", "sysfs", "cgroup", "cgroup2", "debugfs", "tracefs", "securityfs", "devtmpfs"];
    let found = mounts.iter().filter(|(_, kind, _)| dangerous.contains(&kind.as_str()));
    let found: Vec<&str> = found.map(|(point, ..)| point.as_str()).collect();
    if found.is_empty() {
        Finding::good("mounts", listed(points))
    } else {
        Finding::bad(
            "mounts",
            Grade::Warning,
            format!("kernel filesystems at {}", listed(found)),
            "they reveal facts about the host, and some can change it",
            "place copies of the files that the VMM needs from them",
        )
    }
}

/// Harmless targets of standard streams.
const HARMLESS: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

pub(super) fn descriptors(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    match facts.descriptors.result() {
        Ok(descriptors) => findings.extend(descriptors.iter().filter_map(leak)),
        Err(reason) => findings.push(Finding::unknown("descriptors", reason, LOOK_AS_ROOT)),
    }
    if findings.len() == before {
        findings.push(Finding::good("descriptors", "none leads to a file of the host"));
    }
    findings.push(match facts.environment.result() {
        Ok(names) if names.is_empty() => Finding::good("environment", "empty"),
        Ok(names) => {
            let effect = "the VMM can read these variables of its caller";
            Finding::bad("environment", Grade::Note, listed(names), effect, "start it again")
        }
        Err(reason) => Finding::unknown("environment", reason, LOOK_AS_ROOT),
    });
}

/// The finding about a file descriptor that leads out of the jail, or may.
fn leak(descriptor: &Descriptor) -> Option<Finding> {
    let fact = format!("file descriptor {} leads to {}", descriptor.number, descriptor.target);
    let fix = "close it before the VMM is started, or use --daemonize";
    let harmless = HARMLESS.contains(&descriptor.target.as_str());
    match descriptor.reach {
        Reach::OutsideDirectory => {
            let effect = "every file of the host can be reached from one of its directories";
            Some(Finding::bad("descriptors", Grade::Broken, fact, effect, fix))
        }
        Reach::OutsideFile if !harmless => {
            let terminal =
                descriptor.target.starts_with("/dev/pts/") || descriptor.target.starts_with("/dev/tty");
            let effect = if terminal {
                "the VMM reads the input of this terminal"
            } else {
                "the VMM has a file of the host open"
            };
            Some(Finding::bad("descriptors", Grade::Warning, fact, effect, fix))
        }
        Reach::Unknown => {
            let fact = format!("{fact}, in the jail or outside: its mount cannot be read");
            Some(Finding::unknown("descriptors", fact, LOOK_AS_ROOT))
        }
        Reach::OutsideFile | Reach::Inside | Reach::Pathless => None,
    }
}
