//! The story of each jail: what is known of it is compared with what was told of it, and the difference is told
//! in the one order in which it can have happened.

use std::collections::{BTreeMap, VecDeque};

use super::{Event, EventKind};
use crate::spec::clock::now_ms;
use crate::spec::{ExitStatus, JailId, Nonce};
use crate::state::{Receipt, Tombstone};

/// What was told of one jail.
#[derive(Debug, Default)]
struct Reported {
    /// Whose receipt; `None` if that could not be understood yet.
    nonce: Option<Nonce>,
    /// The VMM, and whether its end was told.
    vmm: Option<(i32, bool)>,
    abandoned: bool,
    damaged: bool,
}

/// What was told of every jail, and what waits to be.
#[derive(Debug, Default)]
pub(super) struct EventTracker {
    told: BTreeMap<JailId, Reported>,
    queue: VecDeque<Event>,
    /// The jails that went since [`EventTracker::begin`]: what was read of them is of the past.
    gone: Vec<Nonce>,
}

impl EventTracker {
    pub(super) fn next(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets what waits to be told.
    pub(super) fn discard_pending(&mut self) {
        self.queue.clear();
    }

    pub(super) fn ids(&self) -> Vec<JailId> {
        self.told.keys().cloned().collect()
    }

    pub(super) fn knows(&self, id: &JailId) -> bool {
        self.told.contains_key(id)
    }

    pub(super) fn missed(&mut self) {
        self.queue.push_back(Event { time_ms: now_ms(), id: None, kind: EventKind::Missed });
    }

    /// Before a receipt is read.
    pub(super) fn begin(&mut self) {
        self.gone.clear();
    }

    /// A receipt was read; false if it is that of a jail that has gone meanwhile.
    pub(super) fn exists(&mut self, receipt: &Receipt) -> bool {
        if self.gone.contains(&receipt.nonce) {
            return false;
        }
        let id = &receipt.id;
        let before = self.told.get(id).and_then(|told| told.nonce.as_ref());
        if before.is_some_and(|nonce| nonce != &receipt.nonce) {
            // Somebody removed it by hand.
            self.finish(id, None);
        }
        let told = self.told.entry(id.clone()).or_default();
        if told.nonce.is_none() {
            told.nonce = Some(receipt.nonce.clone());
            let (id, kind) = (Some(id.clone()), EventKind::Created);
            self.queue.push_back(Event { time_ms: receipt.created_ms, id, kind });
        }
        self.runs(&receipt.id, receipt.vmm().map(|vmm| (vmm.pid, receipt.started_ms(vmm))));
        true
    }

    /// The receipt names this VMM, started then.
    fn runs(&mut self, id: &JailId, vmm: Option<(i32, u64)>) {
        let Some(told) = self.told.get_mut(id) else { return };
        let before = told.vmm.map(|(pid, _)| pid);
        if before == vmm.map(|(pid, _)| pid) {
            return;
        }
        // A start that failed leaves a jail as it was before, to be started again.
        let unended = told.vmm.is_some_and(|(_, ended)| !ended);
        told.vmm = vmm.map(|(pid, _)| (pid, false));
        if unended {
            self.tell(id, EventKind::Exited { how: ExitStatus::Unknown });
        }
        if let Some((pid, time_ms)) = vmm {
            self.tell_of(time_ms, id, EventKind::Started { pid });
        }
    }

    /// Whether a VMM was told of, and its end was not.
    pub(super) fn is_running(&self, id: &JailId) -> bool {
        self.told.get(id).is_some_and(|told| matches!(told.vmm, Some((_, false))))
    }

    /// A VMM has ended like this, then.
    pub(super) fn ended(&mut self, id: &JailId, how: ExitStatus, time_ms: u64) {
        if let Some(Reported { vmm: Some((_, ended @ false)), .. }) = self.told.get_mut(id) {
            *ended = true;
            self.tell_of(time_ms, id, EventKind::Exited { how });
        }
    }

    pub(super) fn abandoned(&mut self, id: &JailId) {
        if let Some(told) = self.told.get_mut(id).filter(|told| !told.abandoned) {
            told.abandoned = true;
            self.tell(id, EventKind::Abandoned);
        }
    }

    pub(super) fn damaged(&mut self, id: &JailId, problem: String) {
        let told = self.told.entry(id.clone()).or_default();
        if !told.damaged {
            told.damaged = true;
            self.tell(id, EventKind::Corrupt { problem });
        }
    }

    /// A jail has gone properly: what was not told of it yet is told now.
    pub(super) fn parted(&mut self, tombstone: &Tombstone) {
        let Tombstone { id, nonce, vmm } = tombstone;
        let known = self.told.get(id).and_then(|told| told.nonce.as_ref());
        if known != Some(nonce) {
            if known.is_some() {
                self.finish(id, None);
            }
            self.told.insert(id.clone(), Reported { nonce: Some(nonce.clone()), ..Reported::default() });
            self.tell(id, EventKind::Created);
        }
        if let Some((pid, _)) = vmm {
            self.runs(id, Some((*pid, now_ms())));
        }
        self.finish(id, vmm.map(|(_, how)| how));
        self.gone.push(nonce.clone());
    }

    /// A jail is gone. If the end of its VMM was not told, it ended like this.
    pub(super) fn finish(&mut self, id: &JailId, how: Option<ExitStatus>) {
        self.ended(id, how.unwrap_or(ExitStatus::Unknown), now_ms());
        if self.told.remove(id).is_some() {
            self.tell(id, EventKind::Removed);
        }
    }

    fn tell(&mut self, id: &JailId, kind: EventKind) {
        self.tell_of(now_ms(), id, kind);
    }

    /// Tells of what has happened then.
    fn tell_of(&mut self, time_ms: u64, id: &JailId, kind: EventKind) {
        self.queue.push_back(Event { time_ms, id: Some(id.clone()), kind });
    }
}
