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

/// The findings of `doctor`, started by another command, by check: grade and fact.
fn doctor_by(guard: &Guard, launcher: &[&str]) -> (Output, Vec<Value>) {
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(program("stockade")).args(["doctor", "--json", "--chroot-base-dir"]);
    let output = run_with(command.arg(guard.base()).env("STOCKADE_STATE_DIR", guard.state()));
    assert_eq!(output.stderr, "", "{launcher:?}");
    let findings = findings(&output);
    (output, findings)
}

/// The grade of a check and its fact.
fn graded<'f>(findings: &'f [Value], check: &str) -> (&'f str, &'f str) {
    let finding = of(findings, check);
    (finding["grade"].as_str().unwrap(), finding["fact"].as_str().unwrap())
}

#[test]
fn operations_that_a_filter_refuses_are_found() {
    privileged!(guard, {
        let probe = program("stockade-probe").display().to_string();
        for (operation, check, grade, fact) in [
            ("mount", "mount-namespace", "broken", "mount fails: operation not permitted"),
            ("unshare", "mount-namespace", "broken", "unshare fails: operation not permitted"),
            ("pivot_root", "mount-namespace", "broken", "pivot_root fails: operation not permitted"),
            ("setns", "join-namespace", "warning", "setns fails: operation not permitted"),
            ("mknod", "device-nodes", "broken", "/dev/kvm: mknod fails: operation not permitted"),
        ] {
            let (output, all) = doctor_by(&guard, &[&probe, &format!("without={operation}")]);
            assert_eq!(graded(&all, check), (grade, fact), "{operation}");
            assert_eq!(output.code, i32::from(grade == "broken"), "{operation}");
        }
        // Without a file system for the trial nothing is known about the nodes.
        let (_, all) = doctor_by(&guard, &[&probe, "without=mount"]);
        assert_eq!(graded(&all, "device-nodes").0, "unknown");
    });
}

#[test]
fn operations_that_kill_a_process_are_found() {
    privileged!(guard, {
        let probe = program("stockade-probe").display().to_string();
        let (output, all) = doctor_by(&guard, &[&probe, "without=mount!"]);
        assert_eq!(output.code, 1);
        let fact = "signal 31 kills a process at one of its calls, as a seccomp filter does";
        assert_eq!(graded(&all, "mount-namespace"), ("broken", fact));
        let calls = all.iter().filter(|finding| finding["check"] == "system-calls");
        let facts: Vec<_> = calls.map(|finding| finding["fact"].as_str().unwrap()).collect();
        assert_eq!(facts, ["a seccomp filter forbids mount_setattr", "a seccomp filter forbids open_tree"]);
    });
}

#[test]
fn a_user_namespace_is_not_called_root() {
    privileged!(guard, {
        let (output, all) = doctor_by(&guard, &["unshare", "--user", "--map-root-user"]);
        assert_eq!(output.code, 1);
        let fact = "root of a user namespace, with capabilities that hold only in it";
        assert_eq!(graded(&all, "privileges"), ("broken", fact));
        let fact = "/dev/kvm: mknod fails: operation not permitted";
        assert_eq!(graded(&all, "device-nodes"), ("broken", fact));
        assert_eq!(graded(&all, "join-namespace").0, "warning");
    });
}

#[test]
fn a_process_without_ptrace_cannot_inspect_jails() {
    privileged!(guard, {
        let launcher = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
        let (output, all) = doctor_by(&guard, &launcher);
        assert_eq!((output.code, graded(&all, "inspection").0), (0, "warning"));
        assert_eq!(of(&all, "inspection")["mend"], "give this container CAP_SYS_PTRACE");
        // Nor does it see any process of another uid in a /proc that hides those.
        let script = "mount -t proc -o hidepid=4 proc /proc && exec setpriv --bounding-set -sys_ptrace \
                      --inh-caps -sys_ptrace \"$@\"";
        let (_, all) = doctor_by(&guard, &["unshare", "--mount", "sh", "-c", script, "sh"]);
        // By the first or the second look, as the child may not have its uid at the first.
        let (grade, fact) = graded(&all, "inspection");
        assert_eq!(grade, "warning");
        assert!(
            ["open", "stat"]
                .map(|call| format!("{call} fails: operation not permitted"))
                .contains(&fact.to_owned())
        );
    });
}

#[test]
fn a_proc_of_processes_alone_is_found() {
    privileged!(guard, {
        let script = "mount -t proc -o subset=pid,hidepid=2 proc /proc && exec \"$@\"";
        let (output, all) = doctor_by(&guard, &["unshare", "--mount", "sh", "-c", script, "sh"]);
        assert_eq!(output.code, 1);
        let fact = "cannot read '/proc/sys/kernel/random/boot_id': no such file or directory; mount a procfs at /proc, \
                    without the option subset=pid";
        assert_eq!(graded(&all, "proc"), ("broken", fact));
        for check in ["swap", "limits", "suid-dumpable"] {
            let (grade, fact) = graded(&all, check);
            assert!(grade == "unknown" && fact.starts_with("cannot read '/proc/"), "{check} {grade} {fact}");
        }
    });
}

#[test]
fn a_root_that_is_no_mount_point_is_found() {
    privileged!(guard, {
        let directory = guard.base();
        std::fs::create_dir_all(directory.join("proc")).unwrap();
        std::fs::copy(program("stockade"), directory.join("stockade")).unwrap();
        let script = "mount -t proc proc \"$0/proc\" && exec chroot \"$0\" /stockade doctor --json";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&directory);
        let output = run_with(command.env("STOCKADE_STATE_DIR", guard.state()));
        let all = findings(&output);
        assert_eq!(graded(&all, "mount-namespace"), ("broken", "mount fails: invalid argument"));
        assert!(of(&all, "mount-namespace")["mend"].as_str().unwrap().contains("'/' is a mount point"));
        std::fs::remove_dir_all(&directory).unwrap();
    });
}

#[test]
fn a_devices_cgroup_that_forbids_kvm_is_found() {
    privileged!(guard, {
        let hierarchy = std::path::Path::new("/sys/fs/cgroup/devices");
        let is_v1 = hierarchy.join("devices.allow").exists() || hierarchy.join("devices.list").exists();
        let test = "a_devices_cgroup_that_forbids_kvm_is_found";
        let hierarchy = is_v1.then_some(hierarchy);
        let hierarchy = testkit::booted_with(hierarchy, test, "the devices controller of cgroup v1");
        let Some(cgroup) = hierarchy.map(|hierarchy| hierarchy.join(guard.name())) else { return };
        let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut found = Vec::new();
        for denied in ["c 10:232 rw", "c 10:232 m"] {
            std::fs::create_dir(&cgroup).unwrap();
            std::fs::write(cgroup.join("devices.deny"), denied).unwrap();
            found.push(doctor_by(&guard, &["sh", "-c", script, &cgroup.display().to_string()]));
            testkit::remove_cgroup(guard.name());
        }
        let fact = "the node of '/dev/kvm' in a jail cannot be opened: operation not permitted";
        assert_eq!(graded(&found[0].1, "kvm"), ("warning", fact));
        assert_eq!(graded(&found[0].1, "device-nodes").0, "good");
        assert!(of(&found[0].1, "kvm")["mend"].as_str().unwrap().contains("devices cgroup"));
        let fact = "/dev/kvm: mknod fails: operation not permitted";
        assert_eq!((found[1].0.code, graded(&found[1].1, "device-nodes")), (1, ("broken", fact)));
    });
}
