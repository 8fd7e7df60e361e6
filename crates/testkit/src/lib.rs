//! What the tests share: a guard that finds leaks, unique names, and the programs under test.
//!
//! A privileged test begins with [`Guard::new`], which gives it directories of its own and compares the host
//! at the end with what it was before; a leak fails the test. Such tests run one at a time, whoever runs
//! them: the comparison would take another's jail for a leak.

mod command;
mod guard;
mod operator;
mod powers;
mod programs;
mod specs;
mod unified;

pub use command::{command, commands, said, stockade};
pub use guard::{Guard, has, remove_cgroup, skip, tell};
pub use operator::Operator;
pub use powers::{Powerful, attributes, give_access_list, give_capability, set_mode};
pub use programs::{Output, program, run, run_with};
pub use specs::with_everything;
pub use unified::{has_unified, unified_mount};

/// The body of a test that needs root: `privileged!(guard, { … })`. Without root the test is skipped and its
/// name is told; with `CI=true` that is a failure.
#[macro_export]
macro_rules! privileged {
    ($guard:ident, $body:block) => {
        if let Some($guard) = $crate::Guard::new(std::any::type_name_of_val(&|| ())) {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| $body));
            $guard.finish(outcome);
        }
    };
}

/// The body of a test that needs root and a host with nothing but cgroup version 2: `unified!(guard, { … })`.
/// Elsewhere the test is skipped and its name is told; in the tests' virtual machine that is a failure.
#[macro_export]
macro_rules! unified {
    ($guard:ident, $body:block) => {
        if $crate::has_unified(std::any::type_name_of_val(&|| ())) {
            $crate::privileged!($guard, $body);
        }
    };
}
