//! Findings about the objects that jails consist of.

use rustix::io::Errno;

use stockade_syscalls::features::Feature;

use super::trials::{OPEN_NODE, Trial};
use super::{Finding, Grade, HostFacts};
use crate::spec::Reason;

/// The advice for a file in `/proc` that cannot be read.
pub(super) const MOUNT_PROC: &str = "mount a proc without the options subset and hidepid";

/// The oldest supported kernel.
const OLDEST: (u32, u32) = (5, 10);

pub(super) fn kernel(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let release = &facts.kernel;
    findings.push(match version(release) {
        Some(version) if version < OLDEST => Finding::bad(
            "kernel",
            Grade::Broken,
            format!("Linux {release} is older than 5.10"),
            "jails need system calls that this kernel does not have",
            "install a newer kernel",
        ),
        _ => Finding::good("kernel", format!("Linux {release}")),
    });
    let before = findings.len();
    findings.extend(facts.trials.calls.iter().filter_map(|(feature, trial)| system_call(*feature, trial)));
    if findings.len() == before {
        findings.push(Finding::good("system-calls", "all system calls that jails need are available"));
    }
}

/// The finding about a call that jails need, unless it is available.
fn system_call(feature: Feature, trial: &Trial) -> Option<Finding> {
    let (name, since) = feature.name_and_version();
    let (grade, effect) = match feature {
        Feature::MountSetattr => {
            (Grade::Warning, "no file can be bound, and only the root of a jail is mounted nosuid")
        }
        Feature::Clone3 | Feature::CloseRange | Feature::OpenTree | Feature::Openat2 | Feature::PidfdOpen => {
            (Grade::Broken, "no jail can be created")
        }
    };
    let (fact, mend) = match trial {
        Trial::Worked => return None,
        Trial::Refused { cause: Errno::NOSYS, .. } => {
            (format!("{name} is missing; Linux has it since {since}"), "install a newer kernel")
        }
        Trial::Refused { .. } | Trial::Killed(_) => {
            (format!("a seccomp filter forbids {name}"), "allow it in the container's seccomp profile")
        }
        Trial::Unknown(reason) => {
            return Some(Finding::unknown("system-calls", format!("{name}: {reason}"), "run doctor again"));
        }
    };
    Some(Finding::bad("system-calls", grade, fact, effect, mend))
}

/// The major and minor version of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn privileges(facts: &HostFacts, findings: &mut Vec<Finding>) {
    findings.push(
        match (facts.uid, facts.missing_capabilities.as_slice(), facts.in_user_namespace.result()) {
            (0, [], Ok(false)) => Finding::good("privileges", "root, with every capability that jails need"),
            (0, [], Ok(true)) => Finding::bad(
                "privileges",
                Grade::Broken,
                "root of a user namespace, with capabilities that hold only in it",
                "no device node can be created there, so no jail",
                "run stockade in the host's user namespace, as root",
            ),
            (0, [], Err(reason)) => Finding::unknown(
                "privileges",
                format!("root of an unknown user namespace: {reason}"),
                "mount /proc",
            ),
            (0, missing, _) => Finding::bad(
                "privileges",
                Grade::Broken,
                format!("root lacks {}", missing.join(", ")),
                "no jail can be created",
                format!("give this container {}", missing.join(", ")),
            ),
            (uid, ..) => Finding::bad(
                "privileges",
                Grade::Broken,
                format!("this is uid {uid}"),
                "only root can create jails",
                "sudo stockade doctor",
            ),
        },
    );
    if facts.jail_uid == 0 {
        findings.push(Finding::bad(
            "jail-uid",
            Grade::Warning,
            "the VMMs would run as root",
            "such a VMM owns root's files, so no jail confines it",
            "use another --uid",
        ));
    }
    match facts.suid_dumpable.result() {
        Ok(1) => findings.push(Finding::bad(
            "suid-dumpable",
            Grade::Warning,
            "fs.suid_dumpable is 1",
            "a VMM can trace exec processes of its uid",
            "sysctl fs.suid_dumpable=2",
        )),
        Ok(_) => (),
        Err(reason) => findings.push(Finding::unknown("suid-dumpable", reason, MOUNT_PROC)),
    }
    if !facts.forbidden_namespaces.is_empty() {
        let kinds = &facts.forbidden_namespaces;
        let settings: Vec<String> =
            kinds.iter().map(|kind| format!("sysctl user.max_{kind}_namespaces=10000")).collect();
        let fact = format!("no namespace of these kinds can be created: {}", kinds.join(", "));
        let grade = if kinds.contains(&"mnt") { Grade::Broken } else { Grade::Warning };
        findings.push(Finding::bad(
            "namespaces",
            grade,
            fact,
            "a jail that needs such a namespace cannot be created",
            settings.join("; "),
        ));
    }
}

pub(super) fn cgroups(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let layout = &facts.cgroups;
    let named = |options: &[String]| options.iter().any(|option| option.starts_with("name="));
    let v1: Vec<&str> = layout
        .v1
        .iter()
        .filter(|hierarchy| !named(&hierarchy.options))
        .flat_map(|hierarchy| hierarchy.options.iter().map(String::as_str))
        .filter(|option| !["rw", "ro", "relatime", "nosuid", "nodev", "noexec"].contains(option))
        .collect();
    let v1 = (!v1.is_empty()).then(|| format!("cgroup v1 with {}", v1.join(" ")));
    let v2 = layout.v2.as_ref().map(|unified| {
        let (offered, enabled) = (unified.controllers.join(" "), facts.delegated.join(" "));
        format!(
            "cgroup v2 with {}; enabled for child cgroups: {}",
            or_none(&offered, "no controllers"),
            or_none(&enabled, "none")
        )
    });
    let mounted: Vec<String> = [v1, v2].into_iter().flatten().collect();
    findings.push(if let Some(reason) = &facts.no_cgroups {
        Finding::unknown("cgroups", reason, MOUNT_PROC)
    } else if mounted.is_empty() {
        Finding::bad(
            "cgroups",
            Grade::Warning,
            "no cgroup hierarchy is mounted",
            "--cgroup fails, and stockade searches the descendants of a VMM by their root",
            "mount -t cgroup2 none /sys/fs/cgroup",
        )
    } else {
        Finding::good("cgroups", mounted.join("; "))
    });
    if layout.v2.is_some() && facts.cgroup_kill == Some(false) {
        findings.push(Finding::bad(
            "cgroup-kill",
            Grade::Note,
            "cgroup.kill is missing; Linux has it since 5.14",
            "fork bombs are killed one process at a time, or with the freezer of cgroup v1",
            "install a newer kernel",
        ));
    }
    if facts.uid == 0 && !facts.tracking {
        findings.push(Finding::bad(
            "tracking-cgroup",
            Grade::Warning,
            "no cgroup can be created below the cgroup of this process",
            "in a jail with neither --cgroup nor --new-pid-ns, stockade may lose track of the VMM's descendants",
            "use --new-pid-ns, or let this container write to its cgroup",
        ));
    }
}

fn or_none<'t>(text: &'t str, none: &'t str) -> &'t str {
    if text.is_empty() { none } else { text }
}

pub(super) fn devices(facts: &HostFacts, findings: &mut Vec<Finding>) {
    for (path, problem) in &facts.devices {
        let (check, effect, fix) = match *path {
            "/dev/kvm" => (
                "kvm",
                "a VMM that needs KVM does not start",
                "run 'modprobe kvm_intel' or 'modprobe kvm_amd'; in a virtual machine, enable nested virtualization",
            ),
            _ => ("tun", "a VMM cannot have a tap device", "run 'modprobe tun'"),
        };
        let node = facts.trials.nodes.iter().find(|(of, _)| of == path).map(|(_, trial)| trial);
        findings.push(match (problem, node) {
            // The VMM opens the jail's node, so its outcome counts.
            (_, Some(Trial::Refused { call: OPEN_NODE, cause: cause @ (Errno::PERM | Errno::ACCESS) })) => {
                let fact = format!("the node of '{path}' in a jail cannot be opened: {}", Reason(*cause));
                let fix = "allow the device in the devices cgroup of this container, for example \
                           'docker run --device'";
                Finding::bad(check, Grade::Warning, fact, effect, fix)
            }
            (None, Some(Trial::Worked) | None) => {
                Finding::good(check, format!("{path} opens; each jail gets a node that its uid owns"))
            }
            (None, Some(_)) => {
                let fact = format!("{path} opens, but a jail's node was not tried (see device-nodes)");
                Finding::unknown(check, fact, "fix that finding first")
            }
            // The jail's node belongs to the jail's owner, so the mode of the host's node is irrelevant.
            (Some(cause), _) if facts.uid != 0 && cause.contains("denied") => Finding::unknown(
                check,
                format!("{path} exists, and only root can open it; each jail gets a node that its uid owns"),
                "sudo stockade doctor",
            ),
            (Some(cause), _) => {
                Finding::bad(check, Grade::Warning, format!("cannot open '{path}': {cause}"), effect, fix)
            }
        });
    }
}

/// The findings about the trials. A process that is not root has its finding already.
pub(super) fn trials(facts: &HostFacts, findings: &mut Vec<Finding>) {
    if facts.uid != 0 {
        return;
    }
    let trials = &facts.trials;
    findings.push(of_trial(
        "mount-namespace",
        &trials.mounts,
        "a jail gets its own mounts and root",
        (Grade::Broken, "no jail can be created"),
        if facts.root_is_mount_point.fact() == Some(&false) {
            "start stockade where '/' is a mount point, for example after 'pivot_root' or 'chroot' to a mount"
        } else {
            "allow the call in this container's seccomp profile, and start stockade as root of the host"
        },
    ));
    for (kind, trial) in &trials.namespaces {
        if *trial != Trial::Worked && !facts.forbidden_namespaces.contains(kind) {
            let grade = (Grade::Warning, "a jail that needs such a namespace cannot be created");
            let mut finding =
                of_trial("namespaces", trial, "", grade, "allow clone3 with new namespaces here");
            finding.fact = format!("{kind} namespace: {}", finding.fact);
            findings.push(finding);
        }
    }
    findings.push(of_trial(
        "join-namespace",
        &trials.join,
        "a jail can join an existing namespace",
        (Grade::Warning, "--netns fails, and so do exec and shell"),
        "allow setns in this container's seccomp profile",
    ));
    let made = |trial: &Trial| match trial {
        // The node exists then; what opening it shows is a finding about the device.
        Trial::Refused { call: OPEN_NODE, .. } => Trial::Worked,
        other => other.clone(),
    };
    let worst = trials.nodes.iter().map(|(path, trial)| (path, made(trial)));
    let worst: Vec<_> = worst.filter(|(_, trial)| *trial != Trial::Worked).collect();
    let effect = (Grade::Broken, "no jail can be created");
    let fix = "allow the devices in the devices cgroup of this container, and mknod in its seccomp profile";
    if worst.is_empty() {
        let good = "a jail's device nodes can be created";
        findings.push(of_trial("device-nodes", &Trial::Worked, good, effect, fix));
    }
    for (path, trial) in worst {
        let mut finding = of_trial("device-nodes", &trial, "", effect, fix);
        finding.fact = format!("{path}: {}", finding.fact);
        findings.push(finding);
    }
    findings.push(of_trial(
        "inspection",
        &trials.inspection,
        "the processes of jails can be inspected",
        (Grade::Warning, "stockade may overlook processes of a jail, and exec, audit and inspect fail"),
        if facts.lacks_ptrace {
            "give this container CAP_SYS_PTRACE"
        } else {
            "use the /proc of this pid namespace, without the option hidepid"
        },
    ));
}

/// The finding about one trial.
///
/// # Arguments
/// * `good`: the fact if it worked.
/// * `bad`: the grade and the effect if a call was refused.
fn of_trial(
    check: &'static str,
    trial: &Trial,
    good: &str,
    (grade, effect): (Grade, &'static str),
    fix: &str,
) -> Finding {
    match trial {
        Trial::Worked => Finding::good(check, good),
        Trial::Refused { call, cause } => {
            Finding::bad(check, grade, format!("{call} fails: {}", Reason(*cause)), effect, fix)
        }
        Trial::Killed(signal) => {
            let fact =
                format!("signal {signal} kills a process at one of its calls, as a seccomp filter does");
            Finding::bad(check, grade, fact, effect, fix)
        }
        Trial::Unknown(reason) => Finding::unknown(check, reason, fix),
    }
}

pub(super) fn proc(facts: &HostFacts, findings: &mut Vec<Finding>) {
    findings.push(if facts.unread_proc.is_empty() {
        Finding::good("proc", "shows every file that jails need")
    } else {
        Finding::bad(
            "proc",
            Grade::Broken,
            facts.unread_proc.join("; "),
            "no jail can be recorded or recognized",
            MOUNT_PROC,
        )
    });
}

/// The most that one jail takes with its libraries and devices, without images.
const LITTLE_SPACE: u64 = 64 << 20;
const FEW_INODES: u64 = 1_000;

pub(super) fn base(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let base = &facts.base;
    let (path, existing) = (base.path.display(), base.existing.display());
    let mut problems = Vec::new();
    if let Some(cause) = &base.unread {
        let reason = format!("cannot inspect '{existing}': {cause}");
        findings.push(Finding::unknown("base", reason, "use another --chroot-base-dir"));
        return;
    }
    for option in &base.options {
        let (effect, wanted) = match *option {
            "noexec" => ("no VMM can be executed there", "exec"),
            "nodev" => ("a VMM cannot open /dev/kvm there", "dev"),
            _ => ("no jail can be created there", "rw"),
        };
        let fact = format!("{existing} is mounted {option}");
        let fix = format!(
            "run 'mount -o remount,{wanted} {}', or use another --chroot-base-dir",
            base.mount.display()
        );
        problems.push(Finding::bad("base", Grade::Broken, fact, effect, fix));
    }
    match &base.unsafe_directory {
        Ok(None) => (),
        Ok(Some(directory)) => {
            let directory = directory.display();
            problems.push(Finding::bad(
                "base",
                Grade::Broken,
                format!("uid {} can write to {directory}", facts.jail_uid),
                "no jail of that uid can be created there without --allow-unsafe-base, since it could exchange jails",
                format!("chown root:root {directory}; chmod go-w {directory}"),
            ));
        }
        Err(fact) => problems.push(Finding::bad(
            "base",
            Grade::Broken,
            fact,
            "no jail can be created there",
            "use another --chroot-base-dir",
        )),
    }
    if !base.is_root_only && base.exists && base.unsafe_directory == Ok(None) {
        problems.push(Finding::bad(
            "base",
            Grade::Warning,
            format!("not only root can write to {path}"),
            "a user who can write there can move jails",
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
            "a jail needs space for its VMM and images",
            "stockade gc",
        ));
    }
    if problems.is_empty() {
        let future = if base.exists { "" } else { "; the first jail creates it" };
        let fact = format!("{path} on {}, {} left{future}", base.filesystem, bytes(base.free_bytes));
        problems.push(Finding::good("base", fact));
    }
    findings.append(&mut problems);
    if !["xfs", "btrfs"].contains(&base.filesystem) {
        findings.push(Finding::bad(
            "reflink",
            Grade::Note,
            format!("{} has no reflinks", base.filesystem),
            "each placed image is copied byte by byte, unless it is bound",
            "put the base and the images on one xfs or btrfs",
        ));
    }
}

/// A size in its largest unit, with one decimal.
fn bytes(number: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| number >= *unit);
    unit.map_or(format!("{number} bytes"), |(unit, name)| {
        format!("{}.{} {name}", number / unit, number % unit * 10 / unit)
    })
}
