//! Objects that another program creates for a jail. They have no mark, and are known only by their names.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::directory::MARKER;
use super::{JailDirectory, SharedDirectory, StepContext, StepKind, Undo, UndoOutcome, netns};
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{HostPath, JailPath, Layout};
use crate::sys::cgroup;
use crate::sys::jail_root::JailRoot;
use crate::sys::mark::{self, MarkOwner};
use crate::sys::modes::{self, PUBLIC, is_roots_own};
use crate::sys::open::{INSIDE, open_directory};
use crate::sys::own_name::is_own_name;
use crate::sys::remove_tree::{Removal, remove};
use crate::sys::rooted::kill_if_rooted_at;

/// An object that another program, for example `jailer`, creates for the jail.
///
/// Applying the step creates nothing. Undoing it removes the object with this name, unless that carries the mark of
/// another receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct External {
    /// Its kind.
    pub what: ExternalKind,
    /// Its path; for processes the path of their root.
    pub path: HostPath,
}

/// The kind of an external object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalKind {
    /// The jail's directory, with the root in it.
    Directory,
    /// A root without a directory of its own ([`Layout::lone_root`]). Unlike the others, the jail's caller creates it,
    /// and it is never taken over.
    LoneRoot,
    /// The processes whose root is the jail's.
    Processes,
    /// The jail's cgroup in one hierarchy.
    Cgroup,
    /// A network namespace.
    Netns,
}

impl StepKind for External {
    fn apply(&self, _: &StepContext) -> Result<()> {
        Ok(())
    }
}

impl Undo for External {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        match self.what {
            // It did not outlive its boot, so an object with this name belongs to another program.
            ExternalKind::Cgroup | ExternalKind::Netns if !ctx.this_boot => Ok(UndoOutcome::NeverThere),
            ExternalKind::Directory => remove_directory(ctx),
            ExternalKind::LoneRoot => remove_lone_root(ctx),
            ExternalKind::Processes => kill_processes(ctx),
            ExternalKind::Cgroup => remove_cgroup(&self.path, ctx),
            ExternalKind::Netns => {
                let name = self.path.as_path().file_name().and_then(|name| name.to_str());
                netns::remove(name.unwrap_or_default(), ctx, netns::Foreign::Remove)
            }
        }
    }
}

impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            ExternalKind::Directory => "jail directory",
            ExternalKind::LoneRoot => "root",
            ExternalKind::Processes => "processes in",
            ExternalKind::Cgroup => "cgroup",
            ExternalKind::Netns => "network namespace",
        };
        write!(f, "{what} {}", self.path)
    }
}

/// The owner of a jail's directory.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// This receipt, whose mark it carries now.
    Own,
    /// Another receipt.
    Other,
    /// The directory does not exist.
    Missing,
}

/// Marks the jail's directory for this receipt, unless it is marked for another.
///
/// From then on everything in it is undone as if stockade had created it.
fn claim(ctx: &StepContext) -> Result<Claim> {
    let (Some(marker), at) = (ctx.marker(), ctx.layout.jail_dir()) else { return Ok(Claim::Missing) };
    let Some(directory) = open(&at)? else { return Ok(Claim::Missing) };
    for entry in std::fs::read_dir(&at).context(Operation::Read, &at)? {
        let name = entry.context(Operation::Read, &at)?.file_name();
        if name != *marker && name.to_str().is_some_and(is_own_name) {
            return Ok(Claim::Other);
        }
    }
    modes::create_file(&directory, &marker, OFlags::empty(), MARKER)
        .context(Operation::Open, at.join(&marker))?;
    Ok(Claim::Own)
}

/// Opens a directory; `None` if it does not exist.
fn open(path: &HostPath) -> Result<Option<OwnedFd>> {
    match open_directory(CWD, path.as_path(), ResolveFlags::NO_MAGICLINKS) {
        Ok(directory) => Ok(Some(directory)),
        // A name that is too long cannot have been created.
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
        Err(cause) => Err(cause).context(Operation::Open, path),
    }
}

/// Creates the jail's directory and its root, or takes over existing ones.
pub(crate) fn make_root(ctx: &StepContext) -> Result<()> {
    let (directory, root) = (ctx.layout.jail_dir(), ctx.layout.root());
    if ctx.layout.has_lone_root() {
        return make_lone_root(ctx, &root);
    }
    SharedDirectory { path: ctx.layout.exec_dir() }.apply(ctx)?;
    make(&directory, PUBLIC)?;
    if claim(ctx)? == Claim::Other {
        return Err(Error::InTheWay { what: format!("directory '{directory}'") });
    }
    make(&root, PUBLIC)
}

/// Creates a root without a directory of its own. The marker beside it is first, so an unmarked root is another jail's.
fn make_lone_root(ctx: &StepContext, root: &HostPath) -> Result<()> {
    let in_the_way = || Error::InTheWay { what: format!("directory '{root}'") };
    SharedDirectory { path: ctx.layout.exec_dir() }.apply(ctx)?;
    if !ctx.is_own()? {
        if rustix::fs::lstat(root.as_path()).is_ok() {
            return Err(in_the_way());
        }
        let (Some(marker), at) = (ctx.marker(), ctx.layout.exec_dir()) else { return Err(in_the_way()) };
        let directory = open(&at)?.ok_or(Errno::NOENT).context(Operation::Open, &at)?;
        modes::create_file(&directory, &marker, OFlags::EXCL, MARKER)
            .context(Operation::Open, at.join(&marker))?;
    }
    make(root, PUBLIC)
}

fn remove_lone_root(ctx: &StepContext) -> Result<UndoOutcome> {
    let (Some(marker), at, root) = (ctx.marker(), ctx.layout.exec_dir(), ctx.layout.root()) else {
        return Ok(UndoOutcome::NeverThere);
    };
    if !ctx.is_own()? {
        return Ok(UndoOutcome::NeverThere);
    }
    ctx.close();
    let Some(directory) = open(&at)? else { return Ok(UndoOutcome::NeverThere) };
    if let left @ Removal::Left(..) = remove(directory.as_fd(), OsStr::new(Layout::ROOT), &root) {
        return Ok(left.into());
    }
    // The marker is last: if this process is killed, the root is still marked.
    Ok(remove(directory.as_fd(), OsStr::new(&marker), &at.join(&marker)).into())
}

/// Refuses a directory that is below one in which another user can write, such as the root of another jail.
pub(crate) fn expect_roots_own(base: &HostPath, below: &Path) -> Result<()> {
    let mut at = base.as_path().to_owned();
    for name in below {
        at.push(name);
        match rustix::fs::lstat(&at) {
            Err(Errno::NOENT) => return Ok(()),
            Ok(facts) if FileType::from_raw_mode(facts.st_mode).is_dir() && is_roots_own(&facts) => (),
            Ok(_) => return Err(Error::InTheWay { what: format!("'{}'", at.display()) }),
            Err(cause) => return Err(cause).context(Operation::Inspect, at.display()),
        }
    }
    Ok(())
}

fn make(path: &HostPath, mode: u32) -> Result<()> {
    modes::make_directory(path.as_path(), mode).map(drop).context(Operation::CreateDirectory, path)
}

fn kept_for_another() -> UndoOutcome {
    UndoOutcome::Kept("it was created for another jail".into())
}

fn remove_directory(ctx: &StepContext) -> Result<UndoOutcome> {
    match claim(ctx)? {
        Claim::Own if is_executed(ctx)? => {
            let executable = ctx.layout.root().join(ctx.layout.exec_name());
            Ok(UndoOutcome::Left(format!(
                "a process that cannot be seen here executes '{executable}'; end it"
            )))
        }
        Claim::Own => {
            // From here on no other uid can replace anything in it.
            ctx.close();
            JailDirectory { path: ctx.layout.jail_dir(), take_over: true }.undo(ctx)
        }
        Claim::Other => Ok(kept_for_another()),
        Claim::Missing => Ok(UndoOutcome::NeverThere),
    }
}

/// Whether a process executes the jail's executable, which has no other name. Those that can be seen were killed before.
fn is_executed(ctx: &StepContext) -> Result<bool> {
    let executable = JailPath::new(ctx.layout.exec_name())?;
    Ok(ctx.own_tree()?.is_some_and(|tree| tree.links_of_busy(&executable) == Some(1)))
}

fn kill_processes(ctx: &StepContext) -> Result<UndoOutcome> {
    if !ctx.this_boot || claim(ctx)? != Claim::Own {
        return Ok(UndoOutcome::NeverThere);
    }
    let Some(tree) = ctx.own_tree()? else { return Ok(UndoOutcome::NeverThere) };
    // The pid file saves the first search. Any process in the jail may have written it, so it is only a hint.
    let mut hinted = false;
    if let Some(pid) = read_pid(tree, &ctx.layout) {
        hinted = ctx.patience.spend(|deadline| kill_if_rooted_at(tree.root(), pid, deadline))?;
    }
    // Those that cannot be inspected are known by the executable: see `remove_directory`.
    Ok(match ctx.kill_in(tree, |_| false)? {
        UndoOutcome::NeverThere if hinted => UndoOutcome::Removed,
        searched => searched,
    })
}

/// The pid in the jail's pid file.
fn read_pid(tree: &JailRoot, layout: &Layout) -> Option<i32> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(tree.root(), layout.pid_file(), flags, Mode::empty(), INSIDE).ok()?;
    let mut text = [0; 16];
    // A named pipe under this name has nothing to read, and O_NONBLOCK keeps it from blocking.
    let length = rustix::io::read(file, &mut text).unwrap_or_default();
    str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

fn remove_cgroup(path: &HostPath, ctx: &StepContext) -> Result<UndoOutcome> {
    let Some(opened) = open(path)? else { return Ok(UndoOutcome::NeverThere) };
    let found = mark::read(opened.as_fd()).context(Operation::ReadMark, path)?;
    match found.owner(ctx.mark.as_ref()) {
        MarkOwner::Other => Ok(kept_for_another()),
        // The program that created it sets no mark.
        MarkOwner::This | MarkOwner::Unknown => {
            Ok(ctx.patience.spend(|deadline| cgroup::empty_and_remove(path, deadline))?.into())
        }
    }
}

/// The directory that another program creates for a jail with this layout, and the processes in it.
pub(crate) fn directory_and_processes(layout: &Layout) -> Vec<External> {
    if layout.has_lone_root() {
        // No program creates it, or executes anything in it.
        return vec![External { what: ExternalKind::LoneRoot, path: layout.root() }];
    }
    vec![
        External { what: ExternalKind::Directory, path: layout.jail_dir() },
        External { what: ExternalKind::Processes, path: layout.root() },
    ]
}
