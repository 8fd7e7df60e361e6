//! A value of the library in a Python object, until it is consumed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use stockade::Report;

/// The objects that a teardown left: pairs of object and reason.
pub(crate) type Leftovers = Vec<(String, String)>;

/// A value that one thread uses at a time, and that belongs to the process that created it.
pub(crate) struct Handle<T> {
    value: Mutex<Option<T>>,
    process: u32,
}

impl<T: Send> Handle<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(Some(value)), process: std::process::id() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `action` with the value, without the interpreter's lock.
    pub(crate) fn with<R: Send>(
        &self,
        py: Python<'_>,
        action: impl FnOnce(&mut T) -> PyResult<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| action(self.lock().as_mut().ok_or_else(consumed)?))
    }

    /// Takes the value and calls `action` with it, without the interpreter's lock.
    pub(crate) fn consume<R: Send>(
        &self,
        py: Python<'_>,
        action: impl FnOnce(T) -> PyResult<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| {
            let value = self.lock().take().ok_or_else(consumed)?;
            action(value)
        })
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // A forked copy of the process must not remove the owning process's objects.
        if self.process != std::process::id() {
            let value = self.value.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(value.take());
        }
    }
}

fn consumed() -> PyErr {
    PyRuntimeError::new_err("the jail was launched or removed")
}

pub(crate) fn leftovers(report: Report) -> Leftovers {
    report.left.into_iter().map(|left| (left.what, left.reason)).collect()
}
