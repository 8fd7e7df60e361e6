//! Preparing a jail: plan, receipt, apply.

use std::ffi::OsString;
use std::path::Path;

use rustix::fs::FileType;

use crate::error::{Context, Error, Operation, Result};
use crate::host::Host;
use crate::plan::{Way, plan};
use crate::receipt::{JailState, Receipt};
use crate::spec::{HostPath, JailPath, JailSpec, Owner, SpecError};
use crate::step::enter::EnterStep;
use crate::step::{DeviceNode, FileHow, PlacedFile, PlacedTree, Site, Step};
use crate::store::{Lock, Store};
use crate::teardown::{Report, TeardownOptions, tear_down, undo};

/// A jail that is made and waits for its VMM. Dropping it tears it down, unless it stands by itself (see
/// [`Prepared::leave`]).
#[derive(Debug)]
pub struct Prepared {
    jail: Option<Held>,
    taken_over: Option<Report>,
}

/// What a prepared jail and a running one have in common.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lock: Lock,
    pub(crate) receipt: Receipt,
    pub(crate) site: Site,
}

impl Held {
    pub(crate) fn tear_down(self) -> Result<Report> {
        self.tear_down_with(TeardownOptions::default())
    }

    pub(crate) fn tear_down_with(self, options: TeardownOptions) -> Result<Report> {
        tear_down(self.lock, self.receipt, &self.site, options)
    }

    /// Ends an attempt that failed: a jail that stands by itself stands on, another goes.
    pub(crate) fn give_up(mut self) -> Result<()> {
        if self.receipt.keeper.is_some() {
            return self.tear_down().map(drop);
        }
        self.receipt.steps.retain(|step| !matches!(step, Step::Vmm(_)));
        self.lock.forget_end()?;
        self.lock.write(&self.receipt)
    }

    /// Decides how to place a file, writes that down, and does it.
    pub(crate) fn place(&mut self, source: &Path, name: Option<&Path>, how: How) -> Result<JailPath> {
        let step = placement(self.receipt.spec.owner, &self.receipt.root(), source, name, how)?;
        let path = path_of(&step);
        if matches!(step, Step::PlacedTree(_)) && self.site.tree()?.look(&path)?.is_some() {
            return Err(SpecError::TreeTaken(path).into());
        }
        self.demand_free(&path)?;
        self.append(step.clone())?;
        if let Err(error) = step.apply(&self.site) {
            // Nothing was placed, and what was there before stays; it is only taken off the list again.
            self.receipt.steps.pop();
            self.lock.write(&self.receipt)?;
            return Err(error);
        }
        Ok(path)
    }

    /// Refuses to place something over a folder, or over what the jail itself is made of.
    fn demand_free(&self, path: &JailPath) -> Result<()> {
        let made = &self.receipt.steps[..self.receipt.made];
        let part_of_jail = made.iter().any(|step| match step {
            Step::PlacedFile(file) => &file.path == path,
            Step::DeviceNode(node) => &node.path == path,
            _ => false,
        });
        let part_of_jail = part_of_jail || path == &JailPath::new(self.receipt.layout.pid_file())?;
        let is_folder = self.site.tree()?.look(path)?.is_some_and(|found| {
            rustix::fs::fstat(found).is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode).is_dir())
        });
        if part_of_jail || is_folder {
            return Err(SpecError::Taken(path.clone()).into());
        }
        Ok(())
    }

    /// Writes down a step that is about to be carried out.
    pub(crate) fn append(&mut self, step: Step) -> Result<()> {
        self.receipt.steps.push(step);
        self.lock.write(&self.receipt)
    }
}

/// How a file is to be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// A device as a node; a file as a link where that needs no change of owner, otherwise as a copy; a
    /// directory as a copy.
    #[default]
    Auto,
    /// A further name of the same file.
    Link,
    /// A copy; of a directory, with everything in it.
    Copy,
    /// A device node.
    Node,
}

impl Prepared {
    pub(crate) fn reopened(jail: Held) -> Self {
        Self { jail: Some(jail), taken_over: None }
    }
}

impl Store {
    /// Makes a jail: works out the plan, writes it down, and carries it out. If a step fails, those before
    /// it are undone. What a dead jail of the same id left is removed first.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::Locked`] or [`Error::Exists`] if the id is in use, otherwise what was
    /// refused at which step.
    pub fn prepare(&self, spec: &JailSpec) -> Result<Prepared> {
        let host = Host::read_for(spec)?;
        let plan = plan(spec, &host, Way::Launch)?;
        let (lock, taken_over) = self.take_over(spec)?;
        let receipt = Receipt::new(spec.clone(), host.boot_id, plan);
        if let Err(error) = lock.write(&receipt) {
            // Nothing was made; a place without a receipt is nothing to keep.
            let _ = lock.remove();
            return Err(error);
        }
        let jail = Held { site: receipt.site(), lock, receipt };
        Ok(Prepared { jail: Some(apply(jail)?), taken_over })
    }

    /// Locks the id, and clears away what a dead jail of that id left.
    fn take_over(&self, spec: &JailSpec) -> Result<(Lock, Option<Report>)> {
        let lock = self.lock(&spec.id)?;
        let Some(receipt) = lock.read()? else { return Ok((lock, None)) };
        match (receipt.state(), receipt.vmm()) {
            (JailState::Running, Some(vmm)) => Err(Error::Running { id: spec.id.clone(), pid: vmm.pid }),
            (JailState::Ended, _) => Err(Error::Ended(spec.id.clone())),
            (JailState::Elsewhere, _) => Err(Error::Elsewhere(spec.id.clone())),
            (JailState::Dead, _) => {
                let site = receipt.site();
                let report = tear_down(lock, receipt, &site, TeardownOptions::default())?;
                match report.left.first() {
                    None => Ok((self.lock(&spec.id)?, Some(report))),
                    Some(left) => Err(Error::InTheWay { what: format!("{} ({})", left.what, left.reason) }),
                }
            }
            _ => Err(Error::Exists(spec.id.clone())),
        }
    }
}

/// Carries out all steps, or none.
fn apply(jail: Held) -> Result<Held> {
    for (index, step) in jail.receipt.steps.iter().enumerate() {
        let Err(error) = step.apply(&jail.site) else { continue };
        // What is in the way is not ours to undo.
        let made = if matches!(error, Error::InTheWay { .. }) { index } else { index + 1 };
        let mut remaining = Vec::new();
        undo(&jail.receipt.id, &jail.receipt.steps[..made], &jail.site, &mut remaining);
        let Held { lock, mut receipt, .. } = jail;
        // The first error is the one to tell; what is left stays on the receipt for gc.
        receipt.steps = remaining;
        receipt.over = true;
        let _ = if receipt.steps.is_empty() { lock.remove() } else { lock.write(&receipt) };
        return Err(error);
    }
    Ok(jail)
}

impl Prepared {
    /// What was removed of a dead jail of the same id, if there was one.
    pub fn taken_over(&self) -> Option<&Report> {
        self.taken_over.as_ref()
    }

    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.jail().receipt
    }

    /// The jail's root on the host.
    pub fn root(&self) -> HostPath {
        self.jail().receipt.root()
    }

    /// Places a file, directory or device of the host into the jail, owned by the jail's owner.
    ///
    /// # Arguments
    /// `source` on the host; `name` in the jail, or `None` for the source's own name in the root.
    ///
    /// # Errors
    /// What was refused; [`ErrorKind::InvalidSpec`](crate::ErrorKind::InvalidSpec) if the source is missing
    /// or cannot be placed in this way. Nothing of it stays in the jail then.
    pub fn place(&mut self, source: &Path, name: Option<&Path>, how: How) -> Result<JailPath> {
        self.jail_mut().place(source, name, how)
    }

    /// Leaves the jail standing by itself: it is no longer torn down with this value or this process, and
    /// waits to be opened again (see [`Store::open`]).
    ///
    /// # Errors
    /// What the kernel says of writing the receipt; the jail is torn down then.
    pub fn leave(mut self) -> Result<()> {
        let mut jail = self.take();
        jail.receipt.keeper = None;
        let left = jail.lock.write(&jail.receipt);
        if left.is_err() {
            // The first error is the one to tell.
            let _ = jail.tear_down();
        }
        left
    }

    /// Sets the VMM's own arguments, in the place of those that the specification had.
    pub fn set_arguments(&mut self, arguments: Vec<OsString>) {
        let receipt = &mut self.jail_mut().receipt;
        receipt.spec.arguments = arguments;
        renew_arguments(receipt);
    }

    /// Removes the jail.
    ///
    /// # Errors
    /// What the kernel says of removing the receipt; what could not be removed of the jail is in the
    /// report.
    pub fn teardown(mut self) -> Result<Report> {
        self.take().tear_down()
    }

    /// Removes the jail in this way; there is no VMM yet for a grace period.
    ///
    /// # Errors
    /// As for [`Prepared::teardown`].
    pub fn teardown_with(mut self, options: TeardownOptions) -> Result<Report> {
        self.take().tear_down_with(options)
    }

    /// Takes the jail out; the value is never used again.
    pub(crate) fn take(&mut self) -> Held {
        match self.jail.take() {
            Some(jail) => jail,
            None => unreachable!("a prepared jail is taken once, by what consumes it"),
        }
    }

    fn jail(&self) -> &Held {
        match &self.jail {
            Some(jail) => jail,
            None => unreachable!("a prepared jail is there until it is consumed"),
        }
    }

    fn jail_mut(&mut self) -> &mut Held {
        match &mut self.jail {
            Some(jail) => jail,
            None => unreachable!("a prepared jail is there until it is consumed"),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // A jail that stands by itself is not this value's to remove.
        if let Some(jail) = self.jail.take().filter(|jail| jail.receipt.keeper.is_some()) {
            // What cannot be removed now stays on the receipt.
            let _ = jail.tear_down();
        }
    }
}

fn path_of(step: &Step) -> JailPath {
    match step {
        Step::PlacedFile(file) => file.path.clone(),
        Step::PlacedTree(tree) => tree.path.clone(),
        Step::DeviceNode(node) => node.path.clone(),
        _ => JailPath::root(),
    }
}

/// Works the VMM's arguments out again, after something that is among them has changed.
pub(crate) fn renew_arguments(receipt: &mut Receipt) {
    for step in &mut receipt.enter {
        if let EnterStep::Execute { arguments, .. } = step {
            *arguments = crate::plan::arguments(&receipt.spec);
        }
    }
}

/// Decides how a file, directory or device gets into a jail.
///
/// # Arguments
/// `near` is a directory on the mount that the jail is on: its root, or what exists of the way there.
///
/// # Errors
/// [`SpecError::NotFound`] for a missing source, [`SpecError::NotAFile`] for one that cannot be placed in
/// this way, [`SpecError::LinkOwner`] for a link that would need a change of owner.
pub fn placement(
    owner: Owner,
    near: &HostPath,
    source: &Path,
    name: Option<&Path>,
    how: How,
) -> Result<Step> {
    let source = HostPath::existing(source)?;
    let path = JailPath::new(name.unwrap_or(Path::new(source.as_path().file_name().unwrap_or_default())))?;
    let facts = rustix::fs::stat(source.as_path()).context(Operation::Inspect, &source)?;
    match (FileType::from_raw_mode(facts.st_mode), how) {
        (kind @ (FileType::BlockDevice | FileType::CharacterDevice), How::Auto | How::Node) => {
            let (major, minor) = (rustix::fs::major(facts.st_rdev), rustix::fs::minor(facts.st_rdev));
            Ok(DeviceNode {
                path,
                block: kind == FileType::BlockDevice,
                major,
                minor,
                owner,
                optional: false,
            }
            .into())
        }
        (FileType::RegularFile, How::Auto | How::Link | How::Copy) => {
            let owned = (facts.st_uid, facts.st_gid) == (owner.uid, owner.gid);
            let how = match how {
                How::Link if !owned => {
                    return Err(SpecError::LinkOwner(source.as_path().to_owned(), owner).into());
                }
                How::Link => FileHow::Link,
                How::Auto if owned && same_mount(&source, near)? => FileHow::Link,
                _ => FileHow::Copy,
            };
            Ok(PlacedFile { source, path, owner, how, expect_plain: false }.into())
        }
        (FileType::Directory, How::Auto | How::Copy) => Ok(PlacedTree { source, path, owner }.into()),
        _ => Err(SpecError::NotAFile(source.as_path().to_owned()).into()),
    }
}

/// Whether two paths are on one mount, as a hard link needs.
fn same_mount(one: &HostPath, other: &HostPath) -> Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let mount = |path: &HostPath| {
        let facts = statx(CWD, path.as_path(), AtFlags::empty(), StatxFlags::MNT_ID);
        facts.map(|facts| facts.stx_mnt_id).context(Operation::Inspect, path)
    };
    Ok(mount(one)? == mount(other)?)
}
