//! Specifications that several tests want.

use stockade::spec::JailSpec;

use crate::{Guard, program};

/// A jail of the probe, which ends with exit code 5, with everything: network namespace, cgroup, ramfs, and for
/// every other number a pid namespace.
///
/// # Panics
/// Never: all of it is the test's own, and right.
pub fn with_everything(guard: &Guard, number: u32) -> JailSpec {
    JailSpec::builder(guard.named(&number.to_string()), program("stockade-probe"))
        .libraries(false)
        .profile("plain")
        .base(guard.base())
        .netns(guard.named(&format!("net{number}")))
        .ramfs(1 << 20)
        .new_pid_ns(number.is_multiple_of(2))
        .cgroup("pids.max=16")
        .parent_cgroup(guard.name())
        .argument("exit=5")
        .build()
        .expect("a jail's specification")
}
