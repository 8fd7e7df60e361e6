//! stockade never changes, removes or kills an object of another owner, not even after a crash or a mistyped flag.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::{Guard, Output, privileged, program, run_with, stdout_of};

fn command(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("stockade"));
    command.args(arguments).env("STOCKADE_STATE_DIR", state);
    command
}

fn stockade(state: &Path, arguments: &[&str]) -> Output {
    run_with(&mut command(state, arguments))
}

fn said(state: &Path, arguments: &[&str]) -> String {
    stdout_of(&mut command(state, arguments))
}

fn arguments<'w>(guard: &Guard, command: &'w str, more: &[&'w str]) -> Vec<String> {
    let (probe, base) = (program("stockade-probe").display().to_string(), guard.base().display().to_string());
    let id = guard.named("jail");
    let fixed = [command, "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

fn create(guard: &Guard, state: &Path, more: &[&str]) -> String {
    let arguments = arguments(guard, "create", more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    said(state, &arguments).trim().to_owned()
}

fn root(guard: &Guard) -> PathBuf {
    guard.base().join("stockade-probe").join(guard.named("jail")).join("root")
}

#[test]
fn a_crash_never_touches_a_jail_of_another_state_directory() {
    privileged!(guard, {
        let other = guard.directory().join("other-state");
        let cgroup = ["--cgroup", "pids.max=9", "--parent-cgroup", guard.name()];
        let id = create(&guard, &guard.state(), &cgroup);
        said(&guard.state(), &["start", &id, "--", "sleep"]);
        let whole = guard.snapshot();
        let alive = || said(&guard.state(), &["ps"]).contains("running");

        // The same id, base and cgroup from another state directory: refused, also if it is killed at any system call.
        let run = arguments(&guard, "run", &[&cgroup[..], &["--ramfs", "1M", "--", "exit=0"]].concat());
        let traced = |options: &[&str]| {
            let mut command = Command::new("strace");
            command.args(["-qq", "-o"]).arg(guard.directory().join("trace")).args(options);
            command.arg(program("stockade")).args(&run).env("STOCKADE_STATE_DIR", &other);
            run_with(&mut command)
        };
        let refused = traced(&[]);
        assert_eq!(refused.code, 125);
        assert!(refused.stderr.contains("was not created by stockade for this jail"), "{refused:?}");
        let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
        let mut counts = std::collections::BTreeMap::<&str, usize>::new();
        for name in trace.lines().filter_map(|line| Some(line.split_once('(')?.0)) {
            let number = counts.entry(name).or_default();
            *number += 1;
            traced(&["-e", &format!("inject={name}:signal=KILL:when={number}")]);
            let gc = stockade(&other, &["gc"]);
            assert_eq!((gc.code, gc.stderr.as_str()), (0, ""), "killed at {name} {number}");
            let now = guard.snapshot();
            let lost: Vec<&str> = whole.removed(&now).collect();
            assert!(lost.is_empty(), "killed at {name} {number}: lost {lost:?}: {}", gc.stdout);
            assert!(!other.exists(), "killed at {name} {number}: {}", gc.stdout);
        }
        assert!(alive(), "the jail has seen nothing of all this");
        said(&guard.state(), &["rm", "--force", &id]);
    });
}

#[test]
fn a_cgroup_of_another_jail_is_in_the_way() {
    privileged!(guard, {
        let other = guard.directory().join("other-state");
        let cgroup = ["--cgroup", "pids.max=9", "--parent-cgroup", guard.name()];
        let id = create(&guard, &guard.state(), &cgroup);
        // Another base, so that the jails share only the cgroup, which is still empty.
        let elsewhere = guard.directory().join("other-base").display().to_string();
        let mut run = arguments(&guard, "run", &cgroup);
        let base = run.iter().position(|word| word == "--chroot-base-dir").unwrap();
        run[base + 1] = elsewhere;
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        let refused = stockade(&other, &run);
        assert_eq!(refused.code, 125);
        assert!(
            refused.stderr.contains("cgroup")
                && refused.stderr.contains("exists and was not created by stockade"),
            "{refused:?}"
        );
        assert!(Path::new("/sys/fs/cgroup/pids").join(guard.name()).join(&id).exists());
        assert_eq!(said(&guard.state(), &["rm", &id]), format!("{id}\n"));
    });
}

#[test]
fn a_file_never_replaces_a_directory_or_part_of_the_jail() {
    privileged!(guard, {
        let state = guard.state();
        let id = create(&guard, &state, &[]);
        for name in ["dev", "run", "dev/kvm", "stockade-probe", "stockade-probe.pid"] {
            let before = guard.snapshot();
            let refused = stockade(&state, &["place", &id, &format!("/etc/passwd={name}")]);
            let line = format!(
                "stockade: /etc/passwd: '/{name}' in the jail is a directory, or part of the jail itself; use another \
                 name\n"
            );
            assert_eq!((refused.code, refused.stderr), (1, line));
            assert_eq!(guard.snapshot(), before);
        }
        // A placed file is replaced.
        let first = guard.file("first", "first").display().to_string();
        let second = guard.file("second", "second").display().to_string();
        said(&state, &["place", &id, &format!("{first}=image")]);
        said(&state, &["place", &id, &format!("{second}=image")]);
        assert_eq!(std::fs::read_to_string(root(&guard).join("image")).unwrap(), "second");
        said(&state, &["rm", &id]);
    });
}

#[test]
fn a_mistyped_state_directory_loses_nothing() {
    privileged!(guard, {
        let project = guard.directory().join("project");
        for file in ["app/log", "app/ended", "app/log.1"] {
            std::fs::create_dir_all(project.join("app")).unwrap();
            std::fs::write(project.join(file), "precious").unwrap();
        }
        std::fs::create_dir(project.join("empty")).unwrap();
        said(&project, &["gc"]);
        assert_eq!(stockade(&project, &["rm", "app", "empty"]).code, 1);
        assert_eq!(std::fs::read_dir(project.join("app")).unwrap().count(), 3);
        assert!(project.join("empty").exists());
        std::fs::remove_dir_all(&project).unwrap();
    });
}

#[test]
fn a_jail_of_another_pid_namespace_is_left_alone() {
    privileged!(guard, {
        let state = guard.state();
        let (stockade_program, probe) = (program("stockade"), program("stockade-probe"));
        let id = guard.named("jail");
        let script = format!(
            "{s} create --id {id} --exec-file {p} --chroot-base-dir {b} && {s} start {id} -- sleep && read end; {s} rm -f {id}",
            s = stockade_program.display(),
            p = probe.display(),
            b = guard.base().display()
        );
        let mut inside = Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc", "sh", "-c", &script])
            .env("STOCKADE_STATE_DIR", &state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(inside.stdout.take().unwrap());
        for _ in 0..2 {
            std::io::BufRead::read_line(&mut lines, &mut String::new()).unwrap();
        }
        assert!(said(&state, &["ps"]).contains("foreign"));
        assert_eq!(said(&state, &["gc"]), "no abandoned jails\n");
        let refused = stockade(&state, &["rm", "--force", &id]);
        assert_eq!(
            refused.stderr,
            format!("stockade: jail '{id}' belongs to another pid namespace; run the command there\n")
        );
        drop(inside.stdin.take());
        assert_eq!(inside.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn an_exited_jail_waits_to_be_removed() {
    privileged!(guard, {
        let state = guard.state();
        let id = create(&guard, &state, &[]);
        said(&state, &["start", &id, "--", "exit=3"]);
        said(&state, &["wait", &id]);
        let arguments = arguments(&guard, "run", &["--", "exit=0"]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let refused = stockade(&state, &arguments);
        let line =
            format!("stockade: the VMM of jail '{id}' has exited; remove the jail or use another id\n");
        assert_eq!((refused.code, refused.stderr), (125, line));
        assert_eq!(said(&state, &["wait", &id]), "3\n");
        said(&state, &["rm", &id]);
    });
}

/// Runs a VMM from a shell that ignores signals.
fn from_shell_ignoring(guard: &Guard, signals: &str, vmm: &str) -> Command {
    let mut run = arguments(guard, "run", &["--grace", "18446744073709551615", "--"]);
    run.push(vmm.to_owned());
    let line = format!("trap '' {signals}; exec {} {}", program("stockade").display(), run.join(" "));
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("STOCKADE_STATE_DIR", guard.state());
    command
}

#[test]
fn signals_that_the_caller_ignores_stop_the_vmm() {
    privileged!(guard, {
        let output = run_with(&mut from_shell_ignoring(&guard, "HUP INT TERM CHLD", "report"));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        for number in [1, 2, 13, 15, 17] {
            let ignored = report["signals"]["ignored"].as_array().unwrap();
            assert!(!ignored.contains(&number.into()), "signal {number} is ignored: {ignored:?}");
        }
    });
}

#[test]
fn a_caller_that_ignores_sigchld_gets_the_exit_code() {
    privileged!(guard, {
        assert_eq!(run_with(&mut from_shell_ignoring(&guard, "CHLD", "exit=7")).code, 7);
    });
}

#[test]
fn an_ignored_hang_up_stops_nothing() {
    privileged!(guard, {
        let mut command = from_shell_ignoring(&guard, "HUP", "sleep");
        let mut run = command.stdin(Stdio::null()).spawn().unwrap();
        let pid = rustix::process::Pid::from_raw(run.id().try_into().unwrap()).unwrap();
        while !said(&guard.state(), &["ps"]).contains("running") {
            std::thread::yield_now();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        // One SIGTERM stops the VMM gently, so the SIGHUP was ignored: otherwise SIGTERM would be the second signal.
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(143));
    });
}
