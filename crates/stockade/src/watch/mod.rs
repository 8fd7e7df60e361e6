//! Observers of jails, which change nothing.

mod events;
pub mod inspect;
mod log;
mod output;
mod usage;

pub use events::{End, Ends, Event, EventKind, Events};
pub use log::Log;
pub use output::Output;
pub use usage::Usage;
