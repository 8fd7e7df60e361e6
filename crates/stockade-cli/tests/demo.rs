//! `stockade demo` runs a jail and leaves nothing behind.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::{Guard, privileged, program, run_with};

fn demo(guard: &Guard, flags: &[&str]) -> Command {
    let mut command = Command::new(program("stockade"));
    command.arg("demo").args(flags).arg("--chroot-base-dir").arg(guard.base());
    command.arg("--state-dir").arg(guard.state()).stdin(Stdio::null());
    command
}

fn nothing_left(guard: &Guard) {
    assert!(!guard.base().exists(), "the base went with its last jail");
    assert!(!guard.state().exists(), "the state directory went with its last jail");
}

#[test]
fn the_json_report_has_every_fact() {
    privileged!(guard, {
        let output = run_with(&mut demo(&guard, &["--json"]));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!((&report["ok"], &report["leftovers"]), (&true.into(), &serde_json::json!([])));
        let phases: u64 = ["prepare_us", "place_us", "launch_us", "run_us", "teardown_us"]
            .iter()
            .map(|phase| report["phases"][phase].as_u64().unwrap_or_else(|| panic!("{phase}: {report}")))
            .inspect(|us| assert!(*us > 0))
            .sum();
        assert!(report["phases"]["total_us"].as_u64().unwrap() >= phases);
        if std::path::Path::new("/dev/kvm").exists() {
            assert_eq!(report["kvm_guest"], "hlt");
        } else {
            assert!(report["kvm_guest"].as_str().unwrap().contains("/dev/kvm"));
        }
        let probe = &report["probe"];
        assert_eq!((&probe["uid"], &probe["gid"], &probe["pid"]), (&1234.into(), &1234.into(), &1.into()));
        for (kind, own) in [("mnt", true), ("net", true), ("pid", true), ("user", false)] {
            assert_eq!(probe["namespaces"][kind]["own"], own, "{kind}");
        }
        assert_eq!(probe["descriptors"], serde_json::json!([0, 1, 2]));
        assert_eq!(probe["environment"], serde_json::json!([]));
        match probe["mounts"].as_array() {
            Some(mounts) => assert_eq!(mounts.len(), 1),
            // Before Linux 6.8 the mounts cannot be counted without /proc.
            None => assert!(probe["mounts"].to_string().contains("ENOSYS"), "{}", probe["mounts"]),
        }
        let escapes = probe["escapes"].as_array().unwrap();
        let names: std::collections::BTreeSet<&str> =
            escapes.iter().map(|escape| escape["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 10, "ten attempts, each with a name of its own");
        assert!(escapes.iter().all(|escape| escape["held"] == true && escape["errno"].as_i64() > Some(0)));
        nothing_left(&guard);
    });
}

#[test]
fn the_text_report_names_the_main_facts() {
    privileged!(guard, {
        let output = run_with(&mut demo(&guard, &[]));
        assert_eq!(output.code, 0, "{output:?}");
        for word in
            ["uid 1234", "own mnt net pid", "/dev/kvm", "held", "teardown", "none: the host is as it was"]
        {
            assert!(output.stdout.contains(word), "{word}: {}", output.stdout);
        }
        nothing_left(&guard);
    });
}

#[test]
fn two_demos_at_once_do_not_disturb_each_other() {
    privileged!(guard, {
        for _ in 0..10 {
            let spawn =
                || demo(&guard, &["--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let both = [spawn(), spawn()];
            for one in both {
                let output = one.wait_with_output().unwrap();
                let report: Value = serde_json::from_slice(&output.stdout)
                    .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
                assert_eq!(report["ok"], true, "{report}");
            }
            nothing_left(&guard);
        }
    });
}

#[test]
fn fifty_demos_in_a_row_leave_nothing() {
    privileged!(guard, {
        for _ in 0..50 {
            let output = run_with(&mut demo(&guard, &["--json"]));
            assert_eq!(output.code, 0, "{output:?}");
        }
        nothing_left(&guard);
    });
}

#[test]
fn an_existing_base_directory_stays() {
    privileged!(guard, {
        std::fs::create_dir(guard.base()).unwrap();
        assert_eq!(run_with(&mut demo(&guard, &[])).code, 0);
        assert_eq!(std::fs::read_dir(guard.base()).unwrap().count(), 0);
        std::fs::remove_dir(guard.base()).unwrap();
    });
}
