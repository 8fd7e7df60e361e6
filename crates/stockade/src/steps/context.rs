//! The context in which the steps of one jail are applied and undone.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::io::Errno;
use stockade_syscalls::namespace::{PendingNamespace, begin_network, new_network};

use super::UndoOutcome;
use super::vmm::{does_not_exit, unseen};
use crate::error::{Context, Operation, Result};
use crate::spec::{ExitStatus, HostPath, JailPath, Layout, Nonce, Owner, Reason, Stripped};
use crate::sys::jail_root::JailRoot;
use crate::sys::modes::set_mode_and_owner;
use crate::sys::own_name::{own_name, temporary_name};
use crate::sys::process::Patience;
use crate::sys::remove_tree::Removal;
use crate::sys::rooted::{Killed, kill_rooted_at};

/// What a person should know about a jail that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A cgroup with the name of the jail's was removed with its values, and created again.
    ReplacedCgroup(HostPath),
    /// The jail lacks a device node that this process may not create, and that its profile does not need.
    WithoutDevice {
        /// The node.
        path: JailPath,
        /// The kernel's error.
        cause: Errno,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReplacedCgroup(cgroup) => {
                write!(
                    f,
                    "replaced cgroup '{cgroup}' and its values: no process was in it, and no jail owns it"
                )
            }
            Self::WithoutDevice { path, cause } => {
                write!(f, "the jail has no '{path}': cannot make device node '{path}': {}", Reason(*cause))
            }
        }
    }
}

/// The context in which the steps of one jail are applied and undone. It opens the jail's tree once.
#[derive(Debug)]
pub struct StepContext {
    /// The jail's paths.
    pub(crate) layout: Layout,
    /// The nonce of the jail's receipt, which marks everything created for it; `None` without a receipt.
    pub(crate) mark: Option<Nonce>,
    /// Whether the receipt is of this boot. Otherwise its processes have exited, and its pids are those of others.
    pub(crate) this_boot: bool,
    /// The user of the jail's processes; `None` without a receipt.
    pub(crate) uid: Option<u32>,
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
    /// What a person should know about the steps that were applied.
    notes: RefCell<Vec<Note>>,
    /// The privileges that placed files have lost.
    stripped: RefCell<Vec<Stripped>>,
    /// The time that the jail's processes have to exit.
    pub(crate) patience: Patience,
    /// Whether a process may be in the jail's tree that cannot be inspected. Then the tree stays.
    unseen: Cell<bool>,
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
            uid: None,
            mounts: None,
            exit_status: Cell::new(None),
            parents: RefCell::default(),
            network: RefCell::default(),
            tracked: RefCell::default(),
            notes: RefCell::default(),
            stripped: RefCell::default(),
            patience: Patience::default(),
            unseen: Cell::new(false),
            tree: OnceCell::new(),
        }
    }

    pub(crate) fn of_boot(self, this_boot: bool) -> Self {
        Self { this_boot, ..self }
    }

    pub(crate) fn of_user(self, uid: u32) -> Self {
        Self { uid: Some(uid), ..self }
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

    /// Records a note, for the creator of the jail.
    pub(crate) fn note(&self, note: Note) {
        log::info!("{note}");
        self.notes.borrow_mut().push(note);
    }

    /// The notes since the last call.
    pub(crate) fn take_notes(&self) -> Vec<Note> {
        self.notes.take()
    }

    pub(super) fn note_stripped(&self, stripped: Option<Stripped>) {
        self.stripped.borrow_mut().extend(stripped);
    }

    /// The privileges that placed files have lost since the last call.
    pub(crate) fn take_stripped(&self) -> Vec<Stripped> {
        self.stripped.take()
    }

    /// Kills the processes in a tree. The outcome is an error or [`UndoOutcome::Left`] if one may remain.
    ///
    /// # Arguments
    /// `is_suspect` is whether a process that cannot be inspected may be in the tree.
    pub(super) fn kill_in(&self, tree: &JailRoot, is_suspect: impl Fn(i32) -> bool) -> Result<UndoOutcome> {
        let killed = self.patience.spend(|deadline| kill_rooted_at(tree.root(), deadline));
        // An error too means that a process may be there.
        self.set_unseen(true);
        let killed = killed?;
        if let Some(&suspect) = killed.unseen.iter().find(|pid| is_suspect(**pid)) {
            return Ok(UndoOutcome::Left(unseen(suspect)));
        }
        self.set_unseen(false);
        Ok(match killed {
            Killed { survivor: Some(survivor), .. } => does_not_exit(survivor),
            Killed { count: 0, .. } => UndoOutcome::NeverThere,
            Killed { .. } => UndoOutcome::Removed,
        })
    }

    pub(super) fn set_unseen(&self, unseen: bool) {
        self.unseen.set(unseen);
    }

    /// Whether a process may be in the jail's tree that cannot be inspected. Then the tree stays.
    pub(crate) fn has_unseen(&self) -> bool {
        self.unseen.get()
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

    pub(super) fn network(&self) -> std::io::Result<OwnedFd> {
        self.network.take().map_or_else(new_network, PendingNamespace::wait)
    }

    /// Records whether the path is removed with the jail's directory (see [`Self::was_removed`]).
    pub(crate) fn track_removal(&self, path: &JailPath) {
        self.tracked
            .borrow_mut()
            .insert(self.layout.root().join(path.relative()).as_path().to_owned(), false);
    }

    pub(super) fn note_removed(&self, path: &HostPath) {
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
    pub(super) fn remove(&self, path: &JailPath) -> Result<Removal> {
        match self.own_tree()? {
            Some(tree) => Ok(tree.remove(path)?),
            None => Ok(Removal::NeverThere),
        }
    }

    /// Removes what interrupted placements left beside `path` in the jail's own tree.
    pub(super) fn remove_temporaries(&self, path: &JailPath) -> Result<Removal> {
        match self.own_tree()? {
            Some(tree) => Ok(tree.remove_temporaries(path)?),
            None => Ok(Removal::NeverThere),
        }
    }

    /// The name of temporary files of this jail in directories that belong to root.
    pub(crate) fn own_name(&self) -> String {
        self.marker().unwrap_or_else(temporary_name)
    }
}
