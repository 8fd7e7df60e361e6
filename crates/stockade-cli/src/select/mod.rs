//! Which jails a command is about: those that are named, those that meet conditions, or all.

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

/// Arguments of commands that are about several jails.
#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    /// Names of the jails.
    #[arg(required_unless_present_any = ["all", "filter", "file"], value_name = "ID")]
    #[arg(conflicts_with_all = ["all", "filter", "file"])]
    ids: Vec<JailId>,
    /// The jails that a file describes (repeatable).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "filter"])]
    file: Vec<PathBuf>,
    /// Every jail that the command is for.
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
    /// Every such jail with state=, id=GLOB, vmm=GLOB, base=DIR, uid=N, older=10m or younger=2h (repeatable: all hold).
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

/// How a jail may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdMatch {
    /// By its whole id alone: the command changes it.
    Exact,
    /// By the beginning of its id too, if no other begins so.
    Prefix,
    /// The same, and it is said which one that is: the command may take long over the wrong one.
    PrefixReported,
}

/// The jails that a command is about.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Each once, in the order of the command line.
    pub(crate) ids: Vec<JailId>,
    /// What is to be told of the names that are none.
    pub(crate) unknown: Vec<(JailId, Failure)>,
    /// Whether a single one was named.
    pub(crate) single: bool,
    /// Whether none was named.
    pub(crate) by_filter: bool,
}

impl SelectArgs {
    /// Finds the jails, and where they are.
    ///
    /// # Arguments
    /// `concerned` tells which jails the command is for, where none is named.
    ///
    /// # Errors
    /// What is wrong with the state directory, or with a file.
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
        // A file says its ids as a whole.
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
            let meant = jails.filter(|jail| self.filter.fit(jail) && concerned(jail));
            selection.ids = meant.map(|jail| jail.id).collect();
            if selection.ids.is_empty() && !self.filter.is_empty() {
                info("no jail meets the filter");
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
                info(&format!("{named} is taken for {id}"));
            }
            Ok(id)
        }
        // One whose receipt cannot be read is there all the same.
        IdMatch::Exact if matches!(store.read(named), Ok(None)) => Err(no_exact_jail(store, named)),
        IdMatch::Exact => Ok(named.clone()),
    }
}

impl Selection {
    /// The jails, or the first name that is none.
    pub(crate) fn all_known(self) -> Result<Vec<JailId>, Failure> {
        self.unknown.into_iter().next().map_or(Ok(self.ids), |(_, failure)| Err(failure))
    }

    /// The jails, and the exit code after it was told of names that are none.
    pub(crate) fn known(self) -> (Vec<JailId>, ExitCode) {
        let codes = self.unknown.into_iter().map(|(_, failure)| failure.report());
        (self.ids, codes.fold(ExitCode::SUCCESS, |_, code| code))
    }
}
