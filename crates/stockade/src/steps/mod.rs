//! The steps that create a jail. Each can apply and undo itself, describe itself, and be serialised.
//!
//! Undo is idempotent, and tolerates a step that was not applied or was interrupted: after a crash it is
//! unknown how many steps were applied.

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

/// The context in which the steps of one jail are applied and undone. It opens the jail's tree once.
#[derive(Debug)]
pub struct StepContext {
    /// The jail's paths.
    pub(crate) layout: Layout,
    /// The nonce of the jail's receipt, which marks everything created for it; `None` without a receipt.
    pub(crate) mark: Option<Nonce>,
    /// Whether the receipt is of this boot. Otherwise its processes have exited, and its pids are those of others.
    pub(crate) this_boot: bool,
    /// The VMM's mount namespace, if a bind has to be attached there at once.
    pub(crate) mounts: Option<OwnedFd>,
    /// The exit status of the VMM, if the teardown or a failed launch has obtained it.
    exit_status: Cell<Option<ExitStatus>>,
    /// The cgroups above the jail's own that this process created.
    parents: RefCell<Vec<HostPath>>,
    /// A network namespace that another thread is creating.
    network: RefCell<Option<PendingNamespace>>,
    /// Paths that are removed with the jail's directory, and whether they were removed.
    tracked: RefCell<BTreeMap<PathBuf, bool>>,
    /// The privileges that placed files have lost.
    stripped: RefCell<Vec<Stripped>>,
    tree: OnceCell<JailRoot>,
}

impl StepContext {
    /// The context of the jail with this layout.
    ///
    /// # Arguments
    /// `mark` is the nonce of the jail's receipt. Everything is marked with it, and only objects with this mark are
    /// removed.
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

    /// Whether the jail has a receipt. Without one it is created as Firecracker's jailer does, and never undone.
    pub(crate) fn is_recorded(&self) -> bool {
        self.mark.is_some()
    }

    /// Records a new cgroup above the jail's own.
    pub(crate) fn note_parent(&self, cgroup: HostPath) {
        self.parents.borrow_mut().push(cgroup);
    }

    /// Removes the recorded cgroups above that of a jail in which no VMM has run. The kernel keeps those that others
    /// use.
    pub(crate) fn remove_parents(&self) {
        for cgroup in self.parents.take().iter().rev() {
            let _ = rustix::fs::rmdir(cgroup.as_path());
        }
    }

    fn note_stripped(&self, stripped: Option<Stripped>) {
        self.stripped.borrow_mut().extend(stripped);
    }

    /// The privileges that placed files have lost since the last call.
    pub(crate) fn take_stripped(&self) -> Vec<Stripped> {
        self.stripped.take()
    }

    /// Keeps the exit status of the VMM, for the tombstone. `None` changes nothing.
    pub(crate) fn set_exit_status(&self, status: Option<ExitStatus>) {
        self.exit_status.set(status.or(self.exit_status.get()));
    }

    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        self.exit_status.get()
    }

    /// Begins to create a network namespace, for the step that gives it its name.
    pub(crate) fn begin_network(&self) {
        // If no thread can be started, the step creates it.
        self.network.replace(begin_network().ok());
    }

    fn network(&self) -> std::io::Result<OwnedFd> {
        self.network.take().map_or_else(new_network, PendingNamespace::wait)
    }

    /// Records whether the path is removed with the jail's directory (see [`Self::was_removed`]).
    pub(crate) fn track_removal(&self, path: &JailPath) {
        self.tracked
            .borrow_mut()
            .insert(self.layout.root().join(path.relative()).as_path().to_owned(), false);
    }

    fn note_removed(&self, path: &HostPath) {
        if let Some(removed) = self.tracked.borrow_mut().get_mut(path.as_path()) {
            *removed = true;
        }
    }

    /// Whether a tracked path was removed.
    pub(crate) fn was_removed(&self, path: &JailPath) -> bool {
        let path = self.layout.root().join(path.relative());
        self.tracked.borrow().get(path.as_path()) == Some(&true)
    }

    /// The jail's tree.
    ///
    /// # Errors
    /// Returns an error if the tree does not exist or cannot be opened.
    pub(crate) fn tree(&self) -> Result<&JailRoot> {
        self.find_tree()?.ok_or(Errno::NOENT).context(Operation::Open, self.layout.root())
    }

    /// The jail's tree, if it exists.
    pub(crate) fn find_tree(&self) -> Result<Option<&JailRoot>> {
        if self.tree.get().is_none()
            && let Some(tree) =
                JailRoot::open(self.layout.base(), &self.layout.root_below_base(), self.is_recorded())?
        {
            return Ok(Some(self.tree.get_or_init(|| tree)));
        }
        Ok(self.tree.get())
    }

    /// The jail's tree, if it exists and was created for this receipt.
    ///
    /// Every undo uses this one: a jail of the same name may belong to another receipt.
    pub(crate) fn own_tree(&self) -> Result<Option<&JailRoot>> {
        if self.is_own()? { self.find_tree() } else { Ok(None) }
    }

    /// Closes the jail's tree to all but root, so that no process replaces anything in it during the removal.
    ///
    /// A process with an open directory of the tree can still act in it. The removal tolerates that.
    pub(crate) fn close(&self) {
        // If it cannot be closed, it is removed without that.
        if let Ok(Some(tree)) = self.own_tree() {
            let _ = set_mode_and_owner(tree.root(), 0o700, Owner { uid: 0, gid: 0 }, &self.layout.root());
        }
    }

    /// Whether the jail's directory was created for this receipt. Without a receipt any directory counts.
    pub(crate) fn is_own(&self) -> Result<bool> {
        let Some(marker) = self.marker() else { return Ok(true) };
        let marker = self.layout.jail_dir().join(marker);
        match rustix::fs::lstat(marker.as_path()) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(false),
            Err(cause) => Err(cause).context(Operation::Inspect, marker),
        }
    }

    /// The name of the file beside the jail's root that marks the directory for its receipt.
    ///
    /// The file and the directory belong to root, so the jail's uid cannot change them.
    pub(crate) fn marker(&self) -> Option<String> {
        self.mark.as_ref().map(own_name)
    }

    /// Keeps the jail's tree, as opened by the step that created its root.
    pub(crate) fn set_tree(&self, tree: JailRoot) {
        // A tree that is already set is the same.
        let _ = self.tree.set(tree);
    }

    /// Removes a path in the jail's own tree.
    fn remove(&self, path: &JailPath) -> Result<Removal> {
        match self.own_tree()? {
            Some(tree) => Ok(tree.remove(path)?),
            None => Ok(Removal::NeverThere),
        }
    }

    /// A unique name for temporary files in the jail's tree.
    pub(crate) fn temporary_name(&self) -> String {
        self.marker().unwrap_or_else(|| format!(".stockade-{}", std::process::id()))
    }
}

/// The outcome of undoing a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UndoOutcome {
    /// The object was removed.
    Removed,
    /// The object did not exist.
    NeverThere,
    /// The object stays for this reason, for example because other jails use it.
    Kept(String),
    /// The object, or a part of it, could not be removed, for this reason.
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

/// The reason why an object stays that belongs to another jail or program.
const NOT_OWN: &str = "it was not created for this jail";

/// The behaviour of a kind of step.
trait StepKind: fmt::Display {
    /// Creates the object. After an error, `undo` removes what exists of it.
    fn apply(&self, ctx: &StepContext) -> Result<()>;

    /// The same, with reports of progress for steps that can take long.
    fn apply_with_progress(&self, ctx: &StepContext, _on_progress: &mut OnProgress<'_>) -> Result<()> {
        self.apply(ctx)
    }

    /// Removes the object.
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome>;
}

macro_rules! steps {
    ($($(#[$doc:meta])* $kind:ident),+ $(,)?) => {
        /// One object that is created for a jail.
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
    /// A directory in the jail.
    #[serde(rename = "folder")]
    Directory,
    /// A device node in the jail.
    DeviceNode,
    /// A file in the jail.
    PlacedFile,
    /// A directory in the jail, with everything in it.
    PlacedTree,
    /// A bind of a file or directory of the host.
    Bind,
    /// The kernel's description of the processor.
    CpuInfo,
    /// A ramfs in the jail.
    Ramfs,
    /// A network namespace with a name.
    NamedNetns,
    /// The jail's cgroup in one cgroup v1 hierarchy.
    CgroupV1,
    /// The jail's cgroup in the unified hierarchy.
    CgroupV2,
    /// An object that another program creates for the jail.
    #[serde(rename = "by-name")]
    External,
    /// The VMM's process.
    Vmm,
}

impl Step {
    /// Applies the step.
    ///
    /// # Errors
    /// Returns the kernel's error with the operation and its argument, or [`crate::Error::InTheWay`], after
    /// which nothing was created.
    pub fn apply(&self, ctx: &StepContext) -> Result<()> {
        log::info!("create {self}");
        self.kind().apply(ctx)
    }

    /// The same, with reports of the progress of a copy.
    pub(crate) fn apply_with_progress(
        &self,
        ctx: &StepContext,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<()> {
        log::info!("create {self}");
        self.kind().apply_with_progress(ctx, on_progress)
    }

    /// The path in the jail of a placed file, directory or device.
    pub(crate) fn placed_at(&self) -> Option<&JailPath> {
        match self {
            Self::PlacedFile(file) => Some(&file.path),
            Self::PlacedTree(tree) => Some(&tree.path),
            Self::DeviceNode(node) => Some(&node.path),
            Self::Bind(bind) => Some(&bind.path),
            _ => None,
        }
    }

    /// The path in the jail, if the step is undone by removing this path alone.
    pub(crate) fn in_directory(&self) -> Option<&JailPath> {
        match self {
            // The root is part of the directory's own step.
            Self::Directory(directory) => Some(&directory.path).filter(|path| **path != JailPath::root()),
            Self::CpuInfo(cpu_info) => Some(&cpu_info.target),
            other => other.placed_at(),
        }
    }

    /// The cgroup on the host that the step, or another program, creates.
    pub(crate) fn cgroup(&self) -> Option<HostPath> {
        match self {
            Self::CgroupV1(cgroup) => Some(cgroup.directory()),
            Self::CgroupV2(cgroup) => Some(cgroup.directory()),
            Self::External(External { what: ExternalKind::Cgroup, path }) => Some(path.clone()),
            _ => None,
        }
    }

    /// Whether the jail can be used without the object.
    pub(crate) fn is_optional(&self) -> bool {
        matches!(self, Self::DeviceNode(DeviceNode { optional: true, .. }))
    }

    /// The privileges that a placed file or directory loses, as the source is on the host now.
    ///
    /// `None` also for a source that cannot be read, because it cannot be placed either.
    pub fn strips(&self) -> Option<Stripped> {
        match self {
            Self::PlacedFile(file) => file.strips(),
            Self::PlacedTree(tree) => tree.strips(),
            _ => None,
        }
    }

    /// Undoes the step, even if it was never applied or was undone before.
    ///
    /// An error is returned as [`UndoOutcome::Left`], with its text as the reason.
    pub fn undo(&self, ctx: &StepContext) -> UndoOutcome {
        self.kind().undo(ctx).unwrap_or_else(|error| UndoOutcome::Left(error.to_string()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}
