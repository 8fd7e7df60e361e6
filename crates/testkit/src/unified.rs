//! Hosts with cgroup v2 only.

use std::path::PathBuf;

use crate::guard::skip;
use crate::mounts::{cgroup_mounts, cgroup_v2_mount};

/// The controllers that the tests need.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Whether the test can run on this host. If not, reports it as skipped.
///
/// # Panics
/// Panics if the test cannot run and `STOCKADE_VM=1`, which means the virtual machine.
pub fn has_unified(test: &str) -> bool {
    let test = test.trim_end_matches("::{{closure}}");
    if unified_mount().is_some() {
        return true;
    }
    assert!(
        std::env::var("STOCKADE_VM").as_deref() != Ok("1"),
        "{test} needs cgroup v2 only, and the virtual machine must run every test"
    );
    skip(test, "a host with cgroup v2 only: cargo xtask vm-test");
    false
}

/// The mount point of the unified hierarchy; `None` if cgroup v1 is mounted too, or a controller for the tests is
/// missing.
pub fn unified_mount() -> Option<PathBuf> {
    if cgroup_mounts().iter().any(|mount| mount.fs_type == "cgroup") {
        return None;
    }
    let unified = cgroup_v2_mount()?;
    let controllers = std::fs::read_to_string(unified.join("cgroup.controllers")).ok()?;
    let has = |wanted: &str| controllers.split_whitespace().any(|controller| controller == wanted);
    CONTROLLERS.iter().all(|wanted| has(wanted)).then_some(unified)
}
