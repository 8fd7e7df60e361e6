//! One error: which operation on which argument failed, and why.

mod placement;

use std::fmt;
use std::time::Duration;

use rustix::io::Errno;
use stockade_syscalls::inherited::Attribute;

pub use placement::PlacementError;

use crate::entry::{EnterStep, EntryError};
use crate::spec::ExitStatus;
pub(crate) use crate::spec::errno;
use crate::spec::{HostPath, JailId, JailPath, SpecError};
use crate::sys;
use crate::sys::error::Cause;
pub use crate::sys::error::Operation;

/// The result of whatever can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong: one line for a person, [`Error::kind`] for a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification cannot be met; nothing was made.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Something cannot be placed as it was asked for; nothing was changed.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// No hierarchy of the version asked for.
    #[error("Hierarchy not found: {0}")]
    NoHierarchy(&'static str),
    /// A controller that this host does not offer.
    #[error("Controller {0} is unavailable")]
    NoController(String),
    /// An operation on the host failed.
    #[error("failed to {operation} {argument}: {cause}{}", cgroup_hint(argument, *.cause))]
    Operation {
        /// What was tried.
        operation: Operation,
        /// On what.
        argument: String,
        /// What the kernel said.
        cause: Errno,
    },
    /// A jail of that id is running.
    #[error("jail {id} is running as pid {pid}")]
    Running {
        /// Which.
        id: JailId,
        /// Its VMM.
        pid: i32,
    },
    /// No VMM runs in the jail.
    #[error("jail {0} does not run")]
    NotRunning(JailId),
    /// Another process is working on the jail.
    #[error("jail {id} is locked by pid {pid}")]
    Locked {
        /// Which.
        id: JailId,
        /// The other process; 0 if it could not be told.
        pid: i32,
    },
    /// A jail of that id is prepared and waits to be launched.
    #[error("jail {0} exists already; remove it first, or choose another id")]
    Exists(JailId),
    /// The VMM of a jail of that id has ended, and the jail was not removed yet.
    #[error("the VMM of jail {0} has ended; remove the jail first, or choose another id")]
    Exited(JailId),
    /// A jail of that id is kept in another pid namespace.
    #[error("jail {0} was made in another pid namespace; work on it there")]
    Foreign(JailId),
    /// Something that stockade did not make is in the way.
    #[error(
        "{what} exists already and was not made by stockade for this jail; remove it, or choose another id"
    )]
    InTheWay {
        /// The directory, cgroup or namespace.
        what: String,
    },
    /// A file that is to be replaced has other names, and so is not the jail's alone.
    #[error("{path} is a hard link, and is not replaced")]
    HardLink {
        /// Where it is.
        path: HostPath,
    },
    /// What was placed cannot be taken out.
    #[error("{path} is still in the jail: {reason}")]
    NotTakenOut {
        /// What.
        path: JailPath,
        /// Why.
        reason: String,
    },
    /// This process cannot be moved into the cgroup that jails are made in.
    #[error("failed to move into cgroup {cgroup}: {cause}")]
    MoveToParent {
        /// The cgroup.
        cgroup: HostPath,
        /// What the kernel said.
        cause: Errno,
    },
    /// The VMM's process failed on its way into the jail.
    #[error("failed to {step}: {cause}{}", hint(.step, *.cause))]
    Enter {
        /// At which step.
        step: Box<EnterStep>,
        /// What the kernel said.
        cause: Errno,
    },
    /// The VMM ended before it could be talked to.
    #[error("the VMM of jail {id} ended before it was ready: {ended}{}", appended(.last_lines))]
    EndedEarly {
        /// Which jail.
        id: JailId,
        /// How it ended.
        ended: ExitStatus,
        /// The last of what it wrote, if it was launched with a log.
        last_lines: Vec<String>,
    },
    /// The VMM cannot be talked to.
    #[error("the VMM of jail {id} accepts no connection at {socket} after {} s", .waited.as_secs_f32())]
    NotReady {
        /// Which jail.
        id: JailId,
        /// Where.
        socket: JailPath,
        /// For how long that was tried.
        waited: Duration,
    },
    /// A receipt cannot be understood.
    #[error("receipt {path} {problem}")]
    Receipt {
        /// Where it is.
        path: HostPath,
        /// What is wrong with it.
        problem: String,
    },
}

/// What a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The specification is at fault.
    InvalidSpec,
    /// The jail's id is in use.
    InUse,
    /// Something foreign is in the way.
    InTheWay,
    /// The caller lacks a privilege.
    PermissionDenied,
    /// Something that should be there is not.
    NotFound,
    /// A receipt is damaged or foreign.
    BadReceipt,
    /// The VMM ended, or did not get ready in time.
    NotReady,
    /// Anything else that the kernel refused.
    System,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Spec(_) | Self::Placement(_) | Self::NoHierarchy(_) | Self::NoController(_) => {
                ErrorKind::InvalidSpec
            }
            Self::Running { .. }
            | Self::Locked { .. }
            | Self::Exists(_)
            | Self::Exited(_)
            | Self::Foreign(_) => ErrorKind::InUse,
            Self::NotRunning(_) => ErrorKind::NotFound,
            Self::InTheWay { .. } | Self::HardLink { .. } => ErrorKind::InTheWay,
            Self::Receipt { .. } => ErrorKind::BadReceipt,
            Self::NotTakenOut { .. } => ErrorKind::System,
            Self::EndedEarly { .. } | Self::NotReady { .. } => ErrorKind::NotReady,
            Self::Operation { cause, .. } | Self::MoveToParent { cause, .. } | Self::Enter { cause, .. } => {
                match *cause {
                    Errno::PERM | Errno::ACCESS => ErrorKind::PermissionDenied,
                    Errno::NOENT => ErrorKind::NotFound,
                    _ => ErrorKind::System,
                }
            }
        }
    }
}

impl Error {
    /// Whether it is only this process, or the host at this moment, that lacks something.
    pub(crate) fn is_shortage(&self) -> bool {
        matches!(self, Self::Operation { cause: Errno::MFILE | Errno::NFILE | Errno::NOMEM, .. })
    }
}

/// Turns a bare cause into an error that says what was tried on what.
pub(crate) trait Context<T> {
    /// Adds the operation and its argument.
    fn context(self, operation: Operation, argument: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: Operation, argument: impl fmt::Display) -> Result<T> {
        Ok(sys::error::Context::context(self, operation, argument)?)
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

impl From<sys::error::Error> for Error {
    fn from(error: sys::error::Error) -> Self {
        let sys::error::Error { operation, argument, cause } = error;
        Self::Operation { operation, argument, cause }
    }
}

/// What was said last, in the error's own line.
fn appended(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!(": {}", lines.join(" | ")) }
}

fn hint(step: &EnterStep, cause: Errno) -> &'static str {
    match (step, cause) {
        (EnterStep::Execute { .. }, Errno::NOENT) => {
            "; the file is in the jail, so its interpreter is not: link it statically, or place its closure too"
        }
        (EnterStep::Execute { .. }, Errno::ACCESS) => {
            "; is it executable, and its filesystem mounted without noexec?"
        }
        (EnterStep::ExecuteProgram { of_host: true, .. }, Errno::NOENT) => {
            "; it needs an interpreter that the jail has not: choose a static one"
        }
        (EnterStep::ExecuteProgram { of_host: false, .. }, Errno::NOENT) => {
            "; the jail has no such program, or not its interpreter: a static one of the host's can be run"
        }
        (EnterStep::ExecuteProgram { .. }, Errno::ACCESS) => "; may the jail's uid execute it?",
        (EnterStep::EmptyBoundingSet | EnterStep::KeepFileCapabilities, Errno::PERM) => {
            "; it takes CAP_SETPCAP"
        }
        (EnterStep::Reset { attributes }, Errno::PERM) if attributes.contains(&Attribute::Scheduling) => {
            "; it takes CAP_SYS_NICE, or a launcher with SCHED_OTHER and nice value 0"
        }
        (EnterStep::Reset { attributes }, Errno::DQUOT)
            if attributes.contains(&Attribute::SessionKeyring) =>
        {
            "; raise kernel.keys.root_maxkeys and kernel.keys.root_maxbytes"
        }
        (EnterStep::Clone { cgroup: Some(_), .. }, Errno::BUSY) => {
            "; a cgroup that hands controllers down holds no process: with a setting the jail gets its own \
             below it"
        }
        (EnterStep::Clone { cgroup: Some(_), .. }, Errno::OPNOTSUPP) => {
            "; a cgroup above it has processes in it: choose another parent, or move them out"
        }
        _ => "",
    }
}

fn cgroup_hint(argument: &str, cause: Errno) -> &'static str {
    if cause == Errno::BUSY && argument.ends_with("/cgroup.subtree_control") {
        "; a cgroup with processes in it hands no controllers down: choose another parent, or move them out"
    } else {
        ""
    }
}
