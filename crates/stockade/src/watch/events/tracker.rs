//! Which events follow from the state of each jail: the state is compared with the events reported before, and the
//! difference is reported in the one order that is possible.

use std::collections::{BTreeMap, VecDeque};

use super::{Event, EventKind};
use crate::spec::clock::now_ms;
use crate::spec::{ExitStatus, JailId, Known, Nonce};
use crate::state::{Receipt, Tombstone};

/// The events reported for one jail.
#[derive(Debug, Default)]
struct Reported {
    /// The nonce of its receipt; `None` if no receipt could be understood yet.
    nonce: Option<Nonce>,
    /// The pid of the VMM, and whether its exit was reported.
    vmm: Option<(i32, bool)>,
    abandoned: bool,
    corrupt: bool,
}

/// The events reported for every jail, and those that wait to be read.
#[derive(Debug, Default)]
pub(super) struct EventTracker {
    reported: BTreeMap<JailId, Reported>,
    pending: VecDeque<Event>,
    /// The jails removed since [`EventTracker::begin_read`]: a receipt of theirs is out of date.
    removed_nonces: Vec<Nonce>,
}

impl EventTracker {
    pub(super) fn next(&mut self) -> Option<Event> {
        self.pending.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn discard_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn ids(&self) -> Vec<JailId> {
        self.reported.keys().cloned().collect()
    }

    pub(super) fn knows(&self, id: &JailId) -> bool {
        self.reported.contains_key(id)
    }

    pub(super) fn report_missed(&mut self) {
        self.pending.push_back(Event {
            time_ms: now_ms(),
            id: None,
            kind: EventKind::Missed,
            oom_kills: None,
        });
    }

    /// Must be called before a receipt is read.
    pub(super) fn begin_read(&mut self) {
        self.removed_nonces.clear();
    }

    /// Takes in a receipt; false if its jail was removed since [`EventTracker::begin_read`].
    pub(super) fn apply_receipt(&mut self, receipt: &Receipt) -> bool {
        if self.removed_nonces.contains(&receipt.nonce) {
            return false;
        }
        let id = &receipt.id;
        let before = self.reported.get(id).and_then(|reported| reported.nonce.as_ref());
        if before.is_some_and(|nonce| nonce != &receipt.nonce) {
            // Another process removed the previous jail without stockade.
            self.report_removed(id);
        }
        let reported = self.reported.entry(id.clone()).or_default();
        if reported.nonce.is_none() {
            reported.nonce = Some(receipt.nonce.clone());
            self.report_at(receipt.created_ms, id, EventKind::Created);
        }
        self.apply_vmm(&receipt.id, receipt.vmm().map(|vmm| (vmm.pid, receipt.started_ms(vmm))));
        true
    }

    /// Takes in the VMM that a receipt or a tombstone names: its pid and the time of its start.
    fn apply_vmm(&mut self, id: &JailId, vmm: Option<(i32, u64)>) {
        let Some(reported) = self.reported.get_mut(id) else { return };
        let before = reported.vmm.map(|(pid, _)| pid);
        if before == vmm.map(|(pid, _)| pid) {
            return;
        }
        // A failed start leaves the jail as it was before, and it can be started again.
        let lacks_exit = reported.vmm.is_some_and(|(_, has_exited)| !has_exited);
        reported.vmm = vmm.map(|(pid, _)| (pid, false));
        if lacks_exit {
            self.report(id, EventKind::Exited { how: ExitStatus::Unknown });
        }
        if let Some((pid, time_ms)) = vmm {
            self.report_at(time_ms, id, EventKind::Started { pid });
        }
    }

    /// Whether the start of a VMM was reported, and its exit was not.
    pub(super) fn is_running(&self, id: &JailId) -> bool {
        self.reported.get(id).is_some_and(|reported| matches!(reported.vmm, Some((_, false))))
    }

    pub(super) fn report_exit(
        &mut self,
        id: &JailId,
        how: ExitStatus,
        oom_kills: Option<Known<u64>>,
        time_ms: u64,
    ) {
        if let Some(Reported { vmm: Some((_, has_exited @ false)), .. }) = self.reported.get_mut(id) {
            *has_exited = true;
            let kind = EventKind::Exited { how };
            self.pending.push_back(Event { time_ms, id: Some(id.clone()), kind, oom_kills });
        }
    }

    pub(super) fn report_abandoned(&mut self, id: &JailId) {
        if let Some(reported) = self.reported.get_mut(id).filter(|reported| !reported.abandoned) {
            reported.abandoned = true;
            self.report(id, EventKind::Abandoned);
        }
    }

    pub(super) fn report_corrupt(&mut self, id: &JailId, problem: String) {
        let reported = self.reported.entry(id.clone()).or_default();
        if !reported.corrupt {
            reported.corrupt = true;
            self.report(id, EventKind::Corrupt { problem });
        }
    }

    /// Takes in the tombstone of a removed jail, and reports all of its events that were not reported yet.
    pub(super) fn apply_tombstone(&mut self, tombstone: &Tombstone) {
        let Tombstone { id, nonce, vmm, oom_kills } = tombstone;
        let known = self.reported.get(id).and_then(|reported| reported.nonce.as_ref());
        if known != Some(nonce) {
            if known.is_some() {
                self.report_removed(id);
            }
            self.reported.insert(id.clone(), Reported { nonce: Some(nonce.clone()), ..Reported::default() });
            self.report(id, EventKind::Created);
        }
        if let Some((pid, _)) = vmm {
            self.apply_vmm(id, Some((*pid, now_ms())));
        }
        self.report_exit_unless_known(id, vmm.map(|(_, how)| how), *oom_kills);
        self.report_removed(id);
        self.removed_nonces.push(nonce.clone());
    }

    fn report_exit_unless_known(&mut self, id: &JailId, how: Option<ExitStatus>, oom_kills: Option<u64>) {
        let how = how.unwrap_or(ExitStatus::Unknown);
        self.report_exit(id, how, oom_kills.map(Known::Fact), now_ms());
    }

    /// Reports a removed jail, and before it the exit of its VMM if that was not reported.
    pub(super) fn report_removed(&mut self, id: &JailId) {
        self.report_exit_unless_known(id, None, None);
        if self.reported.remove(id).is_some() {
            self.report(id, EventKind::Removed);
        }
    }

    fn report(&mut self, id: &JailId, kind: EventKind) {
        self.report_at(now_ms(), id, kind);
    }

    fn report_at(&mut self, time_ms: u64, id: &JailId, kind: EventKind) {
        self.pending.push_back(Event { time_ms, id: Some(id.clone()), kind, oom_kills: None });
    }
}
