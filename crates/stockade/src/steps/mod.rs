//! The steps that create a jail. Each can apply and undo itself, describe itself, and be serialised.
//!
//! Undo is idempotent, and tolerates a step that was not applied or was interrupted: after a crash it is
//! unknown how many steps were applied.

mod bind;
mod cgroup;
mod context;
mod cpu_info;
mod device;
mod directory;
mod external;
mod file;
mod netns;
mod placed_tree;
mod ramfs;
mod shared_netns;
mod vmm;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::entry::{Bind, Inode};
pub use cgroup::{CgroupV1, CgroupV2};
pub(crate) use cgroup::{is_of_another, may_be_in_use, with_own};
pub use context::{Note, StepContext};
pub use cpu_info::{CpuInfo, FIRST_CPU};
pub use device::DeviceNode;
pub use directory::{Directory, JailDirectory, SharedDirectory};
pub use external::{External, ExternalKind};
pub(crate) use external::{directory_and_processes, expect_roots_own, make_root};
pub use file::{FileHow, PlacedFile};
pub(crate) use file::{may_be_linked, share_with};
pub use netns::NamedNetns;
pub use placed_tree::PlacedTree;
pub use ramfs::Ramfs;
pub use shared_netns::SharedNetns;
pub use vmm::Vmm;
pub(crate) use vmm::unseen;

use crate::error::Result;
use crate::spec::{HostPath, JailPath, Stripped};
use crate::sys::OnProgress;
use crate::sys::remove_tree::Removal;

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
}

/// The removal of what a kind of step creates. It is a trait of its own because the drop-in never undoes a step: its
/// binary does not contain the removals.
trait Undo {
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

            // Not by `kind`, with which the drop-in would contain the code of all kinds.
            fn shown(&self) -> &dyn fmt::Display {
                match self { $(Self::$kind(step) => step),+ }
            }

            fn undoable(&self) -> &dyn Undo {
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
    /// The use of a network namespace that was created for another jail.
    SharedNetns,
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

    /// Applies a step of the drop-in. Its plan has only these kinds, and so it does not contain the code of the others.
    pub(crate) fn apply_in_drop_in(&self, ctx: &StepContext) -> Result<()> {
        log::info!("create {self}");
        match self {
            Self::SharedDirectory(step) => step.apply(ctx),
            Self::JailDirectory(step) => step.apply(ctx),
            Self::Directory(step) => step.apply(ctx),
            Self::DeviceNode(step) => step.apply(ctx),
            Self::PlacedFile(step) => step.apply(ctx),
            Self::CpuInfo(step) => step.apply(ctx),
            Self::Ramfs(step) => step.apply(ctx),
            Self::CgroupV1(step) => step.apply(ctx),
            Self::CgroupV2(step) => step.apply(ctx),
            Self::PlacedTree(_)
            | Self::Bind(_)
            | Self::NamedNetns(_)
            | Self::SharedNetns(_)
            | Self::External(_)
            | Self::Vmm(_) => unreachable!("the drop-in has no {self}"),
        }
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
            Self::SharedDirectory(_)
            | Self::JailDirectory(_)
            | Self::Directory(_)
            | Self::CpuInfo(_)
            | Self::Ramfs(_)
            | Self::NamedNetns(_)
            | Self::SharedNetns(_)
            | Self::CgroupV1(_)
            | Self::CgroupV2(_)
            | Self::External(_)
            | Self::Vmm(_) => None,
        }
    }

    /// The path in the jail, if the step is undone by removing this path alone.
    pub(crate) fn in_directory(&self) -> Option<&JailPath> {
        match self {
            // The root is part of the directory's own step.
            Self::Directory(directory) => Some(&directory.path).filter(|path| **path != JailPath::root()),
            Self::CpuInfo(cpu_info) => Some(&cpu_info.target),
            Self::PlacedFile(_) | Self::PlacedTree(_) | Self::DeviceNode(_) | Self::Bind(_) => {
                self.placed_at()
            }
            // A ramfs has to be unmounted.
            Self::Ramfs(_)
            | Self::SharedDirectory(_)
            | Self::JailDirectory(_)
            | Self::NamedNetns(_)
            | Self::SharedNetns(_)
            | Self::CgroupV1(_)
            | Self::CgroupV2(_)
            | Self::External(_)
            | Self::Vmm(_) => None,
        }
    }

    /// The cgroup on the host that the step, or another program, creates.
    pub(crate) fn cgroup(&self) -> Option<HostPath> {
        match self {
            Self::CgroupV1(cgroup) => Some(cgroup.directory()),
            Self::CgroupV2(cgroup) => Some(cgroup.directory()),
            Self::External(external) => match external.what {
                ExternalKind::Cgroup => Some(external.path.clone()),
                ExternalKind::Directory
                | ExternalKind::LoneRoot
                | ExternalKind::Processes
                | ExternalKind::Netns => None,
            },
            Self::SharedDirectory(_)
            | Self::JailDirectory(_)
            | Self::Directory(_)
            | Self::DeviceNode(_)
            | Self::PlacedFile(_)
            | Self::PlacedTree(_)
            | Self::Bind(_)
            | Self::CpuInfo(_)
            | Self::Ramfs(_)
            | Self::NamedNetns(_)
            | Self::SharedNetns(_)
            | Self::Vmm(_) => None,
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
            // A device node is created without privileges, and a bind and the processor's description lose none.
            Self::DeviceNode(_)
            | Self::Bind(_)
            | Self::CpuInfo(_)
            | Self::SharedDirectory(_)
            | Self::JailDirectory(_)
            | Self::Directory(_)
            | Self::Ramfs(_)
            | Self::NamedNetns(_)
            | Self::SharedNetns(_)
            | Self::CgroupV1(_)
            | Self::CgroupV2(_)
            | Self::External(_)
            | Self::Vmm(_) => None,
        }
    }

    /// Undoes the step, even if it was never applied or was undone before.
    ///
    /// An error is returned as [`UndoOutcome::Left`], with its text as the reason.
    pub fn undo(&self, ctx: &StepContext) -> UndoOutcome {
        self.undoable().undo(ctx).unwrap_or_else(|error| UndoOutcome::Left(error.to_string()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown().fmt(f)
    }
}
