//! The jails that a command creates. All requests are checked before the first jail is created, and all jails are
//! created or none.

use clap::Args;
use stockade::spec::{JailId, JailSpec, Netns};
use stockade::{Created, Jail, Placement, Store, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::fd_limit::raise_limit_for;
use crate::errors::hints;
use crate::flags::jail::flag_of;
use crate::flags::placement::{place_one, report_stripped};
use crate::jail_file::{Described, JailDescription};
use crate::terminal::output::{Failure, info, report_leftovers};

/// One jail to create.
#[derive(Debug)]
pub(crate) struct JailRequest<T: Args> {
    pub(crate) description: JailDescription<T>,
    pub(crate) spec: JailSpec,
    pub(crate) store: Store,
    /// In the order of the command line or file.
    pub(crate) placements: Vec<Placement>,
}

impl<T: Args> Described<T> {
    /// Returns the checked requests.
    ///
    /// # Errors
    /// Returns the first mistake, with its flag, or its file, line and key.
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

    /// Adds the file and line that describe this jail, if any.
    pub(crate) fn locate(&self, failure: impl Into<Failure>) -> Failure {
        self.description.locate(failure.into())
    }

    /// Creates the jail with its placements.
    fn create(&self, signals: &SignalFd) -> Result<Created, Failure> {
        let spec = self.spec_now()?;
        hints::warnings(&spec).for_each(|warning| info(&warning));
        let mut created = self.store.create(&spec).map_err(|error| hints::create_failed(&error, &spec))?;
        if let Some(report) = created.taken_over() {
            let (id, count) = (self.id(), report.removed.len());
            info(&format!(
                "took over jail '{id}', abandoned by a crash, and removed {count} leftovers of it"
            ));
        }
        created.stripped().iter().for_each(report_stripped);
        created.notes().iter().for_each(|note| info(&hints::note(note)));
        for placement in &self.placements {
            place_one(placement, flag_of(placement), signals, |what, progress| {
                created.place_with_progress(what, progress)
            })?;
        }
        Ok(created)
    }

    /// Returns the specification. It joins a network namespace that an earlier jail of this command has created.
    fn spec_now(&self) -> Result<JailSpec, Failure> {
        let mut spec = self.spec.clone();
        if let Netns::Make(name) = &spec.netns {
            spec.netns = Netns::from_argument(name.as_str())?;
        }
        Ok(spec)
    }
}

/// Creates all of these jails or none.
///
/// # Errors
/// Returns the first failure, with its file and line if any. A signal is a failure too.
pub(crate) fn create_all<T: Args>(
    requests: &[JailRequest<T>],
    signals: &SignalFd,
) -> Result<Vec<Created>, Failure> {
    raise_limit_for(requests.len())?;
    // On a failure the list is dropped, which removes the jails created before it.
    requests
        .iter()
        .map(|request| request.create(signals).map_err(|failure| request.locate(failure)))
        .collect()
}

/// Persists all of these jails or none.
pub(crate) fn persist_all<T: Args>(
    requests: &[JailRequest<T>],
    created: Vec<Created>,
) -> Result<(), Failure> {
    for (at, jail) in created.into_iter().enumerate() {
        if let Err(error) = jail.persist() {
            remove(&requests[..at]);
            return Err(requests[at].locate(error));
        }
    }
    Ok(())
}

/// Removes jails that this command has just created. Errors are dropped: the caller reports the first failure.
fn remove<T: Args>(requests: &[JailRequest<T>]) {
    let jails: Vec<Jail> =
        requests.iter().filter_map(|request| request.store.open(request.id()).ok().flatten()).collect();
    for report in teardown_all(jails, TeardownOptions::default()).into_iter().flatten() {
        report_leftovers(&report);
    }
}
