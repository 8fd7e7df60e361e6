//! Which jails a command is about: those that are named, those that meet conditions, or all.

mod filter;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Listing, Store};

pub(crate) use filter::{Filter, KEYS};

use crate::flags::lookup::{find, no_jail};
use crate::flags::state::StateArgs;
use crate::jail_file::Named;
use crate::terminal::output::{Failure, note};

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
pub(crate) enum Naming {
    /// By its whole id alone: the command changes it.
    Whole,
    /// By the beginning of its id too, if no other begins so.
    Beginning,
    /// The same, and it is said which one that is: the command may take long over the wrong one.
    BeginningSaid,
}

/// The jails that a command is about.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Each once, in the order of the command line.
    pub(crate) ids: Vec<JailId>,
    /// What is to be told of the names that are none.
    pub(crate) unknown: Vec<(JailId, Failure)>,
    /// Whether a single one was named.
    pub(crate) single: bool,
    /// Whether none was named.
    pub(crate) by_condition: bool,
}

impl SelectArgs {
    /// Finds the jails, and where they are.
    ///
    /// # Arguments
    /// `concerned` tells which jails the command is for, where none is named.
    ///
    /// # Errors
    /// What is wrong with the state directory, or with a file.
    pub(crate) fn choose(
        &self,
        naming: Naming,
        concerned: impl Fn(&Listing) -> bool,
    ) -> Result<(Store, Chosen), Failure> {
        if self.file.is_empty() {
            let store = self.state.store()?;
            let chosen = self.choose_of(&store, &self.ids, naming, concerned)?;
            return Ok((store, chosen));
        }
        let named = Named::in_files(&self.file)?;
        let store = self.state.store_or(named.state_dir.as_deref())?;
        // A file says its ids as a whole.
        let chosen = self.choose_of(&store, &named.ids, Naming::Whole, concerned)?;
        Ok((store, chosen))
    }

    fn choose_of(
        &self,
        store: &Store,
        ids: &[JailId],
        naming: Naming,
        concerned: impl Fn(&Listing) -> bool,
    ) -> Result<Chosen, Failure> {
        let (single, by_condition) = (self.ids.len() == 1, ids.is_empty());
        let mut chosen = Chosen { ids: Vec::new(), unknown: Vec::new(), single, by_condition };
        if by_condition {
            let jails = store.list()?.into_iter();
            let meant = jails.filter(|jail| self.filter.fit(jail) && concerned(jail));
            chosen.ids = meant.map(|jail| jail.id).collect();
            if chosen.ids.is_empty() && !self.filter.is_empty() {
                note("no jail meets the filter");
            }
        }
        for named in ids {
            match named_so(store, named, naming) {
                Ok(id) if chosen.ids.contains(&id) => (),
                Ok(id) => chosen.ids.push(id),
                Err(failure) => chosen.unknown.push((named.clone(), failure)),
            }
        }
        Ok(chosen)
    }
}

fn named_so(store: &Store, named: &JailId, naming: Naming) -> Result<JailId, Failure> {
    match naming {
        Naming::Beginning => find(store, named),
        Naming::BeginningSaid => {
            let id = find(store, named)?;
            if id != *named {
                note(&format!("{named} is taken for {id}"));
            }
            Ok(id)
        }
        // One whose receipt cannot be read is there all the same.
        Naming::Whole if matches!(store.read(named), Ok(None)) => Err(no_jail(store, named)),
        Naming::Whole => Ok(named.clone()),
    }
}

impl Chosen {
    /// The jails, or the first name that is none.
    pub(crate) fn all_known(self) -> Result<Vec<JailId>, Failure> {
        self.unknown.into_iter().next().map_or(Ok(self.ids), |(_, failure)| Err(failure))
    }

    /// The jails, and the exit code after it was told of names that are none.
    pub(crate) fn known(self) -> (Vec<JailId>, ExitCode) {
        let told = self.unknown.into_iter().map(|(_, failure)| failure.tell());
        (self.ids, told.fold(ExitCode::SUCCESS, |_, code| code))
    }
}
