//! What a service manager is told, by systemd's protocol, if one asks for it (`NOTIFY_SOCKET`).

use sd_notify::NotifyState;

/// The VMMs run, and are ready if that was waited for.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The same where this process ends at once: the VMM is what the service is.
pub(crate) fn ready_as(pid: i32) {
    tell(&[NotifyState::MainPid(pid.unsigned_abs()), NotifyState::Ready]);
}

/// The VMMs are asked to end, or have ended.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(news: &[NotifyState<'_>]) {
    // A manager that cannot be reached is no reason to end a VMM.
    let _ = sd_notify::notify(news);
}
