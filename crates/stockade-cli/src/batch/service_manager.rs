//! What a service manager hands to this command, and what it is told, by systemd's protocol, if it asks for that
//! (`NOTIFY_SOCKET`).

use clap::Args;
use sd_notify::NotifyState;
use stockade::DelegatedCgroup;
use stockade::spec::CgroupVersion;

use super::request::JailRequest;
use crate::terminal::output::Failure;

/// Has jails that ask for no other parent made in the cgroup that is delegated to this command, if one is.
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

/// One without settings is held together below the cgroup of this command in any case.
fn accepts_any_parent<T: Args>(request: &JailRequest<T>) -> bool {
    let spec = &request.spec;
    let version = spec.cgroup_version.is_none_or(|version| version == CgroupVersion::V2);
    spec.parent_cgroup.is_none() && !spec.cgroups.is_empty() && version
}

/// The VMMs run, and are ready if that was waited for.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The same where this process ends at once: the VMM is what the service is.
pub(crate) fn ready_as(pid: i32) {
    notify(&[NotifyState::MainPid(pid.unsigned_abs()), NotifyState::Ready]);
}

/// The VMMs are asked to end, or have ended.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    // A manager that cannot be reached is no reason to end a VMM.
    let _ = sd_notify::notify(states);
}
