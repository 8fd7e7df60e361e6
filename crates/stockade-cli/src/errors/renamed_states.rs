//! States and events of jails that had another name in earlier versions.

/// Each old name with the present one.
const RENAMED: [(&str, &str); 5] = [
    ("prepared", "created"),
    ("ended", "exited"),
    ("dead", "abandoned"),
    ("elsewhere", "foreign"),
    ("damaged", "corrupt"),
];

/// The flags whose values are states or events.
const FLAGS: [&str; 2] = ["--filter", "--until"];

/// A hint for the value of a flag that contains an old name.
pub(super) fn hint(flag: &str, value: &str) -> Option<String> {
    if !FLAGS.contains(&flag.split(' ').next()?) {
        return None;
    }
    let names = value.strip_prefix("state=").unwrap_or(value);
    names.split(',').find_map(|name| {
        let (old, new) = RENAMED.into_iter().find(|(old, _)| *old == name)?;
        Some(format!("'{old}' is now '{new}'"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_is_answered_with_the_new_one() {
        for (flag, value, new) in [
            ("--filter <KEY=VALUE>", "state=running,ended", "'ended' is now 'exited'"),
            ("--filter <KEY=VALUE>", "state=damaged", "'damaged' is now 'corrupt'"),
            ("--until <EVENT>", "dead", "'dead' is now 'abandoned'"),
        ] {
            assert_eq!(hint(flag, value).as_deref(), Some(new), "{flag} {value}");
        }
        for (flag, value) in [
            ("--filter <KEY=VALUE>", "id=ended"),
            ("--filter <KEY=VALUE>", "state=up"),
            ("--id <ID>", "ended"),
        ] {
            assert_eq!(hint(flag, value), None, "{flag} {value}");
        }
    }
}
