//! The plan: the ordered list of a jail's steps, computed without effects.
//!
//! A plan depends on the specification and the host's facts alone, and makes no system call. The printed plan is the
//! dry run, the plan on disk is the receipt, and the plan undone from its end is the teardown.

mod cgroups;
mod links;
mod placement;
mod process;
mod sharing;
mod tracking_cgroup;

use std::path::Path;

use serde::Serialize;

use crate::entry::EnterStep;
use crate::error::{PlacementError, Result};
use crate::host::Host;
use crate::spec::{JailPath, JailSpec, Layout, Netns, SpecError};
use crate::steps::{
    CpuInfo, DeviceNode, Directory, FIRST_CPU, FileHow, JailDirectory, NamedNetns, PlacedFile, Ramfs,
    SharedDirectory, SharedNetns, Step,
};

pub use placement::decide_placement;
pub(crate) use placement::{method_of, owner_of};
pub(crate) use process::{arguments, reset_all, with_binds};
pub use sharing::Sharing;
pub(crate) use sharing::{decide_sharing, path_in_root};
pub(crate) use tracking_cgroup::is_tracking_cgroup;

/// The process that becomes the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchMode {
    /// A child of the launcher.
    Spawn,
    /// The launcher itself, as in Firecracker's jailer.
    BecomeVmm,
}

/// All steps of a jail, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps on the host, which are undone from the end.
    pub prepare: Vec<Step>,
    /// The enter steps of the VMM's process.
    pub enter: Vec<EnterStep>,
}

impl Plan {
    /// Adds a placement before the launch of the VMM.
    pub fn place(&mut self, step: Step) {
        if let Step::Bind(bind) = &step {
            self.enter = with_binds(&self.enter, [bind]);
        }
        self.prepare.push(step);
    }
}

/// Computes the plan of a jail.
///
/// # Errors
/// * [`Error::NoHierarchy`](crate::Error::NoHierarchy) if this host has no hierarchy of the requested cgroup version
/// * [`Error::NoController`](crate::Error::NoController) if this host lacks the controller of a cgroup setting
/// * [`Error::NoParentCgroup`](crate::Error::NoParentCgroup) if a jail without settings names a parent cgroup that does
///   not exist
/// * [`PlacementError::Taken`] if the executable has the name of another file in the jail's root
/// * [`SpecError::UnsafeBase`] if the jail's uid can change a directory on the way to the jail
/// * [`SpecError::OtherCgroupVersion`] if a setting's file exists only in
///   the other cgroup version
pub fn plan(spec: &JailSpec, host: &Host, mode: LaunchMode) -> Result<Plan> {
    let layout = Layout::new(spec);
    check_name_is_free(spec)?;
    if let Some(directory) = &host.unsafe_directory {
        let cause = SpecError::UnsafeBase(directory.as_path().to_owned(), spec.owner);
        return Err(SpecError::Argument { name: "chroot-base-dir", cause: Box::new(cause) }.into());
    }
    let cgroups = cgroups::cgroups(spec, &layout, host, mode)?;
    let mut prepare = directories(spec, &layout, mode);
    prepare.extend(libraries(spec));
    prepare.extend(cpu_info(spec));
    prepare.extend(device_nodes(spec, host, mode));
    prepare.extend(ramfs(spec));
    // Last, since until this step the root is closed to all other users.
    prepare.push(Directory { path: JailPath::root(), owner: spec.owner }.into());
    if let Netns::Make(name) = &spec.netns {
        prepare.push(NamedNetns { name: name.clone() }.into());
    }
    if let (Some(name), LaunchMode::Spawn) = (&host.shared_netns, mode) {
        prepare.push(SharedNetns { name: name.clone() }.into());
    }
    prepare.extend(cgroups.steps.iter().cloned());
    Ok(Plan { prepare, enter: process::enter(spec, &layout, &cgroups, host, mode) })
}

/// Refuses an executable with the name of another file in the jail's root.
fn check_name_is_free(spec: &JailSpec) -> Result<()> {
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
    // A bound executable is placed later, as every bind: after the steps of the plan.
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

/// Copies the libraries: a hard link needs a file of the jail's owner, and the host's libraries are root's.
fn libraries(spec: &JailSpec) -> impl Iterator<Item = Step> {
    spec.libraries.files.iter().filter(|_| !spec.bind_executable).map(|file| {
        let (source, path) = (file.source.clone(), file.path.clone());
        PlacedFile::copy(source, path, spec.owner).into()
    })
}

/// The processor information that a VMM on arm64 needs.
fn cpu_info(spec: &JailSpec) -> Option<Step> {
    let target = JailPath::new(FIRST_CPU).ok().filter(|_| cfg!(target_arch = "aarch64"))?;
    Some(CpuInfo { source: Path::new(FIRST_CPU).to_owned().into(), target, owner: spec.owner }.into())
}

fn device_nodes(spec: &JailSpec, host: &Host, mode: LaunchMode) -> Vec<Step> {
    let mut nodes = vec![("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];
    nodes.extend(host.userfaultfd_minor.map(|minor| ("/dev/userfaultfd", 10, minor)));
    let step = |(path, major, minor)| {
        JailPath::new(path).map(|path| {
            let optional = match mode {
                LaunchMode::Spawn => !spec.profile.devices.contains(&path),
                // Firecracker's jailer continues without a source of randomness, and so does the drop-in.
                LaunchMode::BecomeVmm => (major, minor) == (1, 9),
            };
            DeviceNode { optional, ..DeviceNode::character(path, major, minor, spec.owner) }.into()
        })
    };
    nodes.into_iter().filter_map(|node| step(node).ok()).collect()
}

fn ramfs(spec: &JailSpec) -> Option<Step> {
    let (size, path) = (spec.ramfs?, JailPath::new("ramfs").ok()?);
    Some(Ramfs { path, name: format!("ramfs-{}", spec.id), size, owner: spec.owner }.into())
}
