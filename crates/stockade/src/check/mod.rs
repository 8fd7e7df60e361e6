//! Findings about a host and about a jail, and what a host looks like before and after.

pub mod audit;
pub mod doctor;
mod finding;
pub mod snapshot;
