//! Findings about the settings of the host.

use super::checks::MOUNT_PROC;
use super::{Finding, Grade, HostFacts};
use crate::check::finding::listed;

/// The default limit of a VMM's open file descriptors.
const OPEN_FILES: u64 = 2048;
/// Fewer processes are too few: a VMM has a thread for each virtual processor, and some more.
const FEW_PROCESSES: u64 = 1024;
/// The longest path of a Unix socket, in bytes (`sun_path` without the final NUL).
pub const LONGEST_SOCKET_PATH: usize = 107;

pub(super) fn limits(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    if let Some(limit) = facts.open_files.filter(|limit| *limit < OPEN_FILES) {
        findings.push(Finding::bad(
            "limits",
            Grade::Note,
            format!("a process can have {limit} open file descriptors"),
            "a VMM can have this many too, instead of 2048 by default",
            "ulimit -Hn 65536",
        ));
    }
    if let Some(limit) = facts.processes.filter(|limit| *limit < FEW_PROCESSES) {
        findings.push(Finding::bad(
            "limits",
            Grade::Warning,
            format!("a user can have {limit} processes and threads"),
            "all jails of one uid share this limit",
            "ulimit -Hu unlimited",
        ));
    }
    if let Err(reason) = facts.pid_max.result() {
        findings.push(Finding::unknown("limits", reason, MOUNT_PROC));
    }
    if let Some(most) = facts.pid_max.fact().filter(|most| **most <= 32_768) {
        findings.push(Finding::bad(
            "limits",
            Grade::Note,
            format!("kernel.pid_max is {most}"),
            "VMMs with many threads can use up all pids",
            "sysctl kernel.pid_max=4194304",
        ));
    }
    if findings.len() == before {
        findings.push(Finding::good("limits", "file descriptors, processes and pids suffice"));
    }
}

pub(super) fn names(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let (socket, length) = (facts.socket_path.display(), facts.socket_path.as_os_str().len());
    findings.push(if length > LONGEST_SOCKET_PATH {
        Finding::bad(
            "socket-path",
            Grade::Warning,
            format!("{socket} has {length} bytes; the path of a socket has at most {LONGEST_SOCKET_PATH}"),
            "no process can connect to the VMM by this path",
            "use a shorter --chroot-base-dir or --id",
        )
    } else {
        let left = LONGEST_SOCKET_PATH - length;
        Finding::good("socket-path", format!("{length} bytes for {socket}, {left} to spare"))
    });
    findings.push(match facts.netns_shared.result() {
        Err(reason) => Finding::unknown("netns", reason, MOUNT_PROC),
        Ok(Some(true)) => {
            Finding::good("netns", "/run/netns is shared: each name is visible in all mount namespaces")
        }
        Ok(None) => Finding::good("netns", "the first named namespace creates and shares /run/netns"),
        Ok(Some(false)) => Finding::bad(
            "netns",
            Grade::Warning,
            "/run/netns is a mount and not shared",
            "network namespaces that are named in another mount namespace are not visible here",
            "mount --make-shared /run/netns",
        ),
    });
    findings.push(match &facts.no_template_mounts {
        None => Finding::good("template-namespace", "jails start without a copy of the host's mounts"),
        Some(reason) => Finding::bad(
            "template-namespace",
            Grade::Note,
            format!("there is no template mount namespace: {reason}"),
            "each start copies the host's mount namespace, which is slow on a host with many mounts",
            "sudo stockade host-setup",
        ),
    });
}

pub(super) fn leftovers(facts: &HostFacts, findings: &mut Vec<Finding>) {
    if let Some(problem) = &facts.no_receipts {
        if facts.uid != 0 {
            findings.push(Finding::unknown("receipts", "only root can read them", "sudo stockade doctor"));
            return;
        }
        findings.push(Finding::bad(
            "receipts",
            Grade::Broken,
            problem.clone(),
            "no jail can be recorded",
            "use another --state-dir",
        ));
        return;
    }
    if !facts.strays.is_empty() {
        findings.push(Finding::bad(
            "strays",
            Grade::Note,
            format!(
                "in the state directory, but of no jail: {}",
                listed(facts.strays.iter().map(|path| path.display()))
            ),
            "no command shows them, and the directory remains after its last jail is removed",
            "examine them, and move them away",
        ));
    }
    let (abandoned, corrupt) = facts.stale;
    if corrupt > 0 {
        findings.push(Finding::bad(
            "receipts",
            Grade::Warning,
            format!("{corrupt} corrupt"),
            "stockade does not remove these jails",
            "run 'stockade ps', and examine the file that it names",
        ));
    }
    if abandoned > 0 {
        findings.push(Finding::bad(
            "receipts",
            Grade::Warning,
            format!("{abandoned} of abandoned jails"),
            "the remains of these jails use space and names",
            "stockade gc",
        ));
    }
    if (abandoned, corrupt) == (0, 0) {
        findings.push(Finding::good("receipts", "none is corrupt or of an abandoned jail"));
    }
}

pub(super) fn memory_and_processors(facts: &HostFacts, findings: &mut Vec<Finding>) {
    findings.push(match facts.swap.result() {
        Ok(swap) if swap.is_empty() => Finding::good("swap", "off"),
        Ok(swap) => Finding::bad(
            "swap",
            Grade::Warning,
            format!("on: {}", listed(swap)),
            "the memory of guests may be written to disk, and remain there",
            "swapoff -a",
        ),
        Err(reason) => Finding::unknown("swap", reason, MOUNT_PROC),
    });
    findings.push(match facts.smt.result() {
        Ok(true) => Finding::bad(
            "smt",
            Grade::Warning,
            "simultaneous multithreading is on",
            "guests on one core can observe each other through its caches",
            "echo off > /sys/devices/system/cpu/smt/control",
        ),
        Ok(false) => Finding::good("smt", "off"),
        Err(reason) => Finding::unknown("smt", reason, "mount -t sysfs none /sys"),
    });
    findings.push(match facts.ksm.result() {
        Ok(true) => Finding::bad(
            "ksm",
            Grade::Warning,
            "the kernel merges identical pages",
            "by timing, a guest can detect the contents of another guest's memory",
            "echo 0 > /sys/kernel/mm/ksm/run",
        ),
        Ok(false) => Finding::good("ksm", "off"),
        Err(reason) => Finding::unknown("ksm", reason, "mount -t sysfs none /sys"),
    });
    let lsm = match facts.lsm.result() {
        Ok(lsm) => lsm,
        Err(reason) => {
            let fix = "mount -t securityfs none /sys/kernel/security";
            return findings.push(Finding::unknown("lsm", reason, fix));
        }
    };
    let confining = ["apparmor", "selinux"];
    let active: Vec<&str> = lsm.iter().map(String::as_str).filter(|name| confining.contains(name)).collect();
    findings.push(if active.is_empty() {
        Finding::good("lsm", "neither AppArmor nor SELinux is active")
    } else {
        Finding::bad(
            "lsm",
            Grade::Note,
            format!("{} is active", active.join(", ")),
            "its rules for the VMM's path on the host do not apply to the copy in the jail",
            "write rules for the path below the base",
        )
    });
}
