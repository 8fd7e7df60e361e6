//! Selects the jails that a command acts on: by id, by condition, or all.

mod filter;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Listing, Store};

pub(crate) use filter::{FILTER_KEYS, Filter};

use crate::flags::lookup::{find, no_exact_jail};
use crate::flags::state::StateArgs;
use crate::jail_file::NamedJails;
use crate::terminal::output::{Failure, info};

/// Arguments of commands that act on several jails.
#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    /// Jail IDs.
    #[arg(required_unless_present_any = ["all", "filter", "file"], value_name = "ID")]
    #[arg(conflicts_with_all = ["all", "filter", "file"])]
    ids: Vec<JailId>,
    /// Select the jails that a file describes (repeatable).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "filter"])]
    file: Vec<PathBuf>,
    /// Select every jail to which the command applies.
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    state: StateArgs,
}

/// Conditions on jails.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Select jails by state=, id=GLOB, vmm=GLOB, base=DIR, uid=N, older=10m or younger=2h (repeatable: all hold).
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        self.filter.is_empty()
    }

    pub(crate) fn fit(&self, jail: &Listing) -> bool {
        self.filter.iter().all(|filter| filter.fits(jail))
    }
}

/// How an id on the command line matches a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdMatch {
    /// Only the whole id, for commands that change the jail.
    Exact,
    /// The whole id or a unique prefix.
    Prefix,
    /// Like `Prefix`, and the full id is printed, because the command may wait long for the wrong jail.
    PrefixReported,
}

/// The jails that a command acts on.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Without duplicates, in the order of the command line.
    pub(crate) ids: Vec<JailId>,
    /// The ids without a jail, with their failures.
    pub(crate) unknown: Vec<(JailId, Failure)>,
    /// Whether the command line has exactly one id.
    pub(crate) single: bool,
    /// Whether the command line has no id.
    pub(crate) by_filter: bool,
}

impl SelectArgs {
    /// Finds the jails and their state directory.
    ///
    /// # Arguments
    /// `concerned`: whether the command applies to a jail, if no ids are given.
    ///
    /// # Errors
    /// Returns an error if the state directory or a file is unusable.
    pub(crate) fn select(
        &self,
        id_match: IdMatch,
        concerned: impl Fn(&Listing) -> bool,
    ) -> Result<(Store, Selection), Failure> {
        if self.file.is_empty() {
            let store = self.state.store()?;
            let selection = self.select_from(&store, &self.ids, id_match, concerned)?;
            return Ok((store, selection));
        }
        let named = NamedJails::in_files(&self.file)?;
        let store = self.state.store_or(named.state_dir.as_deref())?;
        // Files have full ids.
        let selection = self.select_from(&store, &named.ids, IdMatch::Exact, concerned)?;
        Ok((store, selection))
    }

    fn select_from(
        &self,
        store: &Store,
        ids: &[JailId],
        id_match: IdMatch,
        concerned: impl Fn(&Listing) -> bool,
    ) -> Result<Selection, Failure> {
        let (single, by_filter) = (self.ids.len() == 1, ids.is_empty());
        let mut selection = Selection { ids: Vec::new(), unknown: Vec::new(), single, by_filter };
        if by_filter {
            let jails = store.list()?.into_iter();
            let selected = jails.filter(|jail| self.filter.fit(jail) && concerned(jail));
            selection.ids = selected.map(|jail| jail.id).collect();
            if selection.ids.is_empty() && !self.filter.is_empty() {
                info("no jail matches the filter");
            }
        }
        for named in ids {
            match resolve(store, named, id_match) {
                Ok(id) if selection.ids.contains(&id) => (),
                Ok(id) => selection.ids.push(id),
                Err(failure) => selection.unknown.push((named.clone(), failure)),
            }
        }
        Ok(selection)
    }
}

fn resolve(store: &Store, named: &JailId, id_match: IdMatch) -> Result<JailId, Failure> {
    match id_match {
        IdMatch::Prefix => find(store, named),
        IdMatch::PrefixReported => {
            let id = find(store, named)?;
            if id != *named {
                info(&format!("using jail {id} for prefix '{named}'"));
            }
            Ok(id)
        }
        // A jail with an unreadable receipt exists too, so `Err` is no reason to refuse the id.
        IdMatch::Exact if matches!(store.read(named), Ok(None)) => Err(no_exact_jail(store, named)),
        IdMatch::Exact => Ok(named.clone()),
    }
}

impl Selection {
    /// Returns the jails, or the failure of the first unknown id.
    pub(crate) fn all_known(self) -> Result<Vec<JailId>, Failure> {
        self.unknown.into_iter().next().map_or(Ok(self.ids), |(_, failure)| Err(failure))
    }

    /// Prints the failures of unknown ids, and returns the jails and the exit code so far.
    pub(crate) fn known(self) -> (Vec<JailId>, ExitCode) {
        let codes = self.unknown.into_iter().map(|(_, failure)| failure.report());
        (self.ids, codes.fold(ExitCode::SUCCESS, |_, code| code))
    }
}
