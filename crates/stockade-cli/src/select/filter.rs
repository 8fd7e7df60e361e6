//! Which jails are meant, as `--filter KEY=VALUE` says it.

use std::path::Path;
use std::str::FromStr;

use glob::Pattern;
use stockade::spec::{HostPath, Owner};
use stockade::{JailState, Listing};

/// One condition on a jail. What is not known of a jail meets no condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    /// It is in one of these states.
    State(Vec<JailState>),
    /// Its id is like this.
    Id(Pattern),
    /// The name of its VMM's executable is like this.
    Vmm(Pattern),
    /// It was made in this directory.
    Base(HostPath),
    /// Its VMM runs as this user.
    Uid(u32),
    /// It was made at least so many seconds ago.
    Older(u64),
    /// It was made less than so many seconds ago.
    Younger(u64),
}

impl Filter {
    pub(crate) fn fits(&self, jail: &Listing) -> bool {
        match self {
            Self::State(states) => states.contains(&jail.state),
            Self::Id(pattern) => pattern.matches(jail.id.as_str()),
            Self::Vmm(pattern) => jail.vmm.as_ref().is_some_and(|vmm| pattern.matches(vmm)),
            Self::Base(base) => jail.base.as_ref() == Some(base),
            Self::Uid(uid) => jail.uid == Some(*uid),
            Self::Older(seconds) => jail.age.is_some_and(|age| age >= *seconds),
            Self::Younger(seconds) => jail.age.is_some_and(|age| age < *seconds),
        }
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("it is not KEY=VALUE; there are {}", FILTER_KEYS.join(", ")));
        };
        let pattern = || Pattern::new(value).map_err(|e| format!("{value:?} is no pattern: {e}"));
        match key {
            "state" => value.split(',').map(state).collect::<Result<_, _>>().map(Self::State),
            "id" => pattern().map(Self::Id),
            "vmm" => pattern().map(Self::Vmm),
            "base" => HostPath::future_directory(Path::new(value)).map(Self::Base).map_err(|e| e.to_string()),
            "uid" => Owner::parse_number(value)
                .map(Self::Uid)
                .ok_or_else(|| format!("{value:?} is not a uid, such as 1234")),
            "older" => seconds(value).map(Self::Older),
            "younger" => seconds(value).map(Self::Younger),
            _ => Err(format!("there is no key {key:?}; there are {}", FILTER_KEYS.join(", "))),
        }
    }
}

/// What there can be conditions on.
pub(crate) const FILTER_KEYS: [&str; 7] = ["state", "id", "vmm", "base", "uid", "older", "younger"];

fn state(word: &str) -> Result<JailState, String> {
    let named = JailState::ALL.into_iter().find(|state| state.to_string() == word);
    named.ok_or_else(|| {
        let all = JailState::ALL.map(|state| state.to_string()).join(", ");
        format!("{word:?} is not a state; there are {all}")
    })
}

/// A time such as 90s, 10m, 2h or 7d; seconds without a unit.
fn seconds(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    seconds.ok_or_else(|| format!("{text:?} is not a time, such as 30s, 10m, 2h or 7d"))
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
            age: Some(600),
            vmm: Some("firecracker".into()),
            base: Some(Path::new("/srv/jailer").to_owned().into()),
            uid: Some(1234),
            problem: None,
        }
    }

    #[test]
    fn a_jail_is_found_by_each_key_and_by_no_wrong_value() {
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
    fn what_is_not_known_of_a_jail_meets_no_condition() {
        let damaged = Listing::damaged("vm-1".parse().expect("an id"), "is damaged".into());
        for unknown in ["vmm=*", "base=/srv/jailer", "uid=1234", "older=0", "younger=1d"] {
            assert!(!unknown.parse::<Filter>().expect(unknown).fits(&damaged), "{unknown}");
        }
        assert!("state=corrupt".parse::<Filter>().expect("a filter").fits(&damaged));
    }

    #[test]
    fn a_wrong_filter_is_told_with_what_would_be_right() {
        for (text, said) in [
            ("vm-1", "it is not KEY=VALUE; there are state, id, vmm, base, uid, older, younger"),
            ("name=x", "there is no key \"name\"; there are state, id, vmm, base, uid, older, younger"),
            (
                "state=up",
                "\"up\" is not a state; there are created, running, exited, abandoned, foreign, corrupt",
            ),
            ("id=[", "\"[\" is no pattern: Pattern syntax error near position 0: invalid range pattern"),
            ("uid=root", "\"root\" is not a uid, such as 1234"),
            ("older=soon", "\"soon\" is not a time, such as 30s, 10m, 2h or 7d"),
            ("older=-1", "\"-1\" is not a time, such as 30s, 10m, 2h or 7d"),
        ] {
            assert_eq!(text.parse::<Filter>(), Err(said.to_owned()), "{text}");
        }
    }
}
