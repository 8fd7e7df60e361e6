//! The compiled part of the Python package `stockade`: the library's calls, which release the interpreter's lock while
//! they run. The public classes are written in Python on top of it.

mod adopted;
mod created;
mod errors;
mod handle;
mod placing;
mod running;

use pyo3::prelude::*;

#[pymodule]
mod _stockade {
    #[pymodule_export]
    use crate::adopted::{AdoptOptions, Adopted, adopt, is_jail_id};
    #[pymodule_export]
    use crate::created::{Created, create};
    #[pymodule_export]
    use crate::running::Running;
}
