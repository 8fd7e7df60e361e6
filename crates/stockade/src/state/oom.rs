//! The processes of a jail that the kernel killed because memory ran out.
//!
//! The number is recorded with the VMM's exit status, because its cgroup may be removed before anyone asks. Without a
//! record the cgroup is read.

use crate::spec::{HostPath, JailId, Known};
use crate::state::{Receipt, Store};
use crate::steps::is_of_another;
use crate::sys::cgroup;

impl Receipt {
    /// The number of processes of the jail that the kernel killed because memory ran out, according to its existing
    /// cgroups. `None` if no cgroup of the jail counts them, because none has a memory controller.
    pub fn oom_kills(&self) -> Option<Known<u64>> {
        self.counted_cgroups().filter_map(|cgroup| cgroup::oom_kills(&cgroup)).reduce(|one, other| {
            match (one, other) {
                (Known::Fact(one), Known::Fact(other)) => Known::Fact(one.max(other)),
                // What one counts is certain, whatever the other would have counted.
                (Known::Fact(count @ 1..), _) | (_, Known::Fact(count @ 1..)) => Known::Fact(count),
                (unknown @ Known::Unknown { .. }, _) | (_, unknown) => unknown,
            }
        })
    }

    /// The cgroup that counts such processes, if one of the jail's does.
    pub(crate) fn memory_cgroup(&self) -> Option<HostPath> {
        let counts = |cgroup: &HostPath| {
            [cgroup::EVENTS_V2, cgroup::EVENTS_V1].iter().any(|file| cgroup.join(*file).as_path().exists())
        };
        self.counted_cgroups().find(counts)
    }

    fn counted_cgroups(&self) -> impl Iterator<Item = HostPath> {
        self.cgroups().filter(|cgroup| !is_of_another(cgroup, &self.nonce))
    }
}

impl Store {
    /// The number of processes of a jail that the kernel killed because memory ran out: as it was recorded with the exit
    /// of its VMM, or else as its cgroups have it. `None` if no cgroup of the jail counts them.
    ///
    /// The VMM need not be one of these processes.
    pub fn oom_kills(&self, receipt: &Receipt) -> Option<Known<u64>> {
        self.recorded_oom_kills(&receipt.id).map(Known::Fact).or_else(|| receipt.oom_kills())
    }

    /// The recorded number, if the VMM has exited and it was known.
    pub(crate) fn recorded_oom_kills(&self, id: &JailId) -> Option<u64> {
        self.exit_record(id)?.oom_kills
    }
}
