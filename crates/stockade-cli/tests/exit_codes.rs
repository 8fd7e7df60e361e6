//! Commands have the exit codes of docs/exit-codes.md.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::Path;

use testkit::{Guard, Output, privileged, program, said, stockade};

/// The codes of the document's table.
fn documented() -> BTreeSet<i32> {
    let table =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/exit-codes.md"));
    let rows = table.unwrap();
    let firsts = rows.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    firsts.filter_map(|code| code.parse().ok()).collect()
}

fn run(guard: &Guard, vmm: &str) -> Output {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let arguments = ["run", "--id", "codes", "--exec-file", &probe, "--chroot-base-dir", &base, "--", vmm];
    stockade(guard, &arguments)
}

#[test]
fn each_documented_exit_code_occurs() {
    privileged!(guard, {
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        said(&guard, &["create", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base]);
        said(&guard, &["place", "vm", "/etc/passwd"]);
        said(&guard, &["start", "vm", "--", "sleep"]);
        let mut seen = BTreeSet::new();
        for (code, arguments) in [
            (0, &["ps"][..]),
            (1, &["ps", "--no-such-flag"]),
            (1, &["inspect", "none"]),
            (1, &["rm", "vm"]),
            (2, &["plan", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base, "--uid", "5"]),
            (1, &["audit", "--against", "vm", "none"]),
            (124, &["wait", "--timeout", "0", "vm"]),
            (124, &["events", "--timeout", "0"]),
            (125, &["exec", "none", "--", "/stockade-probe"]),
            (125, &["shell", "none"]),
            (125, &["exec", "--no-such-flag", "vm"]),
            (125, &["-q", "shell"]),
            (125, &["run", "--id", "new"]),
            (125, &["run", "--id", "new", "--exec-file", "/no/such"]),
            (126, &["exec", "vm", "--", "/passwd"]),
            (127, &["exec", "vm", "--", "/no-such-program"]),
            (127, &["shell", "vm"]),
            (0, &["exec", "vm", "--", "/stockade-probe", "exit=0"]),
            (3, &["exec", "vm", "--", "/stockade-probe", "exit=3"]),
            (143, &["exec", "vm", "--", "/stockade-probe", "signal=15"]),
            (0, &["rm", "--force", "vm"]),
        ] {
            let output = stockade(&guard, arguments);
            assert_eq!(output.code, code, "{arguments:?}: {output:?}");
            seen.insert(code);
        }
        let killed = "stockade: the VMM of jail 'codes' has exited: killed by signal 9\n";
        for (vmm, code, said) in
            [("exit=0", 0, ""), ("exit=77", 77, ""), ("exit=124", 124, ""), ("signal=9", 137, killed)]
        {
            let output = run(&guard, vmm);
            assert_eq!((output.code, output.stderr.as_str()), (code, said), "{vmm}");
        }
        let documented = documented();
        assert!(documented.len() > 5 && documented.is_subset(&seen), "{documented:?}, seen {seen:?}");
    });
}
