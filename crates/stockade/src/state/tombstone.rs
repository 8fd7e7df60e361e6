//! The last name of a jail's place, which tells how the jail was to whoever watches the state directory.
//!
//! A jail may come and go faster than a subscriber looks at it. Its place is given this name in the moment before
//! it is removed, and the kernel keeps the name in the subscriber's queue when the place is gone.

use crate::spec::{ExitStatus, JailId, Nonce};

/// What every such name begins with.
const PREFIX: &str = ".gone";

/// The exit status of a jail without a VMM.
const NO_VMM: &str = "none";

/// What is told of a jail that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) id: JailId,
    pub(crate) nonce: Nonce,
    /// Its VMM, if there was one, and how that ended.
    pub(crate) vmm: Option<(i32, ExitStatus)>,
}

impl Tombstone {
    /// The name of the place: neither an id nor a nonce has a dot in it.
    pub(crate) fn name(&self) -> String {
        let Self { id, nonce, .. } = self;
        let (pid, how) = match self.vmm {
            None => (0, NO_VMM.to_owned()),
            Some((pid, status)) => (pid, status.to_text()),
        };
        format!("{PREFIX}.{nonce}.{pid}.{how}.{id}")
    }

    /// Reads a name; `None` if it is another.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
        let (nonce, pid, how, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let status = if how == NO_VMM { None } else { Some(ExitStatus::from_text(how)?) };
        let pid = pid.parse().ok()?;
        let vmm = status.map(|status| (pid, status));
        Some(Self { id: id.parse().ok()?, nonce: Nonce::parse(nonce)?, vmm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_what_went_into_it() {
        let ends =
            [ExitStatus::Exited(0), ExitStatus::Exited(255), ExitStatus::Killed(9), ExitStatus::Unknown];
        for vmm in ends.map(|how| Some((4_194_304, how))).into_iter().chain([None]) {
            let id = "a-2".repeat(21).parse().expect("an id of 63 characters");
            let tombstone = Tombstone { id, nonce: Nonce::new(), vmm };
            let name = tombstone.name();
            assert!(name.len() < 256 && name.parse::<JailId>().is_err(), "{name}");
            assert_eq!(Tombstone::parse(&name), Some(tombstone), "{name}");
        }
    }

    #[test]
    fn other_names_tell_nothing() {
        for name in
            ["vm-1", ".gone", ".gone.x.1.exited0.vm-1", ".gone.0123456789abcdef.1.lost5.vm-1", ".stockade-1"]
        {
            assert_eq!(Tombstone::parse(name), None, "{name}");
        }
    }
}
