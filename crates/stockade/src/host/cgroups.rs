//! The cgroup hierarchies of this host.

use std::path::Path;

use rustix::fs::FileType;
use rustix::io::Errno;

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
    /// The hierarchies of cgroup v1, in the order of the mount table, those mounted writable first.
    pub v1: Vec<Hierarchy>,
    /// The unified hierarchy, if mounted; the first writable mount of it, or else the first.
    pub v2: Option<Unified>,
}

/// A mounted hierarchy of cgroup v1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The mount point.
    pub mount: HostPath,
    /// The mount options, including the controllers.
    pub options: Vec<String>,
    /// Whether the jail's parent cgroup exists in it.
    pub has_parent: bool,
}

impl Hierarchy {
    /// Whether it has a name instead of controllers, as that of systemd. It limits nothing.
    pub(crate) fn is_named(&self) -> bool {
        self.options.iter().any(|option| option.starts_with("name="))
    }
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
    /// Reads the mount table, and checks where the specification's parent cgroup exists.
    ///
    /// # Errors
    /// Returns an error if the mount table, `cgroup.controllers` or the parent cgroup cannot be read.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        Self::read_mounts()?.with_parent(spec)
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
        known_mounts(suffices)?.with_parent(spec)
    }

    /// Whether a plan of this specification looks at the hierarchies.
    pub(super) fn is_needed_by(spec: &JailSpec) -> bool {
        // Also without a setting the jail may join a parent: a named one, or the default one of cgroup v2.
        let may_join = spec.parent_cgroup.is_some() || spec.cgroup_version == Some(CgroupVersion::V2);
        may_join || !spec.cgroups.is_empty()
    }

    /// Reads the unified hierarchy's controllers, and in which hierarchies the cgroup `parent` exists.
    fn with_parent(mut self, spec: &JailSpec) -> Result<Self> {
        self = self.with_controllers()?;
        let parent = spec.parent_cgroup();
        if let Some(unified) = &mut self.v2 {
            unified.has_parent = exists(&unified.mount.join(parent))?;
        }
        // In cgroup v1 only a named parent is joined.
        for hierarchy in self.v1.iter_mut().filter(|_| spec.parent_cgroup.is_some()) {
            hierarchy.has_parent = exists(&hierarchy.mount.join(parent))?;
        }
        Ok(self)
    }

    /// Reads the unified hierarchy's controllers.
    pub(crate) fn with_controllers(mut self) -> Result<Self> {
        if let Some(unified) = &mut self.v2 {
            unified.controllers = controllers_of(&unified.mount)?;
        }
        Ok(self)
    }

    /// Reads the mount table alone.
    pub(crate) fn read_mounts() -> Result<Self> {
        Ok(Self::of(mounts::table()?))
    }

    fn of(mut mounts: Vec<Mount>) -> Self {
        // A container often has a hierarchy twice: read-only, and writable at another path.
        mounts.sort_by_key(|mount| mount.read_only || mount.fs_options.iter().any(|option| option == "ro"));
        let mut layout = Self::default();
        for Mount { point, fs_type, fs_options, .. } in mounts {
            let mount = HostPath::from(point);
            match fs_type.as_str() {
                "cgroup" => layout.v1.push(Hierarchy { mount, options: fs_options, has_parent: false }),
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

    /// The version in which this host has `controller`: never both. Without the controller it is that of any hierarchy.
    pub(crate) fn version_with(&self, controller: &str) -> CgroupVersion {
        let unified = self.v2_with(controller).is_some() || self.v1.is_empty();
        if unified { CgroupVersion::V2 } else { CgroupVersion::V1 }
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

/// Whether a cgroup exists.
fn exists(cgroup: &HostPath) -> Result<bool> {
    match rustix::fs::stat(cgroup.as_path()) {
        Ok(facts) => Ok(FileType::from_raw_mode(facts.st_mode).is_dir()),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(cause) => Err(cause).context(Operation::Inspect, cgroup),
    }
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

    #[test]
    fn a_read_only_mount_does_not_hide_a_writable_one() {
        let read_only = |mount: Mount| Mount { read_only: true, ..mount };
        let layout = CgroupLayout::of(vec![
            read_only(mount("/sys/fs/cgroup/cpu", "cgroup", "rw,cpu")),
            mount("/ro/unified", "cgroup2", "ro"),
            mount("/rw/cpu", "cgroup", "rw,cpu"),
            mount("/rw/unified", "cgroup2", "rw"),
            read_only(mount("/ro/pids", "cgroup", "rw,pids")),
        ]);
        let of = |controller| layout.v1_with(controller).map(|found| found.mount.to_string());
        assert_eq!(of("cpu").as_deref(), Some("/rw/cpu"));
        assert_eq!(of("pids").as_deref(), Some("/ro/pids"), "there is no other");
        assert_eq!(layout.v2.expect("a v2 hierarchy").mount.to_string(), "/rw/unified");
    }
}
