//! The compiled part of the Python package `stockade`: the library's calls as Python sees them, the
//! interpreter's lock let go of while they run. What is comfortable is written in Python, on top of this.

mod adopted;
mod errors;
mod held;
mod placing;
mod prepared;
mod running;

use pyo3::prelude::*;

#[pymodule]
mod _stockade {
    #[pymodule_export]
    use crate::adopted::{Adopted, Wants, adopt, is_jail_id};
    #[pymodule_export]
    use crate::prepared::{Prepared, prepare};
    #[pymodule_export]
    use crate::running::Running;
}
