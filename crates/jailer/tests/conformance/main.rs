//! The conformance suite: one test for each behaviour of Firecracker's jailer. It tests the jailer in
//! `JAILER_UNDER_TEST`, by default that of this workspace.
//!
//! The tests observe the jail from outside: the process's entries in `/proc`, the tree, the cgroups, the exit code and
//! both output streams. From inside the probe observes it as the VMM. A deliberate difference has both outcomes in its
//! test (`drop_in_or_firecracker`), so the suite passes against both programs.
#![allow(clippy::unwrap_used, missing_docs)]

mod cgroup_v1;
mod cgroup_v2;
mod command_line;
mod daemonize;
mod differences;
mod faults;
mod fixture;
mod hostile;
mod limits;
mod messages;
mod netns;
mod pid_ns;
mod process;
mod syscalls;
mod tree;
