//! The monitor: the parent of a VMM whose launcher may end. It copies the VMM's output to a log of bounded
//! size, waits for the VMM's end, writes that down, and ends itself.
//!
//! One stays behind for every such jail, so it is a program of its own without a library: a few pages of
//! memory, no thread, no timer. It is compiled by the build script and carried inside the library.
//!
//! It begins with these descriptors open and nothing else:
//! 3 the jail's place in the state directory; 4 the VMM's pidfd; 5, if there is a log, the end of the pipe
//! that the VMM writes to. The first argument is the most that the log may hold, in bytes.
#![no_std]
#![no_main]

mod kernel;

use core::mem::MaybeUninit;

use kernel::{call, exit, number};

const PLACE: usize = 3;
const VMM: usize = 4;
const OUTPUT: usize = 5;

#[repr(C)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

const POLLIN: i16 = 1;
const EINTR: isize = -4;

extern "C" fn main(stack: *const usize) -> ! {
    const PR_SET_NAME: usize = 15;
    call(number::PRCTL, PR_SET_NAME, c"stockade-mon".as_ptr() as usize, 0, 0, 0);
    let limit = limit(stack);
    let mut log = Log { file: -1, written: 0, limit };
    let mut output_open = limit > 0;
    loop {
        let mut waiting = [
            PollFd { fd: VMM as i32, events: POLLIN, revents: 0 },
            // A negative number is passed over.
            PollFd { fd: if output_open { OUTPUT as i32 } else { -1 }, events: POLLIN, revents: 0 },
        ];
        let ready = call(number::PPOLL, waiting.as_mut_ptr() as usize, waiting.len(), 0, 0, 0);
        if ready == EINTR {
            continue;
        }
        if waiting[1].revents != 0 && !log.copy() {
            output_open = false;
            continue;
        }
        // Only when nothing more is waiting in the pipe: the last words belong to the log.
        if waiting[0].revents != 0 && waiting[1].revents == 0 {
            if let Some(end) = status() {
                write_down(end);
            }
            exit(0);
        }
        if ready < 0 {
            exit(0);
        }
    }
}

/// The first argument as a number; 0 if there is none.
fn limit(stack: *const usize) -> usize {
    // SAFETY: the kernel puts the number of arguments there, then pointers to them, each a string closed by
    // a NUL; argv[1] is read only if there are two.
    let argument = unsafe {
        if *stack < 2 {
            return 0;
        }
        *stack.add(2) as *const u8
    };
    let mut number = 0_usize;
    let mut at = 0;
    loop {
        // SAFETY: up to and including the NUL the string may be read.
        let byte = unsafe { *argument.add(at) };
        if !byte.is_ascii_digit() {
            return number;
        }
        number = number.wrapping_mul(10).wrapping_add((byte - b'0') as usize);
        at += 1;
    }
}

/// The log: two files, of which the older goes when the newer is half of the limit.
struct Log {
    file: isize,
    written: usize,
    limit: usize,
}

impl Log {
    /// Copies what the VMM has written; false at its end. What cannot be kept is dropped: a full disk must
    /// not stop the VMM.
    fn copy(&mut self) -> bool {
        // Not zeroed: that would need a library.
        let mut buffer = MaybeUninit::<[u8; 8192]>::uninit();
        let length = call(number::READ, OUTPUT, buffer.as_mut_ptr() as usize, size_of_val(&buffer), 0, 0);
        if length == EINTR {
            return true;
        }
        if length <= 0 {
            return false;
        }
        // SAFETY: the kernel has written so many bytes there, and no more than it was told there is room for.
        let mut rest = unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), length as usize) };
        while !rest.is_empty() {
            if self.file < 0 || self.written >= self.limit / 2 {
                self.rotate();
            }
            let room = (self.limit / 2).saturating_sub(self.written).max(1);
            let part = rest.len().min(room);
            let done = call(number::WRITE, self.file as usize, rest.as_ptr() as usize, part, 0, 0);
            if done <= 0 {
                break;
            }
            self.written += done as usize;
            rest = &rest[done as usize..];
        }
        true
    }

    fn rotate(&mut self) {
        if self.file >= 0 {
            call(number::CLOSE, self.file as usize, 0, 0, 0, 0);
            rename(c"log", c"log.1");
        }
        self.file = create(c"log");
        self.written = 0;
    }
}

fn rename(from: &core::ffi::CStr, to: &core::ffi::CStr) {
    call(number::RENAMEAT, PLACE, from.as_ptr() as usize, PLACE, to.as_ptr() as usize, 0);
}

fn create(name: &core::ffi::CStr) -> isize {
    const MODE: usize = 0o600;
    const WRONLY: usize = 1;
    const CREAT: usize = 0o100;
    const TRUNC: usize = 0o1000;
    const CLOEXEC: usize = 0o2_000_000;
    #[cfg(target_arch = "x86_64")]
    const NOFOLLOW: usize = 0o400_000;
    #[cfg(target_arch = "aarch64")]
    const NOFOLLOW: usize = 0o100_000;
    let flags = WRONLY | CREAT | TRUNC | CLOEXEC | NOFOLLOW;
    let file = call(number::OPENAT, PLACE, name.as_ptr() as usize, flags, MODE, 0);
    if file >= 0 {
        // Whatever the launcher's umask has left of it.
        call(number::FCHMOD, file as usize, MODE, 0, 0, 0);
    }
    file
}

/// How the VMM ended: the code and status of waitid; nothing if the kernel has kept none.
fn status() -> Option<(i32, i32)> {
    const P_PIDFD: usize = 3;
    const WEXITED: usize = 4;
    // A siginfo_t: signo, errno, code, (padding,) pid, uid, status.
    let mut info = [0_i32; 32];
    loop {
        match call(number::WAITID, P_PIDFD, VMM, info.as_mut_ptr() as usize, WEXITED, 0) {
            0 => return Some((info[2], info[6])),
            EINTR => (),
            _ => return None,
        }
    }
}

/// Writes `exited N` or `killed N`, whole or not at all.
fn write_down((code, status): (i32, i32)) {
    const CLD_EXITED: i32 = 1;
    let mut text = [0_u8; 32];
    let word: &[u8] = if code == CLD_EXITED { b"exited " } else { b"killed " };
    let mut length = 0;
    for byte in word {
        text[length] = *byte;
        length += 1;
    }
    let mut factor = 100;
    let mut begun = false;
    while factor > 0 {
        let digit = (status / factor) % 10;
        begun |= digit != 0 || factor == 1;
        if begun {
            text[length] = b'0' + digit as u8;
            length += 1;
        }
        factor /= 10;
    }
    text[length] = b'\n';
    length += 1;
    let file = create(c"ended.new");
    if file >= 0 && call(number::WRITE, file as usize, text.as_ptr() as usize, length, 0, 0) == length as isize {
        rename(c"ended.new", c"ended");
    }
}
