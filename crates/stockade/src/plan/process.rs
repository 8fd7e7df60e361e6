//! The enter steps of the VMM's process.

use stockade_syscalls::inherited::Attribute;

use super::LaunchMode;
use super::cgroups::Cgroups;
use crate::entry::{Argument, Bind, EnterStep};
use crate::host::Host;
use crate::spec::{JailPath, JailSpec, Layout, Netns, Owner, ProfileArgument};
use crate::sys::cgroup::join_file_v2;

/// Adds binds to enter steps, directly after the change to the jail's root.
pub(crate) fn with_binds<'b>(
    enter: &[EnterStep],
    binds: impl IntoIterator<Item = &'b Bind>,
) -> Vec<EnterStep> {
    let attach = |step: &EnterStep| matches!(step, EnterStep::ChangeToRoot | EnterStep::Attach(_));
    let mut steps = enter.to_vec();
    let at = steps.iter().rposition(attach).map_or(steps.len(), |last| last + 1);
    steps.splice(at..at, binds.into_iter().cloned().map(EnterStep::Attach));
    steps
}

pub(super) fn enter(
    spec: &JailSpec,
    layout: &Layout,
    cgroups: &Cgroups,
    host: &Host,
    mode: LaunchMode,
) -> Vec<EnterStep> {
    let mut steps = Vec::new();
    if mode == LaunchMode::Spawn {
        steps.push(EnterStep::Clone {
            new_pid_ns: spec.new_pid_ns,
            new_netns: spec.netns == Netns::New,
            cgroup: cgroups.unified.clone(),
        });
        steps.push(EnterStep::CloseDescriptors);
        steps.push(EnterStep::NewSession);
        steps.extend(reset_shared());
        steps.push(EnterStep::EmptyBoundingSet);
    }
    match &spec.netns {
        Netns::Host | Netns::New => (),
        Netns::Make(name) => steps.push(EnterStep::JoinNetns { path: name.path() }),
        Netns::Join(path) => steps.push(EnterStep::JoinNetns { path: path.to_owned() }),
    }
    let limits = spec.limits.file_size.map(|bytes| EnterStep::LimitFileSize { bytes });
    let limits = limits.into_iter().chain([EnterStep::LimitOpenFiles { count: open_files(spec, host) }]);
    if mode == LaunchMode::BecomeVmm {
        steps.extend(limits.clone());
    }
    steps.extend(cgroups.join.iter().map(|file| EnterStep::JoinCgroup { file: file.clone() }));
    if mode == LaunchMode::BecomeVmm
        && let Some(unified) = &cgroups.unified
    {
        steps.push(EnterStep::JoinCgroup { file: join_file_v2(unified) });
    }
    steps.extend(change_root(layout, host));
    steps.extend(detach(spec, layout, mode));
    if mode == LaunchMode::Spawn {
        // Late: the limits are for the VMM, not for its way into the jail.
        steps.extend(limits);
        steps.push(EnterStep::DefaultSignals);
    }
    let owner = spec.owner;
    if mode == LaunchMode::BecomeVmm {
        steps.push(EnterStep::Reset { attributes: vec![Attribute::SessionKeyring] });
    }
    steps.extend([
        EnterStep::SetGid { gid: owner.gid },
        EnterStep::ClearGroups,
        EnterStep::SetUid { uid: owner.uid },
    ]);
    steps.extend(drop_privileges(owner, mode));
    steps.extend([
        EnterStep::ResetSignals,
        EnterStep::Execute { path: spec.exec_file.in_jail(), arguments: arguments(spec) },
    ]);
    steps
}

/// The limit of open file descriptors: the requested one, or the default, lowered to the launcher's own hard limit.
fn open_files(spec: &JailSpec, host: &Host) -> u64 {
    match host.open_files {
        Some(most) if !spec.limits.open_files_requested => spec.limits.open_files.min(most),
        _ => spec.limits.open_files,
    }
}

/// The reset of all inherited attributes to their documented state.
pub(crate) fn reset_all() -> EnterStep {
    EnterStep::Reset { attributes: Attribute::ALL.to_vec() }
}

/// The same reset, divided between the launcher and the process. The process has more work before its gate.
fn reset_shared() -> [EnterStep; 2] {
    let is_launchers = |attribute: &Attribute| Attribute::FROM_OUTSIDE.contains(attribute);
    let (by_launcher, own) = Attribute::ALL.iter().partition(|attribute| is_launchers(attribute));
    [EnterStep::ResetByLauncher { attributes: by_launcher }, EnterStep::Reset { attributes: own }]
}

/// Drops the privileges of the process after it has the VMM's uid.
///
/// Under the drop-in a VMM of uid 0 keeps its capabilities, on which callers of Firecracker's jailer depend.
fn drop_privileges(owner: Owner, mode: LaunchMode) -> Vec<EnterStep> {
    match mode {
        // Undumpable before it loses its capabilities: another process of its uid could trace it afterwards.
        LaunchMode::Spawn => {
            vec![EnterStep::BecomeUndumpable, EnterStep::ClearCapabilities, EnterStep::NoNewPrivileges]
        }
        LaunchMode::BecomeVmm if owner.uid == 0 => vec![EnterStep::ClearInheritable],
        LaunchMode::BecomeVmm => vec![EnterStep::ClearCapabilities],
    }
}

/// Makes the jail's tree the root of a new mount namespace: a copy of the template namespace, or of the host's.
///
/// In a copy of the host's namespace the host's root is below the tree, and has to be detached. In a copy of the
/// template namespace an empty directory is below the tree, and stays covered. Detaching would cost more than all other
/// steps: `pivot_root` looks at every process of the host, and `umount2` waits for all processors.
fn change_root(layout: &Layout, host: &Host) -> Vec<EnterStep> {
    let mut steps = vec![EnterStep::GoToRoot { path: layout.root() }];
    match &host.template_mounts {
        Some(template) => steps.extend([
            EnterStep::CloneTree,
            EnterStep::JoinTemplateMounts { path: template.pin().clone() },
            EnterStep::UnshareMounts,
            EnterStep::AttachTree,
            EnterStep::EnterTree,
            EnterStep::MakeTreeSlave,
            EnterStep::ChangeRoot,
        ]),
        None => steps.extend([
            EnterStep::UnshareMounts,
            EnterStep::MakeMountsSlaves,
            EnterStep::CloneTree,
            EnterStep::AttachTree,
            EnterStep::EnterTree,
            EnterStep::PivotRoot,
            EnterStep::DetachOldRoot,
        ]),
    }
    steps.push(EnterStep::ChangeToRoot);
    steps
}

/// Detaches the process from its caller, and publishes its pid before the exec.
fn detach(spec: &JailSpec, layout: &Layout, mode: LaunchMode) -> Vec<EnterStep> {
    let pid_file = JailPath::new(layout.pid_file()).map(|path| EnterStep::WritePidFile { path });
    let if_set = |is_set: bool, step: EnterStep| is_set.then_some(step);
    let steps = match mode {
        LaunchMode::Spawn => {
            vec![if_set(spec.daemonize, EnterStep::NullStreams), Some(EnterStep::WaitForRelease)]
        }
        LaunchMode::BecomeVmm => vec![
            if_set(spec.daemonize, EnterStep::Daemonize),
            if_set(spec.daemonize, EnterStep::NewSession),
            if_set(spec.daemonize, EnterStep::ForkAgain),
            if_set(spec.daemonize, EnterStep::NullStreams),
            if_set(spec.new_pid_ns, EnterStep::NewPidNamespace),
            pid_file.ok(),
        ],
    };
    steps.into_iter().flatten().collect()
}

/// The VMM's arguments, beginning with argv0.
pub(crate) fn arguments(spec: &JailSpec) -> Vec<Argument> {
    let of_profile = |argument: &ProfileArgument| match argument {
        ProfileArgument::Text(text) => Argument::Text(text.into()),
        ProfileArgument::Id => Argument::Text(spec.id.as_str().into()),
        ProfileArgument::StartTime => Argument::Text(spec.started_us.to_string().into()),
        ProfileArgument::CpuTime => Argument::CpuTime,
        ProfileArgument::ParentCpuTime => Argument::ProgramCpuTime,
    };
    let mut arguments = vec![Argument::Text(spec.exec_file.in_jail().absolute().into())];
    arguments.extend(spec.profile.arguments.iter().map(of_profile));
    arguments.extend(spec.arguments.iter().cloned().map(Argument::Text));
    arguments
}
