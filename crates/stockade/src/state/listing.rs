//! Lists of the jails in a state directory.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::Result;
use crate::spec::{ExitStatus, HostPath, JailId, Known};
use crate::state::receipt::{Head, JailState, Receipt};
use crate::state::store::Store;
use crate::sys::{ProcessRef, cache};

/// The time that the monitors of exited VMMs have to record the exit status, all together.
pub(crate) const RECORD_TIMEOUT: Duration = Duration::from_secs(1);

/// A jail in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The id.
    pub id: JailId,
    /// The pid of its VMM, if that is running.
    pub pid: Option<i32>,
    /// The state.
    pub state: JailState,
    /// The exit status of its VMM, if the jail is exited or abandoned and it is known.
    pub ended: Option<ExitStatus>,
    /// If the jail is exited, the number of its processes that the kernel killed because memory ran out; `None` if no cgroup
    /// of the jail counts them. The VMM need not be one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<Known<u64>>,
    /// The time since its creation, in seconds; `None` for a corrupt jail, as for the fields below.
    #[serde(rename = "age_seconds")]
    pub age: Option<u64>,
    /// The name of its VMM's executable.
    pub vmm: Option<String>,
    /// The base that it was created in.
    pub base: Option<HostPath>,
    /// The uid that its VMM runs as.
    pub uid: Option<u32>,
    /// The reason why its receipt cannot be understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The processes that know the exit status of a jail's VMM.
struct Processes {
    vmm: Option<ProcessRef>,
    monitor: Option<ProcessRef>,
}

impl Processes {
    fn of(head: &Head<'_>) -> Self {
        Self { vmm: head.vmm, monitor: head.monitor }
    }
}

impl Listing {
    /// The jail of a receipt, without its exit status.
    pub fn of(receipt: &Receipt) -> Self {
        Self::with_head(&receipt.head(), receipt.state())
    }

    fn with_head(head: &Head<'_>, state: JailState) -> Self {
        Self {
            id: head.id.clone(),
            pid: head.vmm.filter(|_| state == JailState::Running).map(|vmm| vmm.pid),
            state,
            ended: None,
            oom_kills: None,
            age: Some(head.age().as_secs()),
            vmm: Some(head.exec_name.to_owned()),
            base: Some(head.base.clone()),
            uid: Some(head.owner.uid),
            problem: None,
        }
    }

    fn with_exit_status(self, store: &Store, processes: &Processes, deadline: Instant) -> Self {
        // The parent of a VMM without a monitor records the exit status after it has waited for it, and removes the jail.
        let zombie = || processes.vmm.and_then(|vmm| vmm.status());
        if self.state == JailState::Abandoned {
            return Self { ended: store.ended(&self.id).or_else(zombie), ..self };
        }
        if self.state != JailState::Exited {
            return self;
        }
        let ended = store.ended_soon(&self.id, processes.monitor, deadline).or_else(zombie);
        // The whole receipt names the cgroups. It is only read if the monitor did not record the number.
        let recorded = store.recorded_oom_kills(&self.id).map(Known::Fact);
        let read = || store.read(&self.id).map(|receipt| receipt?.oom_kills());
        let oom_kills = recorded.or_else(|| read().unwrap_or_else(|e| Some(Known::unknown(e.to_string()))));
        Self { ended, oom_kills, ..self }
    }

    /// A corrupt jail.
    pub fn corrupt(id: JailId, problem: String) -> Self {
        let (pid, ended, age, vmm, base, uid) = (None, None, None, None, None, None);
        let (state, oom_kills, problem) = (JailState::Corrupt, None, Some(problem));
        Self { id, pid, state, ended, oom_kills, age, vmm, base, uid, problem }
    }
}

impl Store {
    /// Lists all jails in the order of their ids.
    ///
    /// # Errors
    /// Returns an error if the state directory or the id of this boot cannot be read. A jail with a corrupt receipt is
    /// in the list.
    pub fn list(&self) -> Result<Vec<Listing>> {
        // Else every jail would be in the list as corrupt.
        cache::boot_id()?;
        let deadline = Instant::now() + RECORD_TIMEOUT;
        let listings = self.ids()?.into_iter().filter_map(|id| match self.listing(&id, deadline) {
            Ok(listing) => listing,
            Err(e) => Some(Listing::corrupt(id, e.to_string())),
        });
        Ok(listings.collect())
    }

    /// # Arguments
    /// `deadline` is the time until which a monitor may record the exit status.
    fn listing(&self, id: &JailId, deadline: Instant) -> Result<Option<Listing>> {
        let (listing, processes) = match self.summary(id)? {
            Some(summary) if summary.has_this_boot() => {
                let head = summary.head();
                (Listing::with_head(&head, head.state(true)), Processes::of(&head))
            }
            Some(_) => match self.read(id)? {
                Some(receipt) => (Listing::of(&receipt), Processes::of(&receipt.head())),
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        Ok(Some(listing.with_exit_status(self, &processes, deadline)))
    }
}
