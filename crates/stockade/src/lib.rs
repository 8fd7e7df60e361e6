//! stockade makes, watches and tears down jails for microVM monitors, and leaves no trace.
//!
//! One idea carries it: *the plan is the receipt*. What a jail needs is worked out as a list of steps before
//! anything happens ([`plan()`]); the list is written down ([`Receipt`]); then it is carried out without
//! further choices ([`Store::prepare`]). Printed, the list is the dry run. Undone from the end, it is the
//! teardown ([`Report`]). Found on disk after a crash, it is what [`Store::collect`] undoes.
//!
//! ```no_run
//! use stockade::spec::JailSpec;
//! use stockade::{Store, Streams};
//!
//! # fn main() -> stockade::Result<()> {
//! let spec = JailSpec::builder("vm-1", "/usr/local/bin/firecracker").new_pid_ns(true).build()?;
//! let mut prepared = Store::from_environment()?.prepare(&spec)?;
//! let kernel = prepared.place("/images/vmlinux")?;
//! println!("the VMM finds its kernel at {kernel}");
//! let mut running = prepared.launch(Streams::default())?;
//! let ended = running.wait()?;
//! let report = running.teardown()?;
//! assert!(report.is_clean(), "left: {:?}", report.left);
//! # let _ = ended;
//! # Ok(())
//! # }
//! ```
//!
//! [`guide`] walks through a life, step by step; the crate's `examples` are whole programs.
//!
//! A prepared jail that is dropped is torn down; a running one that is dropped runs on, and any process can
//! find it by its receipt.

mod adopt;
pub mod audit;
mod cgroup;
pub mod closure;
mod decision;
mod delegated;
pub mod doctor;
pub mod entry;
mod error;
mod events;
mod foreign_mounts;
mod gc;
mod host;
mod in_place;
pub mod inspect;
mod known;
mod launch;
mod layout;
mod leash_plan;
mod log;
mod mark;
mod modes;
mod mounts;
mod open;
mod place;
mod placement;
mod plan;
mod pool;
mod prepare;
mod process;
mod ready;
mod receipt;
mod running;
mod skeleton;
pub mod snapshot;
pub mod spec;
mod state;
pub mod step;
mod stop;
mod store;
mod sweep;
mod sys;
mod teardown;
mod together;
mod tree;
mod usage;
mod visit;
mod visitor;

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

pub use adopt::{AdoptSpec, Adopted, Wants};
pub use decision::placement;
pub use delegated::DelegatedCgroup;
pub use error::{Error, ErrorKind, Operation, PlacementError, Result};
pub use events::{Ends, Event, EventKind, Events};
pub use gc::Collection;
pub use host::{CgroupLayout, Hierarchy, Host, LeashPoint, Unified};
pub use in_place::{close_inherited, enter_in_place};
pub use launch::Streams;
pub use layout::Layout;
pub use log::Log;
pub use open::{Dead, Jail, Watched};
pub use placement::{How, Placed, Placement};
pub use plan::{Plan, Way, plan};
pub use pool::JailPool;
pub use prepare::Prepared;
pub use process::ProcessRef;
pub use receipt::{JailState, Receipt};
pub use running::Running;
pub use skeleton::{RUNTIME_DIRECTORY, Skeleton};
pub use spec::{Ended, Nonce, Power, Powers, Stripped};
pub use state::Listing;
pub use step::{OnProgress, Progress};
pub use stop::stop_all;
pub use store::{DEFAULT_STATE_DIRECTORY, Store};
pub use teardown::{Leftover, Report, TeardownOptions};
pub use together::{teardown_all, teardown_all_with_progress};
pub use usage::Usage;
pub use visit::{VISITOR_PATH, Visit};
pub use visitor::Visitor;
