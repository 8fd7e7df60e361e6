//! stockade makes, watches and tears down jails for microVM monitors, and leaves no trace.
//!
//! One idea carries it: *the plan is the receipt*. What a jail needs is worked out as a list of steps before
//! anything happens ([`plan()`]); the list is written down ([`Receipt`]); then it is carried out without
//! further choices ([`Store::prepare`]). Printed, the list is the dry run. Undone from the end, it is the
//! teardown ([`Report`]). Found on disk after a crash, it is what [`Store::collect`] undoes.
//!
//! ```no_run
//! use std::path::Path;
//! use stockade::spec::{ExecFile, HostPath, JailSpec};
//! use stockade::{How, Store, Streams};
//!
//! # fn main() -> stockade::Result<()> {
//! let store = Store::new(Path::new("/var/lib/stockade"))?;
//! let vmm = ExecFile::new(Path::new("/usr/local/bin/firecracker"))?;
//! let base = HostPath::future_directory(Path::new("/srv/jailer"))?;
//! let spec = JailSpec::new("vm-1".parse()?, vmm, base);
//!
//! let mut prepared = store.prepare(&spec)?;
//! let kernel = prepared.place(Path::new("/images/vmlinux"), None, How::Auto)?;
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
//! A prepared jail that is dropped is torn down; a running one that is dropped runs on, and any process can
//! find it by its receipt.

mod cgroup;
pub mod closure;
mod enter;
mod error;
mod gc;
mod host;
mod in_place;
mod launch;
mod layout;
mod leash;
mod mark;
mod mounts;
mod open;
mod plan;
mod prepare;
mod process;
mod ready;
mod receipt;
mod running;
pub mod snapshot;
pub mod spec;
pub mod step;
mod stop;
mod store;
mod sweep;
mod teardown;
mod tree;

pub use error::{Error, ErrorKind, Operation, Result};
pub use gc::{Collection, Listing};
pub use host::{CgroupLayout, Hierarchy, Host, Unified};
pub use in_place::{close_inherited, enter_in_place};
pub use launch::Streams;
pub use layout::Layout;
pub use leash::LeashPoint;
pub use open::{Dead, Jail, Watched};
pub use plan::{Plan, Way, plan};
pub use prepare::{How, Prepared, placement};
pub use process::{Ended, ProcessRef};
pub use receipt::{JailState, Nonce, Receipt};
pub use running::Running;
pub use stop::stop_all;
pub use store::{DEFAULT_STATE_DIRECTORY, Store};
pub use teardown::{Leftover, Report, TeardownOptions};
