//! The cgroups of a jail, and the files by which its process joins them.

use std::path::Path;

use super::{LaunchMode, tracking_cgroup};
use crate::error::{Error, Result};
use crate::host::Host;
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
}

pub(super) fn cgroups(spec: &JailSpec, layout: &Layout, host: &Host, mode: LaunchMode) -> Result<Cgroups> {
    let mut cgroups = requested_cgroups(spec, host, mode)?;
    let has_unified = cgroups.steps.iter().any(|step| matches!(step, Step::CgroupV2(_)));
    // The drop-in has no teardown, and Firecracker's jailer creates no such cgroup.
    let Some(point) = host.tracking.as_ref().filter(|_| mode == LaunchMode::Spawn && !has_unified) else {
        return Ok(cgroups);
    };
    let joined = cgroups.unified.take();
    let step = match (&host.cgroups.v2, joined) {
        // Below the parent in which the process would be created without a tracking cgroup.
        (Some(v2), Some(_)) => tracking_cgroup::unified(
            v2.mount.clone(),
            spec.parent_cgroup().join(tracking_cgroup::name(layout)),
        ),
        _ => tracking_cgroup::step_of(point, layout),
    };
    match &step {
        Step::CgroupV2(unified) => cgroups.unified = Some(unified.directory()),
        Step::CgroupV1(freezer) if cgroups.has_hierarchy(&freezer.hierarchy) => return Ok(cgroups),
        Step::CgroupV1(freezer) => cgroups.join.push(join_file_v1(&freezer.directory())),
        _ => (),
    }
    cgroups.steps.push(step);
    Ok(cgroups)
}

fn requested_cgroups(spec: &JailSpec, host: &Host, mode: LaunchMode) -> Result<Cgroups> {
    let parent = spec.parent_cgroup();
    let path = parent.join(spec.id.as_str());
    let version = spec.cgroup_version.unwrap_or_else(|| choose_version(spec, host));
    let exclusive = mode == LaunchMode::Spawn;
    if spec.cgroups.is_empty() {
        // The process joins an existing parent, in cgroup v2 only. A missing parent is not created. The drop-in's
        // process is already in it, since `CgroupLayout::move_into_parent`.
        let joins = version == CgroupVersion::V2 && mode == LaunchMode::Spawn;
        let unified = host.cgroups.existing_parent(parent).filter(|_| joins);
        return Ok(Cgroups { unified, ..Cgroups::default() });
    }
    if mode == LaunchMode::Spawn {
        spec.cgroups.iter().try_for_each(|setting| setting.check_version(version))?;
    }
    match version {
        CgroupVersion::V1 => cgroups_v1(&spec.cgroups, host, &path, exclusive),
        CgroupVersion::V2 => cgroups_v2(&spec.cgroups, host, &path, exclusive),
        CgroupVersion::Unknown(_) => Ok(host.cgroups.has(version).map(|()| Cgroups::default())?),
    }
}

/// cgroup v2 if it has every requested controller or if there is no v1; otherwise cgroup v1.
fn choose_version(spec: &JailSpec, host: &Host) -> CgroupVersion {
    let unified = spec.cgroups.iter().all(|setting| host.cgroups.v2_with(setting.controller()).is_some());
    if unified || host.cgroups.v1.is_empty() { CgroupVersion::V2 } else { CgroupVersion::V1 }
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

fn cgroups_v1(settings: &[CgroupSetting], host: &Host, path: &Path, exclusive: bool) -> Result<Cgroups> {
    host.cgroups.has(CgroupVersion::V1)?;
    let mut cgroups = Cgroups::default();
    for (controller, settings) in by_controller(settings) {
        let hierarchy = host.cgroups.v1_with(controller);
        let hierarchy = hierarchy.ok_or_else(|| Error::NoController(controller.to_owned()))?.mount.clone();
        cgroups.join.push(join_file_v1(&hierarchy.join(path)));
        cgroups.steps.push(CgroupV1 { hierarchy, path: path.to_owned(), settings, exclusive }.into());
    }
    Ok(cgroups)
}

fn cgroups_v2(settings: &[CgroupSetting], host: &Host, path: &Path, exclusive: bool) -> Result<Cgroups> {
    let unified = host.cgroups.v2.as_ref().ok_or_else(|| host.cgroups.no_hierarchy(CgroupVersion::V2))?;
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
