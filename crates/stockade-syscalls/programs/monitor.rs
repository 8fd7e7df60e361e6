//! The monitor: the parent of a VMM whose launcher may exit. It copies the VMM's output to a log of limited
//! size, waits until the VMM exits, records the exit status, and only then takes the VMM from the kernel's table, so
//! that a process that finds it gone finds its exit status.
//!
//! Every such jail has a monitor, so it is a program without a library: a few pages of memory, no thread, no
//! timer. The build script compiles it, and the library embeds it.
//!
//! At its start only these file descriptors are open:
//! 3 the jail's entry in the state directory; 4 the VMM's pidfd; 5, if there is a log, the reading end of the
//! pipe with the VMM's output; 6, if the jail has a cgroup with a memory controller, that cgroup. The first argument is the maximum size of the log in bytes.
#![no_std]
#![no_main]

mod files;
mod kernel;

use core::mem::MaybeUninit;

use files::{EXIT_STATUS, LOG, LOST, NEW_EXIT_STATUS, OLD_LOG, RESERVED, RESERVED_RECORD};
use kernel::{call, exit, number};

const ENTRY: usize = 3;
const VMM: usize = 4;
const OUTPUT: usize = 5;
const CGROUP: usize = 6;

#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

const POLLIN: i16 = 1;
const EINTR: isize = -4;
const EAGAIN: isize = -11;

extern "C" fn main(stack: *const usize) -> ! {
    const PR_SET_NAME: usize = 15;
    call(number::PRCTL, PR_SET_NAME, c"stockade-mon".as_ptr() as usize, 0, 0, 0);
    let limit = limit(stack);
    let mut log = Log { file: -1, written: 0, limit, lost: 0 };
    let mut output_open = limit > 0;
    loop {
        let mut waiting = [
            PollFd { fd: VMM as i32, events: POLLIN, revents: 0 },
            // ppoll ignores a negative number.
            PollFd { fd: if output_open { OUTPUT as i32 } else { -1 }, events: POLLIN, revents: 0 },
        ];
        let ready = call(number::PPOLL, waiting.as_mut_ptr() as usize, waiting.len(), 0, 0, 0);
        if ready == EINTR {
            continue;
        }
        if ready < 0 {
            exit(0);
        }
        if waiting[0].revents != 0 {
            if output_open {
                log.copy_rest();
            }
            if let Some(exit_status) = status() {
                record(exit_status);
            }
            reap();
            exit(0);
        }
        // A process of the jail may have opened the pipe too, and have read it empty.
        if waiting[1].revents != 0 && log.copy() == 0 {
            output_open = false;
        }
    }
}

/// The first argument as a number; 0 if there is none.
fn limit(stack: *const usize) -> usize {
    // SAFETY: the kernel stores the number of arguments there, then pointers to NUL-terminated strings; argv[1] is
    // read only if there are two.
    let argument = unsafe {
        if *stack < 2 {
            return 0;
        }
        *stack.add(2) as *const u8
    };
    let mut number = 0_usize;
    let mut at = 0;
    loop {
        // SAFETY: the string is readable up to and including the NUL.
        let byte = unsafe { *argument.add(at) };
        if !byte.is_ascii_digit() {
            return number;
        }
        number = number.wrapping_mul(10).wrapping_add((byte - b'0') as usize);
        at += 1;
    }
}

/// The log: two files. When the newer one has half of the maximum size, it replaces the older one.
struct Log {
    file: isize,
    written: usize,
    limit: usize,
    /// The number of bytes that could not be written.
    lost: u64,
}

impl Log {
    /// Copies what the pipe holds at this moment, to which the VMM's last output belongs. Its descendants may hold the
    /// pipe and write on without end.
    fn copy_rest(&mut self) {
        const FIONREAD: usize = 0x541b;
        let mut held = 0_i32;
        if call(number::IOCTL, OUTPUT, FIONREAD, (&raw mut held) as usize, 0, 0) < 0 {
            return;
        }
        let mut left = held as isize;
        while left > 0 {
            let copied = self.copy();
            if copied <= 0 {
                return;
            }
            left -= copied;
        }
    }

    /// Copies output, and returns the number of bytes: 0 at its end, less if there is none at the moment. Output that
    /// cannot be written is lost, and counted: a full disk must not stop the VMM.
    fn copy(&mut self) -> isize {
        // Not zeroed: that would need `memset` from a library.
        let mut buffer = MaybeUninit::<[u8; 8192]>::uninit();
        let length = call(number::READ, OUTPUT, buffer.as_mut_ptr() as usize, size_of_val(&buffer), 0, 0);
        if length == EINTR || length == EAGAIN {
            return -1;
        }
        if length <= 0 {
            return 0;
        }
        // SAFETY: the kernel has written `length` bytes there, at most the size of the buffer.
        let mut rest = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length as usize) };
        while !rest.is_empty() {
            if self.file < 0 || self.written >= self.limit / 2 {
                self.rotate();
            }
            let room = (self.limit / 2).saturating_sub(self.written).max(1);
            let part = rest.len().min(room);
            let done = call(number::WRITE, self.file as usize, rest.as_ptr() as usize, part, 0, 0);
            if done <= 0 {
                self.lost = self.lost.saturating_add(rest.len() as u64);
                write_lost(self.lost);
                break;
            }
            self.written += done as usize;
            rest = &rest[done as usize..];
        }
        length
    }

    fn rotate(&mut self) {
        if self.file >= 0 {
            call(number::CLOSE, self.file as usize, 0, 0, 0, 0);
            rename(LOG, OLD_LOG);
        }
        const TRUNC: usize = 0o1000;
        self.file = create(LOG, TRUNC);
        self.written = 0;
    }
}

fn rename(from: &core::ffi::CStr, to: &core::ffi::CStr) {
    call(number::RENAMEAT, ENTRY, from.as_ptr() as usize, ENTRY, to.as_ptr() as usize, 0);
}

/// Opens a file of the entry for writing, and creates it if it is missing. It does not wait for the reader of a FIFO.
fn create(name: &core::ffi::CStr, more: usize) -> isize {
    const MODE: usize = 0o600;
    const WRONLY: usize = 1;
    const CREAT: usize = 0o100;
    const NONBLOCK: usize = 0o4000;
    const CLOEXEC: usize = 0o2_000_000;
    #[cfg(target_arch = "x86_64")]
    const NOFOLLOW: usize = 0o400_000;
    #[cfg(target_arch = "aarch64")]
    const NOFOLLOW: usize = 0o100_000;
    let flags = WRONLY | CREAT | NONBLOCK | CLOEXEC | NOFOLLOW | more;
    let file = call(number::OPENAT, ENTRY, name.as_ptr() as usize, flags, MODE, 0);
    if file >= 0 {
        // The launcher's umask may have removed bits.
        call(number::FCHMOD, file as usize, MODE, 0, 0, 0);
    }
    file
}

/// Writes over the reserved bytes, in which there is room even if the disk is full.
fn write_lost(mut lost: u64) {
    let mut digits = [b'0'; RESERVED];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (lost % 10) as u8;
        lost /= 10;
    }
    let file = create(LOST, 0);
    if file >= 0 {
        call(number::PWRITE, file as usize, digits.as_ptr() as usize, digits.len(), 0, 0);
        call(number::CLOSE, file as usize, 0, 0, 0, 0);
    }
}

/// The VMM's exit: code and status of waitid; `None` if the kernel kept none. It stays in the kernel's table.
///
/// A process of the jail that traces the VMM gets the status first, and may never take it. It has a second for that.
fn status() -> Option<(i32, i32)> {
    const P_PIDFD: usize = 3;
    const WNOHANG: usize = 1;
    const WEXITED: usize = 4;
    const WNOWAIT: usize = 0x0100_0000;
    const ATTEMPTS: usize = 100;
    // A timespec: ten milliseconds.
    const PAUSE: [u64; 2] = [0, 10_000_000];
    // A siginfo_t: signo, errno, code, padding, pid, uid, status.
    let mut info = [0_i32; 32];
    for _ in 0..ATTEMPTS {
        match call(number::WAITID, P_PIDFD, VMM, info.as_mut_ptr() as usize, WEXITED | WNOHANG | WNOWAIT, 0) {
            0 if info[4] != 0 => return Some((info[2], info[6])),
            0 | EINTR => call(number::PPOLL, 0, 0, PAUSE.as_ptr() as usize, 0, 0),
            _ => return None,
        };
    }
    None
}

/// Takes the VMM from the kernel's table.
fn reap() {
    const P_PIDFD: usize = 3;
    const WNOHANG: usize = 1;
    const WEXITED: usize = 4;
    call(number::WAITID, P_PIDFD, VMM, 0, WEXITED | WNOHANG, 0);
}

/// The number of processes of the jail that the kernel killed because memory ran out; `None` if it is unknown here.
///
/// It is read at the VMM's exit, because another program may remove the empty cgroup.
fn oom_kills() -> Option<u64> {
    // In cgroup v2 with those in the cgroups below. Linux counts a process before it kills it.
    if let Some(count) = count_in(c"memory.events") {
        return Some(count);
    }
    let count = count_in(c"memory.oom_control")?;
    // In cgroup v1 the cgroups below count their own. The readers of the record look there if it has no number.
    has_none_below().then_some(count)
}

/// The number after `oom_kill ` at the beginning of a line of a file of the jail's cgroup.
fn count_in(name: &core::ffi::CStr) -> Option<u64> {
    const CLOEXEC: usize = 0o2_000_000;
    const KEY: &[u8] = b"oom_kill ";
    let file = call(number::OPENAT, CGROUP, name.as_ptr() as usize, CLOEXEC, 0, 0);
    if file < 0 {
        return None;
    }
    let mut buffer = MaybeUninit::<[u8; 1024]>::uninit();
    let length = call(number::READ, file as usize, buffer.as_mut_ptr() as usize, size_of_val(&buffer), 0, 0);
    call(number::CLOSE, file as usize, 0, 0, 0, 0);
    if length <= 0 {
        return None;
    }
    // SAFETY: the kernel has written `length` bytes there, at most the size of the buffer.
    let text = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length as usize) };
    let (mut matched, mut is_at_start) = (0, true);
    let mut number = None;
    for byte in text {
        if matched == KEY.len() {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    number = Some(number.unwrap_or(0_u64).wrapping_mul(10).wrapping_add(digit));
                }
                _ => return number,
            }
        } else if *byte == b'\n' {
            (matched, is_at_start) = (0, true);
        } else if is_at_start && *byte == KEY[matched] {
            matched += 1;
        } else {
            is_at_start = false;
        }
    }
    number
}

/// Whether the jail's cgroup has no cgroup below it: each adds one to `st_nlink`.
fn has_none_below() -> bool {
    const EMPTY_PATH: usize = 0x1000;
    const NLINK: usize = 4;
    // A statx is 256 bytes; its fifth word is `stx_nlink`.
    let mut facts = MaybeUninit::<[u32; 64]>::uninit();
    let path = c"".as_ptr() as usize;
    if call(number::STATX, CGROUP, path, EMPTY_PATH, NLINK, facts.as_mut_ptr() as usize) != 0 {
        return false;
    }
    // SAFETY: the kernel has written the whole structure.
    let facts = unsafe { facts.assume_init_ref() };
    facts[0] as usize & NLINK != 0 && facts[4] == 2
}

/// A text of limited length.
struct Text {
    bytes: [u8; RESERVED_RECORD],
    length: usize,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(at) = self.bytes.get_mut(self.length) {
                *at = *byte;
                self.length += 1;
            }
        }
    }

    fn push_number(&mut self, number: u64) {
        let mut factor = 1_u64;
        while number / factor > 9 {
            factor *= 10;
        }
        while factor > 0 {
            self.push(&[b'0' + (number / factor % 10) as u8]);
            factor /= 10;
        }
    }
}

/// Writes `exited N` or `killed N`, and ` oom N` if that is known, atomically.
fn record((code, status): (i32, i32)) {
    const CLD_EXITED: i32 = 1;
    let mut text = Text { bytes: [0; RESERVED_RECORD], length: 0 };
    text.push(if code == CLD_EXITED { b"exited " } else { b"killed " });
    text.push_number(u64::from(status.unsigned_abs()));
    if let Some(kills) = oom_kills() {
        text.push(b" oom ");
        text.push_number(kills);
    }
    text.push(b"\n");
    let Text { bytes: text, length } = text;
    // Over the reserved bytes; what is left of them is cut off.
    let file = create(NEW_EXIT_STATUS, 0);
    if file >= 0
        && call(number::PWRITE, file as usize, text.as_ptr() as usize, length, 0, 0) == length as isize
        && call(number::FTRUNCATE, file as usize, length, 0, 0, 0) == 0
    {
        rename(NEW_EXIT_STATUS, EXIT_STATUS);
    }
}
