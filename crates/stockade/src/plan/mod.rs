//! The plan: what a jail needs, worked out before anything happens.
//!
//! Pure: from a specification and the host's facts, with no system call. Printed it is the dry run, written
//! down it is the receipt, undone from its end it is the teardown.

mod cgroups;
mod placement;
mod process;
mod tracking_cgroup;

use std::path::Path;

use serde::Serialize;

use crate::entry::EnterStep;
use crate::error::{PlacementError, Result};
use crate::host::Host;
use crate::spec::{JailPath, JailSpec, Layout, Netns};
use crate::steps::{
    CpuInfo, DeviceNode, Directory, FIRST_CPU, FileHow, JailDirectory, NamedNetns, PlacedFile, Ramfs,
    SharedDirectory, Step,
};

pub(crate) use placement::method_of;
pub use placement::placement;
pub(crate) use process::{arguments, reset_all, with_binds};
pub(crate) use tracking_cgroup::is_tracking_cgroup;

/// Which process carries the plan out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchMode {
    /// A launcher clones a child for the VMM, and lives on.
    Spawn,
    /// The process itself becomes the VMM, as Firecracker's jailer does.
    BecomeVmm,
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

/// Works out the plan of a jail.
///
/// # Errors
/// [`Error::NoHierarchy`] or [`Error::NoController`] if this host cannot give the jail the cgroup it
/// asks for.
pub fn plan(spec: &JailSpec, host: &Host, mode: LaunchMode) -> Result<Plan> {
    let layout = Layout::new(spec);
    demand_free_name(spec)?;
    let cgroups = cgroups::cgroups(spec, &layout, host, mode)?;
    let mut prepare = directories(spec, &layout, mode);
    prepare.extend(closure(spec));
    prepare.extend(cpu_info(spec));
    prepare.extend(device_nodes(spec, host, mode));
    prepare.extend(ramfs(spec));
    // Until here a new root was closed to everyone else.
    prepare.push(Directory { path: JailPath::root(), owner: spec.owner }.into());
    if let Netns::Make(name) = &spec.netns {
        prepare.push(NamedNetns { name: name.clone() }.into());
    }
    prepare.extend(cgroups.steps.iter().cloned());
    Ok(Plan { prepare, enter: process::enter(spec, &layout, &cgroups, host, mode) })
}

/// Refuses an executable whose name is that of something else in the jail's root.
fn demand_free_name(spec: &JailSpec) -> Result<()> {
    let name = spec.exec_file.name();
    if ["dev", "run"].contains(&name) || (name == "ramfs" && spec.ramfs.is_some()) {
        return Err(PlacementError::Taken(spec.exec_file.in_jail()).into());
    }
    Ok(())
}

fn directories(spec: &JailSpec, layout: &Layout, mode: LaunchMode) -> Vec<Step> {
    let owner = spec.owner;
    let directory = |path: &str| JailPath::new(path).map(|path| Directory { path, owner }.into());
    let mut steps: Vec<Step> = vec![
        SharedDirectory { path: layout.exec_dir() }.into(),
        JailDirectory { path: layout.jail_dir(), take_over: mode == LaunchMode::BecomeVmm }.into(),
    ];
    // One that is bound is placed when the jail stands, as every bind is.
    let copy = (!spec.bind_executable).then(|| PlacedFile {
        source: spec.exec_file.path().clone(),
        path: spec.exec_file.in_jail(),
        owner,
        how: FileHow::Copy,
        expect_plain: mode == LaunchMode::BecomeVmm,
        read_only: false,
    });
    steps.extend(copy.map(Step::from));
    steps.extend(["/dev", "/dev/net", "/run"].into_iter().filter_map(|path| directory(path).ok()));
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

fn device_nodes(spec: &JailSpec, host: &Host, mode: LaunchMode) -> Vec<Step> {
    let mut nodes = vec![("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];
    nodes.extend(host.userfaultfd_minor.map(|minor| ("/dev/userfaultfd", 10, minor)));
    let step = |(path, major, minor)| {
        JailPath::new(path).map(|path| {
            // The original goes on without a source of randomness, and so does its drop-in.
            let optional = mode == LaunchMode::BecomeVmm && (major, minor) == (1, 9);
            DeviceNode { optional, ..DeviceNode::character(path, major, minor, spec.owner) }.into()
        })
    };
    nodes.into_iter().filter_map(|node| step(node).ok()).collect()
}

fn ramfs(spec: &JailSpec) -> Option<Step> {
    let (size, path) = (spec.ramfs?, JailPath::new("ramfs").ok()?);
    Some(Ramfs { path, name: format!("ramfs-{}", spec.id), size, owner: spec.owner }.into())
}
