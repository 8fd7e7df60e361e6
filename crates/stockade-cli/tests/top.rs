//! `stockade top` without a terminal: a table, and a list for programs.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use testkit::{Guard, privileged, program, stockade};

/// Creates a jail and starts its VMM with these arguments.
fn start(guard: &Guard, id: &str, flags: &[&str], vmm: &[&str]) -> String {
    let id = guard.named(id);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    assert_eq!(stockade(guard, &[&fixed[..], flags].concat()).code, 0);
    assert_eq!(stockade(guard, &[&["start", &id, "--"], vmm].concat()).code, 0);
    id
}

#[test]
fn usage_is_shown_with_and_without_a_cgroup() {
    privileged!(guard, {
        let cgroup = ["--cgroup", "pids.max=9", "--parent-cgroup", guard.name()];
        let limited = start(&guard, "limited", &cgroup, &["spawn=2", "sleep"]);
        let bare = start(&guard, "bare", &["--new-pid-ns"], &["sleep"]);
        let listed = stockade(&guard, &["top", "--json", "--sort", "id"]);
        assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
        let rows: Value = serde_json::from_str(&listed.stdout).unwrap();
        let (first, second) = (&rows[0], &rows[1]);
        assert_eq!((&first["id"], &second["id"]), (&bare.as_str().into(), &limited.as_str().into()));
        assert_eq!((first["tasks"].as_u64(), second["tasks"].as_u64()), (Some(1), Some(3)), "{rows}");
        for row in [first, second] {
            assert_eq!(row["state"], "running");
            assert!(row["memory_bytes"].as_u64() > Some(0) && row["cpu_percent"].as_f64().is_some(), "{row}");
        }
        let table = stockade(&guard, &["top", "--once", "--filter", "id=*limi*"]).stdout;
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.starts_with("ID ") && table.contains(&limited), "{table}");
        assert_eq!(stockade(&guard, &["rm", "--force", &bare, &limited]).code, 0);
    });
}

#[test]
fn top_without_a_terminal_names_the_flags_to_use() {
    privileged!(guard, {
        let refused = stockade(&guard, &["top"]);
        let line = "stockade: top needs a terminal; without one, use --once or --json\n";
        assert_eq!((refused.code, refused.stderr.as_str()), (1, line));
        assert_eq!(stockade(&guard, &["top", "--interval", "0"]).code, 1);
    });
}
