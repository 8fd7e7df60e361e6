//! Trials: each makes the calls of a jail in a child process, whose effects end with it.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stockade_syscalls::call::Call;
use stockade_syscalls::features::Feature;
use stockade_syscalls::namespace::namespace_file;
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, Released, spawn};

use crate::spec::{ExitStatus, Reason};
use crate::sys::file_id::FileId;
use crate::sys::open::open_directory;
use crate::sys::process::{PidFd, file_of, text_of};
use crate::sys::procfs::field;

/// The longest wait for a trial.
const PATIENCE: Duration = Duration::from_secs(5);

/// The outcome of a trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// Every call succeeded.
    #[default]
    Worked,
    /// The kernel refused a call.
    Refused {
        /// The name of the call.
        call: &'static str,
        /// The cause.
        cause: Errno,
    },
    /// A signal killed the process at one of its calls, as a seccomp filter does.
    Killed(i32),
    /// The trial was not possible, for this reason.
    Unknown(String),
}

/// The outcomes of all trials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trials {
    /// The calls that jails need.
    pub calls: Vec<(Feature, Trial)>,
    /// Creating a mount namespace and changing its root to the base.
    pub mounts: Trial,
    /// Creating namespaces of the kinds pid, net and ipc.
    pub namespaces: Vec<(&'static str, Trial)>,
    /// Joining a namespace.
    pub join: Trial,
    /// Creating and opening the device nodes of a jail, by their paths.
    pub nodes: Vec<(&'static str, Trial)>,
    /// Inspecting a process of the jails' uid.
    pub inspection: Trial,
}

impl Trials {
    /// Makes the trials.
    ///
    /// # Arguments
    /// * `base`: an existing directory for jails.
    /// * `uid`: the uid of the jails.
    pub(super) fn make(base: &Path, uid: u32) -> Self {
        let namespace = |kind, options| (kind, run(Vec::new(), options));
        let plain = CloneOptions::default();
        let call = |feature: Feature| {
            let (name, _) = feature.name_and_version();
            (feature, run(vec![(name, Call::Probe(feature))], plain))
        };
        Self {
            calls: Feature::ALL.map(call).to_vec(),
            mounts: mounts(base),
            namespaces: vec![
                namespace("pid", CloneOptions { pid_namespace: true, ..plain }),
                namespace("net", CloneOptions { network_namespace: true, ..plain }),
                namespace("ipc", CloneOptions { ipc_namespace: true, ..plain }),
            ],
            join: join(),
            nodes: [("/dev/kvm", (10, 232)), ("/dev/net/tun", (10, 200)), ("/dev/urandom", (1, 9))]
                .map(|(path, device)| (path, node(device)))
                .to_vec(),
            inspection: inspection(uid),
        }
    }
}

fn mounts(base: &Path) -> Trial {
    let base = match open_directory(CWD, base, ResolveFlags::empty()) {
        Ok(base) => Arc::new(base),
        Err(cause) => return Trial::Unknown(format!("cannot open '{}': {}", base.display(), Reason(cause))),
    };
    let calls = vec![
        ("fchdir", Call::ChangeDirectory(base)),
        ("unshare", Call::UnshareMounts),
        ("mount", Call::MakeMountsSlaves),
        ("open_tree", Call::CloneTree),
        ("move_mount", Call::AttachTree),
        ("fchdir", Call::EnterTree),
        ("pivot_root", Call::PivotRoot),
        ("umount2", Call::DetachOldRoot),
    ];
    run(calls, CloneOptions::default())
}

fn join() -> Trial {
    let file = namespace_file("self", "net");
    match rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(own) => run(vec![("setns", Call::JoinNetwork(own))], CloneOptions::default()),
        Err(cause) => Trial::Unknown(format!("cannot open '{file}': {}", Reason(cause))),
    }
}

/// The call that a jail's node is created with.
pub(super) const MAKE_NODE: &str = "mknod";
/// The call that a VMM opens the node with.
pub(super) const OPEN_NODE: &str = "open";

fn node(device: (u32, u32)) -> Trial {
    let name = || CString::from(c"node");
    let calls = vec![
        // In a user namespace only a mount namespace of its own permits mounts.
        ("unshare", Call::UnshareMounts),
        ("mount", Call::EnterMemory),
        (MAKE_NODE, Call::MakeNode { name: name(), device }),
        (OPEN_NODE, Call::OpenFile(name())),
    ];
    match run(calls, CloneOptions::default()) {
        // Without a file system for the node nothing is known about the node.
        Trial::Refused { call: call @ ("unshare" | "mount"), cause } => {
            Trial::Unknown(format!("no file system in memory for a trial: {call} fails: {}", Reason(cause)))
        }
        outcome => outcome,
    }
}

/// Runs calls in a child, and returns the outcome.
fn run(calls: Vec<(&'static str, Call)>, options: CloneOptions<'_>) -> Trial {
    let (names, mut calls): (Vec<&str>, Vec<Call>) = calls.into_iter().unzip();
    calls.push(Call::End);
    let child = match spawn(&mut Program::new(calls), options) {
        Ok(child) => child,
        Err(cause) => return no_child(cause),
    };
    let pid = child.pid.as_raw_nonzero().get();
    let (fd, released) = child.release_and_wait(&mut |waited| waited > PATIENCE);
    let process = PidFd::new(fd, pid);
    let deadline = Some(Instant::now() + PATIENCE);
    if matches!(released, Ok(Released::GivenUp) | Err(_)) {
        // If it cannot be killed, it does not end here either, and the result below names that.
        let _ = process.kill(deadline);
    }
    let ended = process.wait_for_exit(deadline).unwrap_or(false);
    let status = process.reap();
    match (released, status) {
        (Ok(Released::Failed(failure)), _) => match names.get(failure.call) {
            Some(call) => Trial::Refused { call, cause: failure.errno },
            None => Trial::Unknown(format!("the trial failed: {}", Reason(failure.errno))),
        },
        (Ok(Released::Executed), Ok(Some(ExitStatus::Exited(0)))) => Trial::Worked,
        (Ok(Released::Executed), Ok(Some(ExitStatus::Killed(signal)))) => Trial::Killed(signal),
        _ if !ended => Trial::Unknown(format!("process {pid} of the trial does not end")),
        _ => Trial::Unknown(format!("the trial has no result after {} seconds", PATIENCE.as_secs())),
    }
}

fn no_child(cause: Errno) -> Trial {
    match cause {
        // A limit of processes or of memory, which decides nothing about the call.
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE => {
            Trial::Unknown(format!("cannot create a process: {}", Reason(cause)))
        }
        cause => Trial::Refused { call: "clone3", cause },
    }
}

/// Inspects a child that has the uid of the jails.
fn inspection(uid: u32) -> Trial {
    let calls = vec![Call::SetUid(uid), Call::WaitForRelease, Call::End];
    let child = match spawn(&mut Program::new(calls), CloneOptions::default()) {
        Ok(child) => child,
        Err(cause) => return no_child(cause),
    };
    let pid = child.pid.as_raw_nonzero().get();
    let outcome = inspect(pid, uid);
    let (fd, released) = child.release_and_wait(&mut |waited| waited > PATIENCE);
    let process = PidFd::new(fd, pid);
    let deadline = Some(Instant::now() + PATIENCE);
    let _ = process.kill(deadline);
    let _ = process.reap();
    match released {
        // Without the uid there was no process to inspect.
        Ok(Released::Failed(failure)) => {
            Trial::Unknown(format!("no process can have the uid {uid}: {}", Reason(failure.errno)))
        }
        _ => outcome,
    }
}

fn inspect(pid: i32, uid: u32) -> Trial {
    let wanted = uid.to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = match text_of(pid, "status") {
            Ok(status) => status,
            // The child has not been waited for, so a /proc without it hides it.
            Err(Errno::NOENT) => return Trial::Refused { call: "open", cause: Errno::PERM },
            Err(cause) => return Trial::Refused { call: "open", cause },
        };
        if field(&status, "Uid").split_whitespace().next() == Some(&wanted) {
            break;
        }
        if field(&status, "State").starts_with('Z') || Instant::now() > deadline {
            return Trial::Unknown(format!("process {pid} of the trial does not get the uid {uid}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let files = [file_of(pid, "root"), file_of(pid, "ns/mnt")];
    match files.into_iter().find_map(|file| file.and_then(FileId::at).err()) {
        None => Trial::Worked,
        Some(cause) => Trial::Refused { call: "stat", cause },
    }
}
