//! The compiled part of the Python package `stockade`: the library's calls as Python sees them, the
//! interpreter's lock let go of while they run. What is comfortable is written in Python, on top of this.

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
