//! `run` at a terminal: the VMM has one of its own, and never the operator's.
#![allow(clippy::unwrap_used, missing_docs)]

mod given;
mod keyboard;
mod output;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::termios::LocalModes;
use testkit::{Guard, Operator, has, privileged, program, stockade};

const BUSYBOX: &str = "/bin/busybox";

/// Reads lines and says what it has read.
const READER: &str = "echo \"u\"p; while read -r line; do echo \"go\"\"t:$line:\"; done";

/// A command line that runs a script of busybox in a jail.
fn run(guard: &Guard, flags: &str, script: &str) -> String {
    let (id, base) = (guard.named("vm"), guard.base());
    format!(
        "$stockade run --id {id} --exec-file {BUSYBOX} --chroot-base-dir {} {flags} -- sh -c '{script}'",
        base.display()
    )
}

/// The same with the probe, as root in its jail: it may do at a terminal whatever the kernel lets root do there.
fn probe(guard: &Guard, flags: &str, words: &str) -> String {
    let (id, base) = (guard.named("vm"), guard.base());
    let probe = program("stockade-probe");
    format!(
        "$stockade run --id {id} --exec-file {} --chroot-base-dir {} --uid 0 --gid 0 {flags} -- {words}",
        probe.display(),
        base.display()
    )
}

/// The pid of the VMM that runs.
fn vmm(guard: &Guard) -> i32 {
    let jails = stockade(guard, &["ps", "--json"]).stdout;
    let jails: serde_json::Value = serde_json::from_str(&jails).unwrap();
    jails[0]["pid"].as_i64().unwrap().try_into().unwrap()
}

/// The same once it is the VMM, and no longer on its way to that.
fn executed(guard: &Guard) -> i32 {
    while stockade(guard, &["ps", "-q", "--filter", "state=running"]).stdout.is_empty() {}
    let (vmm, deadline) = (vmm(guard), Instant::now() + Duration::from_secs(10));
    while std::fs::read_to_string(format!("/proc/{vmm}/comm")).unwrap() != "busybox\n" {
        assert!(Instant::now() < deadline, "it does not execute");
    }
    vmm
}

/// No jail, no process and no file is left; the rest is the guard's to find.
fn nothing_is_left(guard: &Guard) {
    assert_eq!(stockade(guard, &["ps", "-q"]).stdout, "");
    assert!(!guard.base().exists());
}

fn with_busybox(test: fn(&Guard)) {
    if has(Path::new(BUSYBOX).exists(), std::any::type_name_of_val(&test), "busybox") {
        privileged!(guard, { test(&guard) });
    }
}

/// The pid of the `run` whose VMM is that of the jail.
fn of_shell(guard: &Guard) -> Pid {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", vmm(guard))).unwrap();
    let parent = stat[stat.rfind(')').unwrap()..].split(' ').nth(2).unwrap().parse().unwrap();
    Pid::from_raw(parent).unwrap()
}
