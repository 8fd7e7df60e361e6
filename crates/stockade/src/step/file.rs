//! Files of the host placed into the jail, the VMM's executable first of all.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::copy::{Extent, copy};
use super::{Act, Site, Undone};
use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, JailPath, Owner};
use crate::sweep::Removal;

/// A file of the host that is placed into the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Where it is on the host.
    pub source: HostPath,
    /// Where it goes in the jail; missing folders on the way are made.
    pub path: JailPath,
    /// Who owns it there.
    pub owner: Owner,
    /// How it gets there.
    pub how: FileHow,
    /// Whether only a plain file of one name may be replaced; a link is replaced otherwise, never followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expect_plain: bool,
}

/// How a file gets into a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// A further name of the same file, which must have the jail's owner already: the owner of a file that
    /// others use is never changed.
    Link,
    /// A copy with the source's mode.
    Copy,
}

impl Act for PlacedFile {
    fn apply(&self, site: &Site) -> Result<()> {
        let tree = site.tree()?;
        let source = File::open(&self.source).context(Operation::OpenPlaced, &self.source)?;
        tree.make_parents(&self.path, self.owner)?;
        match self.how {
            FileHow::Link => tree.link_file(source.as_fd(), &self.path, &site.temporary_name()),
            FileHow::Copy => {
                let facts = source.metadata().context(Operation::Inspect, &self.source)?;
                let mode = facts.mode() & 0o777;
                let fill = |target: BorrowedFd<'_>| {
                    copy(source.as_fd(), target, Extent { size: facts.len(), blocks: facts.blocks() })
                        .context(
                            Operation::Copy,
                            format!("{} to {}", self.source, tree.host_path(&self.path)),
                        )
                };
                if tree.is_private() {
                    return tree.write_private_file(&self.path, mode, self.owner, fill);
                }
                if self.expect_plain {
                    tree.expect_plain(&self.path)?;
                }
                tree.write_file(&self.path, &site.temporary_name(), mode, Some(self.owner), fill)
            }
        }
    }

    fn undo(&self, site: &Site) -> Result<Undone> {
        take_out(site, &self.path)
    }
}

/// Takes out what was placed, and what is left of it if it was cut off.
pub(super) fn take_out(site: &Site, path: &JailPath) -> Result<Undone> {
    let Some(tree) = site.own_tree()? else { return Ok(Undone::NeverThere) };
    let (folder, _) = path.split();
    let temporary = JailPath::new(folder.join(site.temporary_name()))?;
    let cut_off = tree.remove(&temporary)?;
    match tree.remove(path)? {
        Removal::NeverThere => Ok(cut_off.into()),
        removal => Ok(removal.into()),
    }
}

impl fmt::Display for PlacedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            FileHow::Link => "link",
            FileHow::Copy => "copy",
        };
        write!(f, "file {}, a {how} of {}, owner {}", self.path, self.source, self.owner)
    }
}
