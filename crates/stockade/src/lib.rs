//! stockade creates, watches and tears down jails for microVM monitors, and leaves no trace.
//!
//! Its central idea: *the plan is the receipt*. [`plan()`] computes a jail's steps before anything happens.
//! [`Store::create`] writes that list to disk as the [`Receipt`], then applies it without further decisions. The
//! printed list is the dry run. Undone from its end, it is the teardown ([`Report`]). After a crash, [`Store::collect`]
//! finds it on disk and undoes it.
//!
//! ```no_run
//! use stockade::spec::JailSpec;
//! use stockade::{Store, Streams};
//!
//! # fn main() -> stockade::Result<()> {
//! let spec = JailSpec::builder("vm-1", "/usr/local/bin/firecracker").new_pid_ns(true).build()?;
//! let mut created = Store::from_environment()?.create(&spec)?;
//! let kernel = created.place("/images/vmlinux")?;
//! println!("the kernel's path in the jail is {kernel}");
//! let mut running = created.launch(Streams::default())?;
//! let status = running.wait()?;
//! let report = running.teardown()?;
//! assert!(report.is_clean(), "left: {:?}", report.left);
//! # let _ = status;
//! # Ok(())
//! # }
//! ```
//!
//! [`guide`] explains the life of a jail step by step. The crate's `examples` are complete programs.
//!
//! Dropping a [`Created`] jail tears it down. Dropping a [`Running`] jail leaves its VMM running: any process can open
//! it by its receipt.

mod check;
pub mod entry;
mod error;
mod host;
mod jail;
mod plan;
pub mod spec;
mod state;
pub mod steps;
mod sys;
mod watch;

#[doc = include_str!("../docs/guide.md")]
pub mod guide {}

pub use check::{audit, doctor, snapshot};
pub use error::{Error, ErrorKind, Operation, PlacementError, Result};
pub use host::{
    CgroupLayout, DelegatedCgroup, Hierarchy, Host, RUNTIME_DIRECTORY, TemplateMounts, TrackingPoint, Unified,
};
pub use jail::{
    AdoptOptions, AdoptSpec, Adopted, Collection, Created, EXEC_PATH, Exec, ExecProcess, Jail, JailPool,
    Leftover, Report, Running, Stopped, Streams, TeardownOptions, VmmHandle, become_vmm, close_inherited,
    stop_all, stop_all_with_notes, teardown_all, teardown_all_with_progress,
};
pub use plan::{LaunchMode, Plan, Sharing, decide_placement, plan};
pub use spec::{
    ExitStatus, FilePrivilege, FilePrivileges, How, Known, Layout, Nonce, Placed, Placement, Stripped,
};
pub use state::{DEFAULT_STATE_DIRECTORY, JailState, Listing, Receipt, Store};
pub use sys::unheeded::Unheeded;
pub use sys::{OnProgress, ProcessRef, Progress};
pub use watch::{End, Ends, Event, EventKind, Events, Log, Output, Usage, inspect};
