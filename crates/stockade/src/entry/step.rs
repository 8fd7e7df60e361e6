//! The steps of a process on its way into a jail: one table.
//!
//! A row is a step: its fields, what an exec process does in its place, its text, and its system calls.

use std::fmt;

use rustix::fs::OFlags;
use rustix::process::Resource;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use stockade_syscalls::call::{Call, Execute};
use stockade_syscalls::filter::Filter;
use stockade_syscalls::inherited::Attribute;

use super::argument::{Argument, raw_argument};
use super::bind::Bind;
use super::program::{null, open};
use super::{EntryError, attributes};
use crate::spec::{HostPath, JailPath};
use crate::sys::error::{Context, Operation};
use crate::sys::jail_root::JailRoot;

/// The capabilities that `exec --root` keeps: those over files, and none over the host.
const FILE_CAPABILITIES: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER);

/// What an exec process does where the VMM's process makes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InExec {
    /// The same.
    Repeat,
    /// Nothing: the jail has this already, or an exec process does it in its own way (`jail::exec`).
    Skip,
}

macro_rules! enter_steps {
    (
        root: $root:ident;
        $(
            $(#[$meta:meta])*
            $step:ident $({ $($(#[$field_meta:meta])* $field:ident: $type:ty),+ $(,)? })? $(($bind:ident: $bound:ty))?
                => $exec:ident, ($($text:tt)+), $calls:expr;
        )+
    ) => {
        /// One step of a process on its way into a jail. Nothing of these outlives the process, so nothing has to
        /// be undone.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum EnterStep {
            $($(#[$meta])* $step $({ $($(#[$field_meta])* $field: $type),+ })? $(($bound))?),+
        }

        impl EnterStep {
            /// What an exec process does in place of this step.
            pub(crate) fn in_exec(&self) -> InExec {
                match self { $(Self::$step { .. } => InExec::$exec),+ }
            }

            /// The system calls of this step, in order. None for the clone itself, and for steps that the launcher
            /// makes.
            ///
            /// # Errors
            /// What cannot be opened.
            // A step uses what it needs of its fields and of the root.
            #[allow(unused_variables)]
            pub(super) fn calls(&self, $root: &JailRoot) -> Result<Vec<Call>, EntryError> {
                Ok(match self {
                    $(Self::$step $({ $($field),+ })? $(($bind))? => Vec::from($calls)),+
                })
            }
        }

        impl fmt::Display for EnterStep {
            #[allow(unused_variables)]
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$step $({ $($field),+ })? $(($bind))? => write!(f, $($text)+)),+
                }
            }
        }
    };
}

enter_steps! {
    root: root;

    /// Begin to exist, with namespaces and cgroup.
    Clone {
        /// In a pid namespace of its own.
        new_pid_ns: bool,
        /// In a network namespace of its own.
        new_netns: bool,
        /// In this cgroup of the v2 hierarchy.
        cgroup: Option<HostPath>,
    } => Skip, ("clone a child{}", namespaces(*new_pid_ns, *new_netns, cgroup.as_ref())), [];

    /// Close every file descriptor that is not needed.
    CloseDescriptors => Repeat, ("close all other file descriptors"), [Call::CloseOthers];

    /// Leave the caller's session and terminal.
    NewSession => Repeat, ("start a new session"), [Call::NewSession];

    /// Join a network namespace.
    JoinNetns {
        /// Its file.
        path: HostPath,
    } => Skip, ("join network namespace {path}"),
        [Call::JoinNetwork(open(path, OFlags::RDONLY, Operation::Open)?)];

    /// Limit the size of files.
    LimitFileSize {
        /// In bytes.
        bytes: u64,
    } => Skip, ("limit the size of files to {bytes} bytes"),
        [Call::Limit { resource: Resource::Fsize, value: *bytes }];

    /// Limit the number of open files.
    LimitOpenFiles {
        /// How many.
        count: u64,
    } => Repeat, ("limit the number of open files to {count}"),
        [Call::Limit { resource: Resource::Nofile, value: *count }];

    /// Move into a cgroup.
    JoinCgroup {
        /// The file of that cgroup to write to.
        file: HostPath,
    } => Repeat, ("move into the cgroup through {file}"),
        [Call::Write { file: open(file, OFlags::WRONLY, Operation::Write)?, text: b"0" }];

    /// Go to the jail's root.
    GoToRoot {
        /// The root.
        path: HostPath,
    } => Skip, ("go to {path}"),
        [Call::ChangeDirectory(root.shared_root().context(Operation::Open, path)?)];

    /// Join the template mount namespace.
    #[serde(rename = "join-skeleton")]
    JoinTemplateMounts {
        /// Its file.
        path: HostPath,
    } => Skip, ("join the template mount namespace {path}"),
        [Call::JoinMounts(open(path, OFlags::RDONLY, Operation::Open)?)];

    /// Copy the mount namespace.
    UnshareMounts => Skip, ("copy the mount namespace"), [Call::UnshareMounts];

    /// Keep mounts made here from spreading to the host, and set-uid bits from having an effect.
    MakeMountsSlaves => Skip, ("make all mounts nosuid slaves"), [Call::MakeMountsSlaves];

    /// Take the jail's tree with the mounts in it.
    CloneTree => Skip, ("take the jail's tree with its mounts"), [Call::CloneTree];

    /// Take the jail's tree without the mounts in it.
    CloneTreeAlone => Skip, ("take the jail's tree without its mounts"), [Call::CloneTreeAlone];

    /// Mount it onto itself.
    AttachTree => Skip, ("mount the jail's tree onto itself"), [Call::AttachTree];

    /// Go to its root.
    EnterTree => Skip, ("enter the mounted tree"), [Call::EnterTree];

    /// Keep mounts made here from spreading to the host, and set-uid bits from having an effect.
    MakeTreeSlave => Skip, ("make the tree's mounts nosuid slaves"), [Call::MakeTreeSlave];

    /// Make it the root.
    PivotRoot => Skip, ("pivot the root to it"), [Call::PivotRoot];

    /// Unmount the host's root.
    DetachOldRoot => Skip, ("detach the host's root"), [Call::DetachOldRoot];

    /// Make it the root, over that of the template namespace.
    ChangeRoot => Skip, ("change the root to it"), [Call::ChangeRoot];

    /// Go to the new root.
    ChangeToRoot => Skip, ("go to the new root"), [Call::ChangeToRoot];

    /// Attach a file or directory of the host in the jail.
    Attach(bind: Bind)
        => Skip, ("attach {} at {}{}", bind.source, bind.path, if bind.read_only { ", read-only" } else { "" }),
        [Call::Attach { mount: bind.detached()?, at: bind.path.to_relative_c_string() }];

    /// Join the mount namespace of a running VMM.
    JoinMounts => Skip, ("join the VMM's mount namespace"), [];

    /// Join the other namespaces of a running VMM.
    JoinNamespaces => Skip, ("join the VMM's other namespaces"), [];

    /// Take the standard streams that the launcher gives.
    TakeStreams => Skip, ("take the launcher's streams"), [];

    /// Take the terminal of an exec process.
    TakeTerminal => Skip, ("take the terminal of the exec process"), [];

    /// Put the standard streams on `/dev/null`.
    NullStreams => Skip, ("put the standard streams on /dev/null"),
        [Call::Redirect([Some(null()?), Some(null()?), Some(null()?)])];

    /// Go on in the background.
    Daemonize => Skip, ("go on in the background"), [Call::Daemonize];

    /// Go on in a process that does not lead its session.
    ForkAgain => Skip, ("go on without leading the session"), [Call::ForkAgain];

    /// Go on as the first process of a pid namespace.
    NewPidNamespace => Skip, ("go on in a new pid namespace"), [Call::NewPidNamespace];

    /// Write the pid file.
    WritePidFile {
        /// Where it is in the jail.
        path: JailPath,
    } => Skip, ("write the pid to {path} in the jail"), [Call::WritePidFile(path.to_c_string())];

    /// Wait until the launcher has recorded the pid.
    #[serde(rename = "wait-for-go")]
    WaitForRelease => Repeat, ("wait until the launcher has recorded the pid"), [Call::WaitForRelease];

    /// Set the group.
    SetGid {
        /// The group.
        gid: u32,
    } => Repeat, ("set the group to {gid}"), [Call::SetGid(*gid)];

    /// Drop supplementary groups.
    ClearGroups => Repeat, ("drop supplementary groups"), [Call::ClearGroups];

    /// Set the user.
    SetUid {
        /// The user.
        uid: u32,
    } => Repeat, ("set the user to {uid}"), [Call::SetUid(*uid)];

    /// SIGPIPE at its default, no signal blocked.
    ResetSignals => Repeat, ("reset signals"), [Call::ResetSignals];

    /// Every signal at its default, whatever the launcher ignores.
    DefaultSignals => Repeat, ("put every signal at its default"), [Call::DefaultSignals];

    /// Put inherited attributes to their documented state.
    Reset {
        /// Which.
        #[serde(with = "attributes")]
        attributes: Vec<Attribute>,
    } => Skip, ("reset {}", names(attributes)),
        attributes.iter().map(|attribute| Call::Reset(*attribute)).collect::<Vec<_>>();

    /// Have the launcher put inherited attributes to their documented state, while the process is busy.
    ResetByLauncher {
        /// Which.
        #[serde(with = "attributes")]
        attributes: Vec<Attribute>,
    } => Skip, ("have the launcher reset {}", names(attributes)), [];

    /// Empty the bounding set of capabilities.
    EmptyBoundingSet => Skip, ("empty the capability bounding set and lock the securebits"),
        [Call::BoundCapabilities(CapabilitySet::empty())];

    /// Give up every capability.
    ClearCapabilities => Skip, ("clear all capability sets"), [Call::KeepCapabilities(CapabilitySet::empty())];

    /// Give up inheritable and ambient capabilities.
    ClearInheritable => Repeat, ("clear inheritable and ambient capabilities"), [Call::ClearInheritable];

    /// Be traced by no process, not even one of the same uid, until the program is executed.
    BecomeUndumpable => Skip, ("become undumpable until the exec"), [Call::BecomeUndumpable];

    /// Never have more privileges.
    NoNewPrivileges => Skip, ("set no_new_privs"), [Call::NoNewPrivileges];

    /// Keep set-uid bits from having an effect in the jail.
    MakeRootNosuid => Skip, ("make the jail's mounts nosuid"), [Call::MakeRootNosuid];

    /// Keep of root's capabilities those over files.
    KeepFileCapabilities => Skip, ("keep no capabilities but those over files"),
        [Call::BoundCapabilities(FILE_CAPABILITIES), Call::KeepCapabilities(FILE_CAPABILITIES)];

    /// Filter the system calls that give uid 0 power over the host without a capability.
    ConfineRoot => Skip, ("filter system calls: no set-uid files, no keys, no user namespaces"),
        [Call::Filter(Filter::of_root_in_a_jail())];

    /// Become the program of an exec process.
    #[serde(rename = "execute-visitor")]
    ExecuteProgram {
        /// Its name.
        program: String,
        /// Whether it is one of the host's.
        of_host: bool,
    } => Skip, ("execute in the jail: {program}"), [];

    /// Become the VMM.
    Execute {
        /// Its executable in the jail.
        path: JailPath,
        /// Its arguments, argv0 included.
        arguments: Vec<Argument>,
    } => Skip, ("execute in the jail: {path}{}", further(arguments)), {
        let arguments = arguments.iter().map(raw_argument).collect::<Result<_, _>>()?;
        [Call::Execute(Execute::new(path.to_c_string(), arguments))]
    };
}

fn namespaces(new_pid_ns: bool, new_netns: bool, cgroup: Option<&HostPath>) -> String {
    let namespaces = [(new_pid_ns, "pid"), (new_netns, "network")].into_iter().filter(|(asked, _)| *asked);
    let namespaces = namespaces.map(|(_, which)| format!(", in a new {which} namespace"));
    namespaces.chain(cgroup.map(|cgroup| format!(", in cgroup {cgroup}"))).collect()
}

fn names(attributes: &[Attribute]) -> String {
    attributes.iter().map(|attribute| attribute.name()).collect::<Vec<_>>().join(", ")
}

/// The arguments after argv0, each behind a blank.
fn further(arguments: &[Argument]) -> String {
    arguments.iter().skip(1).fold(String::new(), |text, argument| text + " " + &argument.to_string())
}
