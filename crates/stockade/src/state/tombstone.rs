//! Tombstones: the last name of a jail's entry, which contains the exit status of the VMM.
//!
//! A jail may be created and removed before a subscriber reads its entry. The entry is renamed to its tombstone just
//! before its removal. The kernel keeps the name in the subscriber's inotify queue after the entry is removed.

use crate::spec::{ExitStatus, JailId, Nonce};

/// The prefix of every tombstone.
const PREFIX: &str = ".gone";

/// The exit status of a jail without a VMM.
const NO_VMM: &str = "none";

/// The record of a removed jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) id: JailId,
    pub(crate) nonce: Nonce,
    /// The pid and the exit status of its VMM; `None` if none was started.
    pub(crate) vmm: Option<(i32, ExitStatus)>,
    /// The processes of the jail that the kernel killed because memory ran out, if they were counted.
    pub(crate) oom_kills: Option<u64>,
}

/// Begins the last part of a name that has this number. Older versions ignore a part behind the id.
const OOM_KILLS: &str = "oom-";

impl Tombstone {
    /// The name of the entry. The parts are separated by dots, because neither an id nor a nonce contains one.
    pub(crate) fn name(&self) -> String {
        let Self { id, nonce, .. } = self;
        let (pid, how) = match self.vmm {
            None => (0, NO_VMM.to_owned()),
            Some((pid, status)) => (pid, status.to_text()),
        };
        let kills = self.oom_kills.map(|kills| format!(".{OOM_KILLS}{kills}")).unwrap_or_default();
        format!("{PREFIX}.{nonce}.{pid}.{how}.{id}{kills}")
    }

    /// Parses a name; `None` if it is not a tombstone.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.strip_prefix('.')?.split('.');
        let (nonce, pid, how, id) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let status = if how == NO_VMM { None } else { Some(ExitStatus::from_text(how)?) };
        let pid = pid.parse().ok()?;
        let vmm = status.map(|status| (pid, status));
        let oom_kills = parts.next().and_then(|kills| kills.strip_prefix(OOM_KILLS)?.parse().ok());
        Some(Self { id: id.parse().ok()?, nonce: Nonce::parse(nonce)?, vmm, oom_kills })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstone_is_parsed_from_its_name() {
        let statuses =
            [ExitStatus::Exited(0), ExitStatus::Exited(255), ExitStatus::Killed(9), ExitStatus::Unknown];
        for vmm in statuses.map(|status| Some((4_194_304, status))).into_iter().chain([None]) {
            let id = "a-2".repeat(21).parse().expect("an id of 63 characters");
            let oom_kills = vmm.and(Some(u64::MAX));
            let tombstone = Tombstone { id, nonce: Nonce::new(), vmm, oom_kills };
            let name = tombstone.name();
            assert!(name.len() < 256 && name.parse::<JailId>().is_err(), "{name}");
            assert_eq!(Tombstone::parse(&name), Some(tombstone), "{name}");
        }
    }

    #[test]
    fn tombstones_of_version_0_1_are_parsed() {
        let status = |text| {
            let name = format!(".gone.0123456789abcdef.42.{text}.vm-1");
            Tombstone::parse(&name).map(|tombstone| tombstone.vmm)
        };
        assert_eq!(status("exited0"), Some(Some((42, ExitStatus::Exited(0)))));
        assert_eq!(status("killed15"), Some(Some((42, ExitStatus::Killed(15)))));
        assert_eq!(status("unknown"), Some(Some((42, ExitStatus::Unknown))));
        assert_eq!(status("none"), Some(None));
    }

    #[test]
    fn other_names_are_not_tombstones() {
        for name in
            ["vm-1", ".gone", ".gone.x.1.exited0.vm-1", ".gone.0123456789abcdef.1.lost5.vm-1", ".stockade-1"]
        {
            assert_eq!(Tombstone::parse(name), None, "{name}");
        }
    }
}
