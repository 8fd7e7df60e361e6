//! The kernel interface of programs without a library: the entry point, system calls and their numbers.

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "mov rdi, rsp", "and rsp, -16", "call {main}", "ud2", main = sym crate::main);

#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x0, sp", "bl {main}", "brk 1", main = sym crate::main);

#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const FSTAT: usize = 5;
    pub const IOCTL: usize = 16;
    pub const RT_SIGACTION: usize = 13;
    pub const PREAD: usize = 17;
    pub const PWRITE: usize = 18;
    pub const SENDFILE: usize = 40;
    pub const FCNTL: usize = 72;
    pub const FTRUNCATE: usize = 77;
    pub const FCHMOD: usize = 91;
    pub const PRCTL: usize = 157;
    pub const EXIT: usize = 231;
    pub const WAITID: usize = 247;
    pub const OPENAT: usize = 257;
    pub const RENAMEAT: usize = 264;
    pub const PPOLL: usize = 271;
    pub const PRLIMIT: usize = 302;
    pub const MEMFD_CREATE: usize = 319;
    pub const STATX: usize = 332;
    pub const EXECVEAT: usize = 322;
    pub const FACCESSAT2: usize = 439;
}

#[cfg(target_arch = "aarch64")]
pub mod number {
    pub const FCNTL: usize = 25;
    pub const IOCTL: usize = 29;
    pub const RENAMEAT: usize = 38;
    pub const FTRUNCATE: usize = 46;
    pub const FCHMOD: usize = 52;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const PREAD: usize = 67;
    pub const PWRITE: usize = 68;
    pub const SENDFILE: usize = 71;
    pub const PPOLL: usize = 73;
    pub const FSTAT: usize = 80;
    pub const EXIT: usize = 94;
    pub const RT_SIGACTION: usize = 134;
    pub const WAITID: usize = 95;
    pub const PRCTL: usize = 167;
    pub const PRLIMIT: usize = 261;
    pub const MEMFD_CREATE: usize = 279;
    pub const STATX: usize = 291;
    pub const EXECVEAT: usize = 281;
    pub const FACCESSAT2: usize = 439;
}

/// Makes a system call; returns its result or a negative errno.
#[cfg(target_arch = "x86_64")]
pub fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: every caller passes pointers to its own memory, which outlives the call.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, out("rcx") _, out("r11") _, options(nostack));
    }
    result
}

/// Makes a system call; returns its result or a negative errno.
#[cfg(target_arch = "aarch64")]
pub fn call(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result;
    // SAFETY: every caller passes pointers to its own memory, which outlives the call.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, options(nostack));
    }
    result
}

pub fn exit(code: usize) -> ! {
    loop {
        call(number::EXIT, code, 0, 0, 0, 0);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(1)
}
