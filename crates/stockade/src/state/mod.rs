//! The state directory.

pub(crate) mod entry;
pub(crate) mod files;
mod life;
pub(crate) mod listing;
mod oom;
pub(crate) mod receipt;
pub(crate) mod store;
pub(crate) mod subscriber_lock;
pub(crate) mod tombstone;

pub use listing::Listing;
pub use receipt::{JailState, Receipt};
pub use store::{DEFAULT_STATE_DIRECTORY, Store};
pub(crate) use subscriber_lock::{SubscriberLock, remove_strays};
pub(crate) use tombstone::Tombstone;
