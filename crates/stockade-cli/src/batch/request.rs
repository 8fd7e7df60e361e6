//! The jails that a command is asked for, checked before the first is made. All of them are made, or none.

use clap::Args;
use stockade::spec::{JailId, JailSpec, Netns};
use stockade::{Created, Jail, Placement, Store, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::fd_limit::raise_limit_for;
use crate::errors::hints;
use crate::flags::jail::PLACE_FLAG;
use crate::flags::placement::{place_one, report_stripped};
use crate::jail_file::{Described, JailDescription};
use crate::terminal::output::{Failure, info, report_leftovers};

/// One jail, with all that is asked for in order.
#[derive(Debug)]
pub(crate) struct JailRequest<T: Args> {
    pub(crate) description: JailDescription<T>,
    pub(crate) spec: JailSpec,
    pub(crate) store: Store,
    pub(crate) placements: Vec<Placement>,
}

impl<T: Args> Described<T> {
    /// The jails that are asked for, each checked.
    ///
    /// # Errors
    /// The first mistake, with its flag, or its file, line and key.
    pub(crate) fn requests(&self) -> Result<Vec<JailRequest<T>>, Failure> {
        self.jails()?.into_iter().map(JailRequest::new).collect()
    }
}

impl<T: Args> JailRequest<T> {
    fn new(description: JailDescription<T>) -> Result<Self, Failure> {
        let checked = || Ok((description.args.jail.spec()?, description.args.state.store()?));
        let (spec, store) = checked().map_err(|failure| description.locate(failure))?;
        let placements = description.args.jail.placements().map_err(|failure| description.locate(failure))?;
        Ok(Self { description, spec, store, placements })
    }

    pub(crate) fn id(&self) -> &JailId {
        &self.spec.id
    }

    /// The failure with the place where this jail was described.
    pub(crate) fn locate(&self, failure: impl Into<Failure>) -> Failure {
        self.description.locate(failure.into())
    }

    /// Makes the jail and places into it what is asked for.
    fn prepare(&self, signals: &SignalFd) -> Result<Created, Failure> {
        let spec = self.spec_now()?;
        hints::warnings(&spec).for_each(|warning| info(&warning));
        let mut prepared = self.store.create(&spec).map_err(|error| hints::prepare_failed(&error, &spec))?;
        if let Some(report) = prepared.taken_over() {
            let (id, many) = (self.id(), report.removed.len());
            info(&format!("took over jail {id}, which was left by a crash, and removed {many} things of it"));
        }
        prepared.stripped().iter().for_each(report_stripped);
        for placement in &self.placements {
            place_one(placement, PLACE_FLAG, signals, |what, progress| {
                prepared.place_with_progress(what, progress)
            })?;
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
pub(crate) fn prepare_all<T: Args>(
    requests: &[JailRequest<T>],
    signals: &SignalFd,
) -> Result<Vec<Created>, Failure> {
    raise_limit_for(requests.len())?;
    // Those made before the one that fails go with the list.
    requests
        .iter()
        .map(|request| request.prepare(signals).map_err(|failure| request.locate(failure)))
        .collect()
}

/// Lets these jails stand by themselves, all of them or none.
pub(crate) fn persist_all<T: Args>(
    requests: &[JailRequest<T>],
    prepared: Vec<Created>,
) -> Result<(), Failure> {
    for (at, prepared) in prepared.into_iter().enumerate() {
        if let Err(error) = prepared.persist() {
            remove(&requests[..at]);
            return Err(requests[at].locate(error));
        }
    }
    Ok(())
}

/// Removes jails that this command has just made; the failure that it has already is the one to tell.
fn remove<T: Args>(requests: &[JailRequest<T>]) {
    let jails: Vec<Jail> =
        requests.iter().filter_map(|request| request.store.open(request.id()).ok().flatten()).collect();
    for report in teardown_all(jails, TeardownOptions::default()).into_iter().flatten() {
        report_leftovers(&report);
    }
}
