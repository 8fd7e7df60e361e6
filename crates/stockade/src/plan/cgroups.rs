//! The cgroups of a jail, and the files by which its process joins them.

use std::path::Path;

use super::{LaunchMode, tracking_cgroup};
use crate::error::{Error, Result};
use crate::host::{Hierarchy, Host, TrackingPoint};
use crate::spec::{CgroupSetting, CgroupVersion, HostPath, JailSpec, Layout};
use crate::steps::{CgroupV1, CgroupV2, Step};
use crate::sys::cgroup::join_file_v1;

/// The jail's cgroups, and the files by which its process joins them.
#[derive(Default)]
pub(super) struct Cgroups {
    pub(super) steps: Vec<Step>,
    /// The cgroup v2 in which the process is created (`CLONE_INTO_CGROUP`), or to which it moves.
    pub(super) unified: Option<HostPath>,
    /// The files of cgroup v1 that move a process which writes to them.
    pub(super) join: Vec<HostPath>,
}

impl Cgroups {
    fn has_hierarchy(&self, hierarchy: &HostPath) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::CgroupV1(own) if own.hierarchy == *hierarchy))
    }

    fn has_unified(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::CgroupV2(_)))
    }

    /// Adds a step, and the move of the process into its cgroup.
    fn add(&mut self, step: Step) {
        match &step {
            Step::CgroupV2(unified) => self.unified = Some(unified.directory()),
            // Two controllers of one hierarchy share a cgroup; as in Firecracker's jailer each has its step.
            Step::CgroupV1(cgroup) => self.join.push(join_file_v1(&cgroup.directory())),
            _ => (),
        }
        self.steps.push(step);
    }
}

pub(super) fn cgroups(spec: &JailSpec, layout: &Layout, host: &Host, mode: LaunchMode) -> Result<Cgroups> {
    let mut cgroups = own_cgroups(spec, host, mode)?;
    // The process of the drop-in joined a parent before, by `CgroupLayout::move_into_parent`. It has no tracking cgroup,
    // because it has no teardown.
    if mode == LaunchMode::Spawn {
        join_parent(spec, host, &mut cgroups)?;
        add_tracking_cgroup(spec, layout, host, &mut cgroups);
    }
    Ok(cgroups)
}

/// The cgroups for the jail's settings.
fn own_cgroups(spec: &JailSpec, host: &Host, mode: LaunchMode) -> Result<Cgroups> {
    let mut cgroups = Cgroups::default();
    let path = spec.parent_cgroup().join(spec.id.as_str());
    let exclusive = mode == LaunchMode::Spawn;
    let mut unified = Vec::new();
    for (controller, settings) in by_controller(&spec.cgroups) {
        // A controller is in one version only, so a jail may have settings of both.
        let version = spec.cgroup_version.unwrap_or_else(|| host.cgroups.version_with(controller));
        if mode == LaunchMode::Spawn {
            settings.iter().try_for_each(|setting| setting.check_version(version))?;
        }
        host.cgroups.has(version)?;
        let missing = || Error::NoController(controller.to_owned());
        match version {
            CgroupVersion::V1 => {
                let hierarchy = host.cgroups.v1_with(controller).ok_or_else(missing)?.mount.clone();
                cgroups.add(CgroupV1 { hierarchy, path: path.clone(), settings, exclusive }.into());
            }
            CgroupVersion::V2 => {
                let found = host.cgroups.v2_with(controller).ok_or_else(missing)?;
                unified.push((found.mount.clone(), controller.to_owned()));
            }
            // `has` has refused it.
            CgroupVersion::Unknown(_) => (),
        }
    }
    if let Some((hierarchy, _)) = unified.first().cloned() {
        let controllers: Vec<String> = unified.into_iter().map(|(_, controller)| controller).collect();
        let is_in = |setting: &&CgroupSetting| controllers.iter().any(|name| name == setting.controller());
        let settings = spec.cgroups.iter().filter(is_in).cloned().collect();
        cgroups.add(CgroupV2 { hierarchy, path, controllers, settings, exclusive }.into());
    }
    Ok(cgroups)
}

/// The settings of each controller, in the order of the controllers' first appearance.
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

/// Joins the parent cgroup in each hierarchy in which it exists and the jail has no cgroup below it, so that the
/// parent's limits hold.
///
/// That is every hierarchy for a named parent, and cgroup v2, if requested, for the default one. Without settings no
/// parent is created, so a named one has to exist.
fn join_parent(spec: &JailSpec, host: &Host, cgroups: &mut Cgroups) -> Result<()> {
    let (parent, named) = (spec.parent_cgroup(), spec.parent_cgroup.as_ref());
    let version = spec.cgroup_version;
    let wants_v1 = named.is_some() && version != Some(CgroupVersion::V2);
    let wants_v2 =
        version == Some(CgroupVersion::V2) || (named.is_some() && version != Some(CgroupVersion::V1));
    if wants_v2 && !cgroups.has_unified() {
        cgroups.unified = host.cgroups.existing_parent(parent);
    }
    let mut known: Vec<&[String]> = Vec::new();
    let v1 =
        host.cgroups.v1.iter().filter(|hierarchy| wants_v1 && hierarchy.has_parent && !hierarchy.is_named());
    for Hierarchy { mount, options, .. } in v1 {
        // A hierarchy may be mounted twice.
        if !known.contains(&&**options) && !cgroups.has_hierarchy(mount) {
            cgroups.join.push(join_file_v1(&mount.join(parent)));
        }
        known.push(options);
    }
    match named {
        Some(parent) if cgroups.unified.is_none() && cgroups.join.is_empty() => {
            Err(Error::NoParentCgroup { parent: parent.clone(), version })
        }
        _ => Ok(()),
    }
}

/// Adds a tracking cgroup, if the jail needs one, below the cgroup in which the process would be without it.
fn add_tracking_cgroup(spec: &JailSpec, layout: &Layout, host: &Host, cgroups: &mut Cgroups) {
    let Some(point) = host.tracking.as_ref().filter(|_| !cgroups.has_unified()) else { return };
    let below_parent = |hierarchy: &HostPath, unified| TrackingPoint {
        hierarchy: hierarchy.clone(),
        own: Path::to_owned(spec.parent_cgroup()),
        unified,
    };
    let parent_file = join_file_v1(&point.hierarchy.join(spec.parent_cgroup()));
    let point = match &host.cgroups.v2 {
        Some(v2) if cgroups.unified.is_some() => below_parent(&v2.mount, true),
        _ if !point.unified && cgroups.join.contains(&parent_file) => {
            cgroups.join.retain(|file| *file != parent_file);
            below_parent(&point.hierarchy, false)
        }
        // The jail's own cgroup in the freezer holds its processes.
        _ if !point.unified && cgroups.has_hierarchy(&point.hierarchy) => return,
        _ => point.clone(),
    };
    cgroups.add(tracking_cgroup::step_of(&point, layout));
}
