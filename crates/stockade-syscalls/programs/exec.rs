//! The executor: executes the program of an exec process from a sealed copy in memory.
//!
//! An exec process begins as a clone of the launcher. If the clone executed a file of the jail directly, the jail
//! could make it execute the launcher's program: with `#!/proc/self/exe`, or with that path as an ELF interpreter.
//! The clone therefore executes the executor first, and `/proc/self/exe` leads to the executor. The executor is an
//! unreadable memory file without a library and without privileges.
//!
//! A process whose program is executable and not readable is undumpable: no process of the same uid can trace it, read
//! its memory or open its file descriptors through `/proc`. The executor therefore copies a program of the jail into
//! such a file too before it executes it.
//!
//! File descriptors: 3 the channel to the launcher, which carries a failure, and whose end means success; 4 the
//! program, if it is a file of the host. Arguments: the largest file that the program may write, in bytes, or `-`; the
//! paths to try, an empty one, `SLOTS` more empty ones, and the arguments of the program. Without a path the program is
//! file descriptor 4.
#![no_std]
#![no_main]

mod kernel;

use core::ffi::c_char;
use core::mem::MaybeUninit;

use kernel::{call, exit, number};

const CHANNEL: usize = 3;
const PROGRAM: usize = 4;

// Indices of arguments.
const FILE_SIZE: usize = 1;
const PATHS: usize = 2;
/// Empty arguments in front of the program's: two for each script of a chain.
const SLOTS: usize = 10;
/// The kernel's limit.
const LONGEST_CHAIN: usize = 5;
/// The size of the part in which the kernel looks for an interpreter, in bytes.
const HEAD: usize = 256;
/// The largest program to copy, in bytes. It limits the memory that a file of the jail can take.
const LARGEST: usize = 512 << 20;

const AT_CWD: usize = -100_isize as usize;
const AT_EMPTY_PATH: usize = 0x1000;
const AT_EACCESS: usize = 0x200;

const ENOENT: isize = -2;
const ENOEXEC: isize = -8;
const EACCES: isize = -13;
const ENOTDIR: isize = -20;
const EINVAL: isize = -22;
const EFBIG: isize = -27;
const ELOOP: isize = -40;

extern "C" fn main(stack: *mut *const c_char) -> ! {
    close_on_exec(CHANNEL);
    // SAFETY: the kernel stores the number of arguments there, then pointers to them and a null pointer, then
    // those of the environment and a null pointer.
    let (arguments, count) = unsafe { (stack.add(1), *stack as usize) };
    let mut end = PATHS;
    while end < count && !is_empty(arguments, end) {
        end += 1;
    }
    let own = end + 1 + SLOTS;
    if own >= count {
        fail(EINVAL);
    }
    // SAFETY: all are within the arguments and the environment, as `count` shows.
    let program = unsafe {
        Program {
            file_size: number_in(*arguments.add(FILE_SIZE)),
            arguments: arguments.add(own),
            environment: arguments.add(count + 1),
        }
    };
    if end == PATHS {
        close_on_exec(PROGRAM);
        fail(program.execute(PROGRAM));
    }
    let mut refused = ENOENT;
    for path in PATHS..end {
        // SAFETY: the index is below the number of arguments.
        match program.execute_path(unsafe { *arguments.add(path) }) {
            ENOENT | ENOTDIR => (),
            EACCES => refused = EACCES,
            other => fail(other),
        }
    }
    fail(refused)
}

/// Sends a failure as the launcher expects it: the index of the call, here beyond the last, and the errno.
fn fail(errno: isize) -> ! {
    let message = [u32::MAX, -errno as u32];
    call(number::WRITE, CHANNEL, message.as_ptr() as usize, size_of_val(&message), 0, 0);
    exit(1)
}

fn close_on_exec(fd: usize) {
    const SETFD: usize = 2;
    const CLOEXEC: usize = 1;
    call(number::FCNTL, fd, SETFD, CLOEXEC, 0, 0);
}

fn is_empty(arguments: *const *const c_char, index: usize) -> bool {
    // SAFETY: the caller keeps the index below the number of arguments, each of which is a string.
    unsafe { **arguments.add(index) == 0 }
}

/// The arguments, the environment and the limit of the exec. `SLOTS` free slots precede the arguments.
#[derive(Clone, Copy)]
struct Program {
    /// The largest file that the program may write, in bytes.
    file_size: Option<usize>,
    arguments: *mut *const c_char,
    environment: *const *const c_char,
}

impl Program {
    /// Executes an open file; returns only on failure.
    fn execute(self, file: usize) -> isize {
        const FSIZE: usize = 1;
        if let Some(size) = self.file_size {
            let limit = [size, size];
            let refused = call(number::PRLIMIT, 0, FSIZE, limit.as_ptr() as usize, 0, 0);
            if refused != 0 {
                return refused;
            }
        }
        let (arguments, environment) = (self.arguments as usize, self.environment as usize);
        call(number::EXECVEAT, file, c"".as_ptr() as usize, arguments, environment, AT_EMPTY_PATH)
    }

    /// Executes a copy of the file at this path, or of its interpreter; returns only on failure.
    fn execute_path(self, path: *const c_char) -> isize {
        // SAFETY: the first argument, which always exists.
        let name = unsafe { *self.arguments };
        let refused = self.follow(path, 0);
        // `behind` has replaced it; the next path needs it again.
        // SAFETY: as above.
        unsafe { *self.arguments = name };
        refused
    }

    fn follow(self, path: *const c_char, depth: usize) -> isize {
        let file = match open(path) {
            Ok(file) => file,
            Err(refused) => return refused,
        };
        let mut head = MaybeUninit::<[u8; HEAD]>::uninit();
        let length = call(number::PREAD, file, head.as_mut_ptr() as usize, HEAD - 1, 0, 0);
        if length < 0 {
            return length;
        }
        // With one more byte, for the end of a string.
        let (head, length) = (head.as_mut_ptr().cast::<u8>(), length as usize);
        // SAFETY: the kernel has written `length` bytes there, at most one less than the size of the buffer.
        let head = unsafe {
            *head.add(length) = 0;
            core::slice::from_raw_parts_mut(head, length + 1)
        };
        let refused = match Interpreter::of(head) {
            None => copy_within_limits(file, path).map_or_else(|refused| refused, |copy| self.execute(copy)),
            Some(_) if depth == LONGEST_CHAIN => ELOOP,
            Some(Err(refused)) => refused,
            Some(Ok(interpreter)) => {
                let with = self.behind(interpreter, path);
                with.follow(interpreter.path, depth + 1)
            }
        };
        call(number::CLOSE, file, 0, 0, 0, 0);
        refused
    }

    /// The arguments of an interpreter: its path, its argument from the script, the script's path instead of argv0, and
    /// the rest.
    fn behind(self, interpreter: Interpreter, script: *const c_char) -> Self {
        let before = if interpreter.argument.is_null() { 1 } else { 2 };
        // SAFETY: each script of a chain takes at most two slots, and two are free for each.
        unsafe {
            *self.arguments = script;
            let arguments = self.arguments.sub(before);
            *arguments = interpreter.path;
            if before == 2 {
                *arguments.add(1) = interpreter.argument;
            }
            Self { arguments, ..self }
        }
    }
}

/// The interpreter in the first line of a script.
#[derive(Clone, Copy)]
struct Interpreter {
    path: *const c_char,
    /// Null if there is none.
    argument: *const c_char,
}

impl Interpreter {
    /// Parses the beginning of a file as the kernel does, and NUL-terminates the strings; `None` if the file is no
    /// script.
    fn of(head: &mut [u8]) -> Option<Result<Self, isize>> {
        if head.len() < 3 || head[0] != b'#' || head[1] != b'!' {
            return None;
        }
        let whole = head.len() <= HEAD - 1;
        let mut end = 2;
        while end < head.len() - 1 && head[end] != b'\n' && head[end] != 0 {
            end += 1;
        }
        let has_end = whole || end < head.len() - 1;
        while end > 2 && is_blank(head[end - 1]) {
            end -= 1;
        }
        let mut at = 2;
        while at < end && is_blank(head[at]) {
            at += 1;
        }
        if at == end {
            return Some(Err(ENOEXEC));
        }
        let path = at;
        while at < end && !is_blank(head[at]) {
            at += 1;
        }
        // A path that may continue beyond the read part must not count as a shorter one.
        if at == end && !has_end {
            return Some(Err(ENOEXEC));
        }
        let path_end = at;
        while at < end && is_blank(head[at]) {
            at += 1;
        }
        let argument = at;
        head[end] = 0;
        head[path_end] = 0;
        let string = |at: usize| head[at..].as_ptr().cast::<c_char>();
        let argument = if argument < end { string(argument) } else { core::ptr::null() };
        Some(Ok(Self { path: string(path), argument }))
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Opens a regular file that this process is allowed to execute.
fn open(path: *const c_char) -> Result<usize, isize> {
    const NOCTTY: usize = 0o400;
    const NONBLOCK: usize = 0o4000;
    const CLOEXEC: usize = 0o2_000_000;
    const X_OK: usize = 1;
    let file = call(number::OPENAT, AT_CWD, path as usize, NOCTTY | NONBLOCK | CLOEXEC, 0, 0);
    let file = usize::try_from(file).map_err(|_| file)?;
    let flags = AT_EMPTY_PATH | AT_EACCESS;
    let refused = match size_of_regular(file) {
        None => EACCES,
        Some(size) if size > LARGEST => EFBIG,
        Some(_) => call(number::FACCESSAT2, file, c"".as_ptr() as usize, X_OK, flags, 0),
    };
    if refused == 0 {
        return Ok(file);
    }
    call(number::CLOSE, file, 0, 0, 0, 0);
    Err(refused)
}

/// The size of a regular file in bytes; `None` for other files.
fn size_of_regular(file: usize) -> Option<usize> {
    const FORMAT: u32 = 0o170_000;
    const REGULAR: u32 = 0o100_000;
    #[cfg(target_arch = "x86_64")]
    const MODE: usize = 24;
    #[cfg(target_arch = "aarch64")]
    const MODE: usize = 16;
    const SIZE: usize = 48;
    // Larger than a `struct stat`, which has at most 144 bytes.
    let mut status = MaybeUninit::<[u64; 32]>::uninit();
    if call(number::FSTAT, file, status.as_mut_ptr() as usize, 0, 0, 0) != 0 {
        return None;
    }
    let status = status.as_ptr().cast::<u8>();
    // SAFETY: the kernel has written both fields, aligned, at these offsets.
    let (mode, size) = unsafe { (*status.add(MODE).cast::<u32>(), *status.add(SIZE).cast::<usize>()) };
    (mode & FORMAT == REGULAR).then_some(size)
}

/// Parses a decimal number; `None` if the text is none.
fn number_in(text: *const c_char) -> Option<usize> {
    let (mut at, mut number) = (text, 0_usize);
    // SAFETY: `text` is a string, which is read up to its end.
    unsafe {
        while (*at as u8).is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add((*at as u8 - b'0') as usize);
            at = at.add(1);
        }
        (at != text && *at == 0).then_some(number)
    }
}

/// Copies an open file into memory. A file size limit from the launcher causes an error, not SIGXFSZ.
fn copy_within_limits(file: usize, path: *const c_char) -> Result<usize, isize> {
    const DEFAULT: usize = 0;
    const IGNORE: usize = 1;
    at_file_limit(IGNORE);
    let copied = copy(file, path);
    at_file_limit(DEFAULT);
    copied
}

/// Sets the action for SIGXFSZ, the signal at the file size limit.
fn at_file_limit(handler: usize) {
    const SIGXFSZ: usize = 25;
    const SIGNAL_SET_SIZE: usize = 8;
    // The kernel's `sigaction`: the handler, no flags, no restorer, no signal blocked.
    let action = [handler, 0, 0, 0];
    call(number::RT_SIGACTION, SIGXFSZ, action.as_ptr() as usize, 0, SIGNAL_SET_SIZE, 0);
}

/// Copies an open file into a sealed, execute-only memory file.
fn copy(file: usize, path: *const c_char) -> Result<usize, isize> {
    const CLOEXEC: usize = 1;
    const ALLOW_SEALING: usize = 2;
    const EXEC: usize = 16;
    const EXECUTE_ONLY: usize = 0o111;
    const ADD_SEALS: usize = 1033;
    /// No more seals, no other size, no writing.
    const SEALS: usize = 1 | 2 | 4 | 8;
    let (name, flags) = (name_of(path) as usize, CLOEXEC | ALLOW_SEALING);
    let checked = |result: isize| usize::try_from(result).map_err(|_| result);
    let target = match call(number::MEMFD_CREATE, name, flags | EXEC, 0, 0, 0) {
        // EINVAL: before Linux 6.3 the flag is unknown, and every memory file is executable.
        EINVAL => call(number::MEMFD_CREATE, name, flags, 0, 0, 0),
        created => created,
    };
    let target = checked(target)?;
    let mut copied = 0;
    loop {
        // The jail can enlarge the file during the copy.
        if copied > LARGEST {
            return Err(EFBIG);
        }
        match checked(call(number::SENDFILE, target, file, 0, LARGEST, 0))? {
            0 => break,
            more => copied += more,
        }
    }
    checked(call(number::FCHMOD, target, EXECUTE_ONLY, 0, 0, 0))?;
    checked(call(number::FCNTL, target, ADD_SEALS, SEALS, 0, 0))?;
    Ok(target)
}

/// The last component of a path, or its last bytes if it is long: the program's name in process lists.
fn name_of(path: *const c_char) -> *const c_char {
    const LONGEST: usize = 200;
    let (mut name, mut at) = (path, path);
    // SAFETY: `path` is a string that outlives the call, in the arguments or a buffer; it is read up to its end.
    unsafe {
        while *at != 0 {
            at = at.add(1);
            if *at.sub(1) == b'/' as c_char || at.offset_from(name) > LONGEST as isize {
                name = if *at.sub(1) == b'/' as c_char { at } else { name.add(1) };
            }
        }
    }
    name
}
