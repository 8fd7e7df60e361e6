//! Signals as a file descriptor that can be polled together with a pidfd.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// A signalfd. Its signals are blocked for this thread and the threads that it starts.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` for the calling thread and opens a signalfd for them.
    ///
    /// Must be called before the process starts a second thread.
    ///
    /// # Errors
    /// Returns the errors of `sigprocmask` and `signalfd` (EMFILE, ENOMEM).
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set = set_of(signals);
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is initialised, and -1 requests a new file descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the file descriptor is new, so this is its only owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Returns the next pending signal, or `None` if none is pending.
    ///
    /// # Errors
    /// Returns the errors of `read`.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        Ok(self.take_arrived()?.map(|arrived| arrived.signal))
    }

    /// Returns the next pending signal with its sender.
    ///
    /// # Errors
    /// Returns the errors of `read`.
    pub fn take_arrived(&self) -> io::Result<Option<Arrived>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // The structure's first field is the signal's number, the third its code.
            Ok(_) => {
                let field =
                    |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
                let by_kernel = field(8) == libc::SI_KERNEL;
                Ok(Signal::from_named_raw(field(0)).map(|signal| Arrived { signal, by_kernel }))
            }
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// A signal that was read.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// The signal.
    pub signal: Signal,
    /// Whether the kernel sent it, as after a key press on a terminal, and not a process.
    pub by_kernel: bool,
}

/// Unblocks signals that [`SignalFd::block`] blocked. Pending ones are delivered at once.
///
/// # Errors
/// Returns the errors of `sigprocmask`; with valid signals the kernel reports none.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK, &set_of(signals))
}

/// Delivers a blocked signal to this process once. With SIGTSTP the process stops until SIGCONT.
///
/// # Errors
/// Returns the errors of `kill` and `sigprocmask`; with valid signals the kernel reports none.
pub fn let_through(signal: Signal) -> io::Result<()> {
    let set = set_of(&[signal]);
    rustix::process::kill_process(rustix::process::getpid(), signal)?;
    change_mask(libc::SIG_UNBLOCK, &set)?;
    change_mask(libc::SIG_BLOCK, &set)
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t, which the call initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by sigemptyset just above.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: `set` is an initialised sigset_t, and a Signal is always a valid number.
        unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
    }
    set
}

fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised; the pointer to the old mask is null.
    let refused = unsafe { libc::pthread_sigmask(how, std::ptr::from_ref(set), std::ptr::null_mut()) };
    if refused == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(refused)) }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether a signal that asks this process to end is pending because this thread blocks it: SIGINT, SIGTERM, SIGHUP or
/// SIGQUIT.
pub fn is_asked_to_end() -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t, which the call initialises.
    if unsafe { libc::sigpending(pending.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it has written the set.
    let pending = unsafe { pending.assume_init() };
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT]
        .into_iter()
        // SAFETY: `pending` is an initialised sigset_t, and a Signal is always a valid number.
        .any(|signal| unsafe { libc::sigismember(&raw const pending, signal.as_raw()) } == 1)
}

/// Whether this process ignores a signal.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the call changes nothing, and the pointer is valid for writing a sigaction.
    let refused = unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), action.as_mut_ptr()) };
    if refused != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it has written the structure.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

/// Sets SIGCHLD to its default action, so that the kernel keeps the exit status of children.
///
/// A caller that ignores SIGCHLD passes that on through the exec.
///
/// # Errors
/// Returns the errors of `sigaction`; the kernel reports none for SIGCHLD.
pub fn heed_children() -> io::Result<()> {
    Ok(crate::call::default_signal(libc::SIGCHLD)?)
}
