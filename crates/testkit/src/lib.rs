//! Shared test code: leak checks, unique names, and the programs under test.
//!
//! A privileged test begins with [`Guard::new`], which provides the test's directories. At the end the guard compares
//! the host with its state before the test; a leak fails the test. Privileged tests run one at a time on a machine:
//! the comparison would report another test's jail as a leak.

mod command;
mod guard;
mod launcher;
mod mounts;
mod operator;
mod privileges;
mod programs;
mod specs;
mod unified;

pub use command::{as_str, command, commands, create_probe, probe_line, said, stdout_of, stockade};
pub use guard::{Guard, booted_with, has, remove_cgroup, skip, tell};
pub use launcher::Launcher;
pub use mounts::{
    Mount, cgroup_mounts, cgroup_v1_mount, cgroup_v2_mount, mount_lines_of, mount_lines_with, mounts,
    mounts_of,
};
pub use operator::Operator;
pub use privileges::{Privilege, attributes, give_access_list, give_capability, set_mode};
pub use programs::{Output, program, run, run_with};
pub use specs::{probe_spec, with_everything};
pub use unified::{has_unified, unified_mount};

/// The body of a test that needs root: `privileged!(guard, { … })`. Without root the test is reported as skipped; with
/// `CI=true` it fails.
#[macro_export]
macro_rules! privileged {
    ($guard:ident, $body:block) => {
        if let Some($guard) = $crate::Guard::new(std::any::type_name_of_val(&|| ())) {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| $body));
            $guard.finish(outcome);
        }
    };
}

/// The body of a test that needs root and a host with cgroup v2 only: `unified!(guard, { … })`. On other hosts the
/// test is reported as skipped; in the virtual machine it fails.
#[macro_export]
macro_rules! unified {
    ($guard:ident, $body:block) => {
        if $crate::has_unified(std::any::type_name_of_val(&|| ())) {
            $crate::privileged!($guard, $body);
        }
    };
}
