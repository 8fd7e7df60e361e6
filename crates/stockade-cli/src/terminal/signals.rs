//! The signals that stop a command. They are blocked, so that the command stops only where it leaves nothing behind.

use rustix::process::Signal;
use stockade::spec::reason;
use stockade_syscalls::signals::{SignalFd, is_ignored};

use super::output::Failure;

/// Blocks the signals that stop a command and returns their file descriptor.
pub(crate) fn stop_signals() -> Result<SignalFd, Failure> {
    stop_signals_and(&[])
}

/// Like [`stop_signals`], with further signals.
pub(crate) fn stop_signals_and(more: &[Signal]) -> Result<SignalFd, Failure> {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
    // A signal that the caller ignores stays ignored, as nohup(1) requires.
    let handled = signals.into_iter().filter(|signal| !is_ignored(*signal));
    let handled: Vec<Signal> = handled.chain(more.iter().copied()).collect();
    SignalFd::block(&handled).map_err(|e| Failure::new(format!("cannot block signals: {}", reason(&e))))
}

/// Fails if a signal has arrived.
///
/// # Arguments
/// `before`: the event that the signal prevents, for the message.
pub(crate) fn check_no_signal(signals: &SignalFd, before: &str) -> Result<(), Failure> {
    match signals.take() {
        Ok(Some(_)) => Err(Failure::new(format!("stopped by a signal before {before}"))),
        _ => Ok(()),
    }
}
