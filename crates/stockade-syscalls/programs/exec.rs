//! The last step of a visitor's way into a jail: it executes the visitor's program from a sealed copy in memory.
//!
//! The process that comes into a jail is a clone of the launcher. If it executed a file of the jail by itself,
//! the jail could have it execute the launcher's own program: `#!/proc/self/exe`, or that path as an ELF
//! interpreter. So it becomes this program first. It is in a memory file that nobody may read, has no library
//! and no power of its own, and is all that `/proc/self/exe` leads to.
//!
//! A file that may be executed and not be read makes its process undumpable: no process of the same uid can
//! trace it, read its memory or open its descriptors through `/proc`. So a program of the jail is copied into
//! such a file too before it is executed.
//!
//! Descriptors: 3 the link to the launcher, at which a failure is reported and whose end is success; 4 the
//! program, if it is the host's. Arguments: the largest file that the program may write, in bytes, or `-`; the paths to
//! try, an empty one, `SLOTS` more empty ones, and the arguments of the program. Without a path the program is
//! descriptor 4.
#![no_std]
#![no_main]

mod kernel;

use core::ffi::c_char;
use core::mem::MaybeUninit;

use kernel::{call, exit, number};

const LINK: usize = 3;
const PROGRAM: usize = 4;

/// The places of the arguments.
const FILE_SIZE: usize = 1;
const PATHS: usize = 2;
/// Room in front of the program's arguments for what the scripts of a chain put there: two for each.
const SLOTS: usize = 10;
/// The kernel follows no more.
const LONGEST_CHAIN: usize = 5;
/// The part of a file in which the kernel looks for an interpreter.
const HEAD: usize = 256;
/// The largest program that is copied, in bytes: the jail decides how large its files are.
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
    close_on_exec(LINK);
    // SAFETY: the kernel puts the number of arguments there, then pointers to them and a null pointer, then
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
    // SAFETY: all are within the arguments and the environment, by the count above.
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
        // SAFETY: below the number of arguments.
        match program.execute_path(unsafe { *arguments.add(path) }) {
            ENOENT | ENOTDIR => (),
            EACCES => refused = EACCES,
            other => fail(other),
        }
    }
    fail(refused)
}

/// Reports a failure in the launcher's form: the number of the call, here the last one, and the errno.
fn fail(errno: isize) -> ! {
    let message = [u32::MAX, -errno as u32];
    call(number::WRITE, LINK, message.as_ptr() as usize, size_of_val(&message), 0, 0);
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

/// What is executed with, apart from the file. In front of the arguments are `SLOTS` free places.
#[derive(Clone, Copy)]
struct Program {
    /// The largest file that it may write, in bytes.
    file_size: Option<usize>,
    arguments: *mut *const c_char,
    environment: *const *const c_char,
}

impl Program {
    /// Executes an open file; returns only if that failed.
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

    /// Executes a copy of the file at this path, or of its interpreter; returns only if that failed.
    fn execute_path(self, path: *const c_char) -> isize {
        // SAFETY: the first of the arguments, of which there is at least one.
        let name = unsafe { *self.arguments };
        let refused = self.follow(path, 0);
        // As it was, for the next path.
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
        // One byte more than was read, for the end of a string.
        let (head, length) = (head.as_mut_ptr().cast::<u8>(), length as usize);
        // SAFETY: the kernel has written `length` bytes there, one less than there is room for at most.
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

    /// The same arguments as those of an interpreter: its own path, what the script gives it, and the script
    /// in the place of its name.
    fn behind(self, interpreter: Interpreter, script: *const c_char) -> Self {
        let before = if interpreter.argument.is_null() { 1 } else { 2 };
        // SAFETY: each script of a chain takes two slots at most, and there are two for each.
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

/// What the first line of a script names.
#[derive(Clone, Copy)]
struct Interpreter {
    path: *const c_char,
    /// Null if there is none.
    argument: *const c_char,
}

impl Interpreter {
    /// Reads the beginning of a file as the kernel does, and ends the strings in it; `None` if it is no script.
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
        // A path that may go on behind what was read is not taken for a shorter one.
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

/// Opens a regular file that this process may execute.
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

/// The size of a file in bytes, if it is a regular one.
fn size_of_regular(file: usize) -> Option<usize> {
    const FORMAT: u32 = 0o170_000;
    const REGULAR: u32 = 0o100_000;
    #[cfg(target_arch = "x86_64")]
    const MODE: usize = 24;
    #[cfg(target_arch = "aarch64")]
    const MODE: usize = 16;
    const SIZE: usize = 48;
    // A `struct stat`, which is 144 bytes long at most.
    let mut facts = MaybeUninit::<[u64; 32]>::uninit();
    if call(number::FSTAT, file, facts.as_mut_ptr() as usize, 0, 0, 0) != 0 {
        return None;
    }
    let facts = facts.as_ptr().cast::<u8>();
    // SAFETY: the kernel has written both, at these places and aligned.
    let (mode, size) = unsafe { (*facts.add(MODE).cast::<u32>(), *facts.add(SIZE).cast::<usize>()) };
    (mode & FORMAT == REGULAR).then_some(size)
}

/// A number in decimal; nothing if it is none.
fn number_in(text: *const c_char) -> Option<usize> {
    let (mut at, mut number) = (text, 0_usize);
    // SAFETY: a string, read up to its end.
    unsafe {
        while (*at as u8).is_ascii_digit() {
            number = number.wrapping_mul(10).wrapping_add((*at as u8 - b'0') as usize);
            at = at.add(1);
        }
        (at != text && *at == 0).then_some(number)
    }
}

/// A copy of an open file in memory. If a limit of the launcher's does not allow it, that is an error and not the end.
fn copy_within_limits(file: usize, path: *const c_char) -> Result<usize, isize> {
    const DEFAULT: usize = 0;
    const IGNORE: usize = 1;
    at_file_limit(IGNORE);
    let copied = copy(file, path);
    at_file_limit(DEFAULT);
    copied
}

/// What happens at the limit of a file's size.
fn at_file_limit(handler: usize) {
    const SIGXFSZ: usize = 25;
    const SIGNAL_SET_SIZE: usize = 8;
    // The kernel's `sigaction`: the handler, no flags, no restorer, no signal blocked.
    let action = [handler, 0, 0, 0];
    call(number::RT_SIGACTION, SIGXFSZ, action.as_ptr() as usize, 0, SIGNAL_SET_SIZE, 0);
}

/// A copy of an open file in memory, sealed, that may be executed and not be read.
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
    let made = match call(number::MEMFD_CREATE, name, flags | EXEC, 0, 0, 0) {
        // Before Linux 6.3 every one of these may be executed.
        EINVAL => call(number::MEMFD_CREATE, name, flags, 0, 0, 0),
        made => made,
    };
    let made = checked(made)?;
    let mut copied = 0;
    loop {
        // The jail may have it grow meanwhile.
        if copied > LARGEST {
            return Err(EFBIG);
        }
        match checked(call(number::SENDFILE, made, file, 0, LARGEST, 0))? {
            0 => break,
            more => copied += more,
        }
    }
    checked(call(number::FCHMOD, made, EXECUTE_ONLY, 0, 0, 0))?;
    checked(call(number::FCNTL, made, ADD_SEALS, SEALS, 0, 0))?;
    Ok(made)
}

/// The last component of a path, or its end if that is long: the name of the program in lists of processes.
fn name_of(path: *const c_char) -> *const c_char {
    const LONGEST: usize = 200;
    let (mut name, mut at) = (path, path);
    // SAFETY: a string, of the arguments or of a buffer that outlives the call; read up to its end.
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
