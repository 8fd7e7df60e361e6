//! One test per row of what Firecracker's jailer does, against the jailer that `JAILER_UNDER_TEST` names, or
//! the one of this workspace.
//!
//! Everything is observed: from outside by the process's entries in `/proc`, the tree, the cgroups, the exit
//! code and both output streams; from inside by a VMM that reports what it sees. Where the drop-in differs on
//! purpose both outcomes stand in the test (`ours_or_original`), so that the suite is honest against either.
#![allow(clippy::unwrap_used, missing_docs)]

mod cgroup_v1;
mod cgroup_v2;
mod command_line;
mod daemonize;
mod differences;
mod faults;
mod ground;
mod hostile;
mod limits;
mod messages;
mod netns;
mod pid_ns;
mod process;
mod syscalls;
mod tree;
