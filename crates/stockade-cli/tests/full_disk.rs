//! The state directory's disk fills up, or the monitor is killed: exit statuses are kept, and lost output is reported.
#![allow(clippy::unwrap_used, clippy::zombie_processes, missing_docs)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, kill_process};
use testkit::{Guard, privileged, program, said, stockade};

/// Mounts a small filesystem on the state directory while `test` runs.
fn on_a_small_disk(guard: &Guard, options: &str, test: impl FnOnce(&Path)) {
    let state = guard.state();
    fs::create_dir_all(&state).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount(c"none", &state, c"tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&state)));
    rustix::mount::unmount(&state, UnmountFlags::DETACH).unwrap();
    fs::remove_dir(&state).unwrap();
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Uses all blocks and all inodes.
fn fill(state: &Path) {
    let mut file = File::create(state.join("fill")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
    (0..100_000).take_while(|number| File::create(state.join(format!("fill-{number}"))).is_ok()).count();
}

fn create(guard: &Guard, name: &str) -> String {
    let id = guard.named(name);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    said(guard, &["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base]);
    id
}

fn start(guard: &Guard, id: &str, vmm: &[&str]) -> i32 {
    said(guard, &[&["start", id, "--"], vmm].concat()).trim().parse().unwrap()
}

/// The columns of a jail in `ps`.
fn row(guard: &Guard, id: &str) -> Vec<String> {
    let ps = said(guard, &["ps"]);
    let row = ps.lines().find(|line| line.starts_with(id)).unwrap_or_default();
    row.split_whitespace().map(str::to_owned).collect()
}

fn state_and_exit(guard: &Guard, id: &str) -> [String; 2] {
    let row = row(guard, id);
    [row[2].clone(), row[3].clone()]
}

#[test]
fn a_full_disk_loses_no_exit_status_and_says_what_it_lost() {
    privileged!(guard, {
        on_a_small_disk(&guard, "size=512k,nr_inodes=200", |state| {
            let many = ["a", "b", "c"].map(|name| create(&guard, name));
            let words = [&["clock", "sleep-ms=5000"][..], &vec!["clock"; 2_000], &["exit=3"]].concat();
            for id in &many {
                start(&guard, id, &words);
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            while many.iter().any(|id| stockade(&guard, &["logs", id]).stdout.is_empty()) {
                assert!(Instant::now() < deadline, "a VMM writes nothing");
            }
            fill(state);
            for id in &many {
                assert_eq!(state_and_exit(&guard, id), ["running", "-"], "the disk filled up too late");
            }
            for id in &many {
                assert_eq!(said(&guard, &["wait", id]), "3\n");
                assert_eq!(state_and_exit(&guard, id), ["exited", "3"]);
                let logs = stockade(&guard, &["logs", id]);
                let line = logs.stderr.strip_prefix("stockade: ").unwrap();
                let (lost, rest) = line.split_once(' ').unwrap();
                assert_eq!(
                    rest,
                    format!(
                        "bytes of the output of jail '{id}' are lost: they could not be written; make room in '{}'\n",
                        state.display()
                    )
                );
                // Each line of the clock has the same length, and all lines but the lost bytes are there.
                let length = logs.stdout.lines().next().unwrap().len() + 1;
                let kept = logs.stdout.len();
                assert_eq!((kept + lost.parse::<usize>().unwrap()) % length, 0, "{kept} {lost} {length}");
            }
            let late = stockade(&guard, &["create", "--id", "late", "--exec-file", "/bin/true"]);
            assert_eq!((late.code, late.stderr.lines().count()), (1, 1), "{}", late.stderr);
            for id in &many {
                assert_eq!(said(&guard, &["rm", id]), format!("{id}\n"));
            }
        });
    });
}

#[test]
fn a_start_on_a_full_disk_is_refused() {
    privileged!(guard, {
        on_a_small_disk(&guard, "size=512k,nr_inodes=200", |state| {
            let id = create(&guard, "late");
            fill(state);
            let start = stockade(&guard, &["start", &id, "--", "exit=3"]);
            let at = state.join(&id);
            let line = format!("stockade: cannot open '{}/ended.new': no space left on device", at.display());
            assert_eq!(start.code, 1);
            assert!(start.stderr.starts_with(&line), "{}", start.stderr);
            assert_eq!(said(&guard, &["rm", &id]), format!("{id}\n"));
        });
    });
}

/// Starts a VMM whose monitor takes half a second longer to record the exit status.
fn start_with_slow_monitor(guard: &Guard, id: &str) -> (std::process::Child, i32) {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=renameat", "-P", "ended.new", "-P"]);
    strace.arg(guard.state().join(id).join("ended.new"));
    strace.args(["-e", "inject=renameat:delay_enter=500000"]).arg(program("stockade"));
    strace.args(["start", id, "--", "sleep-ms=700", "exit=7"]).env("STOCKADE_STATE_DIR", guard.state());
    let strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    (strace, pid_of(guard, id))
}

/// The pid of a VMM, once it runs.
fn pid_of(guard: &Guard, id: &str) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let row = row(guard, id);
        if let ("running", Ok(pid)) = (row[2].as_str(), row[1].parse()) {
            return pid;
        }
        assert!(Instant::now() < deadline, "it does not run: {row:?}");
    }
}

#[test]
fn ps_shows_the_exit_code_that_wait_has_printed() {
    privileged!(guard, {
        let test = "ps_shows_the_exit_code_that_wait_has_printed";
        if !testkit::has(Path::new("/usr/bin/strace").exists(), test, "strace") {
            return;
        }
        let id = create(&guard, "slow");
        let (mut strace, _) = start_with_slow_monitor(&guard, &id);
        assert_eq!(said(&guard, &["wait", &id]), "7\n");
        let ended = fs::read_to_string(guard.state().join(&id).join("ended"));
        assert_eq!(ended.unwrap(), "exited 7\n", "wait was faster than the record");
        assert_eq!(state_and_exit(&guard, &id), ["exited", "7"]);
        strace.wait().unwrap();
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_vmm_that_is_gone_has_its_exit_status_recorded() {
    privileged!(guard, {
        let test = "a_vmm_that_is_gone_has_its_exit_status_recorded";
        if !testkit::has(Path::new("/usr/bin/strace").exists(), test, "strace") {
            return;
        }
        let id = create(&guard, "gone");
        let (mut strace, pid) = start_with_slow_monitor(&guard, &id);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < deadline, "the monitor leaves a zombie");
        }
        let ended = fs::read_to_string(guard.state().join(&id).join("ended"));
        assert_eq!(ended.unwrap(), "exited 7\n");
        assert_eq!(state_and_exit(&guard, &id), ["exited", "7"]);
        strace.wait().unwrap();
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn logs_says_that_the_monitor_was_killed() {
    privileged!(guard, {
        let id = create(&guard, "orphan");
        let pid = start(&guard, &id, &["clock", "sleep"]);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let monitor: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let killed = format!(
            "stockade: the monitor of jail '{id}' (pid {monitor}) was killed: later output and the exit status are lost\n"
        );
        while !stockade(&guard, &["logs", &id]).stderr.ends_with(&killed) {
            assert!(Instant::now() < deadline, "{}", stockade(&guard, &["logs", &id]).stderr);
        }
        said(&guard, &["rm", "--force", &id]);
    });
}
