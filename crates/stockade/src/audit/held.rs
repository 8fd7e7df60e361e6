//! Findings about what the VMM may use, and what is around it.

use super::facts::AuditFacts;
use super::tree::TreeFacts;
use crate::doctor::{Finding, Grade};

pub(super) fn limits(facts: &AuditFacts, findings: &mut Vec<Finding>) {
    for (what, grade, breaks, mend) in [
        ("memory", Grade::Warning, "the VMM may take all memory of the host", "--cgroup memory.max=BYTES"),
        ("pids", Grade::Warning, "the VMM may take every pid of the host", "--cgroup pids.max=N"),
        (
            "cpu",
            Grade::Note,
            "the VMM may take every processor of the host",
            "--cgroup cpu.max='QUOTA PERIOD'",
        ),
    ] {
        let limited = facts.limited.get(what).copied().unwrap_or(false);
        let check = match what {
            "memory" => "memory-limit",
            "pids" => "pids-limit",
            _ => "cpu-limit",
        };
        findings.push(if limited {
            Finding::good(check, "in force")
        } else {
            Finding::bad(check, grade, "none by the jail's cgroup", breaks, mend)
        });
    }
    for setting in &facts.settings {
        let found = setting.found.as_deref().unwrap_or("not to be read");
        if found != setting.asked {
            findings.push(Finding::bad(
                "settings",
                Grade::Note,
                format!("{}={} was asked for, and it is {found}", setting.file, setting.asked),
                "the kernel rounds some values; others were changed since",
                "compare the two",
            ));
        }
    }
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
