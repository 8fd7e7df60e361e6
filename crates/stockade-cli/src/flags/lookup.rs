//! What the commands have in common that find their jails by the receipts.

use rustix::process::Signal;
use stockade::spec::JailId;
use stockade::{Jail, Stopped, Store};

use crate::terminal::output::Failure;

/// Opens the jail of this whole id.
pub(crate) fn open(store: &Store, id: &JailId) -> Result<Jail, Failure> {
    store.open(id)?.ok_or_else(|| no_exact_jail(store, id))
}

/// The jail of this id, or the only one whose id begins so. For commands that change nothing.
pub(crate) fn find(store: &Store, named: &JailId) -> Result<JailId, Failure> {
    // One whose receipt cannot be read is there all the same.
    if !matches!(store.read(named), Ok(None)) {
        return Ok(named.clone());
    }
    match &with_prefix(store, named)[..] {
        [] => Err(no_such_jail(named)),
        [only] => Ok(only.clone()),
        several => {
            let several = list(several);
            Err(Failure::new(format!("{named} is the beginning of several ids: {several}; give more of one")))
        }
    }
}

/// Sends the VMM of the jail of this whole id a signal; false if it does not run.
pub(crate) fn send_signal(store: &Store, id: &JailId, signal: Signal) -> stockade::Result<bool> {
    let sent = store.vmm(id)?.map(|vmm| vmm.signal(signal)).transpose()?;
    Ok(sent.is_some())
}

/// Why a command that changes jails finds none of this id.
pub(crate) fn no_exact_jail(store: &Store, id: &JailId) -> Failure {
    match &with_prefix(store, id)[..] {
        [] => no_such_jail(id),
        near => Failure::new(format!(
            "there is no jail {id}: a command that changes a jail takes its whole id, such as {}",
            list(near)
        )),
    }
}

pub(crate) fn no_such_jail(id: &JailId) -> Failure {
    Failure::new(format!("there is no jail {id}: stockade ps lists those that are"))
}

/// The jails whose ids begin like this.
fn with_prefix(store: &Store, beginning: &JailId) -> Vec<JailId> {
    let ids = store.ids().unwrap_or_default().into_iter();
    let near = ids.filter(|id| id.as_str().starts_with(beginning.as_str()));
    near.filter(|id| !matches!(store.read(id), Ok(None))).collect()
}

/// The first of these, and how many more there are.
fn list(ids: &[JailId]) -> String {
    const MOST: usize = 5;
    let shown: Vec<&str> = ids.iter().take(MOST).map(JailId::as_str).collect();
    let more = match ids.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// Why a command that needs a jail with a VMM, or one to be started, cannot use this one.
pub(crate) fn stopped_jail(stopped: &Stopped) -> Failure {
    let receipt = stopped.receipt();
    let (id, state) = (&receipt.id, receipt.state());
    Failure::new(format!("jail '{id}' is {state}; remove it with 'stockade rm {id}'"))
}
