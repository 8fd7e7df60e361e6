//! What is known of a VMM, as data: the arguments it gets, the socket it listens at, the files it opens.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{JailPath, SpecError};
use crate::spec::placement::{How, Placement};

/// What stockade knows of a kind of VMM. Some are built in; a TOML file with these keys adds another
/// ([`Profiles`](super::Profiles)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called; the file's name unless the file says otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The names of the executables that it is for, each with or without a `*` at its end.
    #[serde(default)]
    pub executables: Vec<String>,
    /// The arguments that the VMM gets before those that are given.
    #[serde(default)]
    pub arguments: Vec<ProfileArgument>,
    /// Where the VMM can be talked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<ApiSocket>,
    /// What the VMM opens by itself while it runs: firmware, modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub place: Vec<ProfileFile>,
}

/// An argument of a profile: a text, or what is known only when the VMM starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProfileArgument {
    /// As it stands.
    Text(String),
    /// `{id}`: the jail's id.
    Id,
    /// `{start-time-us}`: when the start was asked for, in microseconds of the monotonic clock.
    StartTime,
    /// `{cpu-time-us}`: the processor time that the VMM's process has used, in microseconds.
    CpuTime,
    /// `{parent-cpu-time-us}`: that of the processes before it.
    ParentCpuTime,
}

const PLACEHOLDERS: [(&str, ProfileArgument); 4] = [
    ("{id}", ProfileArgument::Id),
    ("{start-time-us}", ProfileArgument::StartTime),
    ("{cpu-time-us}", ProfileArgument::CpuTime),
    ("{parent-cpu-time-us}", ProfileArgument::ParentCpuTime),
];

impl TryFrom<String> for ProfileArgument {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        match PLACEHOLDERS.into_iter().find(|(word, _)| *word == text) {
            Some((_, argument)) => Ok(argument),
            None if text.starts_with('{') && text.ends_with('}') => Err(SpecError::Placeholder(text)),
            None => Ok(Self::Text(text)),
        }
    }
}

impl From<ProfileArgument> for String {
    fn from(argument: ProfileArgument) -> Self {
        match argument {
            ProfileArgument::Text(text) => text,
            other => PLACEHOLDERS
                .into_iter()
                .find(|(_, placeholder)| *placeholder == other)
                .map(|(word, _)| word.to_owned())
                .unwrap_or_default(),
        }
    }
}

/// The Unix socket at which a VMM takes commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSocket {
    /// Where it is in the jail unless an argument says otherwise; a VMM may have none by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<JailPath>,
    /// The flags that say where it is, as in `--api-sock PATH` or `--api-sock=PATH`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// What stands before the path in the flag's value, the first that fits; what follows a comma is not the
    /// path's. Nothing listed means that the value is the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// The flags that leave the VMM without a socket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// A file, directory or device of the host that a VMM needs in its jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// Where it is on the host.
    pub source: PathBuf,
    /// Where it goes in the jail; the same path unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<JailPath>,
    /// Whether a jail without it is of no use; it is passed over otherwise where the host lacks it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

impl ProfileFile {
    /// `None` where the host lacks it and the VMM can do without.
    fn placement(&self) -> Option<Placement> {
        let name = self.name.as_ref().map_or_else(|| self.source.clone(), JailPath::absolute);
        let placement = Placement::new(&self.source).named(name);
        match std::fs::metadata(&self.source) {
            // Nothing has to be copied of a directory, and the host's own is as it is updated.
            Ok(facts) if facts.is_dir() => Some(placement.how(How::Bind).read_only()),
            Ok(facts) if facts.is_file() => Some(placement.read_only()),
            Ok(_) => Some(placement),
            Err(_) => self.required.then_some(placement),
        }
    }
}

impl Profile {
    /// A VMM of which nothing is known.
    pub fn plain() -> Self {
        Self { name: "plain".to_owned(), ..Self::default() }
    }

    /// Firecracker, with the arguments that its jailer passes.
    pub fn firecracker() -> Self {
        let text = |text: &str| ProfileArgument::Text(text.to_owned());
        Self {
            name: "firecracker".to_owned(),
            executables: owned(&["firecracker*"]),
            arguments: vec![
                text("--id"),
                ProfileArgument::Id,
                text("--start-time-us"),
                ProfileArgument::StartTime,
                text("--start-time-cpu-us"),
                ProfileArgument::CpuTime,
                text("--parent-cpu-time-us"),
                ProfileArgument::ParentCpuTime,
            ],
            socket: Some(ApiSocket {
                path: JailPath::new("run/firecracker.socket").ok(),
                flags: owned(&["--api-sock"]),
                without: owned(&["--no-api"]),
                ..ApiSocket::default()
            }),
            place: Vec::new(),
        }
    }

    /// QEMU. It looks for its firmware and modules relative to where it is itself: at `/` in a jail, so that
    /// what is below `/usr` on the host goes to the jail's root.
    pub fn qemu() -> Self {
        let below_usr = |path: &str| ProfileFile {
            source: Path::new("/usr").join(path),
            name: JailPath::new(path).ok(),
            required: false,
        };
        let modules = format!("lib/{}-linux-gnu/qemu", std::env::consts::ARCH);
        Self {
            name: "qemu".to_owned(),
            executables: owned(&["qemu-system-*", "qemu-kvm"]),
            socket: Some(ApiSocket {
                flags: owned(&["-qmp", "--qmp"]),
                prefixes: owned(&["unix:"]),
                ..ApiSocket::default()
            }),
            place: [&modules, "share/qemu", "share/seabios", "lib/ipxe/qemu"].map(below_usr).to_vec(),
            ..Self::default()
        }
    }

    /// Cloud Hypervisor.
    pub fn cloud_hypervisor() -> Self {
        Self {
            name: "cloud-hypervisor".to_owned(),
            executables: owned(&["cloud-hypervisor*"]),
            socket: Some(ApiSocket {
                flags: owned(&["--api-socket"]),
                prefixes: owned(&["path=", ""]),
                ..ApiSocket::default()
            }),
            ..Self::default()
        }
    }

    /// Those that need no file.
    pub fn built_in() -> [Self; 4] {
        [Self::firecracker(), Self::qemu(), Self::cloud_hypervisor(), Self::plain()]
    }

    /// What this host has of the files that the VMM opens by itself, for it to read.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        self.place.iter().filter_map(ProfileFile::placement)
    }

    /// Whether it is for an executable of this name.
    pub fn is_for(&self, name: &str) -> bool {
        self.executables.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => pattern == name,
        })
    }

    /// Where a VMM with these arguments can be talked to, if that is known.
    pub fn socket(&self, arguments: &[OsString]) -> Option<JailPath> {
        let socket = self.socket.as_ref()?;
        if arguments.iter().any(|argument| socket.without.iter().any(|flag| argument == OsStr::new(flag))) {
            return None;
        }
        match arguments
            .iter()
            .enumerate()
            .find_map(|(at, argument)| socket.value(argument, arguments.get(at + 1)))
        {
            Some(value) => socket.path_in(value),
            None => socket.path.clone(),
        }
    }
}

impl ApiSocket {
    /// The value of an argument that is one of the flags.
    fn value<'a>(&self, argument: &'a OsStr, next: Option<&'a OsString>) -> Option<&'a [u8]> {
        self.flags.iter().find_map(|flag| match argument.as_bytes().strip_prefix(flag.as_bytes())? {
            [] => next.map(|next| next.as_bytes()),
            [b'=', value @ ..] => Some(value),
            _ => None,
        })
    }

    fn path_in(&self, value: &[u8]) -> Option<JailPath> {
        if self.prefixes.is_empty() {
            return JailPath::new(OsStr::from_bytes(value)).ok();
        }
        let rest = self.prefixes.iter().find_map(|prefix| value.strip_prefix(prefix.as_bytes()))?;
        let path = rest.split(|byte| *byte == b',').next()?;
        JailPath::new(OsStr::from_bytes(path)).ok()
    }
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(profile: &Profile, arguments: &[&str]) -> Option<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        profile.socket(&arguments).map(|path| path.to_string())
    }

    #[test]
    fn firecracker_listens_where_it_is_told() {
        let firecracker = Profile::firecracker();
        for (arguments, expected) in [
            (&[][..], Some("/run/firecracker.socket")),
            (&["--api-sock", "api.sock"], Some("/api.sock")),
            (&["--api-sock=/a/b", "--no-seccomp"], Some("/a/b")),
            (&["--no-api", "--config-file", "vm.json"], None),
            (&["--api-socket", "x"], Some("/run/firecracker.socket")),
            (&["--api-sock", "../out"], None),
        ] {
            assert_eq!(socket(&firecracker, arguments).as_deref(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_prefix_and_a_comma_frame_the_path() {
        let qemu = Profile::qemu();
        assert_eq!(socket(&qemu, &["-qmp", "unix:/run/qmp,server=on"]).as_deref(), Some("/run/qmp"));
        assert_eq!(socket(&qemu, &["-qmp", "stdio"]), None);
        let hypervisor = Profile::cloud_hypervisor();
        for value in ["path=/run/ch.sock", "/run/ch.sock"] {
            assert_eq!(socket(&hypervisor, &["--api-socket", value]).as_deref(), Some("/run/ch.sock"));
        }
    }

    #[test]
    fn executables_choose_their_profile_by_name() {
        assert!(Profile::firecracker().is_for("firecracker-v1.12.0-x86_64"));
        assert!(Profile::qemu().is_for("qemu-system-x86_64") && !Profile::qemu().is_for("qemu-img"));
        assert!(Profile::qemu().is_for("qemu-kvm") && !Profile::qemu().is_for("qemu-kvm-extras"));
        assert!(!Profile::plain().is_for("anything"));
    }

    #[test]
    fn an_unknown_placeholder_is_refused() {
        assert_eq!(
            ProfileArgument::try_from("{uuid}".to_owned()),
            Err(SpecError::Placeholder("{uuid}".to_owned()))
        );
        for (word, argument) in PLACEHOLDERS {
            assert_eq!(String::from(argument), word);
        }
    }
}
