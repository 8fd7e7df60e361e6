//! Specifications for several tests.

use stockade::spec::JailSpec;

use crate::{Guard, program};

/// The specification of a jail with a network namespace, a cgroup, a ramfs, and a pid namespace if `number` is even.
/// Its VMM is the probe, which exits with code 5.
///
/// # Panics
/// Never: all values are valid.
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
