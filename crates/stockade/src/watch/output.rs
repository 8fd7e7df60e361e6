//! Where the output of a jail's VMM is written.

use std::fmt;
use std::path::PathBuf;

use crate::error::Result;
use crate::spec::JailId;
use crate::state::{Receipt, Store};
use crate::sys::ProcessRef;
use crate::sys::process::file_of;

/// Where the output of a jail's VMM is written. Its text completes the sentence "the jail has no log: ...".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the log, which [`Store::log`] opens. It may be empty.
    Log,
    /// Nowhere yet: the VMM was not started.
    NotStarted,
    /// Nowhere: it was launched with a log of size 0.
    Dropped,
    /// To `/dev/null`, because the specification asks for a daemon.
    Daemonized,
    /// To the streams that the process gave it that started it.
    Foreground {
        /// The pid of that process.
        pid: i32,
        /// Whether it is alive.
        alive: bool,
        /// The stdout of that process: a path, or a text such as `pipe:[123]`. `None` if it is unknown.
        stdout: Option<PathBuf>,
    },
    /// Unknown: another program started the VMM, or the process that started it detached it.
    Elsewhere,
}

impl Store {
    /// Finds out where the output of a jail's VMM is written; `None` if no jail has this id.
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be read.
    pub fn output(&self, id: &JailId) -> Result<Option<Output>> {
        let Some(receipt) = self.read(id)? else { return Ok(None) };
        Ok(Some(if self.has_log(id) { Output::Log } else { without_log(&receipt) }))
    }
}

fn without_log(receipt: &Receipt) -> Output {
    match (receipt.vmm_step(), receipt.keeper) {
        (None, _) if receipt.is_adopted() => Output::Elsewhere,
        (None, _) => Output::NotStarted,
        (Some(_), _) if receipt.spec.daemonize => Output::Daemonized,
        (Some(vmm), _) if vmm.monitor.is_some() => Output::Dropped,
        (Some(_), Some(keeper)) => foreground(receipt.is_here(), keeper),
        (Some(_), None) => Output::Elsewhere,
    }
}

fn foreground(is_here: bool, keeper: ProcessRef) -> Output {
    let alive = is_here && keeper.is_alive();
    let stdout = || std::fs::read_link(file_of(keeper.pid, "fd/1").ok()?).ok();
    Output::Foreground { pid: keeper.pid, alive, stdout: alive.then(stdout).flatten() }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str("its VMM wrote nothing"),
            Self::NotStarted => f.write_str("its VMM was not started"),
            Self::Dropped => f.write_str("it was started with `--log-size 0`, which drops its output"),
            Self::Daemonized => f.write_str("`--daemonize` redirects its output to '/dev/null'"),
            Self::Foreground { pid, alive: true, stdout } => {
                write!(f, "its output goes to process {pid}, which runs it in the foreground")?;
                stdout.iter().try_for_each(|stdout| write!(f, " with stdout '{}'", stdout.display()))
            }
            Self::Foreground { pid, alive: false, .. } => {
                write!(f, "its output went to process {pid}, which has exited")
            }
            Self::Elsewhere => f.write_str("another program started its VMM, with streams of its own"),
        }
    }
}
