//! Device nodes in the jail.

use std::fmt;

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::file::take_out;
use super::{Note, StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Operation, Result};
use crate::spec::{JailPath, Owner};
use crate::sys;
use crate::sys::jail_root::Node;

/// A device node in the jail.
///
/// Its owner may read and write it. If it is read-only, its owner and its group may only read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Its path in the jail.
    pub path: JailPath,
    /// Whether it is a block device, otherwise a character device.
    pub block: bool,
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// Its owner.
    pub owner: Owner,
    /// Whether the VMM can run without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Whether it is read-only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl DeviceNode {
    /// A character device that its owner may read and write.
    pub fn character(path: JailPath, major: u32, minor: u32, owner: Owner) -> Self {
        Self { path, block: false, major, minor, owner, optional: false, read_only: false }
    }
}

impl StepKind for DeviceNode {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        let node = Node {
            kind: if self.block { FileType::BlockDevice } else { FileType::CharacterDevice },
            device: rustix::fs::makedev(self.major, self.minor),
            mode: if self.read_only { Mode::RUSR | Mode::RGRP } else { Mode::RUSR | Mode::WUSR },
            owner: self.owner,
        };
        match ctx.tree()?.make_node(&self.path, &node) {
            // A devices cgroup or a user namespace forbids it. The drop-in has a warning of its own for this.
            Err(sys::error::Error {
                operation: Operation::MakeNode,
                cause: cause @ (Errno::PERM | Errno::ACCESS),
                ..
            }) if self.optional && ctx.is_recorded() => {
                ctx.note(Note::WithoutDevice { path: self.path.clone(), cause });
                Ok(())
            }
            made => Ok(made?),
        }
    }
}

impl Undo for DeviceNode {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        take_out(ctx, &self.path)
    }
}

impl fmt::Display for DeviceNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.block { "block" } else { "character" };
        write!(f, "{kind} device {} ({}:{}), owner {}", self.path, self.major, self.minor, self.owner)?;
        f.write_str(if self.read_only { ", read-only" } else { "" })
    }
}
