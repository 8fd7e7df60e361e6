//! The leash: a cgroup without limits, which does nothing but hold a jail's processes together.
//!
//! It is the one trait of a process that neither a new session, a new parent, a new root nor a namespace of
//! its own sheds, since moving between cgroups needs files that only root may write. It lies below the cgroup
//! of whoever launches the VMM, so that what limits the launcher limits the VMM too.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use crate::host::{CgroupLayout, read};
use crate::known;
use crate::layout::Layout;
use crate::plan::Plan;
use crate::prepare::Held;
use crate::spec::HostPath;
use crate::step::{CgroupV1, CgroupV2, Step, Undone};
use crate::{Result, receipt::Receipt};

/// Where on this host a leash can be made: below the cgroup of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeashPoint {
    /// Where the hierarchy is mounted.
    pub hierarchy: HostPath,
    /// The cgroup of this process in it.
    pub own: PathBuf,
    /// Whether it is the unified hierarchy; otherwise it is the freezer of version 1.
    pub unified: bool,
}

impl LeashPoint {
    /// The unified hierarchy, which can kill a cgroup as a whole; where it is not mounted the freezer, which can
    /// stop one. `None` if this process may not make cgroups below its own.
    pub(crate) fn find(cgroups: &CgroupLayout) -> Option<Self> {
        let own = read("/proc/self/cgroup").ok()?;
        let unified = cgroups.v2.as_ref().map(|unified| (&unified.mount, true));
        let freezer = cgroups.v1_with("freezer").map(|freezer| (&freezer.mount, false));
        [unified, freezer].into_iter().flatten().find_map(|(hierarchy, unified)| {
            let own = own_path(&own, unified)?;
            let point = Self { hierarchy: hierarchy.clone(), own, unified };
            point.is_usable().then_some(point)
        })
    }

    /// The cgroup of this process on the host.
    pub(crate) fn directory(&self) -> HostPath {
        self.hierarchy.join(&self.own)
    }

    /// Whether the path is right, as in a container it may not be, and a process can be born below it.
    fn is_usable(&self) -> bool {
        let directory = self.directory();
        let writable = rustix::fs::accessat(CWD, directory.as_path(), Access::WRITE_OK, AtFlags::EACCESS);
        let myself = rustix::process::getpid().as_raw_nonzero().get();
        let holds_me = || crate::cgroup::processes(&directory).is_ok_and(|pids| pids.contains(&myself));
        let holds_me = || known::holds_me(self, holds_me);
        // Below one that tells threads apart there is no place for processes. The root has no type, nor has version 1.
        let kind = std::fs::read_to_string(directory.join("cgroup.type"));
        let whole = kind.map_or(true, |kind| kind.trim() == "domain");
        writable.is_ok() && whole && holds_me()
    }

    /// The step that makes the leash of a jail.
    pub(crate) fn step(&self, jail: &Layout) -> Step {
        let path = self.own.join(name(jail));
        let (hierarchy, settings, exclusive) = (self.hierarchy.clone(), Vec::new(), true);
        if self.unified {
            unified(hierarchy, path)
        } else {
            CgroupV1 { hierarchy, path, settings, exclusive }.into()
        }
    }
}

/// What a jail's leash is called: by the jail's id, and by where the jail is, since another state directory may
/// have one of the same id.
pub(crate) fn name(jail: &Layout) -> String {
    // FNV-1a: the same in every version, and nobody's secret.
    let place = jail.jail_dir();
    let hash = place
        .as_path()
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("stockade-{}-{hash:08x}", jail.id())
}

/// A leash in the unified hierarchy.
pub(crate) fn unified(hierarchy: HostPath, path: PathBuf) -> Step {
    let (controllers, settings) = (Vec::new(), Vec::new());
    CgroupV2 { hierarchy, path, controllers, settings, exclusive: true }.into()
}

/// The path of this process's cgroup, from the text of `/proc/self/cgroup`: `NUMBER:CONTROLLERS:PATH`.
fn own_path(text: &str, unified: bool) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let wanted = if unified { "" } else { "freezer" };
        let path = Path::new(path.strip_prefix('/')?);
        // One outside of this cgroup namespace cannot be named.
        let inside = !path.components().any(|part| part == std::path::Component::ParentDir);
        (controllers.split(',').any(|name| name == wanted) && inside).then(|| path.to_owned())
    })
}

/// Whether a step makes a leash: any other cgroup has settings.
fn is_leash(step: &Step) -> bool {
    match step {
        Step::CgroupV1(cgroup) => cgroup.settings.is_empty(),
        Step::CgroupV2(cgroup) => cgroup.settings.is_empty(),
        _ => false,
    }
}

/// Whether a jail's processes are held together by something: descendants need not be searched then.
pub(crate) fn is_held_together(receipt: &Receipt) -> bool {
    let cgroup = |step: &Step| matches!(step, Step::CgroupV1(_) | Step::CgroupV2(_));
    receipt.spec.new_pid_ns || receipt.steps.iter().any(cgroup)
}

/// Makes the leash anew for a jail that was made some time ago, where the plan of today has it: below the cgroup
/// of this process. The cgroup of whoever made the jail, a session perhaps, may be gone with all below it.
pub(crate) fn renew(jail: &mut Held, today: &Plan) -> Result<()> {
    let new = today.prepare.iter().find(|step| is_leash(step));
    let Held { site, receipt, lock } = jail;
    let before = receipt.steps.clone();
    // One that cannot be removed now is removed with the jail.
    receipt
        .steps
        .retain(|step| !is_leash(step) || Some(step) == new || matches!(step.undo(site), Undone::Left(_)));
    receipt.made -= before.len() - receipt.steps.len();
    if let Some(new) = new.filter(|new| !before.contains(new)) {
        receipt.steps.insert(receipt.made, new.clone());
        receipt.made += 1;
    }
    if receipt.steps != before {
        lock.write(receipt)?;
    }
    new.map_or(Ok(()), |leash| leash.apply(site))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_by_its_hierarchy() {
        let text = "9:name=systemd:/\n6:cpu,freezer:/a:b\n0::/user.slice/x\n";
        assert_eq!(own_path(text, true), Some("user.slice/x".into()));
        assert_eq!(own_path(text, false), Some("a:b".into()));
        assert_eq!(own_path("0::/../outside\n", true), None);
        assert_eq!(own_path("4:memory:/\n", true), None);
    }
}
