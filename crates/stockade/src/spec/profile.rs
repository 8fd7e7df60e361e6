//! VMM profiles as data: default arguments, the API socket, and the files opened at run time.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{JailPath, SpecError};
use crate::spec::placement::{How, Placement};

/// The known properties of a kind of VMM.
///
/// Some profiles are built in. A TOML file with these keys adds another ([`Profiles`](super::Profiles)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The profile's name (default: the name of its file without `.toml`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Names of executables that select the profile. A `*` at the end matches any rest.
    #[serde(default)]
    pub executables: Vec<String>,
    /// Arguments of the VMM before those of the specification.
    #[serde(default)]
    pub arguments: Vec<ProfileArgument>,
    /// The VMM's API socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<ApiSocket>,
    /// The device nodes without which the VMM cannot run. If this process may not create another of the jail's device
    /// nodes, the jail is created without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<JailPath>,
    /// Files that the VMM opens at run time: firmware, modules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub place: Vec<ProfileFile>,
}

/// An argument of a profile: a text, or a value that is known only at the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ProfileArgument {
    /// A fixed text.
    Text(String),
    /// `{id}`: the jail's id.
    Id,
    /// `{start-time-us}`: the time of the request to start, in microseconds of the monotonic clock.
    StartTime,
    /// `{cpu-time-us}`: the processor time that the VMM's process has used, in microseconds.
    CpuTime,
    /// `{parent-cpu-time-us}`: the processor time of that process and those before it, for the jail, in microseconds.
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
        match PLACEHOLDERS.into_iter().find(|(name, _)| *name == text) {
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
                .map(|(name, _)| name.to_owned())
                .unwrap_or_default(),
        }
    }
}

/// The Unix socket on which a VMM accepts commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSocket {
    /// The default path in the jail; `None` if the VMM has no socket by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<JailPath>,
    /// Flags that set the path, as in `--api-sock PATH` or `--api-sock=PATH`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Prefixes of the path in the flag's value; the first match counts, and the path ends at a comma. Without
    /// prefixes the whole value is the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Flags that disable the socket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
}

/// A file, directory or device of the host that a VMM needs in its jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileFile {
    /// The path on the host.
    pub source: PathBuf,
    /// The path in the jail; with `None` the same path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<JailPath>,
    /// Whether a missing source is an error. Otherwise a missing source is skipped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// The placement method. By default a directory is bound, and anything else placed by [`How::Auto`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
}

impl ProfileFile {
    /// `None` if the source is missing and not required.
    fn placement(&self) -> Option<Placement> {
        let name = self.name.as_ref().map_or_else(|| self.source.clone(), JailPath::absolute);
        let placement = Placement::new(&self.source).named(name).how(self.how.unwrap_or_default());
        match std::fs::metadata(&self.source) {
            // The jail's uid owns a shared file.
            Ok(_) if self.how == Some(How::Share) => Some(placement),
            // A bind copies nothing, and follows updates of the host's directory.
            Ok(facts) if facts.is_dir() => Some(placement.how(self.how.unwrap_or(How::Bind)).read_only()),
            Ok(facts) if facts.is_file() => Some(placement.read_only()),
            Ok(_) => Some(placement),
            Err(_) => self.required.then_some(placement),
        }
    }
}

impl Profile {
    /// A profile without any properties.
    pub fn plain() -> Self {
        Self { name: "plain".to_owned(), ..Self::default() }
    }

    /// The profile of Firecracker, with the arguments that Firecracker's jailer passes.
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
            devices: kvm(),
            place: Vec::new(),
        }
    }

    /// The profile of QEMU.
    ///
    /// QEMU searches firmware and modules relative to its own directory, which is `/` in a jail. So files below `/usr`
    /// on the host go to the jail's root.
    pub fn qemu() -> Self {
        let below_usr = |path: &str| ProfileFile {
            source: Path::new("/usr").join(path),
            name: JailPath::new(path).ok(),
            required: false,
            how: None,
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

    /// The profile of Cloud Hypervisor.
    pub fn cloud_hypervisor() -> Self {
        Self {
            name: "cloud-hypervisor".to_owned(),
            executables: owned(&["cloud-hypervisor*"]),
            socket: Some(ApiSocket {
                flags: owned(&["--api-socket"]),
                prefixes: owned(&["path=", ""]),
                ..ApiSocket::default()
            }),
            devices: kvm(),
            ..Self::default()
        }
    }

    /// All built-in profiles.
    pub fn built_in() -> [Self; 4] {
        [Self::firecracker(), Self::qemu(), Self::cloud_hypervisor(), Self::plain()]
    }

    /// Read-only placements of the profile's files that exist on this host, and of required ones.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        self.place.iter().filter_map(ProfileFile::placement)
    }

    /// Whether an executable of this name selects the profile.
    pub fn is_for(&self, name: &str) -> bool {
        self.executables.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => pattern == name,
        })
    }

    /// The API socket of a VMM with these arguments, if it is known.
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
    /// The value of an argument, if it is one of the flags.
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

fn kvm() -> Vec<JailPath> {
    JailPath::new("dev/kvm").into_iter().collect()
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
    fn the_socket_of_firecracker_follows_its_arguments() {
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
    fn a_socket_path_is_between_a_prefix_and_a_comma() {
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
        for (name, argument) in PLACEHOLDERS {
            assert_eq!(String::from(argument), name);
        }
    }
}
