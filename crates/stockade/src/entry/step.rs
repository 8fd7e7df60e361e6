//! The enter steps, in one table.
//!
//! Each row is a step: its fields, its handling in an exec process, its text, and its system calls.

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

/// The capabilities of `exec --root`: over files, and none over the host.
const FILE_CAPABILITIES: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER);

/// The handling of an enter step in an exec process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InExec {
    /// The exec process repeats the step.
    Repeat,
    /// The exec process skips the step: the jail has this already, or `jail::exec` has a step of its own for it.
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
        /// One action that the VMM's process performs on itself on its way into the jail.
        ///
        /// No effect of these steps outlives the process, so they are never undone.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum EnterStep {
            $($(#[$meta])* $step $({ $($(#[$field_meta])* $field: $type),+ })? $(($bound))?),+
        }

        impl EnterStep {
            /// The handling of this step in an exec process.
            pub(crate) fn in_exec(&self) -> InExec {
                match self { $(Self::$step { .. } => InExec::$exec),+ }
            }

            /// The system calls of this step, in order. The clone itself has none, nor do the steps of the launcher.
            ///
            /// # Errors
            /// Returns an error if a file of the step cannot be opened.
            // A step uses some of its fields, and not always the root.
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

    /// Clone the process.
    Clone {
        /// Whether it gets its own pid namespace.
        new_pid_ns: bool,
        /// Whether it gets its own network namespace.
        new_netns: bool,
        /// The cgroup v2 in which it is created.
        cgroup: Option<HostPath>,
    } => Skip, ("clone a child{}", namespaces(*new_pid_ns, *new_netns, cgroup.as_ref())), [];

    /// Close every file descriptor but those of the program.
    CloseDescriptors => Repeat, ("close all other file descriptors"), [Call::CloseOthers];

    /// Leave the caller's session and terminal.
    NewSession => Repeat, ("start a new session"), [Call::NewSession];

    /// Join a network namespace.
    JoinNetns {
        /// The namespace's file.
        path: HostPath,
    } => Skip, ("join network namespace {path}"),
        [Call::JoinNetwork(open(path, OFlags::RDONLY, Operation::Open)?)];

    /// Limit the size of files.
    LimitFileSize {
        /// The limit in bytes.
        bytes: u64,
    } => Skip, ("limit the size of files to {bytes} bytes"),
        [Call::Limit { resource: Resource::Fsize, value: *bytes }];

    /// Limit the number of open files.
    LimitOpenFiles {
        /// The limit.
        count: u64,
    } => Repeat, ("limit the number of open files to {count}"),
        [Call::Limit { resource: Resource::Nofile, value: *count }];

    /// Move into a cgroup.
    JoinCgroup {
        /// The cgroup's file to write to: `cgroup.procs` or `tasks`.
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
        /// The namespace's file.
        path: HostPath,
    } => Skip, ("join the template mount namespace {path}"),
        [Call::JoinMounts(open(path, OFlags::RDONLY, Operation::Open)?)];

    /// Copy the mount namespace.
    UnshareMounts => Skip, ("copy the mount namespace"), [Call::UnshareMounts];

    /// Make all mounts nosuid slaves: no mount propagates to the host, and set-uid bits have no effect.
    MakeMountsSlaves => Skip, ("make all mounts nosuid slaves"), [Call::MakeMountsSlaves];

    /// Copy the jail's tree as a mount, with the mounts in it.
    CloneTree => Skip, ("take the jail's tree with its mounts"), [Call::CloneTree];

    /// Copy the jail's tree as a mount, without the mounts in it.
    CloneTreeAlone => Skip, ("take the jail's tree without its mounts"), [Call::CloneTreeAlone];

    /// Mount the tree onto itself.
    AttachTree => Skip, ("mount the jail's tree onto itself"), [Call::AttachTree];

    /// Go to the root of the mounted tree.
    EnterTree => Skip, ("enter the mounted tree"), [Call::EnterTree];

    /// Make the tree's mounts nosuid slaves: no mount propagates to the host, and set-uid bits have no effect.
    MakeTreeSlave => Skip, ("make the tree's mounts nosuid slaves"), [Call::MakeTreeSlave];

    /// Pivot the root to the tree.
    PivotRoot => Skip, ("pivot the root to it"), [Call::PivotRoot];

    /// Unmount the host's root.
    DetachOldRoot => Skip, ("detach the host's root"), [Call::DetachOldRoot];

    /// Change the root to the tree, which covers the root of the template namespace.
    ChangeRoot => Skip, ("change the root to it"), [Call::ChangeRoot];

    /// Go to the new root.
    ChangeToRoot => Skip, ("go to the new root"), [Call::ChangeToRoot];

    /// Attach a file or directory of the host in the jail.
    Attach(bind: Bind)
        => Skip, ("attach {} at {}{}", bind.source, bind.path, if bind.read_only { ", read-only" } else { "" }),
        [Call::Attach { mount: bind.detached()?, at: bind.path.to_relative_c_string(), onto: None }];

    /// Join the mount namespace of a running VMM.
    JoinMounts => Skip, ("join the VMM's mount namespace"), [];

    /// Join the other namespaces of a running VMM.
    JoinNamespaces => Skip, ("join the VMM's other namespaces"), [];

    /// Take the standard streams from the launcher.
    TakeStreams => Skip, ("take the launcher's streams"), [];

    /// Take the terminal of an exec process.
    TakeTerminal => Skip, ("take the terminal of the exec process"), [];

    /// Set the standard streams to `/dev/null`.
    NullStreams => Skip, ("put the standard streams on /dev/null"),
        [Call::Redirect([Some(null()?), Some(null()?), Some(null()?)])];

    /// Continue in the background.
    Daemonize => Skip, ("go on in the background"), [Call::Daemonize];

    /// Continue in a process that does not lead its session.
    ForkAgain => Skip, ("go on without leading the session"), [Call::ForkAgain];

    /// Continue as the first process of a new pid namespace.
    NewPidNamespace => Skip, ("go on in a new pid namespace"), [Call::NewPidNamespace];

    /// Write the pid file.
    WritePidFile {
        /// The file's path in the jail.
        path: JailPath,
    } => Skip, ("write the pid to {path} in the jail"), [Call::WritePidFile(path.to_c_string())];

    /// Wait until the launcher has recorded the pid.
    #[serde(rename = "wait-for-go")]
    WaitForRelease => Repeat, ("wait until the launcher has recorded the pid"), [Call::WaitForRelease];

    /// Set the group.
    SetGid {
        /// The group ID.
        gid: u32,
    } => Repeat, ("set the group to {gid}"), [Call::SetGid(*gid)];

    /// Drop supplementary groups.
    ClearGroups => Repeat, ("drop supplementary groups"), [Call::ClearGroups];

    /// Set the user.
    SetUid {
        /// The user ID.
        uid: u32,
    } => Repeat, ("set the user to {uid}"), [Call::SetUid(*uid)];

    /// Set SIGPIPE to its default, and unblock all signals.
    ResetSignals => Repeat, ("reset signals"), [Call::ResetSignals];

    /// Set every signal to its default, including those that the launcher ignores.
    DefaultSignals => Repeat, ("put every signal at its default"), [Call::DefaultSignals];

    /// Reset inherited attributes to their documented state.
    Reset {
        /// The attributes.
        #[serde(with = "attributes")]
        attributes: Vec<Attribute>,
    } => Skip, ("reset {}", names(attributes)),
        attributes.iter().map(|attribute| Call::Reset(*attribute)).collect::<Vec<_>>();

    /// Let the launcher reset inherited attributes to their documented state, in parallel to the process.
    ResetByLauncher {
        /// The attributes.
        #[serde(with = "attributes")]
        attributes: Vec<Attribute>,
    } => Skip, ("have the launcher reset {}", names(attributes)), [];

    /// Empty the capability bounding set, and lock the securebits.
    EmptyBoundingSet => Skip, ("empty the capability bounding set and lock the securebits"),
        [Call::BoundCapabilities(CapabilitySet::empty())];

    /// Clear all capability sets.
    ClearCapabilities => Skip, ("clear all capability sets"), [Call::KeepCapabilities(CapabilitySet::empty())];

    /// Clear inheritable and ambient capabilities.
    ClearInheritable => Repeat, ("clear inheritable and ambient capabilities"), [Call::ClearInheritable];

    /// Become undumpable: until the exec no process can trace it, not even one of the same uid.
    BecomeUndumpable => Skip, ("become undumpable until the exec"), [Call::BecomeUndumpable];

    /// Set `no_new_privs`: an exec never adds privileges.
    NoNewPrivileges => Skip, ("set no_new_privs"), [Call::NoNewPrivileges];

    /// Make the jail's mounts nosuid: set-uid bits have no effect in them.
    MakeRootNosuid => Skip, ("make the jail's mounts nosuid"), [Call::MakeRootNosuid];

    /// Keep no capabilities but those over files.
    KeepFileCapabilities => Skip, ("keep no capabilities but those over files"),
        [Call::BoundCapabilities(FILE_CAPABILITIES), Call::KeepCapabilities(FILE_CAPABILITIES)];

    /// Filter the system calls that give uid 0 power over the host without a capability.
    ConfineRoot => Skip, ("filter system calls: no set-uid files, no keys, no user namespaces"),
        [Call::Filter(Filter::of_root_in_a_jail())];

    /// Execute the program of an exec process.
    #[serde(rename = "execute-visitor")]
    ExecuteProgram {
        /// The program's name.
        program: String,
        /// Whether the program is a file of the host.
        of_host: bool,
    } => Skip, ("execute in the jail: {program}"), [];

    /// Execute the VMM.
    Execute {
        /// The executable's path in the jail.
        path: JailPath,
        /// The arguments, including argv0.
        arguments: Vec<Argument>,
    } => Skip, ("execute in the jail: {path}{}", further(arguments)), {
        let arguments = arguments.iter().map(raw_argument).collect::<Result<_, _>>()?;
        [Call::Execute(Execute::new(path.to_c_string(), arguments))]
    };
}

fn namespaces(new_pid_ns: bool, new_netns: bool, cgroup: Option<&HostPath>) -> String {
    let namespaces =
        [(new_pid_ns, "pid"), (new_netns, "network")].into_iter().filter(|(requested, _)| *requested);
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
