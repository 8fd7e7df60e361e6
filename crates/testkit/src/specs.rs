//! Specifications for several tests.

use stockade::spec::{ExecFile, HostPath, JailSpec};

use crate::{Guard, program};

/// The specification of a jail below the test's base, whose VMM is the probe with these arguments.
///
/// # Panics
/// Panics if `id` is invalid in an id.
pub fn probe_spec(guard: &Guard, id: &str, arguments: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).expect("the test's base");
    let vmm = ExecFile::new(&program("stockade-probe")).expect("the probe");
    let mut spec = JailSpec::new(guard.named(id).parse().expect("a valid id"), vmm, base);
    spec.arguments = arguments.iter().map(Into::into).collect();
    spec
}

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
