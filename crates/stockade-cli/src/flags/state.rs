//! The flag of the state directory.

use std::path::{Path, PathBuf};

use clap::Args;
use stockade::{DEFAULT_STATE_DIRECTORY, Store};

use crate::terminal::output::{Failure, in_flag};

/// The flag of the state directory.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Jail state.
    #[arg(long, value_name = "DIR", env = "STOCKADE_STATE_DIR", hide_env_values = true)]
    #[arg(default_value = DEFAULT_STATE_DIRECTORY)]
    state_dir: PathBuf,
}

impl StateArgs {
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        self.store_or(None)
    }

    /// Opens the state directory of the flag, or of a jail file if the flag has its default.
    pub(crate) fn store_or(&self, in_file: Option<&Path>) -> Result<Store, Failure> {
        let default = self.state_dir == Path::new(DEFAULT_STATE_DIRECTORY);
        let directory = in_file.filter(|_| default).unwrap_or(&self.state_dir);
        Store::new(directory).map_err(in_flag("state-dir"))
    }
}
