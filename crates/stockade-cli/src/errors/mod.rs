//! What is told of errors: hints for those of the library, and what was meant by a wrong command line.

pub(crate) mod hints;
pub(crate) mod other_tools;
pub(crate) mod usage;
