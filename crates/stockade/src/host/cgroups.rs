//! The cgroup hierarchies of this host.

use std::path::Path;

use crate::error::{Context, Error, Operation, Result, errno};
use crate::spec::{CgroupSetting, CgroupVersion, HostPath, JailSpec};
use crate::sys::cache::Cached;
use crate::sys::cgroup::move_self;
use crate::sys::mounts::{self, Mount};
use crate::sys::procfs::read_file;

/// `statfs` types of cgroup filesystems.
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The mounted cgroup hierarchies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupLayout {
    /// The hierarchies of cgroup v1, in the order of the mount table.
    pub v1: Vec<Hierarchy>,
    /// The unified hierarchy, if mounted.
    pub v2: Option<Unified>,
}

/// A mounted hierarchy of cgroup v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mount point.
    pub mount: HostPath,
    /// The mount options, including the controllers.
    pub options: Vec<String>,
}

/// The mounted unified hierarchy, cgroup v2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unified {
    /// The mount point.
    pub mount: HostPath,
    /// The available controllers (`cgroup.controllers` of its root).
    pub controllers: Vec<String>,
    /// Whether the jail's parent cgroup exists.
    pub has_parent: bool,
}

impl CgroupLayout {
    /// Reads the mount table, and checks whether the specification's parent cgroup exists.
    ///
    /// # Errors
    /// Returns an error if the mount table or `cgroup.controllers` cannot be read.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        Self::read_mounts()?.with_unified(spec.parent_cgroup())
    }

    /// As [`Self::read_for`], but with cached mounts.
    pub(super) fn cached_for(spec: &JailSpec) -> Result<Self> {
        let requested = spec.cgroup_version;
        let has = |layout: &Self, setting: &CgroupSetting| {
            let controller = setting.controller();
            layout.v1_with(controller).is_some()
                || (requested != Some(CgroupVersion::V1) && layout.v2.is_some())
        };
        let suffices = |layout: &Self| {
            let versions = requested.is_none_or(|version| layout.has(version).is_ok());
            versions && spec.cgroups.iter().all(|setting| has(layout, setting))
        };
        known_mounts(suffices)?.with_unified(spec.parent_cgroup())
    }

    /// Whether a plan of this specification looks at the hierarchies.
    pub(super) fn is_needed_by(spec: &JailSpec) -> bool {
        // Also without a setting the jail may join a parent: a named one, or the default one of cgroup v2.
        let may_join = match spec.cgroup_version {
            Some(version) => version == CgroupVersion::V2,
            None => spec.parent_cgroup.is_some(),
        };
        may_join || !spec.cgroups.is_empty()
    }

    /// Reads the unified hierarchy's controllers, and whether the cgroup `parent` exists.
    pub(crate) fn with_unified(mut self, parent: &Path) -> Result<Self> {
        if let Some(unified) = &mut self.v2 {
            unified.controllers = controllers_of(&unified.mount)?;
            unified.has_parent = unified.mount.join(parent).as_path().is_dir();
        }
        Ok(self)
    }

    /// Reads the mount table alone.
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

    /// Whether every hierarchy is still mounted at its path.
    fn is_mounted(&self) -> bool {
        let v1 = self.v1.iter().map(|hierarchy| (&hierarchy.mount, CGROUP_MAGIC));
        let v2 = self.v2.iter().map(|unified| (&unified.mount, CGROUP2_MAGIC));
        v1.chain(v2).all(|(mount, magic)| {
            let facts = rustix::fs::statfs(mount.as_path());
            facts.is_ok_and(|facts| u64::try_from(facts.f_type) == Ok(magic))
        })
    }

    /// Checks that a hierarchy of this version is mounted.
    ///
    /// # Errors
    /// Returns [`Error::NoHierarchy`] if none is.
    pub fn has(&self, version: CgroupVersion) -> Result<()> {
        match version {
            CgroupVersion::V1 if !self.v1.is_empty() => Ok(()),
            CgroupVersion::V2 if self.v2.is_some() => Ok(()),
            version => Err(self.no_hierarchy(version)),
        }
    }

    /// The error of a missing hierarchy of this version.
    pub(crate) fn no_hierarchy(&self, version: CgroupVersion) -> Error {
        let others = [(CgroupVersion::V1, !self.v1.is_empty()), (CgroupVersion::V2, self.v2.is_some())];
        let other = others.into_iter().find(|(other, exists)| *exists && *other != version);
        Error::NoHierarchy { version, other: other.map(|(other, _)| other) }
    }

    /// Checks that a hierarchy of this version has the setting's controller.
    ///
    /// # Errors
    /// * [`Error::NoHierarchy`] if no hierarchy of this version is mounted
    /// * [`Error::NoController`] if none of them has the controller
    pub fn offers(&self, version: CgroupVersion, setting: &CgroupSetting) -> Result<()> {
        self.has(version)?;
        let controller = setting.controller();
        let found = match version {
            CgroupVersion::V1 => self.v1_with(controller).is_some(),
            _ => self.v2_with(controller).is_some(),
        };
        if found { Ok(()) } else { Err(Error::NoController(controller.to_owned())) }
    }

    /// The parent cgroup in cgroup v2, if it exists.
    pub(crate) fn existing_parent(&self, parent: &Path) -> Option<HostPath> {
        self.v2.as_ref().filter(|unified| unified.has_parent).map(|unified| unified.mount.join(parent))
    }

    /// Moves this process into the parent cgroup in cgroup v2. A missing parent is not created.
    ///
    /// # Errors
    /// Returns [`Error::MoveToParent`] if the kernel refuses the move: with EBUSY if the cgroup enables controllers for
    /// child cgroups.
    pub fn move_into_parent(&self, spec: &JailSpec) -> Result<()> {
        let Some(cgroup) = self.existing_parent(spec.parent_cgroup()) else { return Ok(()) };
        move_self(&cgroup).map_err(|cause| Error::MoveToParent { cgroup, cause: errno(&cause) })
    }

    /// The first hierarchy of cgroup v1 with `controller`.
    pub fn v1_with(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.options.iter().any(|option| option == controller))
    }

    /// The unified hierarchy, if it offers `controller`.
    pub fn v2_with(&self, controller: &str) -> Option<&Unified> {
        self.v2.as_ref().filter(|unified| unified.controllers.iter().any(|known| known == controller))
    }
}

/// The mounts of cgroup hierarchies. The mount table, which can be long, is read again only if one of them is no longer
/// mounted, or if `suffices` is false for them.
fn known_mounts(suffices: impl Fn(&CgroupLayout) -> bool) -> Result<CgroupLayout> {
    static KNOWN: Cached<CgroupLayout> = Cached::new();
    if let Some(known) = KNOWN.get().filter(|known| known.is_mounted() && suffices(known)) {
        return Ok(known);
    }
    Ok(KNOWN.keep(CgroupLayout::read_mounts()?))
}

/// The controllers that a cgroup v2 can enable for child cgroups.
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
