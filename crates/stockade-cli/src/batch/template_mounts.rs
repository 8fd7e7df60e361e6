//! Host-wide setup that every jail shares.

use stockade::TemplateMounts;

/// Creates the template mount namespace if it is missing.
///
/// Commands that start a VMM call this. A failure is ignored: without the namespace, starts are only slower on a host
/// with many mounts.
pub(crate) fn ensure_template_mounts() {
    let _ = TemplateMounts::make();
}
