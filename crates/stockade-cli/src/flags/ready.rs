//! The flags of a detached VMM: its log, and the wait for its readiness.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use stockade::spec::{JailPath, JailSpec, parse_size};

use super::duration::duration;
use crate::terminal::output::{Failure, in_flag};

/// Flags of the commands that start a VMM and return.
#[derive(Debug, Args)]
pub(crate) struct ReadyArgs {
    /// Maximum size of a detached VMM's log, 0 for none.
    #[arg(long, value_name = "SIZE", default_value = "1M")]
    log_size: String,
    /// Wait until the VMM accepts connections, at its API socket or SOCKET.
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::Other, num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "given or not, and with a socket or without")]
    ready: Option<Option<PathBuf>>,
    /// Give up waiting for readiness after this time.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, requires = "ready")]
    timeout: Duration,
}

impl ReadyArgs {
    pub(crate) fn log_bytes(&self) -> Result<u64, Failure> {
        parse_size(&self.log_size).map_err(in_flag("log-size"))
    }

    /// The socket to wait for; `None` without `--ready`.
    ///
    /// # Arguments
    /// `other_profile`: how the user gives the jail another profile.
    pub(crate) fn socket(&self, spec: &JailSpec, other_profile: &str) -> Result<Option<JailPath>, Failure> {
        match &self.ready {
            None => Ok(None),
            Some(Some(path)) => JailPath::new(path).map(Some).map_err(in_flag("ready")),
            Some(None) => spec.socket().map(Some).ok_or_else(|| {
                let name = &spec.profile.name;
                // Without a profile for the executable's name it is the one without a socket.
                let text = if spec.profile.socket.is_none() {
                    format!(
                        "the profile '{name}' of '{}' has no socket; {other_profile}, as in --profile firecracker, or \
                         name the socket, as in --ready=run/vmm.sock",
                        spec.exec_file.name()
                    )
                } else {
                    format!(
                        "profile '{name}' knows no socket of the VMM with these arguments; name one, as in \
                         --ready=run/vmm.sock"
                    )
                };
                Failure::flag("ready", text)
            }),
        }
    }

    /// The longest wait for the VMM's readiness.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}
