//! The report of the probe.

use crate::capabilities::Capabilities;
use crate::devices;
use crate::escapes::{self, Escape};
use crate::known::Known;
use crate::mounts::{self, Mount};
use crate::writable;
use rustix::fs::Mode;
use rustix::process::Resource;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::Path;
use std::{env, fs, io};
use stockade_syscalls::{attempt, state};

/// The number of file descriptors to query; more would take too long.
const MOST_DESCRIPTORS: u64 = 65536;

/// The report, in the order of its keys.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pid: u32,
    ppid: i32,
    sid: Known<i32>,
    uid: u32,
    euid: u32,
    gid: u32,
    egid: u32,
    groups: Known<Vec<u32>>,
    cwd: Known<String>,
    root_entries: Known<Vec<String>>,
    environment: Vec<String>,
    hostname: String,
    descriptors: Vec<i32>,
    capabilities: Capabilities,
    no_new_privs: Known<bool>,
    seccomp: Known<i32>,
    umask: String,
    signals: Signals,
    mounts: Known<Vec<Mount>>,
    network: Known<Vec<String>>,
    devices: Vec<devices::Entry>,
    writable: Vec<String>,
    escapes: Vec<Escape>,
    inherited: BTreeMap<String, String>,
    arch: String,
    kernel: String,
}

#[derive(Debug, Serialize)]
struct Signals {
    ignored: Known<Vec<i32>>,
    blocked: Known<Vec<i32>>,
}

impl Report {
    pub(crate) fn gather() -> Self {
        let system = rustix::system::uname();
        Self {
            pid: std::process::id(),
            // The kernel returns 0 if the parent is outside the pid namespace.
            ppid: rustix::process::getppid().map_or(0, rustix::process::Pid::as_raw_pid),
            sid: attempt::session().into(),
            uid: rustix::process::getuid().as_raw(),
            euid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            groups: groups().into(),
            cwd: env::current_dir().map(|path| path.display().to_string()).into(),
            root_entries: names_in(Path::new("/")).into(),
            environment: environment(),
            hostname: text(system.nodename()),
            descriptors: descriptors(),
            capabilities: Capabilities::read(),
            no_new_privs: rustix::thread::no_new_privs().into(),
            seccomp: rustix::thread::secure_computing_mode().map(|mode| mode as i32).into(),
            umask: umask(),
            signals: Signals {
                ignored: attempt::ignored_signals().into(),
                blocked: attempt::blocked_signals().into(),
            },
            mounts: mounts::read(),
            network: attempt::interfaces().into(),
            devices: devices::below(Path::new("/dev")),
            writable: writable::directories(Path::new("/")),
            escapes: escapes::try_all(),
            inherited: inherited(),
            arch: text(system.machine()),
            kernel: text(system.release()),
        }
    }
}

/// The inherited state of this process, including attributes that Rust's runtime changes.
pub(crate) fn inherited() -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = state::read().into_iter().collect();
    let list = |signals: io::Result<Vec<i32>>| match signals {
        Ok(signals) if signals.is_empty() => "none".to_owned(),
        Ok(signals) => signals.iter().map(i32::to_string).collect::<Vec<_>>().join(" "),
        Err(_) => "-".to_owned(),
    };
    all.insert("signals-ignored".into(), list(attempt::ignored_signals()));
    all.insert("signals-blocked".into(), list(attempt::blocked_signals()));
    let names: Vec<String> = env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    all.insert("environment".into(), if names.is_empty() { "none".into() } else { names.join(" ") });
    let leads = attempt::session().is_ok_and(|session| session.unsigned_abs() == std::process::id());
    all.insert("session".into(), if leads { "own" } else { "launcher's" }.into());
    let cwd = env::current_dir().map_or("-".into(), |path| path.display().to_string());
    all.insert("working-directory".into(), cwd);
    let more = descriptors().into_iter().filter(|number| *number > 2).count();
    all.insert("descriptors".into(), if more == 0 { "none".into() } else { format!("{more} more") });
    all
}

fn groups() -> rustix::io::Result<Vec<u32>> {
    let groups = rustix::process::getgroups()?;
    Ok(groups.into_iter().map(rustix::process::Gid::as_raw).collect())
}

fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

fn environment() -> Vec<String> {
    env::vars_os()
        .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
        .collect()
}

fn descriptors() -> Vec<i32> {
    let soft = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(MOST_DESCRIPTORS);
    attempt::open_descriptors(i32::try_from(soft.min(MOST_DESCRIPTORS)).unwrap_or(i32::MAX))
}

/// Reads the umask, which is possible only by setting it; the strictest value is the safe one.
fn umask() -> String {
    let mask = rustix::process::umask(Mode::RWXU | Mode::RWXG | Mode::RWXO);
    rustix::process::umask(mask);
    format!("{:04o}", mask.bits())
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
