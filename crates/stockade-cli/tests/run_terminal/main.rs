//! `run` at a terminal: the VMM has its own terminal, and never the operator's.
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

/// Reads lines and prints them.
const READER: &str = "echo \"u\"p; while read -r line; do echo \"go\"\"t:$line:\"; done";

/// A command line that runs a busybox script in a jail.
fn run(guard: &Guard, flags: &str, script: &str) -> String {
    let (id, base) = (guard.named("vm"), guard.base());
    format!(
        "$stockade run --id {id} --exec-file {BUSYBOX} --chroot-base-dir {} {flags} -- sh -c '{script}'",
        base.display()
    )
}

/// Like [`run`], but with the probe as root in its jail, because the kernel lets root do more at a terminal.
fn probe(guard: &Guard, flags: &str, arguments: &str) -> String {
    let (id, base) = (guard.named("vm"), guard.base());
    let probe = program("stockade-probe");
    format!(
        "$stockade run --id {id} --exec-file {} --chroot-base-dir {} --uid 0 --gid 0 {flags} -- {arguments}",
        probe.display(),
        base.display()
    )
}

/// The pid of the running VMM.
fn vmm(guard: &Guard) -> i32 {
    let jails = stockade(guard, &["ps", "--json"]).stdout;
    let jails: serde_json::Value = serde_json::from_str(&jails).unwrap();
    jails[0]["pid"].as_i64().unwrap().try_into().unwrap()
}

/// Like [`vmm`], but waits until the process has executed the VMM.
fn executed(guard: &Guard) -> i32 {
    while stockade(guard, &["ps", "-q", "--filter", "state=running"]).stdout.is_empty() {}
    let (vmm, deadline) = (vmm(guard), Instant::now() + Duration::from_secs(10));
    while std::fs::read_to_string(format!("/proc/{vmm}/comm")).unwrap() != "busybox\n" {
        assert!(Instant::now() < deadline, "it does not execute");
    }
    vmm
}

/// Checks that no jail, process or file is left. The guard finds anything else.
fn nothing_is_left(guard: &Guard) {
    assert_eq!(stockade(guard, &["ps", "-q"]).stdout, "");
    assert!(!guard.base().exists());
}

fn with_busybox(test: fn(&Guard)) {
    if has(Path::new(BUSYBOX).exists(), std::any::type_name_of_val(&test), "busybox") {
        privileged!(guard, { test(&guard) });
    }
}

/// The pid of the `run` that is the parent of the VMM.
fn run_of_vmm(guard: &Guard) -> Pid {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", vmm(guard))).unwrap();
    let parent = stat[stat.rfind(')').unwrap()..].split(' ').nth(2).unwrap().parse().unwrap();
    Pid::from_raw(parent).unwrap()
}
