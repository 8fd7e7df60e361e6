//! `stockade run`: creates jails, launches and supervises their VMMs, tears the jails down.

use std::process::ExitCode;

use crate::batch::launch::Launched;
use crate::batch::request::create_all;
use crate::batch::service_manager;
use crate::batch::template_mounts::ensure_template_mounts;
use crate::flags::run::RunArgs;
use crate::jail_file::Described;
use crate::terminal::output::{Failure, require_root};
use crate::terminal::signals::stop_signals;

pub(crate) fn run(args: &Described<RunArgs>) -> Result<ExitCode, Failure> {
    let mut requests = args.requests()?;
    require_root("run")?;
    ensure_template_mounts();
    service_manager::use_delegated_cgroup(&mut requests)?;
    // From here on a signal waits until the VMMs can be stopped and the jails removed.
    let signals = stop_signals()?;
    let created = create_all(&requests, &signals)?;
    let launched = Launched::launch(&requests, created)?;
    launched.wait_ready(&signals)?.announce_and_detach()?.supervise(&signals)
}
