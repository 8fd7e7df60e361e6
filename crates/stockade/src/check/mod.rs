//! Checks of a host and of a jail, and snapshots of a host.

pub mod audit;
pub mod doctor;
mod finding;
pub mod snapshot;
mod walk;
