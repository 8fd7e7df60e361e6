//! Findings about how the host is set up.

use super::{Finding, Grade, HostFacts};

/// The descriptors that a VMM may have unless told otherwise.
const OPEN_FILES: u64 = 2048;
/// A VMM has a thread for each virtual processor, and some more.
const FEW_PROCESSES: u64 = 1024;
/// The longest path that a Unix socket's address holds.
pub const LONGEST_SOCKET_PATH: usize = 107;

pub(super) fn limits(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let before = findings.len();
    if let Some(limit) = facts.open_files.filter(|limit| *limit < OPEN_FILES) {
        findings.push(Finding::bad(
            "limits",
            Grade::Broken,
            format!("a process may have {limit} descriptors"),
            "a jail sets that to 2048 unless told otherwise, and may not raise it",
            format!("ulimit -Hn 65536, or --resource-limit no-file={limit}"),
        ));
    }
    if let Some(limit) = facts.processes.filter(|limit| *limit < FEW_PROCESSES) {
        findings.push(Finding::bad(
            "limits",
            Grade::Warning,
            format!("a user may have {limit} processes and threads"),
            "all jails of one uid share that",
            "ulimit -Hu unlimited",
        ));
    }
    if let Some(most) = facts.pid_max.filter(|most| *most <= 32_768) {
        findings.push(Finding::bad(
            "limits",
            Grade::Note,
            format!("the kernel counts pids to {most}"),
            "VMMs with many threads use them up",
            "sysctl kernel.pid_max=4194304",
        ));
    }
    if findings.len() == before {
        findings.push(Finding::good("limits", "descriptors, processes and pids are plenty"));
    }
}

pub(super) fn names(facts: &HostFacts, findings: &mut Vec<Finding>) {
    let (socket, length) = (facts.socket_path.display(), facts.socket_path.as_os_str().len());
    findings.push(if length > LONGEST_SOCKET_PATH {
        Finding::bad(
            "socket-path",
            Grade::Warning,
            format!("{socket} has {length} bytes, and a socket's address holds {LONGEST_SOCKET_PATH}"),
            "nobody can connect to the VMM by that path",
            "a shorter --chroot-base-dir or --id",
        )
    } else {
        let left = LONGEST_SOCKET_PATH - length;
        Finding::good("socket-path", format!("{length} bytes for {socket}, {left} to spare"))
    });
    findings.push(match facts.netns_shared {
        Some(true) => Finding::good("netns", "/run/netns is shared: names made in one place are seen in all"),
        None => Finding::good("netns", "/run/netns is made and shared with the first name"),
        Some(false) => Finding::bad(
            "netns",
            Grade::Warning,
            "/run/netns is mounted and not shared",
            "names of network namespaces that are made elsewhere are not seen here",
            "mount --make-shared /run/netns",
        ),
    });
    findings.push(match &facts.no_template_mounts {
        None => Finding::good("template-namespace", "jails start without a copy of the host's mounts"),
        Some(reason) => Finding::bad(
            "template-namespace",
            Grade::Note,
            format!("the mount namespace of the host is copied for each jail: {reason}"),
            "jails start more slowly on a host with many mounts",
            "sudo stockade host-setup",
        ),
    });
}

pub(super) fn leftovers(facts: &HostFacts, findings: &mut Vec<Finding>) {
    if let Some(problem) = &facts.no_receipts {
        if facts.uid != 0 {
            findings.push(Finding::good("receipts", "for root alone to read"));
            return;
        }
        findings.push(Finding::bad(
            "receipts",
            Grade::Broken,
            problem.clone(),
            "no jail can be written down",
            "another --state-dir",
        ));
        return;
    }
    if !facts.strays.is_empty() {
        let strays: Vec<String> = facts.strays.iter().map(|path| path.display().to_string()).collect();
        findings.push(Finding::bad(
            "strays",
            Grade::Note,
            format!("in the state directory and of no jail: {}", strays.join(", ")),
            "no command tells of it, and the directory stays when its last jail is gone",
            "look at it, and move it away",
        ));
    }
    let (dead, damaged) = facts.stale;
    if damaged > 0 {
        findings.push(Finding::bad(
            "receipts",
            Grade::Warning,
            format!("{damaged} cannot be understood"),
            "what was made for these jails is not removed",
            "stockade ps, and look at the file that it names",
        ));
    }
    if dead > 0 {
        findings.push(Finding::bad(
            "receipts",
            Grade::Warning,
            format!("{dead} of dead jails"),
            "what these jails have left takes space and names",
            "stockade gc",
        ));
    }
    if (dead, damaged) == (0, 0) {
        findings.push(Finding::good("receipts", "none of a dead jail"));
    }
}

pub(super) fn memory_and_processors(facts: &HostFacts, findings: &mut Vec<Finding>) {
    findings.push(if facts.swap.is_empty() {
        Finding::good("swap", "off")
    } else {
        Finding::bad(
            "swap",
            Grade::Warning,
            format!("on: {}", facts.swap.join(", ")),
            "the memory of guests may be written to disk, and stay there",
            "swapoff -a",
        )
    });
    findings.push(if facts.smt {
        Finding::bad(
            "smt",
            Grade::Warning,
            "simultaneous multithreading is on",
            "guests on one core can watch each other through its caches",
            "echo off > /sys/devices/system/cpu/smt/control",
        )
    } else {
        Finding::good("smt", "off")
    });
    findings.push(if facts.ksm {
        Finding::bad(
            "ksm",
            Grade::Warning,
            "pages of equal content are merged",
            "guests can tell by timing what others have in memory",
            "echo 0 > /sys/kernel/mm/ksm/run",
        )
    } else {
        Finding::good("ksm", "off")
    });
    let confining = ["apparmor", "selinux"];
    let active: Vec<&str> =
        facts.lsm.iter().map(String::as_str).filter(|name| confining.contains(name)).collect();
    findings.push(if active.is_empty() {
        Finding::good("lsm", "neither AppArmor nor SELinux")
    } else {
        Finding {
            check: "lsm",
            grade: Grade::Note,
            fact: format!("{} is active", active.join(", ")),
            breaks: Some("its rules for the VMM's path on the host do not apply to the copy in the jail"),
            mend: Some("write them for the path below the base".to_owned()),
        }
    });
}
