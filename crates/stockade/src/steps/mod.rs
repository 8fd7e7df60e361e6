//! The steps that make a jail: each can apply itself, undo itself, say what it is, and be written down.
//!
//! Undoing is idempotent, and tolerates a step that never happened or was cut off in its middle: after a
//! crash nobody knows how far the list had come.

mod bind;
mod cgroup;
mod cpu_info;
mod device;
mod directory;
mod external;
mod file;
mod netns;
mod placed_tree;
mod ramfs;
mod vmm;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stockade_syscalls::namespace::{PendingNamespace, begin_network, new_network};

pub use crate::entry::{Bind, Inode};
pub(crate) use cgroup::kill_members;
pub use cgroup::{CgroupV1, CgroupV2};
pub use cpu_info::{CpuInfo, FIRST_CPU};
pub use device::DeviceNode;
pub use directory::{Directory, JailDirectory, SharedDirectory};
pub use external::{External, ExternalKind};
pub(crate) use external::{directory_and_processes, make_root};
pub use file::{FileHow, PlacedFile};
pub use netns::NamedNetns;
pub use placed_tree::PlacedTree;
pub use ramfs::Ramfs;
pub use vmm::Vmm;

use crate::error::{Context, Operation, Result};
use crate::spec::{ExitStatus, HostPath, JailPath, Layout, Nonce, Owner, Stripped};
use crate::sys::OnProgress;
use crate::sys::jail_root::{JailRoot, set_mode_and_owner};
use crate::sys::owned_dir::own_name;
use crate::sys::remove_tree::Removal;

/// Where steps are carried out: one jail, its tree opened once.
#[derive(Debug)]
pub struct StepContext {
    /// The jail's paths.
    pub(crate) layout: Layout,
    /// What marks the things made for this jail's receipt; `None` if there is no receipt.
    pub(crate) mark: Option<Nonce>,
    /// Whether the processes on the receipt are of this boot; otherwise they are gone, and their pids others'.
    pub(crate) this_boot: bool,
    /// The VMM's mount namespace, if what is placed has to be attached there at once.
    pub(crate) mounts: Option<OwnedFd>,
    /// How the VMM ended, if that was learnt while it was torn down.
    exit_status: Cell<Option<ExitStatus>>,
    /// The cgroups above the jail's own that this process has made.
    parents: RefCell<Vec<HostPath>>,
    /// A network namespace that is being made meanwhile.
    network: RefCell<Option<PendingNamespace>>,
    /// What goes with the jail's directory, and whether it is known to be gone.
    tracked: RefCell<BTreeMap<PathBuf, bool>>,
    /// What was taken away from what was placed.
    stripped: RefCell<Vec<Stripped>>,
    tree: OnceCell<JailRoot>,
}

impl StepContext {
    /// The place of the jail with this layout. With a `mark` whatever is made says that it belongs to the
    /// receipt with that nonce, and only what says so is removed.
    pub fn new(layout: Layout, mark: Option<Nonce>) -> Self {
        Self {
            layout,
            mark,
            this_boot: true,
            mounts: None,
            exit_status: Cell::new(None),
            parents: RefCell::default(),
            network: RefCell::default(),
            tracked: RefCell::default(),
            stripped: RefCell::default(),
            tree: OnceCell::new(),
        }
    }

    pub(crate) fn of_boot(self, this_boot: bool) -> Self {
        Self { this_boot, ..self }
    }

    /// Whether there is a receipt of what is made here. Otherwise it is made as the original jailer makes it, and
    /// left.
    pub(crate) fn is_recorded(&self) -> bool {
        self.mark.is_some()
    }

    /// Remembers a cgroup above the jail's own that was not there before.
    pub(crate) fn note_parent(&self, cgroup: HostPath) {
        self.parents.borrow_mut().push(cgroup);
    }

    /// Removes the cgroups that were made above that of a jail in which no VMM has run. The kernel keeps those
    /// in which others are by now.
    pub(crate) fn remove_parents(&self) {
        for cgroup in self.parents.take().iter().rev() {
            let _ = rustix::fs::rmdir(cgroup.as_path());
        }
    }

    /// Notes what was taken away from something that was placed.
    fn note_stripped(&self, stripped: Option<Stripped>) {
        self.stripped.borrow_mut().extend(stripped);
    }

    /// What was taken away since this was asked last.
    pub(crate) fn take_stripped(&self) -> Vec<Stripped> {
        self.stripped.take()
    }

    /// Keeps how the VMM ended, for whoever is told that the jail is gone.
    pub(crate) fn set_exit_status(&self, status: Option<ExitStatus>) {
        self.exit_status.set(status.or(self.exit_status.get()));
    }

    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        self.exit_status.get()
    }

    /// Begins to make a network namespace, for the step that gives it its name.
    pub(crate) fn begin_network(&self) {
        // Where there is no thread for it the step makes it.
        self.network.replace(begin_network().ok());
    }

    /// A new network namespace.
    fn network(&self) -> std::io::Result<OwnedFd> {
        self.network.take().map_or_else(new_network, PendingNamespace::wait)
    }

    /// Where in the jail's directory something lies that is to go with it: whether it was there is to be known.
    pub(crate) fn track_removal(&self, path: &JailPath) {
        self.tracked
            .borrow_mut()
            .insert(self.layout.root().join(path.relative()).as_path().to_owned(), false);
    }

    /// Notes that something of the jail's directory was removed.
    fn note_removed(&self, path: &HostPath) {
        if let Some(gone) = self.tracked.borrow_mut().get_mut(path.as_path()) {
            *gone = true;
        }
    }

    /// Whether what was to go with the jail's directory was removed.
    pub(crate) fn was_removed(&self, path: &JailPath) -> bool {
        let path = self.layout.root().join(path.relative());
        self.tracked.borrow().get(path.as_path()) == Some(&true)
    }

    /// The jail's tree, which must be there.
    pub(crate) fn tree(&self) -> Result<&JailRoot> {
        self.find_tree()?.ok_or(Errno::NOENT).context(Operation::Open, self.layout.root())
    }

    /// The jail's tree, if it is there.
    pub(crate) fn find_tree(&self) -> Result<Option<&JailRoot>> {
        if self.tree.get().is_none()
            && let Some(tree) =
                JailRoot::open(self.layout.base(), &self.layout.root_below_base(), self.is_recorded())?
        {
            return Ok(Some(self.tree.get_or_init(|| tree)));
        }
        Ok(self.tree.get())
    }

    /// The jail's tree, if it is there and was made for this receipt. Whoever undoes asks for this one: a
    /// jail of the same name may be somebody else's.
    pub(crate) fn own_tree(&self) -> Result<Option<&JailRoot>> {
        if self.is_own()? { self.find_tree() } else { Ok(None) }
    }

    /// Closes the jail's tree to everyone but root, so that nobody swaps anything in it while it is removed.
    /// Who holds a folder of it open may go on in there, which the removal bears with.
    pub(crate) fn close(&self) {
        // If it cannot be closed it is removed as it is.
        if let Ok(Some(tree)) = self.own_tree() {
            let _ = set_mode_and_owner(tree.root(), 0o700, Owner { uid: 0, gid: 0 }, &self.layout.root());
        }
    }

    /// Whether the jail's directory was made for this receipt; without a receipt it is whatever is there.
    pub(crate) fn is_own(&self) -> Result<bool> {
        let Some(marker) = self.marker() else { return Ok(true) };
        let marker = self.layout.jail_dir().join(marker);
        match rustix::fs::lstat(marker.as_path()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(false),
            Err(cause) => Err(cause).context(Operation::Inspect, marker),
        }
    }

    /// The file beside the jail's root that tells for which receipt the directory was made. Both belong to
    /// root, so the jail's uid cannot touch it.
    pub(crate) fn marker(&self) -> Option<String> {
        self.mark.as_ref().map(own_name)
    }

    /// Takes the jail's tree from the step that made its root, so that nobody has to open it again.
    pub(crate) fn set_tree(&self, tree: JailRoot) {
        // One that is held already is the same.
        let _ = self.tree.set(tree);
    }

    /// Removes something in the jail's own tree.
    fn remove(&self, path: &JailPath) -> Result<Removal> {
        match self.own_tree()? {
            Some(tree) => Ok(tree.remove(path)?),
            None => Ok(Removal::NeverThere),
        }
    }

    /// A name in the jail's tree that nobody else uses.
    pub(crate) fn temporary_name(&self) -> String {
        self.marker().unwrap_or_else(|| format!(".stockade-{}", std::process::id()))
    }
}

/// What became of a step that was undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoOutcome {
    /// What it made is gone now.
    Removed,
    /// What it made was not there.
    NeverThere,
    /// What it made serves others too, and stays.
    Kept(String),
    /// Something of it is still there, for this reason.
    Left(String),
}

impl From<Removal> for UndoOutcome {
    fn from(removal: Removal) -> Self {
        match removal {
            Removal::Removed => Self::Removed,
            Removal::NeverThere => Self::NeverThere,
            Removal::Kept(why) => Self::Kept(why),
            Removal::Left(path, why) => Self::Left(format!("{path}: {why}")),
        }
    }
}

/// What every step can do.
trait StepKind: fmt::Display {
    /// Makes what the step is for. What failed half-way is left to `undo`.
    fn apply(&self, ctx: &StepContext) -> Result<()>;

    /// The same, telling how far it has come, for what can take long.
    fn apply_with_progress(&self, ctx: &StepContext, _tell: &mut OnProgress<'_>) -> Result<()> {
        self.apply(ctx)
    }

    /// Removes it again.
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome>;
}

macro_rules! steps {
    ($($(#[$doc:meta])* $kind:ident),+ $(,)?) => {
        /// One thing that is made for a jail.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum Step { $($(#[$doc])* $kind($kind)),+ }

        impl Step {
            fn kind(&self) -> &dyn StepKind {
                match self { $(Self::$kind(step) => step),+ }
            }
        }

        $(impl From<$kind> for Step {
            fn from(step: $kind) -> Self {
                Self::$kind(step)
            }
        })+
    };
}

steps! {
    /// A directory that all jails of an executable share.
    SharedDirectory,
    /// The jail's own directory with its root.
    JailDirectory,
    /// A folder in the jail.
    #[serde(rename = "folder")]
    Directory,
    /// A device node in the jail.
    DeviceNode,
    /// A file in the jail.
    PlacedFile,
    /// A directory in the jail, with everything in it.
    PlacedTree,
    /// A file or directory of the host itself, attached in the jail.
    Bind,
    /// What the jail may know of the processor.
    CpuInfo,
    /// A ramfs in the jail.
    Ramfs,
    /// A network namespace with a name.
    NamedNetns,
    /// The jail's cgroup in one hierarchy of version 1.
    CgroupV1,
    /// The jail's cgroup in the unified hierarchy.
    CgroupV2,
    /// What another program makes for the jail.
    #[serde(rename = "by-name")]
    External,
    /// The VMM's process.
    Vmm,
}

impl Step {
    /// Carries the step out.
    ///
    /// # Errors
    /// What the kernel refused, with the operation and its argument. [`crate::Error::InTheWay`] means that
    /// nothing was made.
    pub fn apply(&self, ctx: &StepContext) -> Result<()> {
        log::info!("make {self}");
        self.kind().apply(ctx)
    }

    /// The same, telling how far a long copy has come.
    pub(crate) fn apply_with_progress(&self, ctx: &StepContext, tell: &mut OnProgress<'_>) -> Result<()> {
        log::info!("make {self}");
        self.kind().apply_with_progress(ctx, tell)
    }

    /// Where in the jail it puts a file, directory or device of the host.
    pub(crate) fn placed_at(&self) -> Option<&JailPath> {
        match self {
            Self::PlacedFile(file) => Some(&file.path),
            Self::PlacedTree(tree) => Some(&tree.path),
            Self::DeviceNode(node) => Some(&node.path),
            Self::Bind(bind) => Some(&bind.path),
            _ => None,
        }
    }

    /// Where it is in the jail's directory, if removing that is all that its undoing takes.
    pub(crate) fn in_directory(&self) -> Option<&JailPath> {
        match self {
            // The root is part of the directory's own step.
            Self::Directory(folder) => Some(&folder.path).filter(|path| **path != JailPath::root()),
            Self::CpuInfo(cpu_info) => Some(&cpu_info.target),
            other => other.placed_at(),
        }
    }

    /// The cgroup on the host that it makes, or that another program does.
    pub(crate) fn cgroup(&self) -> Option<HostPath> {
        match self {
            Self::CgroupV1(cgroup) => Some(cgroup.directory()),
            Self::CgroupV2(cgroup) => Some(cgroup.directory()),
            Self::External(External { what: ExternalKind::Cgroup, path }) => Some(path.clone()),
            _ => None,
        }
    }

    /// Whether a jail is of use without it.
    pub(crate) fn is_optional(&self) -> bool {
        matches!(self, Self::DeviceNode(DeviceNode { optional: true, .. }))
    }

    /// What is taken away from what it places, as that is on the host now. What cannot be looked at has nothing
    /// to be taken away: it cannot be placed either.
    pub fn strips(&self) -> Option<Stripped> {
        match self {
            Self::PlacedFile(file) => file.strips(),
            Self::PlacedTree(tree) => tree.strips(),
            _ => None,
        }
    }

    /// Undoes the step, whether it happened, never happened or was undone before. What cannot be undone is
    /// [`UndoOutcome::Left`], with the reason.
    pub fn undo(&self, ctx: &StepContext) -> UndoOutcome {
        self.kind().undo(ctx).unwrap_or_else(|error| UndoOutcome::Left(error.to_string()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}
