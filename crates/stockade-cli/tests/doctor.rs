//! `doctor` reports the faults of a host, and changes nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Guard, Output, privileged, program, run_with, said};

fn doctor(guard: &Guard, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("stockade"));
    command.arg("doctor").args(arguments).arg("--chroot-base-dir").arg(guard.base());
    run_with(command.env("STOCKADE_STATE_DIR", guard.state()))
}

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["ok"], json!(output.code == 0));
    report["findings"].as_array().unwrap().clone()
}

fn of<'f>(findings: &'f [Value], check: &str) -> &'f Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap()
}

#[test]
fn a_host_with_jails_has_no_broken_finding() {
    privileged!(guard, {
        let output = doctor(&guard, &["--json"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{}", output.stdout);
        let all = findings(&output);
        for check in ["kernel", "system-calls", "privileges", "base", "receipts"] {
            assert_eq!(of(&all, check)["grade"], "good", "{check}");
        }
        let quiet = findings(&doctor(&guard, &["--json", "--quiet"]));
        let bad: Vec<&Value> = all.iter().filter(|finding| finding["grade"] != "good").collect();
        assert_eq!(quiet.iter().collect::<Vec<_>>(), bad);
        let text = doctor(&guard, &[]).stdout;
        assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), all.len());
        assert!(!guard.base().exists() && !guard.state().exists(), "doctor creates no directory");
    });
}

#[test]
fn a_noexec_base_and_a_corrupt_receipt_are_found() {
    privileged!(guard, {
        std::fs::create_dir(guard.base()).unwrap();
        let place = guard.state().join("broken");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("receipt.json"), "{").unwrap();
        let script = "mount -t tmpfs -o noexec,nodev none \"$1\" && exec \"$0\" doctor -q --json --chroot-base-dir \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(program("stockade")).arg(guard.base());
        let output = run_with(command.env("STOCKADE_STATE_DIR", guard.state()));
        assert_eq!((output.code, output.stderr.as_str()), (1, ""));
        let all = findings(&output);
        let base = guard.base().display().to_string();
        let broken: Vec<&str> = all
            .iter()
            .filter(|finding| finding["grade"] == "broken")
            .map(|finding| finding["fact"].as_str().unwrap())
            .collect();
        assert_eq!(broken, [format!("{base} is mounted noexec"), format!("{base} is mounted nodev")]);
        let fix = format!("run 'mount -o remount,exec {base}', or use another --chroot-base-dir");
        assert_eq!(of(&all, "base")["mend"], fix);
        assert_eq!(of(&all, "receipts")["fact"], "1 corrupt");
        std::fs::remove_dir_all(guard.state()).unwrap();
        std::fs::remove_dir(guard.base()).unwrap();
    });
}

#[test]
fn strays_in_the_state_directory_are_listed_and_never_removed() {
    privileged!(guard, {
        let state = guard.state();
        std::fs::create_dir_all(state.join("directory")).unwrap();
        std::fs::write(state.join("fill"), "").unwrap();
        std::os::unix::fs::symlink("directory", state.join("link")).unwrap();
        let vm = guard.named("vm");
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        let arguments = ["create", "--id", &vm, "--exec-file", &probe, "--chroot-base-dir", &base];
        said(&guard, &arguments);
        let all = findings(&doctor(&guard, &["--json"]));
        let strays = ["directory", "fill", "link"].map(|name| state.join(name).display().to_string());
        let fact = format!("in the state directory, but of no jail: {}", strays.join(", "));
        assert_eq!(
            (&of(&all, "strays")["fact"], &of(&all, "strays")["grade"]),
            (&json!(fact), &json!("note"))
        );
        assert_eq!(said(&guard, &["ps", "-q"]), format!("{vm}\n"));
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n");
        said(&guard, &["rm", &vm]);
        assert!(state.join("fill").exists(), "stockade did not create it");
        std::fs::remove_dir_all(&state).unwrap();
    });
}

/// Runs `doctor` on a terminal of 80 columns.
fn on_terminal(guard: &Guard, setting: &str) -> String {
    let (program, base) = (program("stockade"), guard.base());
    let line =
        format!("stty cols 80; {setting} {} doctor --chroot-base-dir {}", program.display(), base.display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("STOCKADE_STATE_DIR", guard.state()).env("TERM", "xterm");
    run_with(script.env_remove("NO_COLOR")).stdout.replace('\r', "")
}

#[test]
fn a_terminal_gets_wrapped_lines_and_coloured_grades() {
    privileged!(guard, {
        let plain = doctor(&guard, &[]).stdout;
        let wrapped = on_terminal(&guard, "NO_COLOR=1");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&wrapped), words(&plain));
        assert!(plain.lines().any(|line| line.len() > 80), "nothing to wrap: {plain}");
        // A path cannot be wrapped.
        let is_short = |line: &str| line.len() <= 80 || line.split_whitespace().last().unwrap().len() > 52;
        assert!(wrapped.lines().all(is_short), "{wrapped}");
        let coloured = on_terminal(&guard, "");
        assert!(coloured.starts_with("\x1b[32mgood\x1b[0m     kernel "), "{coloured:?}");
    });
}

#[test]
fn doctor_without_root_reports_that_and_all_other_findings() {
    privileged!(guard, {
        let copy = guard.directory().join("stockade");
        std::fs::copy(program("stockade"), &copy).unwrap();
        let mut command = Command::new(copy);
        command.args(["doctor", "--quiet"]).uid(65_534).gid(65_534);
        let output = run_with(&mut command);
        assert_eq!((output.code, output.stderr.as_str()), (1, ""));
        let line = "broken   privileges         this is uid 65534\n                     effect only root can create jails\n";
        assert!(output.stdout.contains(line), "{}", output.stdout);
    });
}
