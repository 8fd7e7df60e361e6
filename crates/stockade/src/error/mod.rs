//! The library's error: the failed operation, its argument and the cause.

mod placement;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use stockade_syscalls::inherited::Attribute;
use stockade_syscalls::mount_table::OWN_TABLE;

pub use placement::PlacementError;

use crate::entry::{EnterStep, EntryError, missing_interpreter};
pub(crate) use crate::spec::errno;
use crate::spec::libraries::Interpreter;
use crate::spec::{
    CgroupSetting, CgroupVersion, ExitStatus, HostPath, JailId, JailPath, ParentCgroup, Reason, SpecError,
};
use crate::sys;
use crate::sys::cgroup::Frozen;
use crate::sys::cgroup::SUBTREE_CONTROL;
use crate::sys::error::Cause;
pub use crate::sys::error::Operation;
use crate::sys::procfs::{BOOT_ID, MISC, OWN_MOUNTS};
use crate::sys::release::{Hindrance, START_TIMEOUT};

/// The result of an operation of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed: one line for a person, [`Error::kind`] for a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification is wrong; nothing was created.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Something cannot be placed as requested; nothing was changed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// This host has no hierarchy of the requested cgroup version.
    #[error("this host has no hierarchy of cgroup {version}{}", other_version(*.other))]
    NoHierarchy {
        /// The requested version.
        version: CgroupVersion,
        /// The version that this host has.
        other: Option<CgroupVersion>,
    },
    /// The jail names a parent cgroup that does not exist, and has no setting for which it would be created.
    #[error(
        "there is no cgroup '{}' in {}; create it, or give the jail a cgroup setting, for which it is created",
        .parent.as_path().display(), hierarchies(*.version)
    )]
    NoParentCgroup {
        /// The parent, relative to the hierarchies.
        parent: ParentCgroup,
        /// The requested version; `None` for both.
        version: Option<CgroupVersion>,
    },
    /// A cgroup setting cannot be written.
    #[error("cannot write '{file}': {}", setting_refused(*.cause))]
    CgroupSetting {
        /// The setting.
        setting: CgroupSetting,
        /// Its file in the jail's cgroup.
        file: HostPath,
        /// The kernel's error; ENOENT if the cgroup has no such file.
        cause: Errno,
    },
    /// This host does not offer a cgroup controller.
    #[error("this host has no cgroup controller '{0}'")]
    NoController(String),
    /// An operation on the host failed.
    #[error("cannot {operation} {}: {}{}", quoted(argument), Reason(*.cause), fix(*.operation, argument, *.cause))]
    Operation {
        /// The operation.
        operation: Operation,
        /// Its object: a path, a pid, or a description.
        argument: String,
        /// The kernel's error.
        cause: Errno,
    },
    /// The jail with this id is running.
    #[error("jail '{id}' is running as pid {pid}")]
    Running {
        /// The id.
        id: JailId,
        /// The pid of its VMM.
        pid: i32,
    },
    /// No VMM runs in the jail.
    #[error("jail '{0}' is not running")]
    NotRunning(JailId),
    /// Another process is working on the jail.
    #[error("jail '{id}' is locked by {}; try again when that has finished", locked_by(*.pid))]
    Locked {
        /// The id.
        id: JailId,
        /// The other process; 0 if it is unknown.
        pid: i32,
    },
    /// The jail with this id was created and waits for its VMM.
    #[error("jail '{0}' exists; remove it or use another id")]
    Exists(JailId),
    /// The VMM of the jail with this id has exited, and the jail was not removed yet.
    #[error("the VMM of jail '{0}' has exited; remove the jail or use another id")]
    Exited(JailId),
    /// The jail with this id belongs to another pid namespace.
    #[error("jail '{0}' belongs to another pid namespace; run the command there")]
    Foreign(JailId),
    /// Something that stockade did not create for this jail is in the way.
    #[error("{what} exists and was not created by stockade for this jail; remove it or use another id")]
    InTheWay {
        /// The directory, cgroup or namespace.
        what: String,
    },
    /// A file that is to be replaced has other names, and so is not the jail's alone.
    #[error("'{path}' is a hard link, which is never replaced; remove it")]
    HardLink {
        /// The file.
        path: HostPath,
    },
    /// Something placed cannot be taken out.
    #[error("'{path}' is still in the jail: {reason}")]
    NotTakenOut {
        /// The path in the jail.
        path: JailPath,
        /// The reason.
        reason: String,
    },
    /// This process cannot be moved into the parent cgroup.
    #[error("cannot move into cgroup '{cgroup}': {}", Reason(*.cause))]
    MoveToParent {
        /// The cgroup.
        cgroup: HostPath,
        /// The kernel's error.
        cause: Errno,
    },
    /// The VMM's process, or an exec process, failed on its way into the jail.
    #[error("cannot {step}: {}{}", Reason(*.cause), hint(.step, *.cause))]
    Enter {
        /// The step that failed.
        step: Box<EnterStep>,
        /// The kernel's error.
        cause: Errno,
    },
    /// The VMM's executable names an interpreter, such as its dynamic loader, that is not in the jail.
    #[error(
        "cannot {step}: its {interpreter} is not in the jail; place it with its shared libraries, or use a static executable"
    )]
    NoInterpreter {
        /// The execution of the VMM.
        step: Box<EnterStep>,
        /// The interpreter.
        interpreter: Interpreter,
    },
    /// A frozen cgroup keeps the VMM, or an exec process, from starting.
    #[error("'{file}' freezes the jail's processes; write {thaw} to that file")]
    Frozen {
        /// The file of the jail's cgroup, or of one above it.
        file: HostPath,
        /// The text that thaws it.
        thaw: &'static str,
    },
    /// The VMM's process, or an exec process, has not executed its program in time. It was killed.
    #[error("process {pid} has not executed its program after {} s: {reason}", seconds(*.waited))]
    NotStarted {
        /// The process.
        pid: i32,
        /// The time waited.
        waited: Duration,
        /// The reason.
        reason: String,
    },
    /// A signal asked this process to end while it started a VMM or an exec process, which was killed.
    #[error("stopped by a signal before the program ran")]
    Interrupted,
    /// A process of a jail does not exit although it was killed.
    #[error("process {pid} of jail '{id}' does not exit: {reason}")]
    NotEnded {
        /// The id.
        id: JailId,
        /// The process.
        pid: i32,
        /// The reason.
        reason: String,
    },
    /// A process may be in the jail that this process cannot inspect.
    #[error("cannot examine all processes of jail '{id}': {reason}")]
    Unseen {
        /// The id.
        id: JailId,
        /// The process, and the fix.
        reason: String,
    },
    /// The VMM exited before its socket accepted a connection.
    #[error("the VMM of jail '{id}' exited before it was ready: {status}{}", appended(.last_lines))]
    ExitedEarly {
        /// The id.
        id: JailId,
        /// The exit status of the VMM.
        status: ExitStatus,
        /// The last lines of its output, if it was launched with a log.
        last_lines: Vec<String>,
    },
    /// The VMM's socket accepted no connection in time.
    #[error("the VMM of jail '{id}' accepts no connection at '{socket}' after {} s", seconds(*.waited))]
    NotReady {
        /// The id.
        id: JailId,
        /// The socket in the jail.
        socket: JailPath,
        /// The time waited.
        waited: Duration,
    },
    /// Something else has the name of a file of the state directory.
    #[error("'{0}' is not a file; remove it")]
    NotAFile(HostPath),
    /// A receipt cannot be understood.
    #[error("receipt '{path}' {problem}")]
    Receipt {
        /// The file.
        path: HostPath,
        /// The problem, as a predicate.
        problem: String,
    },
}

/// The kinds of errors that a program may distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The specification is wrong.
    InvalidSpec,
    /// The jail's id is in use.
    InUse,
    /// Something foreign is in the way.
    InTheWay,
    /// The caller lacks a privilege.
    PermissionDenied,
    /// Something required does not exist.
    NotFound,
    /// A receipt is corrupt or foreign.
    BadReceipt,
    /// The VMM exited, or was not ready in time.
    NotReady,
    /// Any other error of the kernel.
    System,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec(_) | Self::Placement(_) | Self::NoHierarchy { .. } | Self::NoController(_) => {
                ErrorKind::InvalidSpec
            }
            Self::Running { .. }
            | Self::Locked { .. }
            | Self::Exists(_)
            | Self::Exited(_)
            | Self::Foreign(_) => ErrorKind::InUse,
            Self::Unseen { .. } => ErrorKind::PermissionDenied,
            Self::NotRunning(_) | Self::NoParentCgroup { .. } | Self::NoInterpreter { .. } => {
                ErrorKind::NotFound
            }
            Self::InTheWay { .. } | Self::HardLink { .. } | Self::NotAFile(_) => ErrorKind::InTheWay,
            Self::Receipt { .. } => ErrorKind::BadReceipt,
            Self::NotTakenOut { .. }
            | Self::Frozen { .. }
            | Self::NotStarted { .. }
            | Self::Interrupted
            | Self::NotEnded { .. } => ErrorKind::System,
            Self::ExitedEarly { .. } | Self::NotReady { .. } => ErrorKind::NotReady,
            Self::Operation { cause, .. }
            | Self::CgroupSetting { cause, .. }
            | Self::MoveToParent { cause, .. }
            | Self::Enter { cause, .. } => match *cause {
                Errno::PERM | Errno::ACCESS => ErrorKind::PermissionDenied,
                Errno::NOENT => ErrorKind::NotFound,
                _ => ErrorKind::System,
            },
        }
    }
}

impl Error {
    /// Whether this process or the host lacks file descriptors or memory at the moment.
    pub(crate) fn is_shortage(&self) -> bool {
        const SHORTAGES: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        match self {
            Self::Operation { cause, .. } | Self::CgroupSetting { cause, .. } => SHORTAGES.contains(cause),
            _ => false,
        }
    }
}

/// Turns a cause into an error with the operation and its argument.
pub(crate) trait Context<T> {
    /// Adds the operation and its argument.
    fn context(self, operation: Operation, argument: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: Operation, argument: impl fmt::Display) -> Result<T> {
        Ok(sys::error::Context::context(self, operation, argument)?)
    }
}

impl Error {
    /// The error of a process that was hindered on its way to its program.
    pub(crate) fn hindered(pid: i32, hindrance: Hindrance) -> Self {
        match hindrance {
            Hindrance::Signal => Self::Interrupted,
            Hindrance::Frozen(Frozen { file, thaw }) => Self::Frozen { file, thaw },
            Hindrance::Late(reason) => Self::NotStarted { pid, waited: START_TIMEOUT, reason },
        }
    }
}

impl From<EntryError> for Error {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Sys(error) => error.into(),
            EntryError::Exchanged(source) => PlacementError::Exchanged(source.as_path().to_owned()).into(),
            EntryError::Failed { step, cause } => Self::Enter { step, cause },
        }
    }
}

impl EntryError {
    /// The error of a process that failed on its way to its program.
    ///
    /// # Arguments
    /// `root`: the jail's root directory, if it can be opened
    pub(crate) fn explained(self, root: Option<BorrowedFd<'_>>) -> Error {
        if let (Self::Failed { step, cause: Errno::NOENT }, Some(root)) = (&self, root)
            && let EnterStep::Execute { path, .. } = &**step
            && let Some(interpreter) = missing_interpreter(root, path)
        {
            return Error::NoInterpreter { step: step.clone(), interpreter };
        }
        self.into()
    }
}

impl From<sys::error::Error> for Error {
    fn from(error: sys::error::Error) -> Self {
        let sys::error::Error { operation, argument, cause } = error;
        Self::Operation { operation, argument, cause }
    }
}

fn hierarchies(version: Option<CgroupVersion>) -> String {
    version.map_or("any hierarchy".to_owned(), |version| format!("cgroup {version}"))
}

fn setting_refused(cause: Errno) -> String {
    if cause == Errno::NOENT { "no such file in this cgroup".to_owned() } else { Reason(cause).to_string() }
}

fn other_version(other: Option<CgroupVersion>) -> String {
    other.map_or_else(|| "; mount one".to_owned(), |other| format!("; use {other}"))
}

/// Puts a path in quotes. Other objects, for example a pid, have none.
fn quoted(argument: &str) -> String {
    if argument.starts_with('/') { format!("'{argument}'") } else { argument.to_owned() }
}

/// Seconds with up to three decimals. Not by floating point, which would add 20 KB to the drop-in.
fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:03}", duration.as_secs(), duration.subsec_millis());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn locked_by(pid: i32) -> String {
    if pid == 0 { "another process".to_owned() } else { format!("pid {pid}") }
}

/// The last lines of the VMM's output, in the error's own line.
fn appended(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
}

fn hint(step: &EnterStep, cause: Errno) -> &'static str {
    match (step, cause) {
        (EnterStep::Execute { .. }, Errno::NOENT) => {
            "; place the interpreter and the shared libraries that it needs, or use a static executable"
        }
        (EnterStep::Execute { .. }, Errno::ACCESS) => {
            "; make it executable, and mount its filesystem without noexec"
        }
        (EnterStep::ExecuteProgram { of_host: true, .. }, Errno::NOENT) => {
            "; it needs an interpreter that the jail does not have: use a static program"
        }
        (EnterStep::ExecuteProgram { of_host: false, .. }, Errno::NOENT) => {
            "; the jail has no such program, or not its interpreter: use a static program of the host"
        }
        (EnterStep::Execute { .. } | EnterStep::ExecuteProgram { .. }, Errno::NOEXEC) => {
            "; use a static executable of this architecture"
        }
        (EnterStep::ExecuteProgram { .. }, Errno::ACCESS) => "; make it executable for the jail's uid",
        (EnterStep::EmptyBoundingSet | EnterStep::KeepFileCapabilities, Errno::PERM) => {
            "; run stockade with CAP_SETPCAP"
        }
        (EnterStep::Reset { attributes }, Errno::PERM) if attributes.contains(&Attribute::Scheduling) => {
            "; run stockade with CAP_SYS_NICE, or with SCHED_OTHER and nice value 0"
        }
        (EnterStep::Reset { attributes }, Errno::DQUOT)
            if attributes.contains(&Attribute::SessionKeyring) =>
        {
            "; raise kernel.keys.root_maxkeys and kernel.keys.root_maxbytes"
        }
        (EnterStep::Clone { cgroup: Some(_), .. }, Errno::BUSY) => {
            "; a cgroup that enables controllers for child cgroups takes no process: give the jail a cgroup \
             setting, and so a cgroup of its own below it"
        }
        (EnterStep::JoinCgroup { .. }, Errno::NOSPC) => {
            "; a cpuset takes no process before its cpuset.cpus and cpuset.mems have values"
        }
        (EnterStep::Clone { cgroup: Some(_), .. }, Errno::OPNOTSUPP) => {
            "; a cgroup above it has processes in it: use another parent cgroup or move them out"
        }
        _ => "",
    }
}

fn fix(operation: Operation, argument: &str, cause: Errno) -> &'static str {
    if operation == Operation::Lock && cause == Errno::WOULDBLOCK {
        "; another process has locked it: end that process"
    } else if cause == Errno::BUSY && Path::new(argument).ends_with(SUBTREE_CONTROL) {
        "; a cgroup with processes in it cannot enable controllers for child cgroups: use another parent cgroup or move \
         them out"
    } else if cause == Errno::NOENT && [BOOT_ID, MISC, OWN_MOUNTS, OWN_TABLE].contains(&argument) {
        "; mount a procfs at /proc, without the option subset=pid"
    } else if cause == Errno::PERM && matches!(operation, Operation::Mark | Operation::ReadMark) {
        "; run stockade with CAP_SYS_ADMIN, in the initial user namespace"
    } else if cause == Errno::ACCESS && is_of_process(operation, argument) {
        "; run stockade with CAP_SYS_PTRACE, in the initial user namespace"
    } else {
        ""
    }
}

/// Whether an operation looks at another process.
fn is_of_process(operation: Operation, argument: &str) -> bool {
    let in_proc =
        argument.strip_prefix("/proc/").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    in_proc || (operation == Operation::Inspect && argument.starts_with("process "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_no_more_decimals_than_needed() {
        for (millis, text) in [(0, "0"), (200, "0.2"), (1_000, "1"), (10_050, "10.05"), (30_000, "30")] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }
}
