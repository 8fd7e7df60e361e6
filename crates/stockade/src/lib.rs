//! stockade makes, watches and tears down jails for microVM monitors, and leaves no trace.
//!
//! One idea carries it: *the plan is the receipt*. What a jail needs is worked out as a list of steps before
//! anything happens ([`plan()`]); the list is written down ([`Receipt`]); then it is carried out without
//! further choices ([`Store::create`]). Printed, the list is the dry run. UndoOutcome from the end, it is the
//! teardown ([`Report`]). Found on disk after a crash, it is what [`Store::collect`] undoes.
//!
//! ```no_run
//! use stockade::spec::JailSpec;
//! use stockade::{Store, Streams};
//!
//! # fn main() -> stockade::Result<()> {
//! let spec = JailSpec::builder("vm-1", "/usr/local/bin/firecracker").new_pid_ns(true).build()?;
//! let mut prepared = Store::from_environment()?.create(&spec)?;
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
    stop_all, teardown_all, teardown_all_with_progress,
};
pub use plan::{LaunchMode, Plan, decide_placement, plan};
pub use spec::{ExitStatus, FilePrivilege, FilePrivileges, How, Layout, Nonce, Placed, Placement, Stripped};
pub use state::{DEFAULT_STATE_DIRECTORY, JailState, Listing, Receipt, Store};
pub use sys::{OnProgress, ProcessRef, Progress};
pub use watch::{Ends, Event, EventKind, Events, Log, Usage, inspect};
