//! What the VMM's process does to itself on its way into the jail.

use std::ffi::OsString;
use std::fmt;

use serde::{Deserialize, Serialize};
use stockade_syscalls::inherited::Attribute;

use super::bind::Bind;
use crate::spec::{HostPath, JailPath};

/// One step of a process on its way into a jail. Nothing of these outlives the process, so nothing has to
/// be undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum EnterStep {
    /// Begin to exist, with namespaces and cgroup.
    Clone {
        /// In a pid namespace of its own.
        new_pid_ns: bool,
        /// In a network namespace of its own.
        new_netns: bool,
        /// In this cgroup of version 2.
        cgroup: Option<HostPath>,
    },
    /// Close every descriptor that is not needed.
    CloseDescriptors,
    /// Leave the caller's session and terminal.
    NewSession,
    /// Join a network namespace.
    JoinNetns {
        /// Its file.
        path: HostPath,
    },
    /// Limit the size of files.
    LimitFileSize {
        /// In bytes.
        bytes: u64,
    },
    /// Limit the number of descriptors.
    LimitOpenFiles {
        /// How many.
        count: u64,
    },
    /// Move into a cgroup.
    JoinCgroup {
        /// The file that moves whoever writes to it.
        file: HostPath,
    },
    /// Go to the jail's root.
    GoToRoot {
        /// The root.
        path: HostPath,
    },
    /// Join the skeleton mount namespace.
    JoinSkeleton {
        /// Its file.
        path: HostPath,
    },
    /// Copy the mount namespace.
    UnshareMounts,
    /// Keep mounts made here from spreading to the host, and set-uid bits from having an effect.
    MakeMountsSlaves,
    /// Take the jail's tree with the mounts in it.
    CloneTree,
    /// Take the jail's tree without the mounts in it.
    CloneTreeAlone,
    /// Mount it onto itself.
    AttachTree,
    /// Go to its root.
    EnterTree,
    /// Keep mounts made here from spreading to the host, and set-uid bits from having an effect.
    MakeTreeSlave,
    /// Make it the root.
    PivotRoot,
    /// Take the host's root away.
    DetachOldRoot,
    /// Make it the root, over the skeleton's own.
    ChangeRoot,
    /// Go to the new root.
    ChangeToRoot,
    /// Attach a file or directory of the host in the jail.
    Attach(Bind),
    /// Join the mount namespace of a VMM that runs.
    JoinMounts,
    /// Join the other namespaces of a VMM that runs.
    JoinNamespaces,
    /// Take the standard streams that the launcher gives.
    TakeStreams,
    /// Take the terminal that a visitor is given.
    TakeTerminal,
    /// Put the standard streams on `/dev/null`.
    NullStreams,
    /// Go on in the background.
    Daemonize,
    /// Go on in a process that does not lead its session.
    ForkAgain,
    /// Go on as the first process of a pid namespace.
    NewPidNamespace,
    /// Write the pid file.
    WritePidFile {
        /// Where it is in the jail.
        path: JailPath,
    },
    /// Wait until the launcher has written the pid down.
    WaitForGo,
    /// Set the group.
    SetGid {
        /// The group.
        gid: u32,
    },
    /// Drop supplementary groups.
    ClearGroups,
    /// Set the user.
    SetUid {
        /// The user.
        uid: u32,
    },
    /// SIGPIPE at its default, no signal blocked.
    ResetSignals,
    /// Every signal at its default, whatever the launcher ignores.
    DefaultSignals,
    /// Put inherited attributes to their documented state.
    Reset {
        /// Which.
        #[serde(with = "attributes")]
        attributes: Vec<Attribute>,
    },
    /// Have the launcher put inherited attributes to their documented state, while the process is busy.
    ResetByLauncher {
        /// Which.
        #[serde(with = "attributes")]
        attributes: Vec<Attribute>,
    },
    /// Empty the bounding set of capabilities.
    EmptyBoundingSet,
    /// Give up every capability.
    ClearCapabilities,
    /// Give up inheritable and ambient capabilities.
    ClearInheritable,
    /// Be traced by no process, not even one of the same uid, until the program is executed.
    BecomeUndumpable,
    /// Never have more privileges.
    NoNewPrivileges,
    /// Keep set-uid bits from having an effect in the jail.
    MakeRootNosuid,
    /// Keep of root's capabilities those over files.
    KeepFileCapabilities,
    /// Filter the system calls that give uid 0 power over the host without a capability.
    ConfineRoot,
    /// Become a visitor's program.
    ExecuteVisitor {
        /// Its name.
        program: String,
        /// Whether it is one of the host's.
        of_host: bool,
    },
    /// Become the VMM.
    Execute {
        /// Its executable in the jail.
        path: JailPath,
        /// Its arguments, argv0 included.
        arguments: Vec<Argument>,
    },
}

/// An argument of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Argument {
    /// A text known beforehand.
    Text(#[serde(with = "text")] OsString),
    /// The processor time of the process at that moment, in microseconds.
    CpuTime,
    /// The processor time of the processes before it, in microseconds.
    EarlierCpuTime,
}

/// Attributes on a receipt: by name.
mod attributes {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use stockade_syscalls::inherited::Attribute;

    pub(super) fn serialize<S: Serializer>(all: &[Attribute], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(all.iter().map(|attribute| attribute.name()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Attribute>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let named = |name: &String| {
            Attribute::named(name).ok_or_else(|| D::Error::custom(format!("unknown attribute {name:?}")))
        };
        names.iter().map(named).collect()
    }
}

/// Arguments on a receipt: as text where they are text, as bytes where they are not.
mod text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(text: &OsString, serializer: S) -> Result<S::Ok, S::Error> {
        match text.to_str() {
            Some(text) => text.serialize(serializer),
            None => text.as_bytes().serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OsString, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => text.into(),
            Either::Bytes(bytes) => OsString::from_vec(bytes),
        })
    }
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&text.to_string_lossy()),
            Self::CpuTime | Self::EarlierCpuTime => f.write_str("MICROSECONDS"),
        }
    }
}

fn names(attributes: &[Attribute]) -> String {
    attributes.iter().map(|attribute| attribute.name()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for EnterStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone { new_pid_ns, new_netns, cgroup } => {
                f.write_str("clone a child")?;
                for (asked, what) in [(new_pid_ns, "pid"), (new_netns, "network")] {
                    if *asked {
                        write!(f, ", in a new {what} namespace")?;
                    }
                }
                cgroup.as_ref().map_or(Ok(()), |cgroup| write!(f, ", in cgroup {cgroup}"))
            }
            Self::CloseDescriptors => f.write_str("close all other descriptors"),
            Self::NewSession => f.write_str("start a new session"),
            Self::JoinNetns { path } => write!(f, "join network namespace {path}"),
            Self::LimitFileSize { bytes } => write!(f, "limit the size of files to {bytes} bytes"),
            Self::LimitOpenFiles { count } => write!(f, "limit the number of descriptors to {count}"),
            Self::JoinCgroup { file } => write!(f, "move into the cgroup through {file}"),
            Self::GoToRoot { path } => write!(f, "go to {path}"),
            Self::JoinSkeleton { path } => write!(f, "join the skeleton mount namespace {path}"),
            Self::UnshareMounts => f.write_str("copy the mount namespace"),
            Self::MakeMountsSlaves => f.write_str("make all mounts nosuid slaves"),
            Self::CloneTree => f.write_str("take the jail's tree with its mounts"),
            Self::CloneTreeAlone => f.write_str("take the jail's tree without its mounts"),
            Self::AttachTree => f.write_str("mount the jail's tree onto itself"),
            Self::EnterTree => f.write_str("enter the mounted tree"),
            Self::MakeTreeSlave => f.write_str("make the tree's mounts nosuid slaves"),
            Self::PivotRoot => f.write_str("pivot the root to it"),
            Self::DetachOldRoot => f.write_str("detach the host's root"),
            Self::ChangeRoot => f.write_str("change the root to it"),
            Self::ChangeToRoot => f.write_str("go to the new root"),
            Self::Attach(bind) => {
                let how = if bind.read_only { ", read-only" } else { "" };
                write!(f, "attach {} at {}{how}", bind.source, bind.path)
            }
            Self::JoinMounts => f.write_str("join the VMM's mount namespace"),
            Self::JoinNamespaces => f.write_str("join the VMM's other namespaces"),
            Self::TakeTerminal => f.write_str("take the visitor's terminal"),
            Self::Reset { attributes } => write!(f, "reset {}", names(attributes)),
            Self::ResetByLauncher { attributes } => {
                write!(f, "have the launcher reset {}", names(attributes))
            }
            Self::EmptyBoundingSet => {
                f.write_str("empty the capability bounding set and lock the securebits")
            }
            Self::ClearCapabilities => f.write_str("clear all capability sets"),
            Self::ClearInheritable => f.write_str("clear inheritable and ambient capabilities"),
            Self::BecomeUndumpable => f.write_str("become undumpable until the exec"),
            Self::NoNewPrivileges => f.write_str("set no_new_privs"),
            Self::MakeRootNosuid => f.write_str("make the jail's mounts nosuid"),
            Self::KeepFileCapabilities => f.write_str("keep no capabilities but those over files"),
            Self::ConfineRoot => {
                f.write_str("filter system calls: no set-uid files, no keys, no user namespaces")
            }
            Self::ExecuteVisitor { program, .. } => write!(f, "execute in the jail: {program}"),
            Self::TakeStreams => f.write_str("take the launcher's streams"),
            Self::NullStreams => f.write_str("put the standard streams on /dev/null"),
            Self::Daemonize => f.write_str("go on in the background"),
            Self::ForkAgain => f.write_str("go on without leading the session"),
            Self::NewPidNamespace => f.write_str("go on in a new pid namespace"),
            Self::WritePidFile { path } => write!(f, "write the pid to {path} in the jail"),
            Self::WaitForGo => f.write_str("wait until the launcher has written down the pid"),
            Self::SetGid { gid } => write!(f, "set the group to {gid}"),
            Self::ClearGroups => f.write_str("drop supplementary groups"),
            Self::SetUid { uid } => write!(f, "set the user to {uid}"),
            Self::ResetSignals => f.write_str("reset signals"),
            Self::DefaultSignals => f.write_str("put every signal at its default"),
            Self::Execute { path, arguments } => {
                write!(f, "execute in the jail: {path}")?;
                arguments.iter().skip(1).try_for_each(|argument| write!(f, " {argument}"))
            }
        }
    }
}
