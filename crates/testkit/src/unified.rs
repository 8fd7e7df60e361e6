//! Hosts with nothing but cgroup version 2.

use std::path::PathBuf;

use crate::guard::skip;

/// What the tests ask of the unified hierarchy.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// Whether the test can run here. If not, its name is told.
///
/// # Panics
/// If it cannot, and `STOCKADE_VM=1` says that this machine was made for it.
pub fn has_unified(test: &str) -> bool {
    let test = test.trim_end_matches("::{{closure}}");
    if unified_mount().is_some() {
        return true;
    }
    assert!(
        std::env::var("STOCKADE_VM").as_deref() != Ok("1"),
        "{test} needs nothing but cgroup version 2, and the virtual machine has to run every test"
    );
    skip(test, "a host with nothing but cgroup v2: cargo xtask vm-test");
    false
}

/// Where the unified hierarchy is mounted; `None` if a hierarchy of version 1 is mounted too, or the
/// controllers that tests use are not there.
pub fn unified_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let mut unified = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        match (fields.next(), fields.next()) {
            (Some(at), Some("cgroup2")) => unified = Some(PathBuf::from(at)),
            (_, Some("cgroup")) => return None,
            _ => (),
        }
    }
    let controllers = std::fs::read_to_string(unified.as_ref()?.join("cgroup.controllers")).ok()?;
    let there = |wanted: &str| controllers.split_whitespace().any(|controller| controller == wanted);
    unified.filter(|_| CONTROLLERS.iter().all(|wanted| there(wanted)))
}
