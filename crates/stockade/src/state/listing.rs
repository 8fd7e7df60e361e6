//! The jails of a state directory, each as a list shows it.

use serde::Serialize;

use crate::error::Result;
use crate::spec::{ExitStatus, HostPath, JailId};
use crate::state::receipt::{JailState, Receipt, ReceiptSummary};
use crate::state::store::Store;

/// A jail as the state directory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Its id.
    pub id: JailId,
    /// Its VMM's pid, while that runs.
    pub pid: Option<i32>,
    /// How it is.
    pub state: JailState,
    /// How its VMM ended, if it has and that was written down.
    pub ended: Option<ExitStatus>,
    /// How long ago it was made, in seconds.
    #[serde(rename = "age_seconds")]
    pub age: Option<u64>,
    /// The name of its VMM's executable.
    pub vmm: Option<String>,
    /// The directory it was made in.
    pub base: Option<HostPath>,
    /// Who its VMM runs as.
    pub uid: Option<u32>,
    /// What is wrong with its receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Listing {
    /// A jail as its receipt tells.
    pub fn of(receipt: &Receipt) -> Self {
        let state = receipt.state();
        Self {
            id: receipt.id.clone(),
            pid: receipt.vmm().filter(|_| state == JailState::Running).map(|vmm| vmm.pid),
            state,
            ended: None,
            age: Some(receipt.age().as_secs()),
            vmm: Some(receipt.spec.exec_file.name().to_owned()),
            base: Some(receipt.spec.base.clone()),
            uid: Some(receipt.spec.owner.uid),
            problem: None,
        }
    }

    fn from_summary(summary: ReceiptSummary) -> Self {
        let state = summary.state();
        Self {
            pid: summary.vmm().filter(|_| state == JailState::Running).map(|vmm| vmm.pid),
            state,
            ended: None,
            age: Some(summary.age().as_secs()),
            vmm: Some(summary.spec.exec_file.name().to_owned()),
            base: Some(summary.spec.base),
            uid: Some(summary.spec.owner.uid),
            id: summary.id,
            problem: None,
        }
    }

    /// With what the monitor has written down in the state directory.
    fn with_exit_status(self, store: &Store) -> Self {
        let ended = (self.state == JailState::Exited).then(|| store.ended(&self.id)).flatten();
        Self { ended, ..self }
    }

    /// One whose receipt cannot be understood.
    pub fn damaged(id: JailId, problem: String) -> Self {
        let (pid, ended, age, vmm, base, uid) = (None, None, None, None, None, None);
        Self { id, pid, state: JailState::Corrupt, ended, age, vmm, base, uid, problem: Some(problem) }
    }
}

impl Store {
    /// Every jail, with its state.
    ///
    /// # Errors
    /// What the kernel says of reading the state directory. A damaged receipt is an entry of the list.
    pub fn list(&self) -> Result<Vec<Listing>> {
        let listings = self.ids()?.into_iter().filter_map(|id| match self.summary(&id) {
            Ok(summary) => summary.map(|summary| Listing::from_summary(summary).with_exit_status(self)),
            Err(e) => Some(Listing::damaged(id, e.to_string())),
        });
        Ok(listings.collect())
    }
}
