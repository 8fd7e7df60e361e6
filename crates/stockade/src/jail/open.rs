//! A jail from its receipt, for a process that did not make it.

use std::time::Instant;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::jail::create::Created;
use crate::jail::exec::{Exec, start};
use crate::jail::exec_process::ExecProcess;
use crate::jail::locked::LockedJail;
use crate::jail::running::Running;
use crate::jail::teardown::{Report, TeardownOptions};
use crate::spec::{ExitStatus, JailId};
use crate::state::{JailState, Receipt, Store};
use crate::sys::process::PidFd;

/// A jail as it is found.
#[derive(Debug)]
pub enum Jail {
    /// It waits for its VMM. Dropping the value changes nothing.
    Created(Created),
    /// Its VMM runs.
    Running(Running),
    /// Its VMM has exited.
    Exited(Stopped),
    /// Its owning process is gone.
    Abandoned(Stopped),
}

/// A jail without a running VMM, to be removed.
#[derive(Debug)]
pub struct Stopped(LockedJail);

impl Stopped {
    /// The jail's receipt.
    pub fn receipt(&self) -> &Receipt {
        &self.0.receipt
    }

    /// Removes the jail.
    ///
    /// # Errors
    /// What the kernel says of removing the receipt; what could not be removed of the jail is in the
    /// report.
    pub fn teardown(self) -> Result<Report> {
        self.0.tear_down()
    }

    /// Removes the jail in this way; its VMM needs no grace period.
    ///
    /// # Errors
    /// As for [`Stopped::teardown`].
    pub fn teardown_with(self, options: TeardownOptions) -> Result<Report> {
        self.0.tear_down_with(options)
    }
}

impl Store {
    /// Opens a jail that is there, and holds its lock; `None` if there is none of that id.
    ///
    /// # Errors
    /// [`Error::Locked`] or [`Error::Running`] while another
    /// process holds it, [`Error::Receipt`] for a receipt that cannot be understood.
    pub fn open(&self, id: &JailId) -> Result<Option<Jail>> {
        let Some(lock) = self.try_lock(id)? else { return Ok(None) };
        let Some(receipt) = lock.read()? else {
            // Killed between taking the place and writing the receipt: nothing else was made.
            return lock.remove_unused().map(|()| None);
        };
        let jail = LockedJail::new(lock, receipt);
        let vmm = jail.receipt.vmm_step().cloned();
        Ok(Some(match (jail.receipt.state(), vmm) {
            (JailState::Foreign, _) => return Err(Error::Foreign(id.clone())),
            (JailState::Created, _) => Jail::Created(Created::reopened(jail)),
            (JailState::Running, Some(vmm)) => {
                let monitor = vmm.monitor.map(|monitor| monitor.open()).transpose()?.flatten();
                match vmm.process.open()? {
                    Some(process) => Jail::Running(Running::new(jail, process, monitor)),
                    // It exited since its state was read.
                    None if jail.receipt.keeper.is_none() => Jail::Exited(Stopped(jail)),
                    None => Jail::Abandoned(Stopped(jail)),
                }
            }
            (JailState::Exited, _) => Jail::Exited(Stopped(jail)),
            _ => Jail::Abandoned(Stopped(jail)),
        }))
    }

    /// The VMM of a running jail, to signal it or wait for its end without the jail's lock, as while another
    /// process has that; `None` if it does not run and its end is not just being written down.
    ///
    /// # Errors
    /// [`Error::Receipt`] for a receipt that cannot be understood.
    pub fn vmm(&self, id: &JailId) -> Result<Option<VmmHandle>> {
        let here = |state| !matches!(state, JailState::Abandoned | JailState::Foreign | JailState::Corrupt);
        let receipt = self.read(id)?.filter(|receipt| here(receipt.state()));
        let Some(receipt) = receipt else { return Ok(None) };
        let Some(vmm) = receipt.vmm_step() else { return Ok(None) };
        let process = vmm.process.open()?;
        let monitor = vmm.monitor.map(|monitor| monitor.open()).transpose()?.flatten();
        let alive = process.is_some() || monitor.is_some();
        Ok(alive.then(|| VmmHandle { process, monitor, store: self.clone(), receipt }))
    }
}

/// The VMM of a running jail, seen from any process.
#[derive(Debug)]
pub struct VmmHandle {
    process: Option<PidFd>,
    monitor: Option<PidFd>,
    store: Store,
    receipt: Receipt,
}

impl VmmHandle {
    /// Sends the VMM a signal; one that has ended needs none.
    ///
    /// # Errors
    /// What the kernel says of sending it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| Ok(process.signal(signal)?))
    }

    /// The receipt of the jail, as it was when this was opened.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Runs a further program in the jail.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if the VMM has ended, [`Error::Enter`] with the step at which it failed and why.
    pub fn exec(&self, exec: Exec) -> Result<ExecProcess> {
        let gone = || Error::NotRunning(self.receipt.id.clone());
        start(&self.receipt, self.process.as_ref().ok_or_else(gone)?, exec)
    }

    /// Waits for the VMM's end, at most until `deadline`; `None` if it still runs then.
    ///
    /// How it ended is known if its parent has written that down, and the jail was not removed in the same
    /// moment: [`Store::ends`] misses nothing.
    ///
    /// # Errors
    /// What the kernel says of waiting.
    pub fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        // The monitor ends last, when it has written down how the VMM did.
        for process in [&self.process, &self.monitor].into_iter().flatten() {
            if !process.wait_for_exit(deadline)? {
                return Ok(None);
            }
        }
        Ok(Some(self.store.ended(&self.receipt.id).unwrap_or(ExitStatus::Unknown)))
    }
}
