//! The use of a named network namespace that was created for another jail.

use std::fmt;
use std::path::Path;

use rustix::fs::{CWD, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::netns::{Foreign, remove, user};
use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{NETNS_DIRECTORY, NetnsName};
use crate::sys::netns_users::NetnsUsers;
use crate::sys::open::open_directory;

/// An entry in the list of the jails that use a namespace. The namespace is removed with the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNetns {
    /// Its name.
    pub name: NetnsName,
}

impl StepKind for SharedNetns {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        let directory = open_directory(CWD, Path::new(NETNS_DIRECTORY), ResolveFlags::empty());
        let path = self.name.path();
        let mut list = directory
            .and_then(|directory| NetnsUsers::lock(&directory, self.name.as_str()))
            .context(Operation::Open, &path)?;
        if list.users.is_empty() {
            return Err(Error::InTheWay { what: format!("network namespace '{}'", self.name) });
        }
        list.add(user(ctx)).context(Operation::Write, path)
    }
}

impl Undo for SharedNetns {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        remove(self.name.as_str(), ctx, Foreign::Keep)
    }
}

impl fmt::Display for SharedNetns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shared network namespace {}", self.name)
    }
}
