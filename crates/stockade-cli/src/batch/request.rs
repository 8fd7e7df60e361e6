//! The jails that a command is asked for, checked before the first is made. All of them are made, or none.

use clap::Args;
use stockade::spec::{JailId, JailSpec, Netns};
use stockade::{Jail, Placement, Prepared, Store, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::fd_limit::make_room_for;
use crate::errors::hints;
use crate::flags::jail::PLACE_FLAG;
use crate::flags::placement::{put, tell_stripped};
use crate::jail_file::{Asked, Described};
use crate::terminal::output::{Failure, note, tell_left};

/// One jail, with all that is asked for in order.
#[derive(Debug)]
pub(crate) struct Wish<T: Args> {
    pub(crate) asked: Asked<T>,
    pub(crate) spec: JailSpec,
    pub(crate) store: Store,
    pub(crate) placements: Vec<Placement>,
}

impl<T: Args> Described<T> {
    /// The jails that are asked for, each checked.
    ///
    /// # Errors
    /// The first mistake, with its flag, or its file, line and key.
    pub(crate) fn wishes(&self) -> Result<Vec<Wish<T>>, Failure> {
        self.jails()?.into_iter().map(Wish::new).collect()
    }
}

impl<T: Args> Wish<T> {
    fn new(asked: Asked<T>) -> Result<Self, Failure> {
        let checked = || Ok((asked.args.jail.spec()?, asked.args.state.store()?));
        let (spec, store) = checked().map_err(|failure| asked.locate(failure))?;
        let placements = asked.args.jail.placements().map_err(|failure| asked.locate(failure))?;
        Ok(Self { asked, spec, store, placements })
    }

    pub(crate) fn id(&self) -> &JailId {
        &self.spec.id
    }

    /// The failure with the place where this jail was described.
    pub(crate) fn locate(&self, failure: impl Into<Failure>) -> Failure {
        self.asked.locate(failure.into())
    }

    /// Makes the jail and places into it what is asked for.
    fn prepare(&self, signals: &SignalFd) -> Result<Prepared, Failure> {
        let spec = self.spec_now()?;
        hints::warnings(&spec).for_each(|warning| note(&warning));
        let mut prepared = self.store.prepare(&spec).map_err(|error| hints::not_made(&error, &spec))?;
        if let Some(report) = prepared.taken_over() {
            let (id, many) = (self.id(), report.removed.len());
            note(&format!("took over jail {id}, which was left by a crash, and removed {many} things of it"));
        }
        prepared.stripped().iter().for_each(tell_stripped);
        for placement in &self.placements {
            put(placement, PLACE_FLAG, signals, |what, tell| prepared.place_with_progress(what, tell))?;
        }
        Ok(prepared)
    }

    /// The specification, with a network namespace joined that an earlier jail of the same command has made.
    fn spec_now(&self) -> Result<JailSpec, Failure> {
        let mut spec = self.spec.clone();
        if let Netns::Make(name) = &spec.netns {
            spec.netns = Netns::from_argument(name.as_str())?;
        }
        Ok(spec)
    }
}

/// Makes these jails, all of them or none.
///
/// # Errors
/// What failed, with its place in a file; or that a signal has come.
pub(crate) fn prepare_all<T: Args>(wishes: &[Wish<T>], signals: &SignalFd) -> Result<Vec<Prepared>, Failure> {
    make_room_for(wishes.len())?;
    // Those made before the one that fails go with the list.
    wishes.iter().map(|wish| wish.prepare(signals).map_err(|failure| wish.locate(failure))).collect()
}

/// Lets these jails stand by themselves, all of them or none.
pub(crate) fn leave_all<T: Args>(wishes: &[Wish<T>], prepared: Vec<Prepared>) -> Result<(), Failure> {
    for (at, prepared) in prepared.into_iter().enumerate() {
        if let Err(error) = prepared.leave() {
            remove(&wishes[..at]);
            return Err(wishes[at].locate(error));
        }
    }
    Ok(())
}

/// Removes jails that this command has just made; the failure that it has already is the one to tell.
fn remove<T: Args>(wishes: &[Wish<T>]) {
    let jails: Vec<Jail> =
        wishes.iter().filter_map(|wish| wish.store.open(wish.id()).ok().flatten()).collect();
    for report in teardown_all(jails, TeardownOptions::default()).into_iter().flatten() {
        tell_left(&report);
    }
}
