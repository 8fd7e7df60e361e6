//! The cgroup hierarchies of this host.

use std::path::Path;

use super::cache;
use crate::error::{Context, Error, Operation, Result, errno};
use crate::spec::{CgroupSetting, CgroupVersion, HostPath, JailSpec};
use crate::sys::mounts::{self, Mount};
use crate::sys::procfs::read_file;

/// Which cgroup hierarchies are mounted where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupLayout {
    /// The hierarchies of version 1, in the order of the mount table.
    pub v1: Vec<Hierarchy>,
    /// The unified hierarchy, if mounted.
    pub v2: Option<Unified>,
}

/// A mounted hierarchy of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: HostPath,
    /// Its mount options, its controllers among them.
    pub options: Vec<String>,
}

/// The mounted hierarchy of version 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// Where it is mounted.
    pub mount: HostPath,
    /// The controllers it has to give.
    pub controllers: Vec<String>,
    /// Whether the jail's parent cgroup exists already.
    pub has_parent: bool,
}

impl CgroupLayout {
    /// Reads the mount table, and whether the parent cgroup of a jail of this specification exists.
    ///
    /// # Errors
    /// What the kernel says of reading.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        Self::read_mounts()?.with_unified(spec.parent_cgroup())
    }

    /// The same, with mounts that are known already.
    pub(super) fn know_for(spec: &JailSpec) -> Result<Self> {
        let asked = spec.cgroup_version;
        let has = |layout: &Self, setting: &CgroupSetting| {
            let controller = setting.controller();
            layout.v1_with(controller).is_some() || (asked != Some(CgroupVersion::V1) && layout.v2.is_some())
        };
        let suffices = |layout: &Self| {
            let versions = asked.is_none_or(|version| layout.has(version).is_ok());
            versions && spec.cgroups.iter().all(|setting| has(layout, setting))
        };
        cache::cgroup_mounts(suffices)?.with_unified(spec.parent_cgroup())
    }

    /// Reads what the unified hierarchy has to give now; `parent` is the cgroup whose existence matters.
    pub(crate) fn with_unified(mut self, parent: &Path) -> Result<Self> {
        if let Some(unified) = &mut self.v2 {
            unified.controllers = controllers_of(&unified.mount)?;
            unified.has_parent = unified.mount.join(parent).as_path().is_dir();
        }
        Ok(self)
    }

    /// Reads where hierarchies are mounted, and nothing of what is in them.
    pub(crate) fn read_mounts() -> Result<Self> {
        Ok(Self::of(mounts::table()?))
    }

    fn of(mounts: Vec<Mount>) -> Self {
        let mut layout = Self::default();
        for Mount { point, fs_type, fs_options, .. } in mounts {
            let mount = HostPath::from(point);
            match fs_type.as_str() {
                "cgroup" => layout.v1.push(Hierarchy { mount, options: fs_options }),
                "cgroup2" if layout.v2.is_none() => {
                    layout.v2 = Some(Unified { mount, controllers: Vec::new(), has_parent: false });
                }
                _ => (),
            }
        }
        layout
    }

    /// Whether there is a hierarchy of this version.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] if there is none.
    pub fn has(&self, version: CgroupVersion) -> Result<()> {
        match version {
            CgroupVersion::V1 if !self.v1.is_empty() => Ok(()),
            CgroupVersion::V2 if self.v2.is_some() => Ok(()),
            CgroupVersion::V2 => Err(Error::NoHierarchy("cgroupsv2 hierarchy missing")),
            _ => Err(Error::NoHierarchy("No hierarchy found for this cgroup version.")),
        }
    }

    /// Whether a hierarchy of this version has the controller of a setting.
    ///
    /// # Errors
    /// [`Error::NoHierarchy`] or [`Error::NoController`].
    pub fn offers(&self, version: CgroupVersion, setting: &CgroupSetting) -> Result<()> {
        self.has(version)?;
        let controller = setting.controller();
        let found = match version {
            CgroupVersion::V1 => self.v1_with(controller).is_some(),
            _ => self.v2_with(controller).is_some(),
        };
        if found { Ok(()) } else { Err(Error::NoController(controller.to_owned())) }
    }

    /// The parent cgroup of version 2, if there is one.
    pub(crate) fn existing_parent(&self, parent: &Path) -> Option<HostPath> {
        self.v2.as_ref().filter(|unified| unified.has_parent).map(|unified| unified.mount.join(parent))
    }

    /// Moves this process into the parent cgroup of version 2, if there is one; where there is none, nothing
    /// is made.
    ///
    /// # Errors
    /// [`Error::MoveToParent`]: EBUSY if the cgroup hands controllers down.
    pub fn move_into_parent(&self, spec: &JailSpec) -> Result<()> {
        let Some(cgroup) = self.existing_parent(spec.parent_cgroup()) else { return Ok(()) };
        std::fs::write(cgroup.join("cgroup.procs"), "0")
            .map_err(|cause| Error::MoveToParent { cgroup, cause: errno(&cause) })
    }

    /// The first hierarchy of version 1 that has `controller`.
    pub fn v1_with(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.options.iter().any(|option| option == controller))
    }

    /// The unified hierarchy, if it has `controller`.
    pub fn v2_with(&self, controller: &str) -> Option<&Unified> {
        self.v2.as_ref().filter(|unified| unified.controllers.iter().any(|known| known == controller))
    }
}

/// The controllers that a cgroup of version 2 has to give.
pub(crate) fn controllers_of(cgroup: &HostPath) -> Result<Vec<String>> {
    let file = cgroup.join("cgroup.controllers");
    let controllers = read_file(&file).context(Operation::Read, &file)?;
    Ok(controllers.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, fs_type: &str, options: &str) -> Mount {
        Mount {
            id: 0,
            parent: 0,
            point: point.into(),
            fs_type: fs_type.into(),
            source: None,
            read_only: false,
            shared: false,
            fs_options: options.split(',').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn hierarchies_are_found_by_whole_controller_names() {
        let layout = CgroupLayout::of(vec![
            mount("/proc", "proc", "rw"),
            mount("/sys/fs/cgroup/cpu x", "cgroup", "rw,cpu,cpuacct"),
            mount("/sys/fs/cgroup/systemd", "cgroup", "rw,name=systemd"),
            mount("/sys/fs/cgroup/unified", "cgroup2", "rw"),
            mount("/second", "cgroup2", "rw"),
        ]);
        let cpu = layout.v1_with("cpu").expect("cpu is mounted");
        assert_eq!(cpu.mount.to_string(), "/sys/fs/cgroup/cpu x");
        assert_eq!(layout.v1_with("cpuacct"), Some(cpu));
        assert_eq!(layout.v1_with("cpus"), None);
        assert_eq!(layout.v2.expect("a v2 hierarchy").mount.to_string(), "/sys/fs/cgroup/unified");
    }
}
