//! Reading the inherited state of a process for the probe, and giving a launcher an unusual one.
//!
//! The names are those of the table in `docs/inherited-state.md`.

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_ulong};
use std::io;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use crate::filter::Filter;
use crate::inherited::{LIMITS, SchedulingAttributes, set_scheduling};
use crate::program::last_errno;

const PR_MCE_KILL: c_int = 33;
const PR_MCE_KILL_GET: c_int = 34;
const PR_SET_THP_DISABLE: c_int = 41;
const PR_GET_THP_DISABLE: c_int = 42;
const PR_GET_SPECULATION_CTRL: c_int = 52;
const PR_GET_MDWE: c_int = 66;
const PR_SET_MEMORY_MERGE: c_int = 67;
const PR_GET_MEMORY_MERGE: c_int = 68;
const PR_GET_TSC: c_int = 25;

const SESSION_KEYRING: c_ulong = -3_i64 as c_ulong;
const USER_KEYRING: c_ulong = -4_i64 as c_ulong;
const KEYCTL_GET_KEYRING_ID: c_int = 0;
const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
const KEYCTL_DESCRIBE: c_int = 6;
const KEYCTL_CLEAR: c_int = 7;
const KEYCTL_READ: c_int = 11;
const KEYCTL_SET_REQKEY_KEYRING: c_int = 14;

const WHO_PROCESS: c_int = 1;
/// The idle class of I/O priorities.
const IDLE: c_int = 3 << 13;
const MPOL_BIND: c_int = 2;
const NO_SETUID_FIXUP: c_ulong = 1 << 2;

/// Reads every attribute of this process that has an interface for reading: pairs of name and value. The value is `-`
/// if the kernel refuses.
pub fn read() -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: String| all.push((name.to_owned(), value));
    ids(&mut add);
    capabilities(&mut add);
    keyrings(&mut add);
    scheduling(&mut add);
    let number = |option, argument| shown(prctl(option, argument).map(|n| n.to_string()));
    add("timer-slack", number(libc::PR_GET_TIMERSLACK, 0));
    add("huge-pages-disabled", number(PR_GET_THP_DISABLE, 0));
    add("page-merging", number(PR_GET_MEMORY_MERGE, 0));
    add("memory-errors", number(PR_MCE_KILL_GET, 0));
    add("write-or-execute", number(PR_GET_MDWE, 0));
    add("speculation", number(PR_GET_SPECULATION_CTRL, 0));
    add("child-subreaper", pointed(libc::PR_GET_CHILD_SUBREAPER));
    add("death-signal", pointed(libc::PR_GET_PDEATHSIG));
    if cfg!(target_arch = "x86_64") {
        add("time-stamp-counter", pointed(PR_GET_TSC));
    }
    add("memory-policy", memory_policy());
    add("personality", personality());
    add("umask", umask());
    add("interval-timer", interval_timer());
    for limit in LIMITS {
        add(&limit_name(limit.resource), limit_of(limit.resource));
    }
    add("limit-nofile", limit_of(Resource::Nofile));
    for (name, file) in
        [("oom-score", "oom_score_adj"), ("core-dump-filter", "coredump_filter"), ("audit-user", "loginuid")]
    {
        add(
            name,
            shown(std::fs::read_to_string(format!("/proc/self/{file}")).map(|text| text.trim().to_owned())),
        );
    }
    all
}

fn ids(add: &mut impl FnMut(&str, String)) {
    let status = |names: [u32; 3]| names.map(|id| id.to_string()).join(" ");
    let (mut uids, mut gids) = ([0; 3], [0; 3]);
    let [real, effective, saved] = &mut uids;
    // SAFETY: each pointer leads to a number of this function.
    unsafe { libc::getresuid(real, effective, saved) };
    let [real, effective, saved] = &mut gids;
    // SAFETY: as above.
    unsafe { libc::getresgid(real, effective, saved) };
    add("uids", status(uids));
    add("gids", status(gids));
    let groups = rustix::process::getgroups().map(|groups| {
        let all: Vec<String> = groups.iter().map(|group| group.as_raw().to_string()).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(" ") }
    });
    add("groups", shown(groups));
}

fn capabilities(add: &mut impl FnMut(&str, String)) {
    let hex = |set: CapabilitySet| format!("{:x}", set.bits());
    match rustix::thread::capabilities(None) {
        Ok(sets) => {
            add("capabilities-inheritable", hex(sets.inheritable));
            add("capabilities-permitted", hex(sets.permitted));
            add("capabilities-effective", hex(sets.effective));
        }
        Err(_) => add("capabilities-permitted", "-".to_owned()),
    }
    let which = |is_in: &dyn Fn(CapabilitySet) -> bool| {
        let all = (0..u64::BITS).map(|at| CapabilitySet::from_bits_retain(1 << at));
        hex(all.filter(|one| is_in(*one)).fold(CapabilitySet::empty(), CapabilitySet::union))
    };
    let bounding = |one| rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false);
    let ambient = |one| rustix::thread::capability_is_in_ambient_set(one).unwrap_or(false);
    add("capabilities-bounding", which(&bounding));
    add("capabilities-ambient", which(&ambient));
    add("securebits", shown(prctl(libc::PR_GET_SECUREBITS, 0).map(|bits| format!("{bits:x}"))));
    add("no-new-privs", shown(prctl(libc::PR_GET_NO_NEW_PRIVS, 0).map(|set| set.to_string())));
    add("seccomp-mode", shown(prctl(libc::PR_GET_SECCOMP, 0).map(|mode| mode.to_string())));
}

fn keyrings(add: &mut impl FnMut(&str, String)) {
    add("session-keyring", shown(describe(SESSION_KEYRING)));
    add(
        "request-keyring",
        shown(keyctl(KEYCTL_SET_REQKEY_KEYRING, c_ulong::MAX, 0, 0).map(|n| n.to_string())),
    );
}

/// The name of a keyring.
fn describe(keyring: c_ulong) -> Result<String, Errno> {
    let mut text = [0_u8; 256];
    let length = keyctl(KEYCTL_DESCRIBE, keyring, text.as_mut_ptr() as c_ulong, text.len() as c_ulong)?;
    let text = &text[..usize::try_from(length).unwrap_or(0).min(text.len()).saturating_sub(1)];
    // type;uid;gid;permissions;name
    Ok(String::from_utf8_lossy(text).rsplit(';').next().unwrap_or_default().to_owned())
}

/// Tries to read and to clear the session keyring, and returns the results or errnos.
pub fn attack_session_keyring() -> [Result<i64, i32>; 2] {
    let mut ids = [0_u8; 64];
    let read = keyctl(KEYCTL_READ, SESSION_KEYRING, ids.as_mut_ptr() as c_ulong, ids.len() as c_ulong);
    let cleared = keyctl(KEYCTL_CLEAR, SESSION_KEYRING, 0, 0);
    [read, cleared].map(|result| result.map_err(Errno::raw_os_error))
}

/// The number of the keyring that all processes of this uid share.
pub(crate) fn user_keyring() -> Result<i64, Errno> {
    keyctl(KEYCTL_GET_KEYRING_ID, USER_KEYRING, 0, 0)
}

fn scheduling(add: &mut impl FnMut(&str, String)) {
    let mut attributes = SchedulingAttributes::default();
    let (itself, flags): (c_int, c_uint) = (0, 0);
    let size = size_of::<SchedulingAttributes>() as c_uint;
    // SAFETY: the kernel writes at most `size` bytes, the size of the structure.
    let answer = unsafe { libc::syscall(libc::SYS_sched_getattr, itself, &raw mut attributes, size, flags) };
    if answer < 0 {
        add("scheduling", "-".to_owned());
    } else {
        add("scheduling", format!("{} {} {}", attributes.policy, attributes.priority, attributes.flags));
        add("nice", attributes.nice.to_string());
    }
    // SAFETY: takes numbers only.
    let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, itself) };
    // Only the class: the level of an unset priority follows the nice value.
    add("io-priority", shown(checked(priority).map(|priority| format!("{}", priority >> 13))));
    let mask = rustix::thread::sched_getaffinity(None).map(|set| {
        let bits = (0..64).filter(|processor| set.is_set(*processor)).fold(0_u64, |bits, at| bits | 1 << at);
        format!("{bits:x}")
    });
    add("cpu-affinity", shown(mask));
}

fn memory_policy() -> String {
    let mut mode: c_int = -1;
    let nothing: c_ulong = 0;
    // SAFETY: the kernel writes one number; the pointers to the mask and the address are null.
    let answer =
        unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, nothing, nothing, nothing, nothing) };
    shown(checked(answer).map(|_| mode.to_string()))
}

fn personality() -> String {
    const ASK: c_ulong = 0xffff_ffff;
    // SAFETY: takes a number; this one changes nothing.
    format!("{:x}", unsafe { libc::personality(ASK) })
}

/// Reads the umask, which is possible only by setting it.
fn umask() -> String {
    let mask = rustix::process::umask(Mode::RWXU | Mode::RWXG | Mode::RWXO);
    rustix::process::umask(mask);
    format!("{:04o}", mask.bits())
}

fn interval_timer() -> String {
    // SAFETY: an itimerval is made of integers.
    let mut timer: libc::itimerval = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for writing an itimerval.
    let refused = unsafe { libc::getitimer(libc::ITIMER_REAL, &raw mut timer) };
    if refused < 0 {
        "-".to_owned()
    } else {
        if timer.it_value.tv_sec > 0 { "armed" } else { "none" }.to_owned()
    }
}

fn limit_name(resource: Resource) -> String {
    format!("limit-{resource:?}").to_lowercase()
}

fn limit_of(resource: Resource) -> String {
    let limit = rustix::process::getrlimit(resource);
    let text = |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
    format!("{} {}", text(limit.current), text(limit.maximum))
}

/// Gives this process, and the programs that it executes, unusual values of all inherited attributes.
///
/// # Errors
/// Returns the name of the attribute that could not be set, and the cause.
pub fn make_odd() -> Result<(), (&'static str, io::Error)> {
    let name = |name: &'static str| move |error: Errno| (name, io::Error::from(error));
    let set = |option, value| prctl(option, value).map(drop);
    rustix::process::umask(Mode::empty());
    rustix::thread::set_thread_groups(&[rustix::process::Gid::from_raw(4242)]).map_err(name("groups"))?;
    let group = rustix::process::Gid::from_raw(4243);
    rustix::thread::set_thread_res_gid(group, group, group).map_err(name("gid"))?;
    odd_keyring().map_err(name("keyrings"))?;
    odd_scheduling().map_err(name("scheduling"))?;
    set(libc::PR_SET_TIMERSLACK, 123_456).map_err(name("timer slack"))?;
    set(PR_SET_THP_DISABLE, 1).map_err(name("huge pages"))?;
    // A kernel without page merging has nothing to inherit.
    let _ = set(PR_SET_MEMORY_MERGE, 1);
    prctl2(PR_MCE_KILL, 1, 1).map_err(name("memory errors"))?;
    set(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(name("child subreaper"))?;
    // SAFETY: takes a number only.
    unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as c_ulong) };
    let first_node: c_ulong = 1;
    // SAFETY: the kernel reads one mask of 64 bits.
    let _ =
        unsafe { libc::syscall(libc::SYS_set_mempolicy, MPOL_BIND, &raw const first_node, 64 as c_ulong) };
    odd_limits();
    for (file, value) in [("oom_score_adj", "321"), ("coredump_filter", "0x7f")] {
        std::fs::write(format!("/proc/self/{file}"), value).map_err(|error| (file, error))?;
    }
    // SAFETY: an alarm in the far future.
    unsafe { libc::alarm(100_000) };
    odd_signals();
    odd_capabilities().map_err(name("capabilities"))
}

/// Forbids operations to this process and its descendants by a seccomp filter.
///
/// # Arguments
/// `names`: of `mount`, `unshare`, `setns`, `mknod` and `pivot_root`, separated by commas. A `!` behind a name kills the
/// process at the call.
///
/// # Errors
/// Returns an error for an unknown name, and the errors of `prctl`.
pub fn forbid(names: &str) -> io::Result<()> {
    let unknown = |name: &str| io::Error::other(format!("unknown operation '{name}'"));
    let mut filter = Filter::refusing(names.split(',')).map_err(unknown)?;
    Ok(filter.install()?)
}

/// Executes a program with the environment and the state of this process; returns only on failure.
pub fn execute(program: &[CString]) -> io::Error {
    let mut pointers: Vec<*const c_char> = program.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let Some(name) = program.first() else { return io::ErrorKind::InvalidInput.into() };
    // SAFETY: the list ends with a null pointer, and the other pointers are to strings that outlive the call.
    unsafe { libc::execvp(name.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

fn odd_keyring() -> Result<(), Errno> {
    keyctl(KEYCTL_JOIN_SESSION_KEYRING, c"stockade-odd".as_ptr() as c_ulong, 0, 0)?;
    let (kind, description, payload) = (c"user", c"stockade-canary", c"secret");
    // SAFETY: the strings outlive the call; the number is the length of the last one.
    checked(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            kind.as_ptr(),
            description.as_ptr(),
            payload.as_ptr(),
            6_usize,
            SESSION_KEYRING,
        )
    })?;
    // KEY_REQKEY_DEFL_SESSION_KEYRING.
    keyctl(KEYCTL_SET_REQKEY_KEYRING, 3, 0, 0).map(drop)
}

fn odd_scheduling() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 7) };
    let attributes = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_FIFO as u32,
        priority: 5,
        ..SchedulingAttributes::default()
    };
    set_scheduling(&attributes)?;
    let itself: c_int = 0;
    // SAFETY: takes numbers only.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, itself, IDLE) })?;
    let mut first = rustix::thread::CpuSet::new();
    first.set(0);
    rustix::thread::sched_setaffinity(None, &first)
}

/// Sets soft limits that differ from the defaults. Hard limits stay: raising them again needs a capability.
fn odd_limits() {
    let odd = [
        (Resource::Fsize, 50 << 20),
        (Resource::Core, 4096),
        (Resource::Stack, 6 << 20),
        (Resource::Memlock, 65536),
        (Resource::Nproc, 50_000),
        (Resource::As, 20 << 30),
        (Resource::Data, 16 << 30),
        (Resource::Sigpending, 777),
        (Resource::Msgqueue, 4096),
        (Resource::Cpu, 500_000),
        (Resource::Locks, 999),
        (Resource::Rss, 1 << 30),
        (Resource::Rttime, 100_000_000),
        (Resource::Nofile, 512),
    ];
    for (resource, soft) in odd {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let _ = rustix::process::setrlimit(resource, Rlimit { current: Some(soft), maximum });
    }
}

fn odd_signals() {
    // Harmless signals, and SIGCHLD: if it is ignored, the kernel keeps no exit status of children.
    for signal in [libc::SIGHUP, libc::SIGUSR2, libc::SIGCHLD, libc::SIGXFSZ, libc::SIGPIPE] {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised just above.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR1) };
    // SAFETY: as above; the pointer to the old mask is null.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
}

/// Makes two capabilities inheritable and ambient, and sets an unusual securebit.
fn odd_capabilities() -> Result<(), Errno> {
    let odd = CapabilitySet::NET_RAW | CapabilitySet::CHOWN;
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, rustix::thread::CapabilitySets { inheritable: odd, ..sets })?;
    for one in [CapabilitySet::NET_RAW, CapabilitySet::CHOWN] {
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP).map(drop)
}

fn shown<E>(value: Result<String, E>) -> String {
    value.unwrap_or_else(|_| "-".to_owned())
}

fn keyctl(operation: c_int, one: c_ulong, two: c_ulong, three: c_ulong) -> Result<i64, Errno> {
    // SAFETY: callers pass pointers to their own memory, with its length if the kernel writes to it.
    checked(unsafe { libc::syscall(libc::SYS_keyctl, operation, one, two, three, 0 as c_ulong) })
}

/// Reads an option whose value the kernel writes to memory.
fn pointed(option: c_int) -> String {
    let mut value: c_int = -1;
    shown(prctl(option, &raw mut value as c_ulong).map(|_| value.to_string()))
}

fn prctl(option: c_int, argument: c_ulong) -> Result<c_long, Errno> {
    prctl2(option, argument, 0)
}

fn prctl2(option: c_int, one: c_ulong, two: c_ulong) -> Result<c_long, Errno> {
    let nothing: c_ulong = 0;
    // SAFETY: for options with a pointer, the caller passes one to its own number, which the kernel writes.
    checked(unsafe { libc::prctl(option, one, two, nothing, nothing) }.into())
}

fn checked(answer: c_long) -> Result<c_long, Errno> {
    if answer < 0 { Err(last_errno()) } else { Ok(answer) }
}
