//! The state directory.

mod listing;
pub(crate) mod subscriber_lock;
pub(crate) mod tombstone;

pub use listing::Listing;
pub(crate) use subscriber_lock::{Presence, remove_strays};
pub(crate) use tombstone::Parting;
