//! What of the host serves every jail.

use stockade::TemplateMounts;

/// Makes the skeleton mount namespace on the side, for commands that start a VMM: without it they are slower on a host with many mounts,
/// and no worse.
pub(crate) fn ensure_template_mounts() {
    let _ = TemplateMounts::make();
}
