//! A value of the library's that a Python object holds, until it is taken out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use stockade::Report;

/// What a jail left, as pairs of what and why.
pub(crate) type Left = Vec<(String, String)>;

/// A value that one thread works on at a time, and that belongs to the process that made it.
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

    /// Does something with the value, without the interpreter's lock.
    pub(crate) fn with<R: Send>(
        &self,
        py: Python<'_>,
        what: impl FnOnce(&mut T) -> PyResult<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| what(self.lock().as_mut().ok_or_else(gone)?))
    }

    /// Takes the value out, to do something with it without the interpreter's lock.
    pub(crate) fn consume<R: Send>(
        &self,
        py: Python<'_>,
        what: impl FnOnce(T) -> PyResult<R> + Send,
    ) -> PyResult<R> {
        py.detach(|| {
            let value = self.lock().take().ok_or_else(gone)?;
            what(value)
        })
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // A forked copy of the process has a copy of the value, and nothing of its own to remove.
        if self.process != std::process::id() {
            let value = self.value.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(value.take());
        }
    }
}

fn gone() -> PyErr {
    PyRuntimeError::new_err("the jail is gone, or was launched")
}

pub(crate) fn left(report: Report) -> Left {
    report.left.into_iter().map(|left| (left.what, left.reason)).collect()
}
