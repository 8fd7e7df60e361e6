//! Opening a jail by its receipt, in a process that did not create it.

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
use crate::sys::unheeded::Unheeded;

/// An opened jail, by its state.
#[derive(Debug)]
pub enum Jail {
    /// Its VMM was not started.
    Created(Created),
    /// Its VMM is running.
    Running(Running),
    /// Its VMM has exited.
    Exited(Stopped),
    /// Its owning process or its VMM has exited, or it was torn down in part.
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
    /// Returns an error if the receipt cannot be written or removed. The report lists the parts of the jail
    /// that could not be removed.
    pub fn teardown(self) -> Result<Report> {
        self.0.tear_down()
    }

    /// Removes the jail with these options. The grace period is not used, because no VMM is running.
    ///
    /// # Errors
    /// Returns the errors of [`Stopped::teardown`].
    pub fn teardown_with(self, options: TeardownOptions) -> Result<Report> {
        self.0.tear_down_with(options)
    }
}

impl Store {
    /// Opens and locks an existing jail; `None` if no jail has this id.
    ///
    /// # Errors
    /// Returns [`Error::Locked`] or [`Error::Running`] if another process has locked it, [`Error::Foreign`]
    /// if it belongs to another pid namespace, and [`Error::Receipt`] if its receipt cannot be understood.
    pub fn open(&self, id: &JailId) -> Result<Option<Jail>> {
        let Some(lock) = self.try_lock(id)? else { return Ok(None) };
        let Some(receipt) = lock.read()? else {
            // The process was killed between creating the entry and writing the receipt. Nothing else was created.
            return lock.remove_unused().map(|()| None);
        };
        let jail = LockedJail::new(lock, receipt);
        let vmm = jail.receipt.vmm_step().cloned();
        Ok(Some(match (jail.receipt.state(), vmm) {
            (JailState::Foreign, _) => return Err(Error::Foreign(id.clone())),
            (JailState::Created, _) => Jail::Created(Created::new(jail)),
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
            (JailState::Running, None) | (JailState::Abandoned | JailState::Corrupt, _) => {
                Jail::Abandoned(Stopped(jail))
            }
        }))
    }

    /// The VMM of a running jail, to signal it or wait for it without the jail's lock, which another process
    /// may have.
    ///
    /// Returns `None` if no VMM is running and no monitor is about to write its exit status.
    ///
    /// # Errors
    /// Returns [`Error::Receipt`] if the receipt cannot be understood.
    pub fn vmm(&self, id: &JailId) -> Result<Option<VmmHandle>> {
        let is_examinable = |state| match state {
            JailState::Created | JailState::Running | JailState::Exited => true,
            JailState::Abandoned | JailState::Foreign | JailState::Corrupt => false,
        };
        let receipt = self.read(id)?.filter(|receipt| is_examinable(receipt.state()));
        let Some(receipt) = receipt else { return Ok(None) };
        let Some(vmm) = receipt.vmm_step() else { return Ok(None) };
        let process = vmm.process.open()?;
        let monitor = vmm.monitor.map(|monitor| monitor.open()).transpose()?.flatten();
        let alive = process.is_some() || monitor.is_some();
        Ok(alive.then(|| VmmHandle { process, monitor, store: self.clone(), receipt }))
    }
}

/// The VMM of a running jail, for any process.
#[derive(Debug)]
pub struct VmmHandle {
    process: Option<PidFd>,
    monitor: Option<PidFd>,
    store: Store,
    receipt: Receipt,
}

impl VmmHandle {
    /// Sends a signal to the VMM, unless it has exited.
    ///
    /// # Errors
    /// Returns an error if the signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| Ok(process.signal(signal)?))
    }

    /// Why a signal that was just sent has no effect on the VMM; `None` if it has one, or if that is unknown.
    pub fn unheeded(&self, signal: Signal) -> Option<Unheeded> {
        self.process.as_ref()?.unheeded(signal)
    }

    /// The receipt of the jail, as it was when this handle was opened.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Runs another program in the jail.
    ///
    /// # Errors
    /// Returns [`Error::NotRunning`] if the VMM has exited, or [`Error::Enter`] with the step that failed and
    /// the reason.
    pub fn exec(&self, exec: Exec) -> Result<ExecProcess> {
        let exited = || Error::NotRunning(self.receipt.id.clone());
        start(&self.receipt, self.process.as_ref().ok_or_else(exited)?, exec)
    }

    /// Waits until the VMM exits, at most until `deadline`; `None` if it is still running then.
    ///
    /// The exit status is known if its parent has written it, and the jail was not removed at the same time.
    /// Otherwise it is [`ExitStatus::Unknown`]. [`Store::ends`] does not miss exits.
    ///
    /// # Errors
    /// Returns an error if waiting fails.
    pub fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        // The monitor exits last, after it has written the exit status.
        for process in [&self.process, &self.monitor].into_iter().flatten() {
            if !process.wait_for_exit(deadline)? {
                return Ok(None);
            }
        }
        Ok(Some(self.store.ended(&self.receipt.id).unwrap_or(ExitStatus::Unknown)))
    }
}
