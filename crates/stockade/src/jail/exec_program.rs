//! The steps of an exec process on its way into the jail, and their system calls.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use stockade_syscalls::call::Call;
use stockade_syscalls::descriptors::{above_standard, hard_limit};
use stockade_syscalls::execute::{Executable, ExecuteWith};

use crate::entry::program::{calls_of, own};
use crate::entry::{EnterStep, InExec};
use crate::error::{Context, Operation, Result};
use crate::jail::exec::Exec;
use crate::jail::launch::Streams;
use crate::jail::namespaces::Namespaces;
use crate::plan::reset_all;
use crate::state::Receipt;

/// The VMM's steps, with those that only an exec process takes.
///
/// The state inherited from the launcher is reset in any case: the receipt may be of a version that reset less.
pub(super) fn steps_and_calls(
    receipt: &Receipt,
    namespaces: &Namespaces,
    exec: Exec,
) -> Result<Vec<(EnterStep, Call)>> {
    let ctx = receipt.step_context();
    let root = ctx.tree()?;
    let mut steps = Vec::new();
    let Streams { stdin, stdout, stderr } = exec.streams;
    steps.push((EnterStep::TakeStreams, Call::Redirect(own([stdin, stdout, stderr])?)));
    steps.extend(calls_of(&reset_all(), root)?);
    if !exec.as_root {
        steps.extend(calls_of(&EnterStep::EmptyBoundingSet, root)?);
    }
    let mut terminal = exec.terminal;
    for step in &receipt.enter {
        if step.in_exec() == InExec::Repeat {
            steps.extend(calls_of(&for_exec(step, exec.as_root), root)?);
        }
        match step {
            EnterStep::NewSession => {
                if let Some(terminal) = terminal.take() {
                    let terminal = above_standard(terminal).context(Operation::Open, "a terminal")?;
                    steps.push((EnterStep::TakeTerminal, Call::TakeTerminal(terminal)));
                }
            }
            // The last step of the VMM on its way to the root.
            EnterStep::ChangeToRoot => {
                steps.extend(namespaces.join()?);
                for step in protect_mounts(exec.as_root) {
                    steps.extend(calls_of(step, root)?);
                }
            }
            _ => (),
        }
    }
    for step in drop_privileges(exec.as_root) {
        steps.extend(calls_of(step, root)?);
    }
    let step = EnterStep::ExecuteProgram {
        program: exec.name.to_string_lossy().into_owned(),
        of_host: matches!(exec.executable, Executable::Open(_)),
    };
    let arguments = std::iter::once(&exec.name).chain(&exec.arguments);
    // The limit would apply to the copy of the program too, so the executor sets it after making the copy.
    let file_size = receipt.enter.iter().find_map(|step| match step {
        EnterStep::LimitFileSize { bytes } => Some(*bytes),
        _ => None,
    });
    let execute =
        ExecuteWith::new(exec.executable, c_strings(arguments)?, c_strings(&exec.environment)?, file_size);
    steps.push((step, Call::ExecuteWith(execute.context(Operation::Spawn, exec.name.display())?)));
    Ok(steps)
}

/// The step with the user, the group and the limit of the exec process. Root is root in every respect: the launcher may
/// have another group, or real uid.
fn for_exec(step: &EnterStep, as_root: bool) -> EnterStep {
    match step {
        EnterStep::SetGid { .. } if as_root => EnterStep::SetGid { gid: 0 },
        EnterStep::SetUid { .. } if as_root => EnterStep::SetUid { uid: 0 },
        // The launcher of the exec process may have a lower hard limit than that of the VMM, and cannot raise it.
        EnterStep::LimitOpenFiles { count } => {
            // If it is unknown, the kernel refuses what exceeds it.
            let most = hard_limit().ok().flatten().unwrap_or(u64::MAX);
            EnterStep::LimitOpenFiles { count: most.min(*count) }
        }
        step => step.clone(),
    }
}

/// The steps that protect an exec process in the jail's mount namespace.
///
/// As root it sees the jail's tree without the mounts in it: files of a procfs, and of a bound directory of the host,
/// obey uid 0 whatever capabilities it has.
fn protect_mounts(as_root: bool) -> &'static [EnterStep] {
    if as_root {
        &[
            EnterStep::MakeRootNosuid,
            EnterStep::UnshareMounts,
            EnterStep::CloneTreeAlone,
            EnterStep::AttachTree,
            EnterStep::EnterTree,
            EnterStep::ChangeRoot,
        ]
    } else {
        &[EnterStep::MakeRootNosuid]
    }
}

/// The steps that drop privileges before the program is executed.
fn drop_privileges(as_root: bool) -> &'static [EnterStep] {
    if as_root {
        // Programs of the jail run with capabilities over files there. Where the host's files are bound into
        // the jail, a set-uid file would give these capabilities to the host's users.
        &[
            EnterStep::BecomeUndumpable,
            EnterStep::KeepFileCapabilities,
            EnterStep::NoNewPrivileges,
            EnterStep::ConfineRoot,
        ]
    } else {
        &[EnterStep::BecomeUndumpable, EnterStep::ClearCapabilities, EnterStep::NoNewPrivileges]
    }
}

fn c_strings<'t>(texts: impl IntoIterator<Item = &'t OsString>) -> Result<Vec<CString>> {
    let c_string = |text: &OsString| {
        CString::new(text.as_bytes()).map_err(|_| Errno::INVAL).context(Operation::Spawn, text.display())
    };
    texts.into_iter().map(c_string).collect()
}
