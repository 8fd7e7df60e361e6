//! What the commands have in common that find their jails by the receipts.

use std::path::PathBuf;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Dead, Jail, JailState, Store};

use crate::args::StateArgs;
use crate::jail_file::Named;
use crate::output::Failure;

/// Arguments of commands that take several jails.
#[derive(Debug, Args)]
pub(crate) struct IdsArgs {
    /// Names of the jails.
    #[arg(required_unless_present = "file", value_name = "ID")]
    ids: Vec<JailId>,
    /// The jails that a file describes (repeatable); - is stdin.
    #[arg(long, value_name = "FILE", conflicts_with = "ids")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    state: StateArgs,
}

impl IdsArgs {
    /// Where the jails are, and their names.
    ///
    /// # Errors
    /// What is wrong with a file, or with the state directory.
    pub(crate) fn store_and_ids(&self) -> Result<(Store, Vec<JailId>), Failure> {
        if self.file.is_empty() {
            return Ok((self.state.store()?, self.ids.clone()));
        }
        let named = Named::in_files(&self.file)?;
        Ok((self.state.store_or(named.state_dir.as_deref())?, named.ids))
    }
}

pub(crate) fn open(store: &Store, id: &JailId) -> Result<Jail, Failure> {
    store.open(id)?.ok_or_else(|| no_jail(id))
}

pub(crate) fn no_jail(id: &JailId) -> Failure {
    Failure::new(format!("there is no jail {id}: stockade ps lists those that are"))
}

pub(crate) fn is_dead(dead: &Dead) -> Failure {
    let receipt = dead.receipt();
    let what = if receipt.state() == JailState::Ended { "the VMM of jail" } else { "jail" };
    let how = if receipt.state() == JailState::Ended { "has ended" } else { "is dead" };
    Failure::new(format!("{what} {id} {how}: stockade rm {id} removes the jail", id = receipt.id))
}

/// What is left to do is done even if nobody reads of it any more.
pub(crate) fn go_on(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::ReaderGone) => Ok(()),
        other => other,
    }
}
