//! A seccomp filter for a process that is root in a jail: uid 0 has a few privileges that are no capabilities.

use std::ffi::c_ulong;

use rustix::io::Errno;

use crate::program::last_errno;

/// A seccomp filter, complete before its process exists.
#[derive(Debug)]
pub struct Filter(Vec<libc::sock_filter>);

/// A system call that sets the mode of a file, and the argument that holds the mode.
struct ModeCall {
    number: libc::c_long,
    /// The index of the argument.
    mode: u32,
    /// The index of the flags of an `open`, which has a mode only if it creates a file.
    flags: Option<u32>,
}

const fn mode_call(number: libc::c_long, mode: u32) -> ModeCall {
    ModeCall { number, mode, flags: None }
}

const SYS_FCHMODAT2: libc::c_long = 452;
const SYS_SETXATTRAT: libc::c_long = 463;

const MODE_CALLS: &[ModeCall] = &[
    #[cfg(target_arch = "x86_64")]
    ModeCall { number: libc::SYS_open, mode: 2, flags: Some(1) },
    #[cfg(target_arch = "x86_64")]
    mode_call(libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    mode_call(libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    mode_call(libc::SYS_mknod, 1),
    ModeCall { number: libc::SYS_openat, mode: 3, flags: Some(2) },
    mode_call(libc::SYS_fchmod, 1),
    mode_call(libc::SYS_fchmodat, 2),
    mode_call(SYS_FCHMODAT2, 2),
    mode_call(libc::SYS_mknodat, 2),
];

/// Calls that fail with ENOSYS, as on a kernel without them; programs have fallbacks.
const MISSING: [libc::c_long; 13] = [
    // Their modes and flags are in memory, which a filter cannot read; a ring may belong to another process.
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_clone3,
    // An access list gives group bits to a file with a set-gid bit.
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SYS_SETXATTRAT,
    // Another process could create a namespace and pass it to this one.
    libc::SYS_setns,
    // This process could pass the listener to another process, which could install file descriptors here.
    libc::SYS_seccomp,
    // The keyrings of uid 0 belong to the host.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// Through a Unix socket in the jail's tree the VMM could pass file descriptors: of a procfs, or of sockets in the
/// host's network namespace. Socket pairs stay among the processes of one exec. Datagram pairs do not: they can be
/// reconnected.
const AF_UNIX: u32 = 1;
const SOCKET_TYPE: u32 = 0xf;
const SOCK_STREAM: u32 = 1;
const SOCK_SEQPACKET: u32 = 5;

/// Calls that create user namespaces. There a process has every capability again; before Linux 5.12 also over uid 0.
/// The flags are the first argument.
const NAMESPACES: [libc::c_long; 2] = [libc::SYS_clone, libc::SYS_unshare];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// The first system call number of the x32 interface on x86-64.
const OTHER_NUMBERS: u32 = 0x4000_0000;

const SET_ID_BITS: u32 = 0o6000;
/// `O_CREAT`, and `O_TMPFILE` without `O_DIRECTORY`.
const CREATES_A_FILE: u32 = 0o100 | 0o20_000_000;

// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_OF: u16 = 0x45;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const FAIL: u32 = 0x0005_0000;
#[cfg(feature = "probe")]
const KILL: u32 = 0x8000_0000;

impl Filter {
    /// Creates the filter for a process that is root in a jail.
    ///
    /// The filter refuses with EPERM every call that would create a set-uid or set-gid file, a user namespace, or a
    /// socket through which the VMM could pass file descriptors. It refuses with ENOSYS the calls whose arguments it
    /// cannot read, the calls of other architectures, and the calls on keys.
    pub fn of_root_in_a_jail() -> Self {
        let (refuse, missing) = (FAIL | libc::EPERM as u32, FAIL | libc::ENOSYS as u32);
        let mut code = vec![
            statement(LOAD, ARCHITECTURE_AT),
            jump(EQUAL, ARCHITECTURE, 1, 0),
            statement(RETURN, missing),
            statement(LOAD, NUMBER_AT),
            jump(AT_LEAST, OTHER_NUMBERS, 0, 1),
            statement(RETURN, missing),
        ];
        for number in MISSING {
            code.extend([jump(EQUAL, number as u32, 0, 1), statement(RETURN, missing)]);
        }
        add(
            &mut code,
            libc::SYS_socket,
            vec![
                statement(LOAD, argument(0)),
                jump(EQUAL, AF_UNIX, 0, 1),
                statement(RETURN, refuse),
                statement(RETURN, ALLOW),
            ],
        );
        add(
            &mut code,
            libc::SYS_socketpair,
            vec![
                statement(LOAD, argument(1)),
                statement(AND, SOCKET_TYPE),
                jump(EQUAL, SOCK_STREAM, 2, 0),
                jump(EQUAL, SOCK_SEQPACKET, 1, 0),
                statement(RETURN, refuse),
                statement(RETURN, ALLOW),
            ],
        );
        for number in NAMESPACES {
            add(&mut code, number, refuse_any_of(0, libc::CLONE_NEWUSER as u32, refuse));
        }
        for call in MODE_CALLS {
            let mut check = Vec::new();
            if let Some(flags) = call.flags {
                check.extend([
                    statement(LOAD, argument(flags)),
                    jump(ANY_OF, CREATES_A_FILE, 1, 0),
                    statement(RETURN, ALLOW),
                ]);
            }
            check.extend(refuse_any_of(call.mode, SET_ID_BITS, refuse));
            add(&mut code, call.number, check);
        }
        code.push(statement(RETURN, ALLOW));
        Self(code)
    }

    /// Creates a filter that refuses the calls of these names with EPERM, as a container's filter does, and kills the
    /// process at those with a `!` behind the name; an error is a name that it does not know.
    #[cfg(feature = "probe")]
    pub(crate) fn refusing<'n>(names: impl Iterator<Item = &'n str>) -> Result<Self, &'n str> {
        let mut code = vec![statement(LOAD, NUMBER_AT)];
        for name in names {
            let (call, action) = match name.strip_suffix('!') {
                Some(call) => (call, KILL),
                None => (name, FAIL | libc::EPERM as u32),
            };
            for number in calls_of(call).ok_or(name)? {
                code.extend([jump(EQUAL, *number as u32, 0, 1), statement(RETURN, action)]);
            }
        }
        code.push(statement(RETURN, ALLOW));
        Ok(Self(code))
    }

    /// Installs the filter for this process and its descendants. Needs no_new_privs or CAP_SYS_ADMIN.
    pub(crate) fn install(&mut self) -> Result<(), Errno> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_mut_ptr() };
        let (filter, nothing): (c_ulong, c_ulong) = (libc::SECCOMP_MODE_FILTER.into(), 0);
        // SAFETY: the kernel copies the program, whose length is that of the vector.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program, nothing, nothing) };
        if set < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

/// The system calls of an operation.
#[cfg(feature = "probe")]
fn calls_of(name: &str) -> Option<&'static [libc::c_long]> {
    Some(match name {
        "mount" => &[libc::SYS_mount, libc::SYS_mount_setattr, libc::SYS_open_tree, libc::SYS_fsopen],
        "unshare" => &[libc::SYS_unshare],
        "setns" => &[libc::SYS_setns],
        #[cfg(target_arch = "x86_64")]
        "mknod" => &[libc::SYS_mknod, libc::SYS_mknodat],
        #[cfg(not(target_arch = "x86_64"))]
        "mknod" => &[libc::SYS_mknodat],
        "pivot_root" => &[libc::SYS_pivot_root],
        _ => return None,
    })
}

/// Adds a check for the call of this number.
fn add(code: &mut Vec<libc::sock_filter>, number: libc::c_long, check: Vec<libc::sock_filter>) {
    code.push(jump(EQUAL, number as u32, 0, check.len() as u8));
    code.extend(check);
}

/// Returns `refuse` if one of these bits is set in the argument, and allows the call otherwise.
fn refuse_any_of(number: u32, bits: u32, refuse: u32) -> Vec<libc::sock_filter> {
    vec![
        statement(LOAD, argument(number)),
        jump(ANY_OF, bits, 0, 1),
        statement(RETURN, refuse),
        statement(RETURN, ALLOW),
    ]
}

/// The offset of an argument's lower half.
fn argument(number: u32) -> u32 {
    ARGUMENTS_AT + 8 * number
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// A conditional jump over `jt` instructions if true, or `jf` if false.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}
