//! `stockade run`: prepare, place, launch, wait, tear down.

use std::process::ExitCode;

use crate::crew::Crew;
use crate::host;
use crate::jail_file::Described;
use crate::output::{Failure, require_root};
use crate::run_args::RunArgs;
use crate::service;
use crate::signals::stop_signals;
use crate::wish::prepare_all;

pub(crate) fn run(args: &Described<RunArgs>) -> Result<ExitCode, Failure> {
    let mut wishes = args.wishes()?;
    require_root("run")?;
    host::on_the_side();
    service::use_delegated_cgroup(&mut wishes)?;
    // From here on a signal waits until the VMMs can be stopped and the jails be removed.
    let signals = stop_signals()?;
    let prepared = prepare_all(&wishes, &signals)?;
    let crew = Crew::launch(&wishes, prepared)?;
    crew.ready(&signals)?.let_go()?.attend(&signals)
}
