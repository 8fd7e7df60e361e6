//! A filter of system calls for a process that is root in a jail: uid 0 has a few powers that are no capabilities.

use std::ffi::c_ulong;

use rustix::io::Errno;

use crate::program::last_errno;

/// A filter, complete before the process that installs it exists.
#[derive(Debug)]
pub struct Filter(Vec<libc::sock_filter>);

/// Where a system call has the mode of the file that it makes or changes.
struct Maker {
    number: libc::c_long,
    /// The number of the argument.
    mode: u32,
    /// The argument with the flags of an `open`, which has a mode only if it makes a file.
    flags: Option<u32>,
}

const fn maker(number: libc::c_long, mode: u32) -> Maker {
    Maker { number, mode, flags: None }
}

const SYS_FCHMODAT2: libc::c_long = 452;
const SYS_SETXATTRAT: libc::c_long = 463;

const MAKERS: &[Maker] = &[
    #[cfg(target_arch = "x86_64")]
    Maker { number: libc::SYS_open, mode: 2, flags: Some(1) },
    #[cfg(target_arch = "x86_64")]
    maker(libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    maker(libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    maker(libc::SYS_mknod, 1),
    Maker { number: libc::SYS_openat, mode: 3, flags: Some(2) },
    maker(libc::SYS_fchmod, 1),
    maker(libc::SYS_fchmodat, 2),
    maker(SYS_FCHMODAT2, 2),
    maker(libc::SYS_mknodat, 2),
];

/// Calls that are answered as by a kernel without them; programs do without.
const MISSING: [libc::c_long; 13] = [
    // Their modes and flags are in memory, where a filter does not see them; a ring may be another process's.
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_clone3,
    // An access list gives group bits to a file with a set-gid bit.
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    SYS_SETXATTRAT,
    // A namespace that another process has made and passed on.
    libc::SYS_setns,
    // Its listener could be passed on, and descriptors be put into this process by it.
    libc::SYS_seccomp,
    // The keyrings of uid 0 are the host's.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// A Unix socket with a name in the jail's tree leads to the VMM, which could pass descriptors of all that it sees: of a
/// procfs, or of sockets in the host's network namespace. Pairs of sockets stay among processes of this kind, except
/// those of datagrams, which can be connected anew.
const AF_UNIX: u32 = 1;
const SOCKET_TYPE: u32 = 0xf;
const SOCK_STREAM: u32 = 1;
const SOCK_SEQPACKET: u32 = 5;

/// Calls that make user namespaces, in which a process has every capability again, over uid 0 too before Linux 5.12.
/// The flags are their first argument.
const NAMESPACES: [libc::c_long; 2] = [libc::SYS_clone, libc::SYS_unshare];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// On x86-64, the beginning of the numbers of another interface (x32).
const OTHER_NUMBERS: u32 = 0x4000_0000;

const SET_ID_BITS: u32 = 0o6000;
/// `O_CREAT` and the part of `O_TMPFILE` that is no `O_DIRECTORY`.
const MAKES_A_FILE: u32 = 0o100 | 0o20_000_000;

/// The places in `struct seccomp_data`.
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

impl Filter {
    /// Refuses, with EPERM, every call that would make a set-uid or set-gid file, a user namespace, or a socket by which
    /// the VMM could pass descriptors. Calls of which that cannot be seen, those of other architectures, and those on
    /// keys are answered with ENOSYS.
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
        for maker in MAKERS {
            let mut look = Vec::new();
            if let Some(flags) = maker.flags {
                look.extend([
                    statement(LOAD, argument(flags)),
                    jump(ANY_OF, MAKES_A_FILE, 1, 0),
                    statement(RETURN, ALLOW),
                ]);
            }
            look.extend(refuse_any_of(maker.mode, SET_ID_BITS, refuse));
            add(&mut code, maker.number, look);
        }
        code.push(statement(RETURN, ALLOW));
        Self(code)
    }

    /// Installs it for this process and all that come of it. Needs no_new_privs or CAP_SYS_ADMIN.
    pub(crate) fn install(&mut self) -> Result<(), Errno> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_mut_ptr() };
        let (filter, nothing): (c_ulong, c_ulong) = (libc::SECCOMP_MODE_FILTER.into(), 0);
        // SAFETY: the kernel reads the program, whose length is that of the vector, and copies it.
        let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program, nothing, nothing) };
        if set < 0 { Err(last_errno()) } else { Ok(()) }
    }
}

/// Has this looked at if it is the call of this number.
fn add(code: &mut Vec<libc::sock_filter>, number: libc::c_long, look: Vec<libc::sock_filter>) {
    code.push(jump(EQUAL, number as u32, 0, look.len() as u8));
    code.extend(look);
}

/// Answers a call with `refuse` if one of these bits is set in its argument, and allows it otherwise.
fn refuse_any_of(number: u32, bits: u32, refuse: u32) -> Vec<libc::sock_filter> {
    vec![
        statement(LOAD, argument(number)),
        jump(ANY_OF, bits, 0, 1),
        statement(RETURN, refuse),
        statement(RETURN, ALLOW),
    ]
}

/// The lower half of an argument.
fn argument(number: u32) -> u32 {
    ARGUMENTS_AT + 8 * number
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on so many instructions further if it is true, or not.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}
