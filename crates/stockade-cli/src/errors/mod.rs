//! Error messages: hints for library errors, and suggestions for usage errors.

mod foreign_flags;
pub(crate) mod hints;
pub(crate) mod other_tools;
mod renamed_states;
pub(crate) mod usage;
