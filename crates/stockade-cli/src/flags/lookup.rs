//! Finds jails by id or by a prefix of it.

use rustix::process::Signal;
use stockade::spec::JailId;
use stockade::{Jail, Stopped, Store};

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

/// Sends a signal to the VMM of the jail with exactly this id; false if it does not run.
pub(crate) fn send_signal(store: &Store, id: &JailId, signal: Signal) -> stockade::Result<bool> {
    let sent = store.vmm(id)?.map(|vmm| vmm.signal(signal)).transpose()?;
    Ok(sent.is_some())
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
