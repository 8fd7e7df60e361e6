//! The state that a process inherits through fork and exec, and its reset to documented values.
//!
//! The table is in `docs/inherited-state.md`; a test compares the two.

use std::ffi::{CStr, CString, c_int, c_long, c_uint, c_ulong};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit};

use crate::program::last_errno;

/// An inherited attribute that no other call on the way into a jail sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// The session keyring: a new one without a name.
    SessionKeyring,
    /// The destination keyring of requested keys: the default.
    RequestKeyring,
    /// Scheduling policy, priority and nice value: `SCHED_OTHER`, 0 and 0, with the default slice.
    Scheduling,
    /// I/O priority: none, which follows the nice value.
    IoPriority,
    /// The CPU affinity: all CPUs of the cpuset.
    CpuAffinity,
    /// The NUMA memory policy: the default.
    MemoryPolicy,
    /// The execution domain: `PER_LINUX`, with a randomised address space.
    Personality,
    /// The slack of timers: 50 microseconds.
    TimerSlack,
    /// Transparent huge pages: not disabled.
    HugePages,
    /// Merging of equal pages (KSM): off.
    PageMerging,
    /// The reaction to memory errors: that of the system.
    MemoryErrors,
    /// The time stamp counter: readable.
    TimestampCounter,
    /// The I/O flusher state: off.
    IoFlusher,
    /// The adjustment of the out-of-memory score: 0.
    OomScore,
    /// The parts of memory in a core dump: the kernel's default.
    CoreDumpFilter,
    /// The umask: 022.
    Umask,
    /// Every resource limit: see [`LIMITS`].
    ResourceLimits,
}

impl Attribute {
    /// All attributes, in the order of their reset.
    pub const ALL: [Self; 17] = [
        Self::SessionKeyring,
        Self::RequestKeyring,
        Self::Scheduling,
        Self::IoPriority,
        Self::CpuAffinity,
        Self::MemoryPolicy,
        Self::Personality,
        Self::TimerSlack,
        Self::HugePages,
        Self::PageMerging,
        Self::MemoryErrors,
        Self::TimestampCounter,
        Self::IoFlusher,
        Self::OomScore,
        Self::CoreDumpFilter,
        Self::Umask,
        Self::ResourceLimits,
    ];

    /// The attributes that are files in `/proc`, which another process can write too.
    pub const FROM_OUTSIDE: [Self; 2] = [Self::OomScore, Self::CoreDumpFilter];

    /// Its name in messages and receipts.
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionKeyring => "session keyring",
            Self::RequestKeyring => "keyring of requested keys",
            Self::Scheduling => "scheduling policy and nice value",
            Self::IoPriority => "I/O priority",
            Self::CpuAffinity => "CPU affinity",
            Self::MemoryPolicy => "memory policy",
            Self::Personality => "personality",
            Self::TimerSlack => "timer slack",
            Self::HugePages => "transparent huge pages",
            Self::PageMerging => "page merging",
            Self::MemoryErrors => "memory error policy",
            Self::TimestampCounter => "time stamp counter",
            Self::IoFlusher => "I/O flusher state",
            Self::OomScore => "OOM score adjustment",
            Self::CoreDumpFilter => "core dump filter",
            Self::Umask => "umask",
            Self::ResourceLimits => "resource limits",
        }
    }

    /// Returns the attribute with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attribute| attribute.name() == name)
    }

    /// Resets the attribute of this process to its documented value. `/proc` must be the host's.
    pub(crate) fn reset(self) -> Result<(), Errno> {
        match self {
            Self::SessionKeyring => new_session_keyring(),
            Self::RequestKeyring => default_request_keyring(),
            Self::Scheduling => default_scheduling(),
            Self::IoPriority => default_io_priority(),
            Self::CpuAffinity => every_processor(),
            Self::MemoryPolicy => default_memory_policy(),
            Self::Personality => linux_personality(),
            Self::TimerSlack => prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS),
            Self::HugePages => prctl(libc::PR_SET_THP_DISABLE, 0),
            // EINVAL: the kernel merges no pages, or cannot do so for a whole process.
            Self::PageMerging => accept(prctl(PR_SET_MEMORY_MERGE, 0), Errno::INVAL),
            Self::MemoryErrors => prctl(libc::PR_MCE_KILL, PR_MCE_KILL_CLEAR),
            Self::TimestampCounter => readable_timestamp_counter(),
            // EPERM: without CAP_SYS_RESOURCE no process can change it. EINVAL before Linux 5.6.
            Self::IoFlusher => accept(accept(prctl(PR_SET_IO_FLUSHER, 0), Errno::PERM), Errno::INVAL),
            Self::OomScore => reset_oom_score(c"/proc/self/oom_score_adj"),
            Self::CoreDumpFilter => reset_core_dump_filter(c"/proc/self/coredump_filter"),
            Self::Umask => {
                rustix::process::umask(UMASK);
                Ok(())
            }
            Self::ResourceLimits => LIMITS.iter().try_for_each(Limit::set),
        }
    }

    /// Resets an attribute of [`Attribute::FROM_OUTSIDE`] of another process. Does nothing if the process has
    /// exited.
    ///
    /// # Errors
    /// Returns the errors of opening and writing the file, and EINVAL for any other attribute.
    pub fn reset_of(self, pid: Pid) -> Result<(), Errno> {
        let file = |name: &str| {
            let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
            CString::new(path).map_err(|_| Errno::INVAL)
        };
        let reset = match self {
            Self::OomScore => reset_oom_score(&file("oom_score_adj")?),
            Self::CoreDumpFilter => reset_core_dump_filter(&file("coredump_filter")?),
            _ => Err(Errno::INVAL),
        };
        accept(reset, Errno::SRCH)
    }
}

fn reset_oom_score(file: &CStr) -> Result<(), Errno> {
    // EACCES: the value is below the minimum that a process with CAP_SYS_RESOURCE set; that minimum stays.
    accept(write(file, b"0"), Errno::ACCESS)
}

fn reset_core_dump_filter(file: &CStr) -> Result<(), Errno> {
    // ENOENT: a kernel without core dumps.
    accept(write(file, b"0x33"), Errno::NOENT)
}

/// A VMM's files are not writable by its group or by others.
const UMASK: Mode = Mode::from_raw_mode(0o022);
/// The kernel's default.
const TIMER_SLACK_NS: c_ulong = 50_000;
const PR_MCE_KILL_CLEAR: c_ulong = 0;
const PR_SET_IO_FLUSHER: c_int = 57;
const PR_SET_MEMORY_MERGE: c_int = 67;

/// A resource limit of a VMM without flags.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The limited resource.
    pub resource: Resource,
    /// The soft limit in the resource's own unit; `None` is unlimited.
    pub soft: Option<u64>,
    /// The hard limit.
    pub hard: Option<u64>,
}

/// All limits except that of open files, which each jail sets itself.
///
/// Most are the kernel's defaults. Core dumps are off, because a dump would contain the guest's memory. The number of
/// processes is unlimited, because the kernel counts them by uid over all jails; a cgroup limits them.
pub const LIMITS: [Limit; 15] = [
    unlimited(Resource::Cpu),
    unlimited(Resource::Fsize),
    unlimited(Resource::Data),
    Limit { soft: Some(8 << 20), ..unlimited(Resource::Stack) },
    limit(Resource::Core, 0),
    unlimited(Resource::Rss),
    unlimited(Resource::Nproc),
    limit(Resource::Memlock, 8 << 20),
    unlimited(Resource::As),
    unlimited(Resource::Locks),
    limit(Resource::Sigpending, 1 << 16),
    limit(Resource::Msgqueue, 819_200),
    limit(Resource::Nice, 0),
    limit(Resource::Rtprio, 0),
    unlimited(Resource::Rttime),
];

const fn unlimited(resource: Resource) -> Limit {
    Limit { resource, soft: None, hard: None }
}

const fn limit(resource: Resource, value: u64) -> Limit {
    Limit { resource, soft: Some(value), hard: Some(value) }
}

impl Limit {
    /// Sets the limit. Without CAP_SYS_RESOURCE a lower hard limit of the launcher stays.
    fn set(&self) -> Result<(), Errno> {
        let set = |limit| rustix::process::setrlimit(self.resource, limit);
        match set(Rlimit { current: self.soft, maximum: self.hard }) {
            Err(Errno::PERM) => {
                let most = hard_limit(self.resource)?;
                set(Rlimit { current: least(self.soft, most), maximum: least(self.hard, most) })
            }
            set => set,
        }
    }
}

/// The limits of this process. rustix's getrlimit panics if the kernel returns an error.
///
/// # Errors
/// Returns the errors of `getrlimit`.
pub fn limits(resource: Resource) -> Result<Rlimit, Errno> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is valid for writing an rlimit.
    let answer = unsafe { libc::getrlimit(resource as libc::__rlimit_resource_t, &raw mut limit) };
    checked(answer.into())?;
    let known = |limit| (limit != libc::RLIM_INFINITY).then_some(limit);
    Ok(Rlimit { current: known(limit.rlim_cur), maximum: known(limit.rlim_max) })
}

/// The hard limit of this process; `None` is unlimited.
fn hard_limit(resource: Resource) -> Result<Option<u64>, Errno> {
    Ok(limits(resource)?.maximum)
}

/// The lower of two limits; `None` is unlimited.
fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Joins a new session keyring without a name, which no other process can join.
///
/// It belongs to root, the uid of this process: the kernel limits keyrings by uid, and one uid may have many jails.
fn new_session_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    const GET_KEYRING_ID: c_int = 0;
    const SESSION_KEYRING: c_ulong = -3_i64 as c_ulong;
    match keyctl(JOIN_SESSION_KEYRING, 0) {
        // A kernel without keys, or a seccomp filter that forbids `keyctl` entirely, and so to the VMM too. Under a
        // filter that forbids only the join, the jail must not keep the launcher's keyring.
        Err(refused) if keyctl(GET_KEYRING_ID, SESSION_KEYRING) == Err(refused) => Ok(()),
        joined => joined,
    }
}

fn default_request_keyring() -> Result<(), Errno> {
    const SET_REQKEY_KEYRING: c_int = 14;
    const DEFAULT: c_ulong = 0;
    const NO_CHANGE: c_ulong = c_ulong::MAX;
    match keyctl(SET_REQKEY_KEYRING, DEFAULT) {
        // As above: without `keyctl` there are no keys to request.
        Err(refused) if keyctl(SET_REQKEY_KEYRING, NO_CHANGE) == Err(refused) => Ok(()),
        set => set,
    }
}

fn keyctl(operation: c_int, argument: c_ulong) -> Result<(), Errno> {
    let nothing: c_ulong = 0;
    // SAFETY: these operations take no pointer, except the null pointer for a keyring without a name.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, operation, argument, nothing, nothing, nothing) })
}

/// `struct sched_attr`. All zeros mean `SCHED_OTHER` with nice value 0.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SchedulingAttributes {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
    pub(crate) least_utilization: u32,
    pub(crate) most_utilization: u32,
}

fn default_scheduling() -> Result<(), Errno> {
    // Both utilization clamps; the value -1 removes them.
    const BOTH_CLAMPS: u64 = 0x60;
    let size = size_of::<SchedulingAttributes>() as u32;
    let plain = SchedulingAttributes { size, ..SchedulingAttributes::default() };
    let unclamped = SchedulingAttributes {
        flags: BOTH_CLAMPS,
        least_utilization: u32::MAX,
        most_utilization: u32::MAX,
        ..plain
    };
    match set_scheduling(&unclamped) {
        // A kernel without clamps, or one that cannot remove them (before Linux 5.11).
        Err(Errno::OPNOTSUPP | Errno::INVAL) => set_scheduling(&plain),
        set => set,
    }
}

pub(crate) fn set_scheduling(attributes: &SchedulingAttributes) -> Result<(), Errno> {
    let (itself, flags): (c_int, c_uint) = (0, 0);
    // SAFETY: the kernel reads a structure of the size in its first field; the structure outlives the call.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, itself, std::ptr::from_ref(attributes), flags) })
}

fn default_io_priority() -> Result<(), Errno> {
    const WHO_PROCESS: c_int = 1;
    const NONE: c_int = 0;
    let itself: c_int = 0;
    // SAFETY: takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, itself, NONE) })
}

fn every_processor() -> Result<(), Errno> {
    // As many CPUs as Linux can be built for; the kernel ignores those that do not exist.
    let all = [u64::MAX; 128];
    let itself: c_int = 0;
    // SAFETY: the kernel reads as many bytes as the argument states, all of them of `all`.
    checked(unsafe { libc::syscall(libc::SYS_sched_setaffinity, itself, size_of_val(&all), &raw const all) })
}

fn default_memory_policy() -> Result<(), Errno> {
    const DEFAULT: c_int = 0;
    let (no_nodes, none): (c_ulong, c_ulong) = (0, 0);
    // SAFETY: with no nodes the kernel reads no memory.
    let set = checked(unsafe { libc::syscall(libc::SYS_set_mempolicy, DEFAULT, no_nodes, none) });
    // ENOSYS: a kernel without NUMA. EPERM: a seccomp filter forbids the call, and so to the VMM too.
    accept(accept(set, Errno::NOSYS), Errno::PERM)
}

fn linux_personality() -> Result<(), Errno> {
    const PER_LINUX: c_ulong = 0;
    // SAFETY: takes a number only.
    if unsafe { libc::personality(PER_LINUX) } < 0 { Err(last_errno()) } else { Ok(()) }
}

fn readable_timestamp_counter() -> Result<(), Errno> {
    const PR_SET_TSC: c_int = 26;
    const PR_TSC_ENABLE: c_ulong = 1;
    if cfg!(target_arch = "x86_64") { prctl(PR_SET_TSC, PR_TSC_ENABLE) } else { Ok(()) }
}

fn prctl(option: c_int, argument: c_ulong) -> Result<(), Errno> {
    let nothing: c_ulong = 0;
    // SAFETY: the options in this module take no pointer.
    checked(unsafe { libc::prctl(option, argument, nothing, nothing, nothing) }.into())
}

/// Writes a whole value to a kernel file with one `write`.
fn write(path: &CStr, value: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, value).map(drop)
}

/// Treats the error `accepted` as success.
fn accept(result: Result<(), Errno>, accepted: Errno) -> Result<(), Errno> {
    if result == Err(accepted) { Ok(()) } else { result }
}

fn checked(answer: c_long) -> Result<(), Errno> {
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attribute_is_found_by_its_name() {
        for attribute in Attribute::ALL {
            assert_eq!(Attribute::named(attribute.name()), Some(attribute));
        }
        assert_eq!(Attribute::named(""), None);
    }

    #[test]
    fn least_is_the_lower_limit() {
        assert_eq!(
            [least(None, None), least(Some(1), None), least(None, Some(2)), least(Some(3), Some(2))],
            [None, Some(1), Some(2), Some(2)]
        );
    }
}
