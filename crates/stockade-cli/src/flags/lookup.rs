//! Finds jails by id or by a prefix of it.

use rustix::process::Signal;
use stockade::spec::JailId;
use stockade::{Jail, Stopped, Store, Unheeded};

use crate::terminal::output::Failure;

/// Opens the jail with exactly this id.
pub(crate) fn open(store: &Store, id: &JailId) -> Result<Jail, Failure> {
    store.open(id)?.ok_or_else(|| no_exact_jail(store, id))
}

/// Finds the jail with this id, or the only jail whose id begins so. For commands that change nothing.
pub(crate) fn find(store: &Store, named: &JailId) -> Result<JailId, Failure> {
    // A jail whose receipt cannot be read exists too.
    if !matches!(store.read(named), Ok(None)) {
        return Ok(named.clone());
    }
    match &with_prefix(store, named)[..] {
        [] => Err(no_such_jail(named)),
        [only] => Ok(only.clone()),
        several => {
            let several = list(several);
            Err(Failure::new(format!("'{named}' matches several jails: {several}; use a longer prefix")))
        }
    }
}

/// What became of a signal.
pub(crate) enum Sent {
    /// It was sent.
    ToVmm,
    /// It was sent, and has no effect.
    Unheeded(Unheeded),
    /// The VMM does not run.
    NotRunning,
}

/// Sends a signal to the VMM of the jail with exactly this id.
pub(crate) fn send_signal(store: &Store, id: &JailId, signal: Signal) -> stockade::Result<Sent> {
    let Some(vmm) = store.vmm(id)? else { return Ok(Sent::NotRunning) };
    vmm.signal(signal)?;
    // Of other signals it is not known that the caller wants the VMM to exit.
    let unheeded = if signal == Signal::TERM { vmm.unheeded(signal) } else { None };
    Ok(unheeded.map_or(Sent::ToVmm, Sent::Unheeded))
}

/// The failure of a command that changes a jail and finds none with this id.
pub(crate) fn no_exact_jail(store: &Store, id: &JailId) -> Failure {
    match &with_prefix(store, id)[..] {
        [] => no_such_jail(id),
        near => Failure::new(format!(
            "no jail '{id}'; commands that change a jail need its full id, such as {}",
            list(near)
        )),
    }
}

pub(crate) fn no_such_jail(id: &JailId) -> Failure {
    Failure::new(format!("no jail '{id}'; list the jails with `stockade ps`"))
}

fn with_prefix(store: &Store, prefix: &JailId) -> Vec<JailId> {
    let ids = store.ids().unwrap_or_default().into_iter();
    let near = ids.filter(|id| id.as_str().starts_with(prefix.as_str()));
    near.filter(|id| !matches!(store.read(id), Ok(None))).collect()
}

/// The first ids, and the number of the others.
fn list(ids: &[JailId]) -> String {
    const MOST: usize = 5;
    let shown: Vec<&str> = ids.iter().take(MOST).map(JailId::as_str).collect();
    let more = match ids.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// The failure of a command that needs a created or running jail.
pub(crate) fn stopped_jail(stopped: &Stopped) -> Failure {
    let receipt = stopped.receipt();
    let (id, state) = (&receipt.id, receipt.state());
    Failure::new(format!("jail '{id}' is {state}; remove it with `stockade rm {id}`"))
}
