//! Facts about this host, read once.
//!
//! A plain structure: the plan is worked out from it and from nothing else, and a test can write one by
//! hand.

mod cache;
mod delegated_cgroup;
mod template_mounts;
mod tracking_cgroup;

use std::path::Path;

use crate::error::{Context, Error, Operation, Result, errno};
pub use delegated_cgroup::DelegatedCgroup;
pub use template_mounts::{RUNTIME_DIRECTORY, Skeleton};
pub use tracking_cgroup::LeashPoint;

use crate::spec::{CgroupSetting, CgroupVersion, HostPath, JailSpec};
use crate::sys::procfs::{read, read_file, unescape};

/// What a plan needs to know of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Which boot this is: processes, mounts and namespaces of another boot are gone.
    pub boot_id: String,
    /// The minor number of `/dev/userfaultfd`, if the kernel offers it.
    pub userfaultfd_minor: Option<u32>,
    /// The mounted cgroup hierarchies.
    pub cgroups: CgroupLayout,
    /// The mount namespace to copy in the place of the host's, if there is one.
    pub skeleton: Option<Skeleton>,
    /// Where a cgroup can be made that holds a jail's processes together; `None` if nowhere, or if the jail
    /// needs none.
    pub leash: Option<LeashPoint>,
}

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

impl Host {
    /// Reads the facts that a jail of this specification depends on.
    ///
    /// # Errors
    /// What the kernel says of reading `/proc` or the cgroup mounts.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        let layout = CgroupLayout::know_for(spec);
        // The first process of a pid namespace takes all others of it along.
        let leash = layout.as_ref().ok().filter(|_| !spec.new_pid_ns).and_then(LeashPoint::find);
        // Without a setting a parent may still be joined: one that is named, or the default one of version 2.
        let may_join = match spec.cgroup_version {
            Some(version) => version == CgroupVersion::V2,
            None => spec.parent_cgroup.is_some(),
        };
        let cgroups = if spec.cgroups.is_empty() && !may_join { CgroupLayout::default() } else { layout? };
        Ok(Self { boot_id: crate::sys::cache::boot_id()?, leash, ..Self::with_cgroups(cgroups)? })
    }

    /// Reads what a jail that leaves no receipt depends on besides its cgroups: nothing of it is compared
    /// with another boot.
    ///
    /// # Errors
    /// What the kernel says of reading `/proc/misc`.
    pub fn with_cgroups(cgroups: CgroupLayout) -> Result<Self> {
        let misc = read("/proc/misc")?;
        let (userfaultfd_minor, skeleton) = (minor_of(&misc, "userfaultfd"), Skeleton::find().ok());
        Ok(Self { userfaultfd_minor, cgroups, skeleton, ..Self::default() })
    }
}

impl CgroupLayout {
    /// Reads the mount table, and whether the parent cgroup of a jail of this specification exists.
    ///
    /// # Errors
    /// What the kernel says of reading.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        Self::read_mounts()?.with_unified(&parent_cgroup(spec))
    }

    /// The same, with mounts that are known already.
    fn know_for(spec: &JailSpec) -> Result<Self> {
        let asked = spec.cgroup_version;
        let has = |layout: &Self, setting: &CgroupSetting| {
            let controller = setting.controller();
            layout.v1_with(controller).is_some() || (asked != Some(CgroupVersion::V1) && layout.v2.is_some())
        };
        let suffices = |layout: &Self| {
            let versions = asked.is_none_or(|version| layout.has(version).is_ok());
            versions && spec.cgroups.iter().all(|setting| has(layout, setting))
        };
        cache::cgroup_mounts(suffices)?.with_unified(&parent_cgroup(spec))
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
        Ok(Self::parse(&read("/proc/mounts")?))
    }

    fn parse(mounts: &str) -> Self {
        let mut layout = Self::default();
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(1);
            let (Some(at), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let mount = HostPath::from(std::path::PathBuf::from(unescape(at)));
            match kind {
                "cgroup" => {
                    let options = options.split(',').map(str::to_owned).collect();
                    layout.v1.push(Hierarchy { mount, options });
                }
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
        let Some(cgroup) = self.existing_parent(&parent_cgroup(spec)) else { return Ok(()) };
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

/// The cgroup a jail's own is made in, relative to the hierarchy.
pub(crate) fn parent_cgroup(spec: &JailSpec) -> std::path::PathBuf {
    match &spec.parent_cgroup {
        Some(parent) => parent.as_path().to_owned(),
        None => spec.exec_file.name().into(),
    }
}

/// The controllers that a cgroup of version 2 has to give.
pub(crate) fn controllers_of(cgroup: &HostPath) -> Result<Vec<String>> {
    let file = cgroup.join("cgroup.controllers");
    let controllers = read_file(&file).context(Operation::Read, &file)?;
    Ok(controllers.split_whitespace().map(str::to_owned).collect())
}

/// Finds `NUMBER NAME` in the text of `/proc/misc`.
fn minor_of(misc: &str, name: &str) -> Option<u32> {
    misc.lines().find_map(|line| {
        let (number, device) = line.trim().split_once(' ')?;
        (device == name).then(|| number.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu\\040x cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup2 /second cgroup2 rw 0 0
";

    #[test]
    fn hierarchies_are_found_by_whole_controller_names() {
        let layout = CgroupLayout::parse(MOUNTS);
        let cpu = layout.v1_with("cpu").expect("cpu is mounted");
        assert_eq!(cpu.mount.to_string(), "/sys/fs/cgroup/cpu x");
        assert_eq!(layout.v1_with("cpuacct"), Some(cpu));
        assert_eq!(layout.v1_with("cpus"), None);
        assert_eq!(layout.v2.expect("a unified one").mount.to_string(), "/sys/fs/cgroup/unified");
    }

    #[test]
    fn a_minor_is_found_by_the_whole_name() {
        let misc = "126 userfaultfd\n 10 userfaultfd2\n232 kvm\n";
        assert_eq!(minor_of(misc, "userfaultfd"), Some(126));
        assert_eq!(minor_of(misc, "kvm"), Some(232));
        assert_eq!(minor_of(misc, "vhost"), None);
    }
}
