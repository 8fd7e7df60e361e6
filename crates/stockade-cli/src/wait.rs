//! `stockade wait`: until VMMs have ended.

use std::process::ExitCode;

use stockade::Ended;

use crate::jails::{IdsArgs, no_jail};
use crate::output::{Failure, print};

pub(crate) fn wait(args: &IdsArgs) -> Result<ExitCode, Failure> {
    let store = args.state.store()?;
    for id in &args.ids {
        let ended = match store.watch(id)? {
            Some(watched) => watched.wait_until(None)?,
            None => match store.read(id)? {
                None => return Err(no_jail(id)),
                Some(receipt) if receipt.vmm().is_none() => {
                    return Err(Failure::new(format!("jail {id} was not started")));
                }
                Some(_) => store.ended(id),
            },
        };
        match ended {
            Some(ended) if ended != Ended::Unknown => print(&format!("{}\n", ended.shell_code()))?,
            _ => {
                return Err(Failure::new(format!(
                    "jail {id} does not run, and how its VMM ended is not known"
                )));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
