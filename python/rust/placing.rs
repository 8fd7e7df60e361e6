//! The common operations of created and running jails: placement, and the list of steps.

use std::path::PathBuf;

use pyo3::prelude::*;
use stockade::spec::JailPath;
use stockade::{Created, How, Placed, Placement, Receipt, Result, Running};

use crate::errors::Raise;
use crate::handle::Handle;

/// A created or running jail.
pub(crate) trait Jail: Send {
    fn place(&mut self, placement: Placement) -> Result<Placed>;
    fn unplace(&mut self, path: &JailPath) -> Result<()>;
    fn receipt(&self) -> &Receipt;
}

macro_rules! jails {
    ($($kind:ident),+) => { $(impl Jail for $kind {
        fn place(&mut self, placement: Placement) -> Result<Placed> {
            $kind::place(self, placement)
        }

        fn unplace(&mut self, path: &JailPath) -> Result<()> {
            $kind::unplace(self, path)
        }

        fn receipt(&self) -> &Receipt {
            $kind::receipt(self)
        }
    })+ };
}

jails!(Created, Running);

impl<T: Jail> Handle<T> {
    /// Returns the path in the jail and the method.
    pub(crate) fn place(
        &self,
        py: Python<'_>,
        source: PathBuf,
        name: Option<PathBuf>,
        how: &str,
        read_only: bool,
    ) -> PyResult<(String, String)> {
        let placement = placement(source, name, how, read_only)?;
        self.with(py, |jail| {
            let placed = jail.place(placement).of_argument("source")?;
            Ok((placed.path.to_string(), placed.how.to_string()))
        })
    }

    /// Removes a placement.
    pub(crate) fn unplace(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let path = JailPath::new(path).of_argument("path")?;
        self.with(py, |jail| jail.unplace(&path).of_argument("path"))
    }

    /// Describes the jail's steps.
    pub(crate) fn steps(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |jail| Ok(jail.receipt().steps.iter().map(ToString::to_string).collect()))
    }
}

fn placement(source: PathBuf, name: Option<PathBuf>, how: &str, read_only: bool) -> PyResult<Placement> {
    let is_it = |method: &How| method.to_string() == how;
    let method = [How::Auto].into_iter().chain(How::NAMED).find(is_it);
    let method = method.ok_or_else(|| {
        let text = format!("how must be auto, link, copy, reflink, bind or node, not {how:?}");
        pyo3::exceptions::PyValueError::new_err(text)
    })?;
    let placement = Placement::new(source).how(method);
    let placement = name.into_iter().fold(placement, Placement::named);
    Ok(if read_only { placement.read_only() } else { placement })
}
