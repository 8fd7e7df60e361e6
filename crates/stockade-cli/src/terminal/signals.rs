//! The signals that ask a command to end. They wait until it comes to where it can stop without leaving anything.

use rustix::process::Signal;
use stockade_syscalls::signals::{SignalFd, is_ignored};

use super::output::Failure;

/// The signals that ask a command to end, from here on.
pub(crate) fn stop_signals() -> Result<SignalFd, Failure> {
    stop_signals_and(&[])
}

/// The same with further ones.
pub(crate) fn stop_signals_and(more: &[Signal]) -> Result<SignalFd, Failure> {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
    // What the caller ignores stays ignored: nohup means it.
    let handled = signals.into_iter().filter(|signal| !is_ignored(*signal));
    let handled: Vec<Signal> = handled.chain(more.iter().copied()).collect();
    SignalFd::block(&handled).map_err(|e| Failure::new(format!("failed to block signals: {e}")))
}

/// Fails if one has come.
///
/// # Arguments
/// `before` says what has not come about then.
pub(crate) fn check_no_signal(signals: &SignalFd, before: &str) -> Result<(), Failure> {
    match signals.take() {
        Ok(Some(_)) => Err(Failure::new(format!("stopped by a signal before {before}"))),
        _ => Ok(()),
    }
}
