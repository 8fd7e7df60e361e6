//! A jail whose VMM was started.

use std::os::fd::{AsFd, IntoRawFd};
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustix::process::Signal;
use stockade::spec::JailPath;
use stockade::{ExitStatus, Store};

use crate::errors::Raise;
use crate::handle::{Handle, Left, left};

/// A jail whose VMM was started. The VMM runs on without this object.
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

    /// A new descriptor of the VMM's process, which is the caller's to close.
    fn pidfd(&self, py: Python<'_>) -> PyResult<i32> {
        self.jail.with(py, |jail| Ok(jail.as_fd().try_clone_to_owned()?.into_raw_fd()))
    }

    /// A new descriptor to wait at next for the VMM's end, which is the caller's to close; None once that is
    /// known.
    fn waits_at(&self, py: Python<'_>) -> PyResult<Option<i32>> {
        self.jail.with(py, |jail| {
            let next = jail.waits_at().or_raise()?;
            Ok(next.map(|fd| fd.try_clone_to_owned()).transpose()?.map(IntoRawFd::into_raw_fd))
        })
    }

    /// How the VMM ended, as its exit code and its signal, waiting so long for it.
    fn ended(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<(Option<i32>, Option<i32>)>> {
        let timeout = duration(seconds)?;
        self.jail.with(py, |jail| {
            let ended = jail.wait_timeout(timeout).or_raise()?;
            Ok(ended.map(|ended| match ended {
                ExitStatus::Exited(code) => (Some(code), None),
                ExitStatus::Killed(signal) => (None, Some(signal)),
                ExitStatus::Unknown => (None, None),
            }))
        })
    }

    fn signal(&self, py: Python<'_>, number: i32) -> PyResult<()> {
        let unknown = || PyValueError::new_err(format!("signal must be the number of one, not {number}"));
        let signal = Signal::from_named_raw(number).ok_or_else(unknown)?;
        self.jail.with(py, |jail| jail.signal(signal).or_raise())
    }

    /// Waits until the VMM accepts connections at a socket, its own unless one is named.
    fn wait_ready(&self, py: Python<'_>, socket: Option<PathBuf>, seconds: f64) -> PyResult<()> {
        let timeout = duration(seconds)?;
        let socket = socket.map(|path| JailPath::new(path).of_argument("socket")).transpose()?;
        self.jail.with(py, |jail| {
            let known = socket.or_else(|| jail.receipt().spec.socket());
            let unknown = || PyValueError::new_err("socket must be given: this VMM's is not known");
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

    /// What the VMM has written, if its monitor keeps that.
    fn log(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        self.jail.with(py, |jail| {
            let parts = self.store.logs(&jail.receipt().id);
            Ok(parts.iter().flat_map(|part| std::fs::read(part).unwrap_or_default()).collect())
        })
    }

    /// Lets go of the jail: it stays, with its VMM.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.jail.consume(py, |jail| {
            drop(jail);
            Ok(())
        })
    }

    fn teardown(&self, py: Python<'_>) -> PyResult<Left> {
        self.jail.consume(py, |jail| Ok(left(jail.teardown().or_raise()?)))
    }
}

fn duration(seconds: f64) -> PyResult<Duration> {
    let wrong = || PyValueError::new_err(format!("timeout must be a number of seconds, not {seconds}"));
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}
