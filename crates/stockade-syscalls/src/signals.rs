//! Signals as a descriptor that can be polled beside a pidfd.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Signal;

/// Signals that are no longer delivered to this thread (nor to those it starts), but read from here.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` for the calling thread and opens a descriptor from which they are read.
    ///
    /// To be called before the process starts a second thread.
    ///
    /// # Errors
    /// What the kernel says of `sigprocmask` and `signalfd` (EMFILE, ENOMEM).
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set = set_of(signals);
        change_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is initialised, and -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, so this is its only owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, or `None` if none has.
    ///
    /// # Errors
    /// What the kernel says of `read`.
    pub fn take(&self) -> io::Result<Option<Signal>> {
        Ok(self.take_arrived()?.map(|arrived| arrived.signal))
    }

    /// The same with who has sent it.
    ///
    /// # Errors
    /// What the kernel says of `read`.
    pub fn take_arrived(&self) -> io::Result<Option<Arrived>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // The number of the signal is the structure's first field, its code the third.
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

/// A signal that has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// Which one.
    pub signal: Signal,
    /// Whether the kernel has sent it, as for a key of a terminal; another process has not.
    pub by_kernel: bool,
}

/// Has the calling thread take signals again that [`SignalFd::block`] has blocked. Those that wait come at once.
///
/// # Errors
/// None that the kernel knows of.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    change_mask(libc::SIG_UNBLOCK, &set_of(signals))
}

/// Has a blocked signal take its effect on this process as if it were not blocked, for SIGTSTP: to stop until
/// SIGCONT comes.
///
/// # Errors
/// None that the kernel knows of.
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
    // SAFETY: `set` is initialised; the old mask is not asked for.
    let refused = unsafe { libc::pthread_sigmask(how, std::ptr::from_ref(set), std::ptr::null_mut()) };
    if refused == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(refused)) }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether this process ignores a signal.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set, and the pointer is valid for writing a sigaction.
    let refused = unsafe { libc::sigaction(signal.as_raw(), std::ptr::null(), action.as_mut_ptr()) };
    if refused != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it has written the structure.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

/// Keeps the status of children that end, though whoever started this process may ignore them.
///
/// # Errors
/// None that the kernel knows of.
pub fn heed_children() -> io::Result<()> {
    Ok(crate::call::default_signal(libc::SIGCHLD)?)
}
