//! Every command ends within the time that it states, whatever a jail does to hold it up, and names what is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;
use stockade_syscalls::mount_table;
use testkit::{Guard, Output, booted_with, command, privileged, program, said, stockade};

const BUSYBOX: &str = "/bin/busybox";

/// The time that killed processes have, as `stop` documents it.
const KILL: Duration = Duration::from_secs(5);

/// The needs of tests that freeze jails.
const FREEZER: &str = "the freezer of cgroup v1";
const BOTH: &str = "the freezer of cgroup v1, beside cgroup v2";

/// What a command may need beyond its waits.
const WORK: Duration = Duration::from_secs(1);

/// Runs a command, which has to end within its patience.
fn within(patience: Duration, guard: &Guard, arguments: &[&str]) -> Output {
    let began = Instant::now();
    let output = stockade(guard, arguments);
    let (took, limit) = (began.elapsed(), patience + WORK);
    assert!(took <= limit, "{arguments:?} took {took:?}, stated are {limit:?}: {}", output.stderr);
    output
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A command line that runs a busybox script as the detached VMM of jail `vm`.
fn detached(guard: &Guard, flags: &[&str], script: &str) -> Vec<String> {
    let (id, base) = (guard.named("vm"), guard.base().display().to_string());
    let fixed = ["run", "--detach", "--id", &id, "--exec-file", BUSYBOX, "--chroot-base-dir", &base];
    [&fixed[..], flags, &["--", "sh", "-c", script]].concat().into_iter().map(str::to_owned).collect()
}

fn start(guard: &Guard, flags: &[&str], script: &str) -> String {
    let line = detached(guard, flags, script);
    said(guard, &line.iter().map(String::as_str).collect::<Vec<_>>());
    guard.named("vm")
}

/// The command where no unified hierarchy is mounted: the processes of its jails are then in the freezer of cgroup v1.
fn in_freezer(guard: &Guard, line: &[String]) -> Option<Command> {
    let unified = mount_of(|mount| mount.fs_type == "cgroup2")?;
    mount_of(|mount| mount.fs_options.iter().any(|option| option == "freezer"))?;
    let shell = format!("umount {} && exec \"$@\"", unified.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &shell, "sh"]).arg(program("stockade")).args(line);
    command.env("STOCKADE_STATE_DIR", guard.state()).stdout(Stdio::null());
    Some(command)
}

fn start_in_freezer(guard: &Guard, script: &str) -> Option<(String, PathBuf)> {
    assert!(in_freezer(guard, &detached(guard, &[], script))?.status().unwrap().success());
    let id = guard.named("vm");
    Some((id.clone(), freezer_of(guard, &id)))
}

fn freezer_of(guard: &Guard, id: &str) -> PathBuf {
    let cgroup = cgroups(guard, id).into_iter().find(|cgroup| cgroup.join("freezer.state").exists());
    cgroup.expect("the jail has a cgroup in the freezer")
}

fn mount_of(wanted: impl Fn(&mount_table::Mount) -> bool) -> Option<PathBuf> {
    let mounts = mount_table::read(mount_table::OWN_TABLE).unwrap();
    mounts.into_iter().find(wanted).map(|mount| mount.point)
}

fn inspect(guard: &Guard, id: &str) -> Value {
    serde_json::from_str::<Value>(&said(guard, &["inspect", "--json", id])).unwrap()
}

fn cgroups(guard: &Guard, id: &str) -> Vec<PathBuf> {
    let inspected = inspect(guard, id);
    let list = inspected["paths"]["cgroups"].as_array().or(inspected["cgroups"].as_array());
    list.unwrap_or_else(|| panic!("{inspected}")).iter().map(|path| path.as_str().unwrap().into()).collect()
}

fn pid(guard: &Guard, id: &str) -> i32 {
    let jails: Value = serde_json::from_str(&said(guard, &["ps", "--json"])).unwrap();
    let jail = jails.as_array().unwrap().iter().find(|jail| jail["id"] == id).expect("the jail");
    jail["pid"].as_i64().unwrap().try_into().unwrap()
}

fn is_running(guard: &Guard) -> bool {
    !stockade(guard, &["ps", "-q", "--filter", "state=running"]).stdout.is_empty()
}

fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + seconds(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The first child of a process.
fn child_of(pid: u32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Runs `exec` of busybox in the background, and waits until it runs.
fn background_exec(mut exec: Command) -> Child {
    let exec = exec.spawn().unwrap();
    let command_line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let started = || child_of(exec.id()).is_some_and(|child| command_line(child).starts_with(b"busybox\0"));
    eventually("the exec process runs", started);
    exec
}

fn removed(guard: &Guard, id: &str) {
    assert_eq!(within(KILL, guard, &["rm", "--force", id]).code, 0);
    assert!(!guard.base().exists() && !guard.state().exists());
}

#[test]
fn output_of_descendants_does_not_hold_up_a_stop() {
    privileged!(guard, {
        // Two of them, so that the pipe is never empty while the log is written.
        let script = "/busybox yes & /busybox yes & exec /busybox sleep 1000";
        for command in [&["stop", "--timeout", "1"][..], &["rm", "--force", "--timeout", "1"]] {
            let id = start(&guard, &[], script);
            let output = within(seconds(1) + KILL, &guard, &[command, &[&id]].concat());
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
            if command[0] == "stop" {
                assert_eq!(said(&guard, &["wait", &id]), "143\n");
                removed(&guard, &id);
            }
        }
    });
}

#[test]
fn zombie_of_a_stopped_exec_is_named() {
    privileged!(guard, {
        let id = start(&guard, &["--new-pid-ns"], "exec /busybox sleep 1000");
        let exec = command(&guard, &["exec", "--host-program", BUSYBOX, &id, "sleep", "1000"]);
        let mut exec = background_exec(exec);
        let launcher = Pid::from_child(&exec);
        kill_process(launcher, Signal::STOP).unwrap();
        let vmm = pid(&guard, &id);
        let output = within(seconds(1) + KILL, &guard, &["-q", "stop", "--timeout", "1", &id]);
        let line = format!(
            "stockade: process {vmm} of jail '{id}' does not exit: the first process of its pid namespace waits for \
             process "
        );
        assert_eq!((output.code, output.stderr.starts_with(&line)), (1, true), "{}", output.stderr);
        let parent = format!("a zombie of process {} (stockade, state T)", exec.id());
        assert!(output.stderr.contains(&parent), "{}", output.stderr);
        for (patience, flags) in
            [(KILL, &["rm", "--force"][..]), (seconds(1) + KILL, &["rm", "-f", "-t", "1"])]
        {
            let output = within(patience, &guard, &[flags, &[&id]].concat());
            assert_eq!((output.code, output.stderr.contains(&parent)), (1, true), "{}", output.stderr);
        }
        kill_process(launcher, Signal::CONT).unwrap();
        exec.wait().unwrap();
        removed(&guard, &id);
    });
}

#[test]
fn unread_terminal_of_an_exec_does_not_hold_up_a_stop() {
    privileged!(guard, {
        let id = start(&guard, &["--new-pid-ns"], "exec /busybox sleep 1000");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let hands = openpt(flags).unwrap();
        unlockpt(&hands).unwrap();
        let terminal = ioctl_tiocgptpeer(&hands, flags).unwrap();
        let mut exec = command(&guard, &["exec", "--host-program", BUSYBOX, &id, "yes"]);
        let streams = [0, 1, 2].map(|_| Stdio::from(terminal.try_clone().unwrap()));
        let [stdin, stdout, stderr] = streams;
        exec.stdin(stdin).stdout(stdout).stderr(stderr);
        let mut exec = background_exec(exec);
        drop(terminal);
        // Long enough for the terminal to be full.
        std::thread::sleep(seconds(1));
        let output = within(seconds(1) + KILL, &guard, &["-q", "stop", "--timeout", "1", &id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        exec.wait().unwrap();
        removed(&guard, &id);
    });
}

#[test]
fn jail_in_a_frozen_cgroup_v1_is_thawed_and_stopped() {
    privileged!(guard, {
        for sub in [false, true] {
            let test = "jail_in_a_frozen_cgroup_v1_is_thawed_and_stopped";
            let jail = start_in_freezer(&guard, "exec /busybox sleep 1000");
            let Some((id, cgroup)) = booted_with(jail, test, BOTH) else { return };
            let frozen = if sub { cgroup.join("sub") } else { cgroup };
            if sub {
                fs::create_dir(&frozen).unwrap();
                fs::write(frozen.join("cgroup.procs"), pid(&guard, &id).to_string()).unwrap();
            }
            freeze(&frozen);
            let exec = within(seconds(2), &guard, &["exec", "--host-program", BUSYBOX, &id, "true"]);
            if !sub {
                let file = frozen.join("freezer.state");
                let line = format!(
                    "stockade: '{}' freezes the jail's processes; write THAWED to that file\n",
                    file.display()
                );
                assert_eq!((exec.code, exec.stderr), (125, line));
            }
            let output = within(seconds(1) + KILL, &guard, &["stop", "--timeout", "1", &id]);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
            removed(&guard, &id);
        }
    });
}

#[test]
fn frozen_jail_in_cgroup_v1_is_removed_at_once() {
    privileged!(guard, {
        let jail = start_in_freezer(&guard, "exec /busybox sleep 1000");
        let jail = booted_with(jail, "frozen_jail_in_cgroup_v1_is_removed_at_once", BOTH);
        let Some((id, cgroup)) = jail else { return };
        freeze(&cgroup);
        removed(&guard, &id);
    });
}

/// Commands that have no patience of their own, with the patience that they are given.
fn others(guard: &Guard, id: &str) -> Vec<(u64, Vec<String>)> {
    let file = guard.file("placed", "text").display().to_string();
    let lines: [(u64, &[&str]); 20] = [
        (0, &["ps"]),
        (0, &["ps", "--json"]),
        (0, &["inspect", "ID"]),
        (0, &["inspect", "--tree", "ID"]),
        (0, &["logs", "ID"]),
        (0, &["top", "--once"]),
        (2, &["top", "--json"]),
        (0, &["audit", "ID"]),
        (2, &["audit", "--probe", "ID"]),
        (2, &["exec", "ID", "/busybox", "true"]),
        (2, &["shell", "ID"]),
        (2, &["exec", "--root", "--host-program", BUSYBOX, "ID", "true"]),
        (0, &["kill", "-s", "USR1", "ID"]),
        (0, &["place", "ID", &file]),
        (0, &["unplace", "ID", "/placed"]),
        (0, &["start", "ID"]),
        (0, &["rm", "ID"]),
        (0, &["gc"]),
        (1, &["wait", "--timeout", "1", "ID"]),
        (1, &["events", "--timeout", "1", "ID"]),
    ];
    let named = |word: &&str| if *word == "ID" { id.to_owned() } else { (*word).to_owned() };
    lines.iter().map(|(patience, line)| (*patience, line.iter().map(named).collect())).collect()
}

#[test]
fn no_command_waits_for_a_hostile_vmm() {
    privileged!(guard, {
        let flood = "(while :; do echo flood; done) & trap '' TERM USR1; while :; do /busybox sleep 1; done";
        for is_frozen in [false, true] {
            let jail = start_in_freezer(&guard, flood);
            let Some((id, cgroup)) = booted_with(jail, "no_command_waits_for_a_hostile_vmm", BOTH) else {
                return;
            };
            if is_frozen {
                freeze(&cgroup);
            }
            for (patience, line) in others(&guard, &id) {
                let line: Vec<&str> = line.iter().map(String::as_str).collect();
                let ran = within(seconds(patience), &guard, &line);
                let is_entry = ["exec", "shell"].contains(&line[0]);
                if is_frozen && is_entry {
                    assert!(ran.code == 125 && ran.stderr.contains("write THAWED to"), "{line:?}: {ran:?}");
                }
                assert!(ran.stderr.lines().count() <= 1, "{line:?}: {ran:?}");
            }
            removed(&guard, &id);
        }
    });
}

fn freeze(cgroup: &Path) {
    fs::write(cgroup.join("freezer.state"), "FROZEN").unwrap();
    let is_frozen = || fs::read_to_string(cgroup.join("freezer.state")).unwrap() == "FROZEN\n";
    eventually("the cgroup is frozen", is_frozen);
}

#[test]
fn foreign_freezer_of_a_vmm_is_named() {
    privileged!(guard, {
        let freezer = mount_of(|mount| mount.fs_options.iter().any(|option| option == "freezer"));
        let freezer = booted_with(freezer, "foreign_freezer_of_a_vmm_is_named", FREEZER);
        let Some(cgroup) = freezer.map(|freezer| freezer.join(guard.name())) else { return };
        let id = start(&guard, &[], "exec /busybox sleep 1000");
        let vmm = pid(&guard, &id);
        fs::create_dir(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), vmm.to_string()).unwrap();
        freeze(&cgroup);
        let output = within(seconds(1) + KILL, &guard, &["stop", "--timeout", "1", &id]);
        let removal = within(KILL, &guard, &["rm", "--force", &id]);
        fs::write(cgroup.join("freezer.state"), "THAWED").unwrap();
        eventually("the VMM exits", || !fs::exists(format!("/proc/{vmm}/root/.")).unwrap_or(false));
        let reason = format!("'{}/freezer.state' freezes it; write THAWED to that file", cgroup.display());
        let line = format!("stockade: process {vmm} of jail '{id}' does not exit: {reason}\n");
        assert_eq!((output.code, output.stderr), (1, line));
        assert_eq!((removal.code, removal.stderr.contains(&reason)), (1, true), "{}", removal.stderr);
        removed(&guard, &id);
        eventually("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
    });
}

#[test]
fn exec_into_a_frozen_cgroup_v2_names_it() {
    privileged!(guard, {
        let id = start(&guard, &[], "exec /busybox sleep 1000");
        let cgroup = cgroups(&guard, &id).into_iter().find(|cgroup| cgroup.join("cgroup.freeze").exists());
        let cgroup = booted_with(cgroup, "exec_into_a_frozen_cgroup_v2_names_it", "cgroup v2");
        let Some(file) = cgroup.map(|cgroup| cgroup.join("cgroup.freeze")) else {
            return removed(&guard, &id);
        };
        fs::write(&file, "1").unwrap();
        let line =
            format!("stockade: '{}' freezes the jail's processes; write 0 to that file\n", file.display());
        for arguments in
            [&["exec", "--host-program", BUSYBOX, &id, "true"][..], &["exec", &id, "/busybox", "true"]]
        {
            let exec = within(seconds(2), &guard, arguments);
            assert_eq!((exec.code, &exec.stderr), (125, &line), "{arguments:?}");
        }
        let output = within(seconds(1), &guard, &["stop", "--timeout", "1", &id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        removed(&guard, &id);
    });
}

#[test]
fn run_below_a_frozen_cgroup_names_it_and_leaves_nothing() {
    privileged!(guard, {
        let unified = mount_of(|mount| mount.fs_type == "cgroup2");
        let test = "run_below_a_frozen_cgroup_names_it_and_leaves_nothing";
        let Some(unified) = booted_with(unified, test, "cgroup v2") else { return };
        let parent = unified.join(guard.name());
        fs::create_dir(&parent).unwrap();
        let file = parent.join("cgroup.freeze");
        fs::write(&file, "1").unwrap();
        let flags = ["--cgroup-version", "2", "--parent-cgroup", guard.name()];
        let line = detached(&guard, &flags, "exec /busybox sleep 1000");
        let run = within(seconds(2), &guard, &line.iter().map(String::as_str).collect::<Vec<_>>());
        let text =
            format!("stockade: '{}' freezes the jail's processes; write 0 to that file\n", file.display());
        assert_eq!((run.code, run.stdout.as_str(), run.stderr), (125, "", text));
        fs::remove_dir(&parent).unwrap();
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn run_that_joins_a_frozen_cgroup_v1_names_it() {
    privileged!(guard, {
        let freezer = mount_of(|mount| mount.fs_options.iter().any(|option| option == "freezer"));
        let test = "run_that_joins_a_frozen_cgroup_v1_names_it";
        let Some(freezer) = booted_with(freezer, test, "the freezer of cgroup v1") else { return };
        let parent = freezer.join(guard.name());
        fs::create_dir(&parent).unwrap();
        let file = parent.join("freezer.state");
        fs::write(&file, "FROZEN").unwrap();
        let line = detached(&guard, &["--parent-cgroup", guard.name()], "exec /busybox sleep 1000");
        let run = within(seconds(2), &guard, &line.iter().map(String::as_str).collect::<Vec<_>>());
        let text = format!(
            "stockade: '{}' freezes the jail's processes; write THAWED to that file\n",
            file.display()
        );
        assert_eq!((run.code, run.stdout.as_str(), run.stderr), (125, "", text));
        fs::write(&file, "THAWED").unwrap();
        fs::remove_dir(&parent).unwrap();
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn vmm_that_ignores_sigterm_is_killed_in_time() {
    privileged!(guard, {
        let id = start(&guard, &[], "trap '' TERM; while :; do /busybox sleep 1; done");
        let output = within(seconds(1) + KILL, &guard, &["-q", "stop", "--timeout", "1", &id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(said(&guard, &["wait", &id]), "137\n");
        removed(&guard, &id);
    });
}

/// Waits for a child, which has to exit within its patience.
fn ends_within(patience: Duration, mut child: Child) -> i32 {
    let (began, limit) = (Instant::now(), patience + WORK);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(began.elapsed() <= limit, "it does not end within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_signal_ends_a_run_whose_jail_is_frozen() {
    privileged!(guard, {
        let mut line = detached(&guard, &["--grace", "1"], "exec /busybox sleep 1000");
        line.retain(|argument| argument != "--detach");
        let run = in_freezer(&guard, &line);
        let Some(mut run) = booted_with(run, "one_signal_ends_a_run_whose_jail_is_frozen", BOTH) else {
            return;
        };
        let run = run.spawn().unwrap();
        let id = guard.named("vm");
        eventually("the VMM runs", || is_running(&guard));
        freeze(&freezer_of(&guard, &id));
        kill_process(Pid::from_child(&run), Signal::INT).unwrap();
        // The VMM is asked by SIGTERM, whatever the signal was.
        assert_eq!(ends_within(seconds(1) + KILL, run), 143);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn run_whose_vmm_cannot_be_killed_names_it_and_ends() {
    privileged!(guard, {
        let freezer = mount_of(|mount| mount.fs_options.iter().any(|option| option == "freezer"));
        let freezer = booted_with(freezer, "run_whose_vmm_cannot_be_killed_names_it_and_ends", FREEZER);
        let Some(cgroup) = freezer.map(|freezer| freezer.join(guard.name())) else { return };
        let mut line = detached(&guard, &["--grace", "1"], "exec /busybox sleep 1000");
        line.retain(|argument| argument != "--detach");
        let mut run = command(&guard, &line.iter().map(String::as_str).collect::<Vec<_>>());
        let run = run.stderr(Stdio::piped()).spawn().unwrap();
        eventually("the VMM runs", || is_running(&guard));
        let vmm = pid(&guard, &guard.named("vm"));
        fs::create_dir(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), vmm.to_string()).unwrap();
        freeze(&cgroup);
        kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
        let began = Instant::now();
        // A helper, since the frozen VMM has the same stderr.
        let mut run = run;
        let stderr = run.stderr.take().unwrap();
        let code = ends_within(seconds(1) + KILL, run);
        assert!(began.elapsed() > seconds(1), "it was killed after its grace");
        fs::write(cgroup.join("freezer.state"), "THAWED").unwrap();
        let text = std::io::read_to_string(stderr).unwrap();
        // Its exit status is unknown.
        assert_eq!(code, 255, "{text}");
        assert!(
            text.contains(&format!("process {vmm} does not exit: '{}/freezer.state'", cgroup.display())),
            "{text}"
        );
        eventually("the cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
        said(&guard, &["gc"]);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn run_as_the_first_process_of_a_container_reaps_orphans() {
    privileged!(guard, {
        // Each child of the script exits before its own child, which is left to the container's first process.
        let script = "i=0; while [ $i -lt 50 ]; do (/busybox sleep 0.1 &); i=$((i+1)); done; /busybox sleep 1; \
                      echo asleep; read -r line";
        let mut line = detached(&guard, &[], script);
        line.retain(|argument| argument != "--detach");
        let mut run = Command::new("unshare");
        run.args(["--pid", "--fork", "--mount", "sh", "-c", "mount -t proc proc /proc && exec \"$@\"", "sh"]);
        run.arg(program("stockade")).args(line).env("STOCKADE_STATE_DIR", guard.state());
        let mut run = run.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(run.stdout.take().unwrap());
        let mut asleep = String::new();
        output.read_line(&mut asleep).unwrap();
        assert_eq!(asleep, "asleep\n");
        let init = child_of(run.id()).expect("unshare has a child");
        let zombies = || {
            let children =
                fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
            let is_zombie = |pid: &&str| state_of(pid.parse().unwrap()) == Some('Z');
            children.split_whitespace().filter(is_zombie).count()
        };
        eventually("no zombie is left", || zombies() == 0);
        drop(run.stdin.take());
        // The script's `read` fails at the end of its input, and the VMM's code is the command's.
        assert_eq!(ends_within(seconds(1), run), 1);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn vmm_traced_by_another_process_is_stopped_in_time() {
    privileged!(guard, {
        let id = start(&guard, &[], "exec /busybox sleep 1000");
        let vmm = pid(&guard, &id);
        let mut strace = Command::new("strace");
        strace.args(["-q", "-p", &vmm.to_string(), "-o", "/dev/null"]);
        let mut strace = strace.spawn().unwrap();
        eventually("it is traced", || {
            let status = fs::read_to_string(format!("/proc/{vmm}/status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        });
        // A tracer that never looks again.
        kill_process(Pid::from_child(&strace), Signal::STOP).unwrap();
        let output = within(seconds(1) + KILL, &guard, &["stop", "--timeout", "1", &id]);
        let removal = within(KILL, &guard, &["rm", "--force", &id]);
        kill_process(Pid::from_child(&strace), Signal::KILL).unwrap();
        let tracer = strace.id();
        strace.wait().unwrap();
        let reason = format!("it is traced by process {tracer} (strace, state T)");
        let line = format!("stockade: process {vmm} of jail '{id}' does not exit: {reason}\n");
        assert_eq!((output.code, output.stderr), (1, line));
        assert_eq!((removal.code, removal.stderr.contains(&reason)), (1, true), "{}", removal.stderr);
        removed(&guard, &id);
    });
}

#[test]
fn signal_ends_a_start_that_makes_no_progress() {
    privileged!(guard, {
        let mut line = detached(&guard, &[], "exec /busybox sleep 1000");
        line.retain(|argument| argument != "--detach");
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let mut ended = None;
        for _ in 0..50 {
            let run = command(&guard, &line).stderr(Stdio::piped()).spawn().unwrap();
            let child = stopped_on_its_way(run.id());
            let began = Instant::now();
            kill_process(Pid::from_child(&run), Signal::INT).unwrap();
            let output = run.wait_with_output().unwrap();
            assert!(began.elapsed() <= KILL + WORK, "{output:?}");
            if child {
                ended = Some(output);
                break;
            }
        }
        let output = ended.expect("the child was stopped before its exec");
        let text = String::from_utf8(output.stderr).unwrap();
        let line = "stockade: stopped by a signal before the program ran\n";
        assert_eq!((output.status.code(), text.as_str()), (Some(125), line));
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

/// Stops the child of a command between its clone and its exec. False if it was too late, and the child runs on.
fn stopped_on_its_way(command: u32) -> bool {
    let is_stockade = |pid: i32| {
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        exe.is_ok_and(|exe| exe == program("stockade"))
    };
    let deadline = Instant::now() + seconds(10);
    while Instant::now() < deadline {
        let Some(child) = child_of(command) else { continue };
        let pid = Pid::from_raw(child).unwrap();
        let _ = kill_process(pid, Signal::STOP);
        eventually("it is stopped", || state_of(child).is_none_or(|state| matches!(state, 'T' | 'Z')));
        if is_stockade(child) {
            return true;
        }
        let _ = kill_process(pid, Signal::CONT);
        return false;
    }
    false
}

fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
