//! The keys of a jail file: the flags of `run`, by their names.

use std::ffi::OsStr;
use std::path::Path;

use clap::{Arg, ArgAction, Args, Command, ValueHint};

use crate::flags::jail::JailCommand;
use crate::flags::run::RunArgs;

/// The key of the VMM's arguments, which follow `--` on a command line.
pub(super) const ARGUMENTS: &str = "arguments";

/// Flags that describe the command instead of the jail.
const NO_KEYS: [&str; 5] = ["file", "detach", "json", "help", "version"];

/// The type of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `true` or `false`: whether the flag is given.
    Switch,
    /// A string or an integer.
    Single,
    /// A string, an integer or a float of seconds.
    Duration,
    /// A string or an integer, or `true` for the flag without a value.
    Optional,
    /// An array of strings and integers.
    List,
    /// An array of `NAME=VALUE`, or a table of names and values.
    Pairs,
}

/// Which values of a flag are paths of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    Never,
    Always,
    /// Values that contain a slash or end in `.toml`. Other values are names.
    UnlessName,
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) paths: Paths,
    /// The keys that exclude this one.
    pub(super) conflicts: Vec<String>,
}

/// The keys of a jail, in the order of the help.
#[derive(Clone, Debug)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// The keys of a jail file, which are the same for each command.
    pub(super) fn all() -> Self {
        let Self(mut keys) = Self::of(&flags_of::<JailCommand<RunArgs>>());
        keys.retain(|key| !NO_KEYS.contains(&key.name.as_str()));
        Self(keys)
    }

    /// The flags of a built command as keys.
    pub(super) fn of(command: &Command) -> Self {
        let arguments = || command.get_arguments();
        let conflict = |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).contains(&b);
        let key = |arg: &Arg| Key {
            name: name(arg),
            shape: shape(arg),
            paths: paths(arg),
            conflicts: arguments()
                .filter(|other| conflict(arg, other) || conflict(other, arg))
                .map(name)
                .collect(),
        };
        Self(arguments().map(key).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Key> {
        self.iter().find(|key| key.name == name)
    }
}

/// A built command with only these arguments. Only a built command knows its conflicts.
pub(super) fn flags_of<T: Args>() -> Command {
    let mut command = T::augment_args(Command::new("stockade").no_binary_name(true));
    command.build();
    command
}

/// The name of a flag's key: the flag's long name.
pub(super) fn name(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

fn shape(arg: &Arg) -> Shape {
    let many = matches!(arg.get_action(), ArgAction::Append) || arg.is_last_set();
    match arg.get_action() {
        ArgAction::SetTrue => Shape::Switch,
        _ if many && is_pair(value_name(arg)) => Shape::Pairs,
        _ if many => Shape::List,
        _ if value_name(arg) == "TIME" => Shape::Duration,
        _ if arg.get_num_args().is_some_and(|range| range.min_values() == 0) => Shape::Optional,
        _ => Shape::Single,
    }
}

fn paths(arg: &Arg) -> Paths {
    let value_name = value_name(arg);
    // A placement's value starts with its source.
    if value_name.starts_with("SRC") {
        return Paths::Always;
    }
    if value_name.ends_with("|PATH") || value_name.ends_with("|FILE") {
        return Paths::UnlessName;
    }
    let hints = [ValueHint::AnyPath, ValueHint::FilePath, ValueHint::DirPath, ValueHint::ExecutablePath];
    if hints.contains(&arg.get_value_hint()) { Paths::Always } else { Paths::Never }
}

fn value_name(arg: &Arg) -> &str {
    arg.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str())
}

/// Whether a value's name is like FILE=VALUE.
fn is_pair(value_name: &str) -> bool {
    let is_upper = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
    value_name.split_once('=').is_some_and(|(name, value)| is_upper(name) && is_upper(value))
}

impl Key {
    /// Whether a value is a path relative to the file's directory.
    pub(super) fn is_relative_path(&self, value: &str) -> bool {
        let path = match self.paths {
            Paths::Never => false,
            Paths::Always => true,
            Paths::UnlessName => {
                value.contains('/') || Path::new(value).extension() == Some(OsStr::new("toml"))
            }
        };
        path && !value.is_empty() && !value.starts_with('/')
    }

    /// Whether a later level adds values to this key instead of replacing its value.
    pub(super) fn adds_up(&self) -> bool {
        matches!(self.shape, Shape::List | Shape::Pairs) && self.name != ARGUMENTS
    }
}

/// Checks that each flag of this command that describes a jail has a key.
#[cfg(test)]
pub(crate) fn check_keys_of<T: Args>() {
    let keys = Keys::all();
    let command = flags_of::<JailCommand<T>>();
    for arg in command.get_arguments().filter(|arg| !NO_KEYS.contains(&arg.get_id().as_str())) {
        assert!(keys.get(&name(arg)).is_some(), "{} has no key", name(arg));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_run_has_a_key() {
        check_keys_of::<RunArgs>();
    }

    #[test]
    fn keys_with_host_paths_are_known() {
        let paths = |wanted| {
            let keys = Keys::all();
            let names: Vec<String> =
                keys.iter().filter(|key| key.paths == wanted).map(|key| key.name.clone()).collect();
            names
        };
        // A new flag with a path belongs in this list, so that the path is relative to the file's directory.
        assert_eq!(
            paths(Paths::Always),
            ["exec-file", "chroot-base-dir", "place", "share", "profile-dir", "state-dir"]
        );
        assert_eq!(paths(Paths::UnlessName), ["netns", "profile"]);
    }

    #[test]
    fn a_key_has_the_shape_of_its_flag() {
        let keys = Keys::all();
        for (name, shape) in [
            ("id", Shape::Single),
            ("uid", Shape::Single),
            ("new-pid-ns", Shape::Switch),
            ("cgroup", Shape::Pairs),
            ("resource-limit", Shape::Pairs),
            ("place", Shape::List),
            ("share", Shape::List),
            ("ready", Shape::Optional),
            ("grace", Shape::Duration),
            ("timeout", Shape::Duration),
            (ARGUMENTS, Shape::List),
        ] {
            assert_eq!(keys.get(name).map(|key| key.shape), Some(shape), "{name}");
        }
        assert_eq!(keys.get("new-net-ns").map(|key| key.conflicts.clone()), Some(vec!["netns".to_owned()]));
    }
}
