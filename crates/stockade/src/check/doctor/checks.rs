//! Findings about what jails are made with.

use super::{Finding, Grade, HostFacts};

/// The oldest kernel that is supported.
const OLDEST: (u32, u32) = (5, 10);

pub(super) fn kernel(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let release = &facts.kernel;
    findings.push(match version(release) {
        Some(version) if version < OLDEST => Finding::bad(
            "kernel",
            Grade::Broken,
            format!("Linux {release} is older than 5.10"),
            "jails are made with system calls that came later",
            "install a newer kernel",
        ),
        _ => Finding::good("kernel", format!("Linux {release}")),
    });
    for (name, since, forbidden) in &facts.missing_calls {
        // Jails do without this one.
        let grade = if *name == "mount_setattr" { Grade::Warning } else { Grade::Broken };
        let breaks = if *name == "mount_setattr" {
            "no file can be bound, and only the root of a jail is mounted nosuid"
        } else {
            "no jail can be made"
        };
        findings.push(if *forbidden {
            let fact = format!("{name} is forbidden by a filter of system calls");
            Finding::bad("system-calls", grade, fact, breaks, "let the container's seccomp profile allow it")
        } else {
            let fact = format!("{name} is missing, which came with Linux {since}");
            Finding::bad("system-calls", grade, fact, breaks, "install a newer kernel")
        });
    }
    if facts.missing_calls.is_empty() {
        findings.push(Finding::good("system-calls", "all that jails are made with are there"));
    }
}

/// The two numbers that a release begins with.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn privileges(facts: &HostFacts, findings: &mut Vec<Finding>) {
    findings.push(match (facts.uid, facts.missing_capabilities.as_slice()) {
        (0, []) => Finding::good("privileges", "root, with every capability that jails take"),
        (0, missing) => Finding::bad(
            "privileges",
            Grade::Broken,
            format!("root lacks {}", missing.join(", ")),
            "no jail can be made",
            format!("give this container {}", missing.join(", ")),
        ),
        (uid, _) => Finding::bad(
            "privileges",
            Grade::Broken,
            format!("this is uid {uid}"),
            "making jails needs root",
            "sudo stockade doctor",
        ),
    });
    if facts.jail_uid == 0 {
        findings.push(Finding::bad(
            "jail-uid",
            Grade::Warning,
            "VMMs are to run as root",
            "root's files are such a VMM's own: it is in no jail",
            "another --uid",
        ));
    }
    if facts.suid_dumpable == Some(1) {
        findings.push(Finding::bad(
            "suid-dumpable",
            Grade::Warning,
            "fs.suid_dumpable is 1",
            "a VMM can trace exec processes of its uid",
            "sysctl fs.suid_dumpable=2",
        ));
    }
    if !facts.forbidden_namespaces.is_empty() {
        let kinds = &facts.forbidden_namespaces;
        let settings: Vec<String> =
            kinds.iter().map(|kind| format!("sysctl user.max_{kind}_namespaces=10000")).collect();
        let fact = format!("no namespace may be made of kind {}", kinds.join(", "));
        let grade = if kinds.contains(&"mnt") { Grade::Broken } else { Grade::Warning };
        findings.push(Finding::bad(
            "namespaces",
            grade,
            fact,
            "a jail has namespaces of these kinds, if asked for",
            settings.join("; "),
        ));
    }
}

pub(super) fn cgroups(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let layout = &facts.cgroups;
    let named = |options: &[String]| options.iter().any(|option| option.starts_with("name="));
    let first: Vec<&str> = layout
        .v1
        .iter()
        .filter(|hierarchy| !named(&hierarchy.options))
        .flat_map(|hierarchy| hierarchy.options.iter().map(String::as_str))
        .filter(|option| !["rw", "ro", "relatime", "nosuid", "nodev", "noexec"].contains(option))
        .collect();
    let second = layout.v2.as_ref().map(|unified| {
        let (free, handed) = (unified.controllers.join(" "), facts.delegated.join(" "));
        format!("{}; handed down already: {}", or_none(&free), or_none(&handed))
    });
    findings.push(match (first.as_slice(), second) {
        ([], None) => Finding::bad(
            "cgroups",
            Grade::Warning,
            "no cgroup hierarchy is mounted",
            "--cgroup fails, and descendants of a VMM are searched by their root",
            "mount -t cgroup2 none /sys/fs/cgroup",
        ),
        (first, None) => Finding::good("cgroups", format!("version 1 with {}", first.join(" "))),
        ([], Some(second)) => {
            Finding::good("cgroups", format!("version 2, whose root can hand down {second}"))
        }
        (first, Some(second)) => {
            let first = first.join(" ");
            Finding::good(
                "cgroups",
                format!(
                    "version 1 with {first}; free for version 2, whose root can hand them down: {second}"
                ),
            )
        }
    });
    if layout.v2.is_some() && facts.cgroup_kill == Some(false) {
        findings.push(Finding::bad(
            "cgroup-kill",
            Grade::Note,
            "cgroups have no cgroup.kill, which came with Linux 5.14",
            "fork bombs are killed one by one, or by the freezer of version 1",
            "install a newer kernel",
        ));
    }
    if facts.uid == 0 && !facts.tracking {
        findings.push(Finding::bad(
            "tracking-cgroup",
            Grade::Warning,
            "no cgroup can be made below this process's own",
            "a jail with neither --cgroup nor --new-pid-ns may lose sight of descendants of its VMM",
            "use --new-pid-ns, or let this container write to its cgroup",
        ));
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "no controllers" } else { text }
}

pub(super) fn devices(facts: &HostFacts, findings: &mut Vec<Finding>) {
    for (path, problem) in &facts.devices {
        let (check, breaks, module) = match *path {
            "/dev/kvm" => ("kvm", "a VMM that needs KVM does not start", "kvm_intel' or 'modprobe kvm_amd"),
            _ => ("tun", "a VMM cannot have a tap device", "tun"),
        };
        findings.push(match problem {
            None => Finding::good(check, format!("{path} opens; a jail gets a node that is its uid's")),
            // The jail's node has the jail's owner, whoever may open the host's.
            Some(cause) if facts.uid != 0 && cause.contains("denied") => Finding::good(
                check,
                format!("{path} is there, for root; a jail gets a node that is its uid's"),
            ),
            Some(cause) => Finding::bad(
                check,
                Grade::Warning,
                format!("{path} does not open: {cause}"),
                breaks,
                format!("'modprobe {module}'; in a virtual machine, nested virtualization"),
            ),
        });
    }
}

/// What one jail with its libraries and devices takes at most without images.
const LITTLE_SPACE: u64 = 64 << 20;
const FEW_INODES: u64 = 1_000;

pub(super) fn base(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let base = &facts.base;
    let (path, existing) = (base.path.display(), base.existing.display());
    let mut problems = Vec::new();
    for option in &base.options {
        let (breaks, wanted) = match *option {
            "noexec" => ("no VMM can be executed there", "exec"),
            "nodev" => ("a VMM cannot open /dev/kvm there", "dev"),
            _ => ("no jail can be made there", "rw"),
        };
        let fact = format!("{existing} is mounted {option}");
        let mend =
            format!("mount -o remount,{wanted} {}, or another --chroot-base-dir", base.mount.display());
        problems.push(Finding::bad("base", Grade::Broken, fact, breaks, mend));
    }
    if !base.is_roots && base.exists {
        problems.push(Finding::bad(
            "base",
            Grade::Warning,
            format!("{path} is not root's own"),
            "whoever may write there can move jails about",
            format!("chown root:root {path}; chmod go-w {path}"),
        ));
    }
    if base.free_bytes < LITTLE_SPACE || base.free_inodes.is_some_and(|inodes| inodes < FEW_INODES) {
        let inodes = base.free_inodes.map_or(String::new(), |inodes| format!(" and {inodes} inodes"));
        let fact = format!("{existing} has {}{inodes} left", bytes(base.free_bytes));
        problems.push(Finding::bad(
            "base",
            Grade::Warning,
            fact,
            "a jail needs room for its VMM and images",
            "stockade gc",
        ));
    }
    if problems.is_empty() {
        let there = if base.exists { "" } else { ", to be made with the first jail" };
        let fact = format!("{path} on {}, {} left{there}", base.filesystem, bytes(base.free_bytes));
        problems.push(Finding::good("base", fact));
    }
    findings.append(&mut problems);
    if !["xfs", "btrfs"].contains(&base.filesystem) {
        findings.push(Finding::bad(
            "reflink",
            Grade::Note,
            format!("{} makes no reflinks", base.filesystem),
            "every image that is placed is copied byte by byte, unless it is bound",
            "put the base and the images on one xfs or btrfs",
        ));
    }
}

/// To one decimal of the largest unit.
fn bytes(number: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| number >= *unit);
    unit.map_or(format!("{number} bytes"), |(unit, name)| {
        format!("{}.{} {name}", number / unit, number % unit * 10 / unit)
    })
}
