//! `stockade run`: prepare, place, launch, wait, tear down.

use std::process::ExitCode;

use crate::batch::launch::Crew;
use crate::batch::request::prepare_all;
use crate::batch::{service_manager, template_mounts};
use crate::flags::run::RunArgs;
use crate::jail_file::Described;
use crate::terminal::output::{Failure, require_root};
use crate::terminal::signals::stop_signals;

pub(crate) fn run(args: &Described<RunArgs>) -> Result<ExitCode, Failure> {
    let mut wishes = args.wishes()?;
    require_root("run")?;
    template_mounts::on_the_side();
    service_manager::use_delegated_cgroup(&mut wishes)?;
    // From here on a signal waits until the VMMs can be stopped and the jails be removed.
    let signals = stop_signals()?;
    let prepared = prepare_all(&wishes, &signals)?;
    let crew = Crew::launch(&wishes, prepared)?;
    crew.ready(&signals)?.let_go()?.attend(&signals)
}
