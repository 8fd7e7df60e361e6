//! The plan: what a jail needs, worked out before anything happens.
//!
//! Pure: from a specification and the host's facts, with no system call. Printed it is the dry run, written
//! down it is the receipt, undone from its end it is the teardown.

mod placement;
mod tracking_cgroup;

use std::path::Path;

use serde::Serialize;
use stockade_syscalls::inherited::Attribute;

use crate::entry::{Argument, Bind, EnterStep};
use crate::error::{Error, PlacementError, Result};
use crate::host::{Host, parent_cgroup};
use crate::spec::{CgroupSetting, CgroupVersion, JailPath, JailSpec, Layout, Netns, Owner, ProfileArgument};
use crate::steps::{
    CgroupV1, CgroupV2, CpuInfo, DeviceNode, FIRST_CPU, FileHow, Folder, JailDirectory, NamedNetns,
    PlacedFile, Ramfs, SharedDirectory, Step,
};

pub use placement::placement;
pub(crate) use placement::way_of;
pub(crate) use tracking_cgroup::is_leash;

/// Who carries the plan out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A launcher, which clones a child for the VMM and goes on living.
    Launch,
    /// The process that becomes the VMM, as the original jailer does.
    InPlace,
}

/// Everything that will be done, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What is made for the jail, and undone from the end.
    pub prepare: Vec<Step>,
    /// What the VMM's process does to itself.
    pub enter: Vec<EnterStep>,
}

impl Plan {
    /// Adds what will be placed before the VMM is launched.
    pub fn place(&mut self, step: Step) {
        if let Step::Bind(bind) = &step {
            self.enter = with_binds(&self.enter, [bind]);
        }
        self.prepare.push(step);
    }
}

/// What the VMM's process does to itself, with binds that are attached as soon as the jail's root is its own.
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

/// Works out the plan of a jail.
///
/// # Errors
/// [`Error::NoHierarchy`] or [`Error::NoController`] if this host cannot give the jail the cgroup it
/// asks for.
pub fn plan(spec: &JailSpec, host: &Host, way: Way) -> Result<Plan> {
    let layout = Layout::new(spec);
    demand_free_name(spec)?;
    let cgroups = cgroups(spec, &layout, host, way)?;
    let mut prepare = directories(spec, &layout, way);
    prepare.extend(closure(spec));
    prepare.extend(cpu_info(spec));
    prepare.extend(device_nodes(spec, host, way));
    prepare.extend(ramfs(spec));
    // Until here a new root was closed to everyone else.
    prepare.push(Folder { path: JailPath::root(), owner: spec.owner }.into());
    if let Netns::Make(name) = &spec.netns {
        prepare.push(NamedNetns { name: name.clone() }.into());
    }
    prepare.extend(cgroups.steps.iter().cloned());
    Ok(Plan { prepare, enter: enter(spec, &layout, &cgroups, host, way) })
}

/// Refuses an executable whose name is that of something else in the jail's root.
fn demand_free_name(spec: &JailSpec) -> Result<()> {
    let name = spec.exec_file.name();
    if ["dev", "run"].contains(&name) || (name == "ramfs" && spec.ramfs.is_some()) {
        return Err(PlacementError::Taken(spec.exec_file.in_jail()).into());
    }
    Ok(())
}

fn directories(spec: &JailSpec, layout: &Layout, way: Way) -> Vec<Step> {
    let owner = spec.owner;
    let folder = |path: &str| JailPath::new(path).map(|path| Folder { path, owner }.into());
    let mut steps: Vec<Step> = vec![
        SharedDirectory { path: layout.exec_dir() }.into(),
        JailDirectory { path: layout.jail_dir(), take_over: way == Way::InPlace }.into(),
    ];
    // One that is bound is placed when the jail stands, as every bind is.
    let copy = (!spec.bind_executable).then(|| PlacedFile {
        source: spec.exec_file.path().clone(),
        path: spec.exec_file.in_jail(),
        owner,
        how: FileHow::Copy,
        expect_plain: way == Way::InPlace,
        read_only: false,
    });
    steps.extend(copy.map(Step::from));
    steps.extend(["/dev", "/dev/net", "/run"].into_iter().filter_map(|path| folder(path).ok()));
    steps
}

/// Copies: a link would need files of the jail's owner, and the host's libraries are root's.
fn closure(spec: &JailSpec) -> impl Iterator<Item = Step> {
    spec.closure.files.iter().filter(|_| !spec.bind_executable).map(|file| {
        let (source, path) = (file.source.clone(), file.path.clone());
        PlacedFile::copy(source, path, spec.owner).into()
    })
}

/// What a VMM on arm64 has to know of the processor.
fn cpu_info(spec: &JailSpec) -> Option<Step> {
    let target = JailPath::new(FIRST_CPU).ok().filter(|_| cfg!(target_arch = "aarch64"))?;
    Some(CpuInfo { source: Path::new(FIRST_CPU).to_owned().into(), target, owner: spec.owner }.into())
}

fn device_nodes(spec: &JailSpec, host: &Host, way: Way) -> Vec<Step> {
    let mut nodes = vec![("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];
    nodes.extend(host.userfaultfd_minor.map(|minor| ("/dev/userfaultfd", 10, minor)));
    let step = |(path, major, minor)| {
        JailPath::new(path).map(|path| {
            // The original goes on without a source of randomness, and so does its drop-in.
            let optional = way == Way::InPlace && (major, minor) == (1, 9);
            DeviceNode { optional, ..DeviceNode::character(path, major, minor, spec.owner) }.into()
        })
    };
    nodes.into_iter().filter_map(|node| step(node).ok()).collect()
}

fn ramfs(spec: &JailSpec) -> Option<Step> {
    let (size, path) = (spec.ramfs?, JailPath::new("ramfs").ok()?);
    Some(Ramfs { path, name: format!("ramfs-{}", spec.id), size, owner: spec.owner }.into())
}

/// The jail's cgroups, and how its process gets into them.
#[derive(Default)]
struct Cgroups {
    steps: Vec<Step>,
    /// The cgroup to be born in, or to move into, of version 2.
    unified: Option<crate::spec::HostPath>,
    /// The files of version 1 that move whoever writes to them.
    join: Vec<crate::spec::HostPath>,
}

impl Cgroups {
    fn has_hierarchy(&self, hierarchy: &crate::spec::HostPath) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::CgroupV1(own) if own.hierarchy == *hierarchy))
    }
}

fn cgroups(spec: &JailSpec, layout: &Layout, host: &Host, way: Way) -> Result<Cgroups> {
    let mut cgroups = cgroups_asked_for(spec, host, way)?;
    let has_unified = cgroups.steps.iter().any(|step| matches!(step, Step::CgroupV2(_)));
    // Who leaves no receipt is not torn down; and the original makes none.
    let Some(point) = host.leash.as_ref().filter(|_| way == Way::Launch && !has_unified) else {
        return Ok(cgroups);
    };
    let joined = cgroups.unified.take();
    let step = match (&host.cgroups.v2, joined) {
        // Below the parent that the jail was to be born in.
        (Some(v2), Some(_)) => tracking_cgroup::unified(
            v2.mount.clone(),
            parent_cgroup(spec).join(tracking_cgroup::name(layout)),
        ),
        _ => tracking_cgroup::step_of(point, layout),
    };
    match &step {
        Step::CgroupV2(unified) => cgroups.unified = Some(unified.directory()),
        Step::CgroupV1(freezer) if cgroups.has_hierarchy(&freezer.hierarchy) => return Ok(cgroups),
        Step::CgroupV1(freezer) => cgroups.join.push(freezer.directory().join("tasks")),
        _ => (),
    }
    cgroups.steps.push(step);
    Ok(cgroups)
}

fn cgroups_asked_for(spec: &JailSpec, host: &Host, way: Way) -> Result<Cgroups> {
    let parent = parent_cgroup(spec);
    let path = parent.join(spec.id.as_str());
    let version = spec.cgroup_version.unwrap_or_else(|| which_version(spec, host));
    let exclusive = way == Way::Launch;
    if spec.cgroups.is_empty() {
        // A parent that exists is moved into, in version 2 only; one that does not is not made. A process
        // that enters in place is there already, since `CgroupLayout::move_into_parent`.
        let asked = version == CgroupVersion::V2 && way == Way::Launch;
        let unified = host.cgroups.existing_parent(&parent).filter(|_| asked);
        return Ok(Cgroups { unified, ..Cgroups::default() });
    }
    if way == Way::Launch {
        spec.cgroups.iter().try_for_each(|setting| setting.demand_version(version))?;
    }
    match version {
        CgroupVersion::V1 => cgroups_v1(&spec.cgroups, host, &path, exclusive),
        CgroupVersion::V2 => cgroups_v2(&spec.cgroups, host, &path, exclusive),
        CgroupVersion::Unknown(_) => Ok(host.cgroups.has(version).map(|()| Cgroups::default())?),
    }
}

/// Version 2 if it has every controller asked for or is all there is, version 1 otherwise.
fn which_version(spec: &JailSpec, host: &Host) -> CgroupVersion {
    let unified = spec.cgroups.iter().all(|setting| host.cgroups.v2_with(setting.controller()).is_some());
    if unified || host.cgroups.v1.is_empty() { CgroupVersion::V2 } else { CgroupVersion::V1 }
}

/// The settings of each controller, in the order in which the controllers first appear.
fn by_controller(settings: &[CgroupSetting]) -> Vec<(&str, Vec<CgroupSetting>)> {
    let mut groups: Vec<(&str, Vec<CgroupSetting>)> = Vec::new();
    for setting in settings {
        match groups.iter_mut().find(|(controller, _)| *controller == setting.controller()) {
            Some((_, group)) => group.push(setting.clone()),
            None => groups.push((setting.controller(), vec![setting.clone()])),
        }
    }
    groups
}

fn cgroups_v1(settings: &[CgroupSetting], host: &Host, path: &Path, exclusive: bool) -> Result<Cgroups> {
    host.cgroups.has(CgroupVersion::V1)?;
    let mut cgroups = Cgroups::default();
    for (controller, settings) in by_controller(settings) {
        let hierarchy = host.cgroups.v1_with(controller);
        let hierarchy = hierarchy.ok_or_else(|| Error::NoController(controller.to_owned()))?.mount.clone();
        cgroups.join.push(hierarchy.join(path).join("tasks"));
        cgroups.steps.push(CgroupV1 { hierarchy, path: path.to_owned(), settings, exclusive }.into());
    }
    Ok(cgroups)
}

fn cgroups_v2(settings: &[CgroupSetting], host: &Host, path: &Path, exclusive: bool) -> Result<Cgroups> {
    let unified = host.cgroups.v2.as_ref().ok_or(Error::NoHierarchy("cgroupsv2 hierarchy missing"))?;
    let groups = by_controller(settings);
    if let Some((controller, _)) = groups.iter().find(|(name, _)| host.cgroups.v2_with(name).is_none()) {
        return Err(Error::NoController((*controller).to_owned()));
    }
    let step = CgroupV2 {
        hierarchy: unified.mount.clone(),
        path: path.to_owned(),
        controllers: groups.iter().map(|(controller, _)| (*controller).to_owned()).collect(),
        settings: settings.to_vec(),
        exclusive,
    };
    Ok(Cgroups { unified: Some(step.directory()), steps: vec![step.into()], join: Vec::new() })
}

fn enter(spec: &JailSpec, layout: &Layout, cgroups: &Cgroups, host: &Host, way: Way) -> Vec<EnterStep> {
    let mut steps = Vec::new();
    if way == Way::Launch {
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
    let limits = limits.into_iter().chain([EnterStep::LimitOpenFiles { count: spec.limits.open_files }]);
    if way == Way::InPlace {
        steps.extend(limits.clone());
    }
    steps.extend(cgroups.join.iter().map(|file| EnterStep::JoinCgroup { file: file.clone() }));
    if way == Way::InPlace
        && let Some(unified) = &cgroups.unified
    {
        steps.push(EnterStep::JoinCgroup { file: unified.join("cgroup.procs") });
    }
    steps.extend(change_root(layout, host));
    steps.extend(detach(spec, layout, way));
    if way == Way::Launch {
        // Late, so that they limit the VMM and not the way into the jail.
        steps.extend(limits);
        steps.push(EnterStep::DefaultSignals);
    }
    let owner = spec.owner;
    if way == Way::InPlace {
        steps.push(EnterStep::Reset { attributes: vec![Attribute::SessionKeyring] });
    }
    steps.extend([
        EnterStep::SetGid { gid: owner.gid },
        EnterStep::ClearGroups,
        EnterStep::SetUid { uid: owner.uid },
    ]);
    steps.extend(give_up(owner, way));
    steps.extend([
        EnterStep::ResetSignals,
        EnterStep::Execute { path: spec.exec_file.in_jail(), arguments: arguments(spec) },
    ]);
    steps
}

/// Every attribute that a process inherits to its documented state.
pub(crate) fn reset_all() -> EnterStep {
    EnterStep::Reset { attributes: Attribute::ALL.to_vec() }
}

/// The same, shared between the launcher and the process, which has more to do until it may go on.
fn reset_shared() -> [EnterStep; 2] {
    let launchers = |attribute: &Attribute| Attribute::FROM_OUTSIDE.contains(attribute);
    let (by_launcher, own) = Attribute::ALL.iter().partition(|attribute| launchers(attribute));
    [EnterStep::ResetByLauncher { attributes: by_launcher }, EnterStep::Reset { attributes: own }]
}

/// The privileges that the process gives up once it has the VMM's uid.
///
/// In place of Firecracker's jailer a VMM of uid 0 keeps what its callers count on.
fn give_up(owner: Owner, way: Way) -> Vec<EnterStep> {
    match way {
        // Before it has no capability more than another process of its uid, which could trace it then.
        Way::Launch => {
            vec![EnterStep::BecomeUndumpable, EnterStep::ClearCapabilities, EnterStep::NoNewPrivileges]
        }
        Way::InPlace if owner.uid == 0 => vec![EnterStep::ClearInheritable],
        Way::InPlace => vec![EnterStep::ClearCapabilities],
    }
}

/// The jail's tree becomes the root of a mount namespace of its own: a copy of the skeleton, or of the host's.
///
/// Below the tree a copy of the host's has the host, which has to be taken away; a copy of the skeleton has an
/// empty directory, which the tree just covers. Taking away would cost more than all else: `pivot_root` looks at
/// every process of the host, and `umount2` waits for all processors.
fn change_root(layout: &Layout, host: &Host) -> Vec<EnterStep> {
    let mut steps = vec![EnterStep::GoToRoot { path: layout.root() }];
    match &host.skeleton {
        Some(skeleton) => steps.extend([
            EnterStep::CloneTree,
            EnterStep::JoinTemplateMounts { path: skeleton.pin().clone() },
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

/// How the process comes loose from its caller, and how its pid gets known before it runs.
fn detach(spec: &JailSpec, layout: &Layout, way: Way) -> Vec<EnterStep> {
    let pid_file = JailPath::new(layout.pid_file()).map(|path| EnterStep::WritePidFile { path });
    let asked = |asked: bool, step: EnterStep| asked.then_some(step);
    let steps = match way {
        Way::Launch => {
            vec![asked(spec.daemonize, EnterStep::NullStreams), Some(EnterStep::WaitForRelease)]
        }
        Way::InPlace => vec![
            asked(spec.daemonize, EnterStep::Daemonize),
            asked(spec.daemonize, EnterStep::NewSession),
            asked(spec.daemonize, EnterStep::ForkAgain),
            asked(spec.daemonize, EnterStep::NullStreams),
            asked(spec.new_pid_ns, EnterStep::NewPidNamespace),
            pid_file.ok(),
        ],
    };
    steps.into_iter().flatten().collect()
}

/// The arguments of the VMM, argv0 first.
pub(crate) fn arguments(spec: &JailSpec) -> Vec<Argument> {
    let of_profile = |argument: &ProfileArgument| match argument {
        ProfileArgument::Text(text) => Argument::Text(text.into()),
        ProfileArgument::Id => Argument::Text(spec.id.as_str().into()),
        ProfileArgument::StartTime => Argument::Text(spec.started_us.to_string().into()),
        ProfileArgument::CpuTime => Argument::CpuTime,
        ProfileArgument::ParentCpuTime => Argument::EarlierCpuTime,
    };
    let mut arguments = vec![Argument::Text(spec.exec_file.in_jail().absolute().into())];
    arguments.extend(spec.profile.arguments.iter().map(of_profile));
    arguments.extend(spec.arguments.iter().cloned().map(Argument::Text));
    arguments
}
