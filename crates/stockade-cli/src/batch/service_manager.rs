//! systemd's protocol: the delegated cgroup, and notifications if `NOTIFY_SOCKET` is set.

use clap::Args;
use sd_notify::NotifyState;
use stockade::DelegatedCgroup;
use stockade::spec::CgroupVersion;

use super::request::JailRequest;
use crate::terminal::output::Failure;

/// Moves jails without a parent cgroup into the cgroup that the service manager delegated to this command, if any.
pub(crate) fn use_delegated_cgroup<T: Args>(requests: &mut [JailRequest<T>]) -> Result<(), Failure> {
    let mut accepting: Vec<_> = requests.iter_mut().filter(|request| accepts_any_parent(request)).collect();
    if accepting.is_empty() {
        return Ok(());
    }
    let Some(delegated) = DelegatedCgroup::find()? else { return Ok(()) };
    accepting.retain(|request| delegated.offers(&request.spec.cgroups));
    if accepting.is_empty() {
        return Ok(());
    }
    let parent = delegated.settle()?;
    for request in accepting {
        request.spec.parent_cgroup = Some(parent.clone());
    }
    Ok(())
}

/// Whether the jail has cgroup settings but names no parent. Without settings it only gets a tracking cgroup, which is
/// below this command's cgroup anyway.
fn accepts_any_parent<T: Args>(request: &JailRequest<T>) -> bool {
    let spec = &request.spec;
    let version = spec.cgroup_version.is_none_or(|version| version == CgroupVersion::V2);
    spec.parent_cgroup.is_none() && !spec.cgroups.is_empty() && version
}

/// Reports that the VMMs are running, and ready if readiness was requested.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Like [`ready`], but names the VMM as the service's main process, because this process exits at once.
pub(crate) fn ready_as(pid: i32) {
    notify(&[NotifyState::MainPid(pid.unsigned_abs()), NotifyState::Ready]);
}

/// Reports that the VMMs were asked to exit, or have exited.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    // An unreachable service manager is no reason to stop a VMM.
    let _ = sd_notify::notify(states);
}
