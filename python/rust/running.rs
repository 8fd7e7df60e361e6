//! A jail whose VMM was started.

use std::os::fd::{AsFd, IntoRawFd};
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::process::Signal;
use stockade::spec::JailPath;
use stockade::{ExitStatus, Known, Output, Store, Unheeded};

use crate::errors::Raise;
use crate::handle::{Handle, Leftovers, leftovers};

/// A jail whose VMM was started. Dropping this object does not stop the VMM.
#[pyclass(frozen, module = "stockade._stockade")]
pub(crate) struct Running {
    jail: Handle<stockade::Running>,
    pid: i32,
    store: Store,
}

impl Running {
    pub(crate) fn new(jail: stockade::Running, store: Store) -> Self {
        Self { pid: jail.pid(), jail: Handle::new(jail), store }
    }
}

#[pymethods]
impl Running {
    #[getter]
    fn pid(&self) -> i32 {
        self.pid
    }

    /// A new pidfd of the VMM, which the caller closes.
    fn pidfd(&self, py: Python<'_>) -> PyResult<i32> {
        self.jail.with(py, |jail| Ok(jail.as_fd().try_clone_to_owned()?.into_raw_fd()))
    }

    /// A new file descriptor to wait at for the VMM's exit status, which the caller closes; None once the status is
    /// known.
    fn waits_at(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        self.jail.with(py, |jail| {
            let next = jail.waits_at().or_raise()?;
            Ok(next.map(|fd| fd.try_clone_to_owned()).transpose()?.map(IntoRawFd::into_raw_fd))
        })
    }

    /// Waits up to this time for the VMM's exit, and returns its exit code and its signal.
    fn wait_timeout(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<(Option<i32>, Option<i32>)>> {
        let timeout = duration(seconds)?;
        self.jail.with(py, |jail| {
            let status = jail.wait_timeout(timeout).or_raise()?;
            Ok(status.map(|status| match status {
                ExitStatus::Exited(code) => (Some(code), None),
                ExitStatus::Killed(signal) => (None, Some(signal)),
                ExitStatus::Unknown => (None, None),
            }))
        })
    }

    /// The number of processes of the jail that the kernel killed because memory ran out, and the reason if it is unknown.
    /// Both are None if no cgroup of the jail counts them.
    fn oom_kills(&self, py: Python<'_>) -> PyResult<(Option<u64>, Option<String>)> {
        self.jail.with(py, |jail| {
            Ok(match jail.oom_kills() {
                None => (None, None),
                Some(Known::Fact(kills)) => (Some(kills), None),
                Some(Known::Unknown { unknown }) => (None, Some(unknown)),
            })
        })
    }

    /// Sends SIGTERM. Returns whether the kernel drops it, and why it has no effect; None if it has one, or if that is
    /// unknown.
    fn ask_to_exit(&self, py: Python<'_>) -> PyResult<Option<(bool, String)>> {
        self.jail.with(py, |jail| {
            let unheeded = jail.ask_to_exit().or_raise()?;
            Ok(unheeded.map(|unheeded| (unheeded == Unheeded::Dropped, unheeded.to_string())))
        })
    }

    fn signal(&self, py: Python<'_>, number: i32) -> PyResult<()> {
        let unknown = || PyValueError::new_err(format!("signal must be a signal number, not {number}"));
        let signal = Signal::from_named_raw(number).ok_or_else(unknown)?;
        self.jail.with(py, |jail| jail.signal(signal).or_raise())
    }

    /// Kills the VMM and the other processes in the jail's cgroups, frozen ones too, without waiting.
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        self.jail.with(py, |jail| jail.kill().or_raise())
    }

    /// The reason why the VMM, which was killed, has not exited.
    fn not_ended(&self, py: Python<'_>) -> PyResult<String> {
        self.jail.with(py, |jail| Ok(jail.not_ended().to_string()))
    }

    /// Waits until the VMM accepts connections at this socket, by default the profile's.
    fn wait_ready(&self, py: Python<'_>, socket: Option<PathBuf>, seconds: f64) -> PyResult<()> {
        let timeout = duration(seconds)?;
        let socket = socket.map(|path| JailPath::new(path).of_argument("socket")).transpose()?;
        self.jail.with(py, |jail| {
            let known = socket.or_else(|| jail.receipt().spec.socket());
            let unknown =
                || {
                PyValueError::new_err(
                    "socket must be given, or another profile to Jail(), as in profile='firecracker': this one has \
                     no socket for the VMM",
                )
            };
            jail.wait_ready(&known.ok_or_else(unknown)?, timeout).or_raise()
        })
    }

    fn place(
        &self,
        py: Python<'_>,
        source: PathBuf,
        name: Option<PathBuf>,
        how: &str,
        read_only: bool,
    ) -> PyResult<(String, String)> {
        self.jail.place(py, source, name, how, read_only)
    }

    fn unplace(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.jail.unplace(py, path)
    }

    fn state(&self, py: Python<'_>) -> PyResult<String> {
        self.jail.with(py, |jail| Ok(jail.receipt().state().to_string()))
    }

    fn steps(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.jail.steps(py)
    }

    /// The last bytes of the VMM's output; None without a log, with the reason.
    fn log(&self, py: Python<'_>, size: u64) -> PyResult<(Option<Vec<u8>>, String)> {
        self.jail.with(py, |jail| {
            let id = &jail.receipt().id;
            Ok(match self.store.output(id).or_raise()? {
                Some(Output::Log) => (Some(self.store.log_end(id, size)), String::new()),
                // Its text is about `run`.
                Some(Output::Foreground { .. }) => (None, "launch() got streams".to_owned()),
                Some(output) => (None, output.to_string()),
                None => (None, "the jail was removed".to_owned()),
            })
        })
    }

    /// Detaches the jail: it remains with its VMM.
    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        self.jail.consume(py, |jail| {
            drop(jail);
            Ok(())
        })
    }

    fn teardown(&self, py: Python<'_>) -> PyResult<Leftovers> {
        self.jail.consume(py, |jail| Ok(leftovers(jail.teardown().or_raise()?)))
    }
}

fn duration(seconds: f64) -> PyResult<Duration> {
    let invalid = || PyValueError::new_err(format!("timeout must be a number of seconds, not {seconds}"));
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}
