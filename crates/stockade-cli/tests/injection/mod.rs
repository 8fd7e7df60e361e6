//! Commands under strace, which kills them or makes their system calls fail.
#![allow(dead_code, clippy::must_use_candidate, clippy::missing_panics_doc)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use testkit::{Guard, Output, mount_lines_with, program, run_with, stockade};

/// A command under strace with further options.
pub(crate) fn traced(guard: &Guard, options: &[String], arguments: &[String]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-qq", "-o"]).arg(guard.directory().join("trace")).args(options).arg(program("stockade"));
    command.args(arguments).env("STOCKADE_STATE_DIR", guard.state());
    run_with(&mut command)
}

/// Whether `strace` has injected a failure into the last traced command.
pub(crate) fn was_injected(guard: &Guard) -> bool {
    std::fs::read_to_string(guard.directory().join("trace")).unwrap().contains("(INJECTED)")
}

/// Flags of a jail with every option.
pub(crate) fn flags(guard: &Guard, command: &str) -> Vec<String> {
    let (probe, base) = (program("stockade-probe").display().to_string(), guard.base().display().to_string());
    let (id, net) = (guard.named("jail"), guard.named("net"));
    let arguments = [
        command,
        "--id",
        &id,
        "--exec-file",
        &probe,
        "--chroot-base-dir",
        &base,
        "--netns",
        &net,
        "--ramfs",
        "1M",
        "--place",
        "/etc/passwd",
        "--cgroup",
        "pids.max=9",
        "--parent-cgroup",
        guard.name(),
        "--",
        "exit=0",
    ];
    arguments.map(str::to_owned).to_vec()
}

/// Every system call of a command, each with its number among those of its name.
pub(crate) fn calls(guard: &Guard, arguments: &[String]) -> Vec<(String, usize)> {
    assert_eq!(traced(guard, &[], arguments).code, 0, "is strace installed?");
    let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
    let mut counts = BTreeMap::new();
    let names = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
    let plain = |name: &String| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    names
        .filter(plain)
        .map(|name| {
            let count = counts.entry(name.clone()).or_insert(0);
            *count += 1;
            (name, *count)
        })
        .collect()
}

/// Waits for all processes of the killed command: orphans become children of this process.
pub(crate) fn wait_for_orphans() {
    // The VMM of a test that failed in another thread is a child too, and may never exit.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Err(Errno::CHILD) => return,
            Ok(Some(_)) => (),
            _ => {
                assert!(Instant::now() < deadline, "a process of the killed command still runs");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

pub(crate) fn leftovers(guard: &Guard) -> Vec<&'static str> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let unnamed = std::fs::read_dir(guard.directory()).unwrap().flatten();
    let unnamed =
        unnamed.filter(|entry| entry.file_name().to_string_lossy().starts_with(".stockade")).count();
    let checks = [
        ("the base", there(&guard.base())),
        ("the state directory", there(&guard.state())),
        ("a directory without a name", unnamed > 0),
        ("the network namespace", there(&Path::new("/run/netns").join(guard.named("net")))),
        ("a mount", !mount_lines_with(guard.name()).is_empty()),
        ("the cgroup", there(&Path::new("/sys/fs/cgroup/pids").join(guard.name()).join(guard.named("jail")))),
    ];
    checks.into_iter().filter(|(_, left)| *left).map(|(what, _)| what).collect()
}

/// Creates a jail that persists.
pub(crate) fn create(guard: &Guard) {
    let arguments = flags(guard, "create");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(stockade(guard, &arguments).code, 0);
}

/// Creates a jail whose VMM exited after its `run` was killed.
pub(crate) fn leave_a_dead_jail(guard: &Guard) {
    let mut arguments = flags(guard, "run");
    arguments.insert(1, "--daemonize".to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert_eq!(stockade(guard, &arguments).code, 0);
    wait_for_orphans();
}

/// The calls that the program itself makes and that can fail. Rust's runtime before main, its allocator and its hash
/// tables abort the process on a failure.
pub(crate) fn refusable(guard: &Guard, calls: Vec<(String, usize)>) -> Vec<(String, usize)> {
    let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
    let before_main = trace.lines().take_while(|line| !line.contains("SIGCHLD")).count();
    let runtime = ["brk", "mmap", "munmap", "mprotect", "mremap", "sigaltstack", "exit_group", "getrandom"];
    // An injected failure skips the call, but a real close always closes.
    let infallible = ["geteuid", "getpid", "gettid", "clock_gettime", "close"];
    let passed_over = |name: &String| runtime.iter().chain(&infallible).any(|other| other == name);
    calls.into_iter().skip(before_main).filter(|(name, _)| !passed_over(name)).collect()
}
