//! The jail's cgroups.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::context::Note;
use super::{NOT_OWN, StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, ErrorKind, Operation, Result, errno};
use crate::spec::{CgroupSetting, HostPath, Nonce};
use crate::sys;
use crate::sys::cgroup;
use crate::sys::mark::{self, MarkOwner};
use crate::sys::modes::{PUBLIC, make_directory};
use crate::sys::open::open_directory;
use crate::sys::own_name::own_name;
use crate::sys::procfs::{first_line, read_file};
use crate::sys::remove_tree::Removal;

/// How often a cgroup is created again after another jail has removed its parent.
const ROUNDS: u32 = 100;

/// The jail's cgroup in one cgroup v1 hierarchy, with all settings of one controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupV1 {
    /// The mount point of the hierarchy.
    pub hierarchy: HostPath,
    /// The jail's cgroup, relative to the hierarchy: the parent, then the id.
    pub path: PathBuf,
    /// The settings to write, in this order.
    pub settings: Vec<CgroupSetting>,
    /// Whether an existing cgroup is an error if it is in use, and is replaced otherwise.
    pub exclusive: bool,
}

/// The jail's cgroup in the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupV2 {
    /// The mount point of the hierarchy.
    pub hierarchy: HostPath,
    /// The jail's cgroup, relative to the hierarchy: the parent, then the id.
    pub path: PathBuf,
    /// The controllers that every cgroup above must enable for its child cgroups.
    pub controllers: Vec<String>,
    /// The settings to write, in this order.
    pub settings: Vec<CgroupSetting>,
    /// Whether an existing cgroup is an error if it is in use, and is replaced otherwise.
    pub exclusive: bool,
}

impl CgroupV1 {
    /// The jail's cgroup on the host.
    pub fn directory(&self) -> HostPath {
        self.hierarchy.join(&self.path)
    }

    /// Copies the value of `file` from the parent into the cgroup at `below` the hierarchy. If the parent has
    /// no value, it first inherits one in the same way.
    fn inherit(&self, below: &Path, file: &str) -> Result<()> {
        let own = self.hierarchy.join(below).join(file);
        let without = || Errno::NODATA;
        let parent = below.parent().ok_or_else(without).context(Operation::InheritCgroup, &own)?;
        let above = self.hierarchy.join(parent).join(file);
        let mut value = read_line(&above)?;
        if value.is_empty() && !parent.as_os_str().is_empty() {
            // The value afterwards decides: another jail that starts at this moment may have written one, and added
            // processes, so that this write failed.
            let _ = self.inherit(parent, file);
            value = read_line(&above)?;
        }
        if value.is_empty() {
            return Err(without()).context(Operation::InheritCgroup, own);
        }
        write_line(&own, &value)
    }

    /// The same, unless the file has a value.
    fn inherit_if_empty(&self, file: &str) -> Result<()> {
        let own = self.directory().join(file);
        if read_line(&own)?.is_empty() { self.inherit(&self.path, file) } else { Ok(()) }
    }
}

impl StepKind for CgroupV1 {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        let directory = self.directory();
        make_own(&directory, self.exclusive, ctx)?;
        // A cpuset accepts no process before it has both, no value that its parent lacks, and a new one has none.
        let cpuset = self.settings.iter().any(|setting| setting.controller() == "cpuset");
        let needed: &[&str] = if cpuset { &["cpuset.cpus", "cpuset.mems"] } else { &[] };
        if ctx.is_recorded() {
            needed.iter().try_for_each(|file| self.inherit_if_empty(file))?;
            return self.settings.iter().try_for_each(|setting| write_setting(&directory, setting));
        }
        // Firecracker's jailer copies the parent's value of every file that it sets, and fails if there is none.
        for setting in &self.settings {
            self.inherit(&self.path, &setting.file)?;
            write_line(&directory.join(&setting.file), &setting.value)?;
        }
        needed.iter().try_for_each(|file| self.inherit_if_empty(file))
    }
}

impl Undo for CgroupV1 {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        remove_own(&self.directory(), ctx)
    }
}

impl fmt::Display for CgroupV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}{}", self.directory(), Settings(&self.settings))
    }
}

impl CgroupV2 {
    /// The jail's cgroup on the host.
    pub fn directory(&self) -> HostPath {
        self.hierarchy.join(&self.path)
    }

    /// The cgroups above the jail's, from the mount point down.
    fn above(&self) -> impl Iterator<Item = HostPath> {
        let mut above: Vec<_> = self.path.ancestors().skip(1).map(|path| self.hierarchy.join(path)).collect();
        above.reverse();
        above.into_iter()
    }

    /// Creates the jail's own cgroup, and enables its controllers in every cgroup above.
    fn make_below(&self, ctx: &StepContext) -> Result<()> {
        if self.controllers.is_empty() {
            return make_own(&self.directory(), self.exclusive, ctx);
        }
        // Before anything is changed for it in the cgroups above.
        check_existing(&self.directory(), self.exclusive, ctx)?;
        let mut round = 0;
        loop {
            // Level by level: below a cgroup that cannot enable them, none is created.
            let created = self.above().try_for_each(|above| {
                if make(&above, ctx)? {
                    ctx.note_parent(above.clone());
                }
                self.enable_controllers(&above)
            });
            round += 1;
            match created.and_then(|()| make_own(&self.directory(), self.exclusive, ctx)) {
                // A jail that failed to start has just removed an empty parent that it had created.
                Err(error) if error.kind() == ErrorKind::NotFound && round < ROUNDS => (),
                created => return created,
            }
        }
    }

    /// Enables the controllers for the child cgroups of `cgroup`, if they are not enabled yet.
    ///
    /// The kernel refuses this for a cgroup with processes in it, except the root. It does not refuse it for
    /// the controllers that support threads. With these alone it would turn the cgroup, which may belong to
    /// anyone, into the root of threaded cgroups, and no jail can be below that. So this function refuses it.
    fn enable_controllers(&self, cgroup: &HostPath) -> Result<()> {
        let file = cgroup::subtree_control(cgroup);
        let enabled = read_line(&file)?;
        let missing =
            self.controllers.iter().filter(|wanted| !enabled.split(' ').any(|name| name == *wanted));
        let missing: Vec<String> = missing.map(|controller| format!("+{controller}")).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if !cgroup::is_root_v2(cgroup) && !cgroup::processes(cgroup)?.is_empty() {
            return Err(Errno::BUSY).context(Operation::Write, file);
        }
        write_line(&file, &missing.join(" "))
    }
}

impl StepKind for CgroupV2 {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        self.make_below(ctx)?;
        let directory = self.directory();
        self.settings.iter().try_for_each(|setting| {
            if ctx.is_recorded() {
                write_setting(&directory, setting)
            } else {
                write_line(&directory.join(&setting.file), &setting.value)
            }
        })
    }
}

impl Undo for CgroupV2 {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        remove_own(&self.directory(), ctx)
    }
}

impl fmt::Display for CgroupV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}{}", self.directory(), Settings(&self.settings))
    }
}

struct Settings<'a>(&'a [CgroupSetting]);

impl fmt::Display for Settings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, setting)| {
            let before = if n == 0 { " with " } else { ", " };
            write!(f, "{before}{setting}")
        })
    }
}

/// Refuses an existing cgroup that is in use: one with a process in it or below it, or one of another jail that exists.
///
/// The jail's own cgroup is in use only with a process in it. A cgroup that need not be exclusive is never refused.
fn check_existing(directory: &HostPath, exclusive: bool, ctx: &StepContext) -> Result<()> {
    let Some(nonce) = ctx.mark.as_ref().filter(|_| exclusive) else { return Ok(()) };
    for cgroup in cgroup::with_all_below(directory)? {
        if let Some(task) = cgroup::first_task(&cgroup)? {
            let who = if task == 0 {
                "a process of another pid namespace".to_owned()
            } else {
                format!("process {task}")
            };
            return Err(Error::InTheWay { what: format!("cgroup '{cgroup}' with {who} in it") });
        }
        if let Some(jail) = other_jail_of(&cgroup, nonce)? {
            return Err(Error::InTheWay { what: format!("cgroup '{cgroup}' of the jail in '{jail}'") });
        }
    }
    Ok(())
}

/// The directory of another jail, if this is its cgroup and the directory exists: the jail may be started later.
fn other_jail_of(cgroup: &HostPath, nonce: &Nonce) -> Result<Option<HostPath>> {
    let opened = match open(cgroup) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => return Ok(None),
        Err(cause) => return Err(cause).context(Operation::Open, cgroup),
    };
    let owner = mark::read(opened.as_fd()).context(Operation::ReadMark, cgroup)?;
    let Some(other) = owner.nonce().filter(|owner| owner != nonce) else { return Ok(None) };
    let jail = mark::read_jail(opened.as_fd()).context(Operation::ReadMark, cgroup)?;
    // stockade 0.1 recorded none.
    let Some(jail) = jail.map(HostPath::from) else { return Ok(None) };
    let marker = jail.join(own_name(&other));
    match rustix::fs::lstat(marker.as_path()) {
        Ok(_) => Ok(Some(jail)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(cause) => Err(cause).context(Operation::Inspect, marker),
    }
}

/// Creates the jail's own cgroup and marks it.
///
/// With `exclusive`, an existing cgroup that is not in use is removed first, so that no old value is in force. Without,
/// it is used as it is, as by Firecracker's jailer.
fn make_own(directory: &HostPath, exclusive: bool, ctx: &StepContext) -> Result<()> {
    let Some(nonce) = ctx.mark.as_ref().filter(|_| exclusive) else { return make(directory, ctx).map(drop) };
    for _ in 0..ROUNDS {
        if make(directory, ctx)? {
            match mark_own(directory, nonce, ctx) {
                // Another jail of this name has just removed it as a left-over.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Ok(()) => return Ok(()),
                Err(error) => {
                    // Empty and without a mark, so no later undo could know it.
                    let _ = rustix::fs::rmdir(directory.as_path());
                    return Err(error);
                }
            }
        }
        check_existing(directory, exclusive, ctx)?;
        match owner_of(directory, nonce)? {
            Some(MarkOwner::This) => return Ok(()),
            Some(MarkOwner::Other | MarkOwner::Unknown) => match cgroup::remove_unused(directory)? {
                Removal::Removed => ctx.note(Note::ReplacedCgroup(directory.clone())),
                Removal::NeverThere => (),
                Removal::Kept(reason) | Removal::Left(_, reason) => {
                    return Err(Error::InTheWay { what: format!("cgroup '{directory}' ({reason})") });
                }
            },
            None => (),
        }
    }
    Err(Error::InTheWay { what: format!("cgroup '{directory}'") })
}

fn mark_own(directory: &HostPath, nonce: &Nonce, ctx: &StepContext) -> Result<()> {
    let opened = open(directory).context(Operation::Open, directory)?;
    mark::set_of_jail(opened.as_fd(), nonce, ctx.layout.jail_dir().as_path())
        .context(Operation::Mark, directory)
}

/// Empties and removes the jail's own cgroup. A cgroup of another jail stays.
fn remove_own(directory: &HostPath, ctx: &StepContext) -> Result<UndoOutcome> {
    let empty = || ctx.patience.spend(|deadline| cgroup::empty_and_remove(directory, deadline));
    let Some(nonce) = &ctx.mark else { return Ok(empty()?.into()) };
    match owner_of(directory, nonce)? {
        None => Ok(UndoOutcome::NeverThere),
        Some(MarkOwner::This) => Ok(empty()?.into()),
        Some(MarkOwner::Other) => Ok(UndoOutcome::Kept(NOT_OWN.into())),
        // If its creator was killed before it marked the cgroup, the cgroup is empty.
        Some(MarkOwner::Unknown) => Ok(match rustix::fs::rmdir(directory.as_path()) {
            Ok(()) => UndoOutcome::Removed,
            Err(_) => UndoOutcome::Kept(NOT_OWN.into()),
        }),
    }
}

/// Does `work` on a jail's own cgroup; `None` if the cgroup is missing, or not marked for this jail.
pub(crate) fn with_own<T>(
    directory: &HostPath,
    nonce: &Nonce,
    work: impl FnOnce(&HostPath) -> sys::error::Result<T>,
) -> Result<Option<T>> {
    match owner_of(directory, nonce)? {
        Some(MarkOwner::This) => Ok(Some(work(directory)?)),
        Some(MarkOwner::Other | MarkOwner::Unknown) | None => Ok(None),
    }
}

/// Whether a cgroup is marked for another jail.
pub(crate) fn is_of_another(directory: &HostPath, nonce: &Nonce) -> bool {
    matches!(owner_of(directory, nonce), Ok(Some(MarkOwner::Other)))
}

/// Whether a process is in a cgroup that may be the jail's own. True also if that cannot be found out.
pub(crate) fn may_be_in_use(directory: &HostPath, nonce: &Nonce) -> bool {
    match owner_of(directory, nonce) {
        Ok(Some(MarkOwner::Other) | None) => false,
        // An error: without CAP_SYS_ADMIN on the host, a mark cannot be read.
        Ok(Some(MarkOwner::This | MarkOwner::Unknown)) | Err(_) => {
            cgroup::is_in_use(directory).unwrap_or(true)
        }
    }
}

/// To which jail a cgroup belongs; `None` if the cgroup does not exist.
fn owner_of(directory: &HostPath, nonce: &Nonce) -> Result<Option<MarkOwner>> {
    match open(directory) {
        Ok(opened) => {
            let mark = mark::read(opened.as_fd()).context(Operation::ReadMark, directory)?;
            Ok(Some(mark.owner(Some(nonce))))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(cause) => Err(cause).context(Operation::Open, directory),
    }
}

fn open(directory: &HostPath) -> std::result::Result<OwnedFd, Errno> {
    open_directory(CWD, directory.as_path(), ResolveFlags::empty())
}

/// Creates a cgroup and the missing ones above it, which the context records. Returns false if it exists.
fn make(directory: &HostPath, ctx: &StepContext) -> Result<bool> {
    make_with_parents(directory, ctx).context(Operation::CreateDirectory, directory)
}

fn make_with_parents(directory: &HostPath, ctx: &StepContext) -> std::result::Result<bool, Errno> {
    let mut round = 0;
    loop {
        round += 1;
        let created = if ctx.is_recorded() {
            make_directory(directory.as_path(), PUBLIC).map(|created| created.is_some())
        } else {
            // As in Firecracker's jailer the umask applies.
            rustix::fs::mkdir(directory.as_path(), Mode::from_raw_mode(PUBLIC)).map(|()| true)
        };
        match created {
            Ok(is_new) => return Ok(is_new),
            Err(Errno::EXIST) => return Ok(false),
            // Repeated, because a jail that failed to start may have removed the parent that it had created.
            Err(Errno::NOENT) if round < ROUNDS => make_parent(directory, ctx)?,
            Err(cause) => return Err(cause),
        }
    }
}

fn make_parent(directory: &HostPath, ctx: &StepContext) -> std::result::Result<(), Errno> {
    let parent: HostPath = directory.as_path().parent().ok_or(Errno::NOENT)?.to_owned().into();
    if make_with_parents(&parent, ctx)? {
        ctx.note_parent(parent);
    }
    Ok(())
}

fn read_line(file: &HostPath) -> Result<String> {
    let text = read_file(file).context(Operation::Read, file)?;
    Ok(first_line(&text).to_owned())
}

/// Writes a setting to its file, which has to exist.
fn write_setting(directory: &HostPath, setting: &CgroupSetting) -> Result<()> {
    let file = directory.join(&setting.file);
    // Opened without O_CREAT, for which the kernel refuses a missing file with a misleading error.
    let opened = File::options().write(true).open(&file);
    let written = opened.and_then(|mut opened| opened.write_all(format!("{}\n", setting.value).as_bytes()));
    written.map_err(|e| Error::CgroupSetting { setting: setting.clone(), file, cause: errno(&e) })
}

fn write_line(file: &HostPath, value: &str) -> Result<()> {
    // One write with the newline, because the kernel takes each write as a whole value.
    std::fs::write(file, format!("{value}\n")).context(Operation::Write, file)
}
