//! Converts the library's error into an exception of the hierarchy in `stockade/errors.py`.

use std::path::PathBuf;

use pyo3::prelude::*;
use rustix::io::Errno;
use stockade::spec::SpecError;
use stockade::{Error, ErrorKind};

/// Converts a result of the library into one with an exception.
pub(crate) trait Raise<T> {
    /// Converts an error into an exception.
    fn or_raise(self) -> PyResult<T>;

    /// Converts an error about an argument into an exception that names the argument.
    fn of_argument(self, name: &str) -> PyResult<T>;
}

impl<T, E: Into<Error>> Raise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| exception(&error.into(), None))
    }

    fn of_argument(self, name: &str) -> PyResult<T> {
        self.map_err(|error| exception(&error.into(), Some(name)))
    }
}

/// Creates the Python exception for an error.
///
/// # Arguments
/// `argument`: the name of the argument that may be invalid.
fn exception(error: &Error, argument: Option<&str>) -> PyErr {
    let part;
    let (argument, error) = match error {
        Error::Spec(SpecError::Argument { name, cause }) => {
            part = Error::Spec((**cause).clone());
            (Some(parameter(name)), &part)
        }
        error => (argument.map(str::to_owned), error),
    };
    let is_about = |name: &String| error.kind() == ErrorKind::InvalidSpec && !name.is_empty();
    let text = match argument.filter(is_about) {
        Some(name) => format!("{name}: {error}"),
        None => error.to_string(),
    };
    let (operation, path, cause) = parts(error);
    Python::attach(|py| {
        let exception = py.import("stockade.errors").and_then(|errors| {
            let number = cause.map(Errno::raw_os_error);
            errors.call_method1("_of", (kind(error.kind()), text, operation, path, number))
        });
        exception.map_or_else(|failure| failure, PyErr::from_value)
    })
}

/// The name of the Python parameter for a flag of the command line.
fn parameter(flag: &str) -> String {
    match flag {
        "chroot-base-dir" => "chroot_base".to_owned(),
        "bind-exec" => "bind_executable".to_owned(),
        "cgroup" | "resource-limit" => flag.replace('-', "_") + "s",
        flag => flag.replace('-', "_"),
    }
}

fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidSpec => "invalid-spec",
        ErrorKind::InUse => "in-use",
        ErrorKind::InTheWay => "in-the-way",
        ErrorKind::PermissionDenied => "permission-denied",
        ErrorKind::NotFound => "not-found",
        ErrorKind::BadReceipt => "bad-receipt",
        ErrorKind::NotReady => "not-ready",
        ErrorKind::System => "system",
    }
}

/// The failed operation, its path and its errno.
fn parts(error: &Error) -> (Option<String>, Option<PathBuf>, Option<Errno>) {
    match error {
        Error::Operation { operation, argument, cause } => {
            let path = argument.starts_with('/').then(|| PathBuf::from(argument));
            (Some(operation.to_string()), path, Some(*cause))
        }
        Error::NoInterpreter { step, .. } => (Some(step.to_string()), None, Some(Errno::NOENT)),
        Error::Enter { step, cause } => (Some(step.to_string()), None, Some(*cause)),
        Error::MoveToParent { cgroup, cause } => {
            (Some("move into cgroup".into()), Some(cgroup.as_path().into()), Some(*cause))
        }
        Error::HardLink { path } | Error::NotAFile(path) | Error::Receipt { path, .. } => {
            (None, Some(path.as_path().into()), None)
        }
        Error::Spec(SpecError::NotFound(path, cause)) => (None, Some(path.clone()), Some(*cause)),
        Error::Spec(
            SpecError::NotAFile(path) | SpecError::NotADirectory(path) | SpecError::ExecName(path),
        ) => (None, Some(path.clone()), None),
        _ => (None, None, None),
    }
}
