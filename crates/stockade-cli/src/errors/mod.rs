//! What is told of errors: hints for those of the library, and what was meant by a wrong command line.

pub(crate) mod hints;
pub(crate) mod other_tools;
mod renamed_states;
pub(crate) mod usage;
