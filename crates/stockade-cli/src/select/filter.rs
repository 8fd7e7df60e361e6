//! Conditions on jails: `--filter KEY=VALUE`.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use glob::Pattern;
use stockade::spec::{Account, HostPath};
use stockade::{JailState, Listing};

use crate::flags::duration::duration;

/// One condition on a jail. An unknown property of a jail meets no condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    State(Vec<JailState>),
    Id(Pattern),
    /// The name of the VMM's executable.
    Vmm(Pattern),
    /// The base directory.
    Base(HostPath),
    /// The VMM's uid.
    Uid(u32),
    /// The least age.
    Older(Duration),
    /// The age that no jail reaches.
    Younger(Duration),
}

impl Filter {
    pub(crate) fn fits(&self, jail: &Listing) -> bool {
        match self {
            Self::State(states) => states.contains(&jail.state),
            Self::Id(pattern) => pattern.matches(jail.id.as_str()),
            Self::Vmm(pattern) => jail.vmm.as_ref().is_some_and(|vmm| pattern.matches(vmm)),
            Self::Base(base) => jail.base.as_ref() == Some(base),
            Self::Uid(uid) => jail.uid == Some(*uid),
            Self::Older(least) => jail.age.is_some_and(|age| Duration::from_secs(age) >= *least),
            Self::Younger(limit) => jail.age.is_some_and(|age| Duration::from_secs(age) < *limit),
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("not KEY=VALUE; use one of the keys {}", FILTER_KEYS.join(", ")));
        };
        let shown = value.escape_debug();
        let pattern = || Pattern::new(value).map_err(|e| format!("'{shown}' is not a pattern: {e}"));
        match key {
            "state" => value.split(',').map(state).collect::<Result<_, _>>().map(Self::State),
            "id" => pattern().map(Self::Id),
            "vmm" => pattern().map(Self::Vmm),
            "base" => HostPath::future_directory(Path::new(value)).map(Self::Base).map_err(|e| e.to_string()),
            "uid" => Account::User.parse(value).map(Self::Uid).map_err(|e| e.to_string()),
            "older" => age(value).map(Self::Older),
            "younger" => age(value).map(Self::Younger),
            _ => {
                let (key, keys) = (key.escape_debug(), FILTER_KEYS.join(", "));
                Err(format!("unknown key '{key}'; use one of the keys {keys}"))
            }
        }
    }
}

pub(crate) const FILTER_KEYS: [&str; 7] = ["state", "id", "vmm", "base", "uid", "older", "younger"];

fn state(name: &str) -> Result<JailState, String> {
    let named = JailState::ALL.into_iter().find(|state| state.to_string() == name);
    named.ok_or_else(|| {
        let all = JailState::ALL.map(|state| state.to_string()).join(", ");
        format!("'{}' is not a state; use one of {all}", name.escape_debug())
    })
}

fn age(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|cause| format!("'{}' is {cause}", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail() -> Listing {
        Listing {
            id: "vm-1".parse().expect("an id"),
            pid: None,
            state: JailState::Exited,
            ended: None,
            oom_kills: None,
            age: Some(600),
            vmm: Some("firecracker".into()),
            base: Some(Path::new("/srv/jailer").to_owned().into()),
            uid: Some(1234),
            problem: None,
        }
    }

    #[test]
    fn each_key_matches_its_value_and_no_other() {
        for (fits, other) in [
            ("state=exited", "state=running"),
            ("state=abandoned,exited", "state=abandoned,running"),
            ("id=vm-*", "id=vm"),
            ("id=vm-[12]", "id=vm-[23]"),
            ("vmm=fire?racker", "vmm=qemu*"),
            ("base=/srv/jailer", "base=/srv"),
            ("uid=1234", "uid=0"),
            ("older=10m", "older=601"),
            ("younger=1h", "younger=600s"),
        ] {
            assert!(fits.parse::<Filter>().expect(fits).fits(&jail()), "{fits}");
            assert!(!other.parse::<Filter>().expect(other).fits(&jail()), "{other}");
        }
    }

    #[test]
    fn an_unknown_property_meets_no_condition() {
        let corrupt = Listing::corrupt("vm-1".parse().expect("an id"), "is corrupt".into());
        for unknown in ["vmm=*", "base=/srv/jailer", "uid=1234", "older=0", "younger=1d"] {
            assert!(!unknown.parse::<Filter>().expect(unknown).fits(&corrupt), "{unknown}");
        }
        assert!("state=corrupt".parse::<Filter>().expect("a filter").fits(&corrupt));
    }

    #[test]
    fn an_invalid_filter_is_refused_with_the_valid_values() {
        for (text, message) in [
            ("vm-1", "not KEY=VALUE; use one of the keys state, id, vmm, base, uid, older, younger"),
            ("name=x", "unknown key 'name'; use one of the keys state, id, vmm, base, uid, older, younger"),
            (
                "state=up",
                "'up' is not a state; use one of created, running, exited, abandoned, foreign, corrupt",
            ),
            ("id=[", "'[' is not a pattern: Pattern syntax error near position 0: invalid range pattern"),
            ("uid=-1", "'-1' is not a user ID; use 0 to 4294967294, or a name in '/etc/passwd'"),
            (
                "older=soon",
                "'soon' is not a duration; use seconds, or a number with ms, s, m, h or d such as 0.2, 500ms or 1m",
            ),
            (
                "older=-1",
                "'-1' is not a duration; use seconds, or a number with ms, s, m, h or d such as 0.2, 500ms or 1m",
            ),
        ] {
            assert_eq!(text.parse::<Filter>(), Err(message.to_owned()), "{text}");
        }
    }
}
