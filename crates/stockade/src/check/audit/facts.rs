//! The facts about a VMM and its jail.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Instant;

use rustix::io::Errno;
use serde::Serialize;
use stockade_syscalls::features;
use stockade_syscalls::namespace::{KINDS, namespace_file};

use super::limits;
use super::tree::TreeFacts;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::known::{Known, known};
use crate::spec::{JailId, Reason};
use crate::state::{JailState, Receipt, Store};
use crate::sys::file_id::FileId;
use crate::sys::mounts::Mount;
use crate::sys::process::{mounts_of, shown_as};
use crate::sys::procfs::{field, process_file, read_file};
use crate::sys::user_namespace::is_in_initial_user_namespace;

/// The facts about a VMM and its jail. A plain structure: a test can write one by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditFacts {
    /// Real, effective, saved and filesystem uid.
    pub uids: Vec<u32>,
    /// Real, effective, saved and filesystem gid.
    pub gids: Vec<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The requested uid and gid.
    pub asked_owner: (u32, u32),
    /// Capability sets by their names in `/proc`, as `CapEff`.
    pub capabilities: BTreeMap<String, u64>,
    /// Whether `no_new_privs` is set, so that no program gives the VMM privileges.
    pub no_new_privs: bool,
    /// The number of its threads that have `no_new_privs`.
    pub no_new_privs_threads: Known<usize>,
    /// The version of Landlock that the kernel offers to this process; `None` for none.
    pub landlock: Known<Option<u32>>,
    /// The seccomp mode: 0 for none, 1 for strict, 2 for a filter.
    pub seccomp: u32,
    /// The kinds of namespaces that it shares with this process.
    pub shared_namespaces: Vec<String>,
    /// The kinds of namespaces that cannot be compared with those of this process, each with the reason.
    pub unseen_namespaces: BTreeMap<String, String>,
    /// Whether this process is in a user namespace, which shows IDs of others as the overflow ID.
    pub ids_are_mapped: bool,
    /// Whether its root directory is that of this process.
    pub root_is_the_hosts: Known<bool>,
    /// Its mounts: mount point, type, and whether read-only.
    pub mounts: Known<Vec<(String, String, bool)>>,
    /// Its open file descriptors.
    pub descriptors: Known<Vec<Descriptor>>,
    /// The names of its environment variables at its start.
    pub environment: Known<Vec<String>>,
    /// Its cgroups, as lines of `/proc/PID/cgroup`.
    pub cgroups: Known<Vec<String>>,
    /// The requested cgroup settings, with the values in force.
    pub settings: Vec<Setting>,
    /// The settings in force by which the jail's cgroups limit memory, pids and cpu, as `FILE=VALUE`.
    pub limited: BTreeMap<String, Vec<String>>,
    /// The requested limits of these resources that cannot be read, each with the reason.
    pub unread_limits: BTreeMap<String, Vec<String>>,
    /// The cgroup version, 1 or 2, that has each of these controllers on this host.
    pub cgroup_versions: Known<BTreeMap<String, u32>>,
    /// Soft resource limits by their names in `/proc`; `None` for no limit.
    pub limits: Known<BTreeMap<String, Option<u64>>>,
    /// Its tree on the host.
    pub tree: Known<TreeFacts>,
    /// The number of abstract Unix sockets that it can connect to.
    pub abstract_sockets: Known<usize>,
    /// Other running jails with its uid, within its pid namespace.
    pub same_uid: Vec<String>,
    /// Other jails whose uid or state cannot be read.
    pub unread_jails: Vec<String>,
}

/// An open file descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Its number.
    pub number: u32,
    /// Its target, as the kernel names it.
    pub target: String,
    /// The location of the target.
    pub reach: Reach,
}

/// The location of a file descriptor's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// Nowhere: the target has no path, as a pipe, a socket or an eventfd.
    Pathless,
    /// In the jail.
    Inside,
    /// A device or file of the host.
    OutsideFile,
    /// A directory of the host, from which every file can be reached.
    OutsideDirectory,
    /// Unknown: its mount cannot be read.
    Unknown,
}

/// A requested cgroup setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The file.
    pub file: String,
    /// The requested value.
    pub asked: String,
    /// The value in force.
    pub found: Known<String>,
}

impl AuditFacts {
    /// Reads the facts about a running jail; `None` if no jail has this id.
    ///
    /// # Errors
    /// Returns [`Error::NotRunning`] if the VMM does not run, or an error if the receipt or `/proc` cannot be read.
    pub fn read(store: &Store, id: &JailId) -> Result<Option<Self>> {
        let Some(receipt) = store.read(id)? else { return Ok(None) };
        let not_running = || Error::NotRunning(id.clone());
        let handle = store.vmm(id)?.ok_or_else(not_running)?;
        let vmm = receipt.vmm().ok_or_else(not_running)?;
        let facts = Self::of(&receipt, store, vmm.pid);
        // The pid belonged to the VMM all the time if the VMM, held by its pidfd, is still alive.
        if handle.wait_until(Some(Instant::now()))?.is_some() || !vmm.is_alive() {
            return Err(not_running());
        }
        facts.map(Some)
    }

    /// Whether the VMM shares its namespace of this kind with this process.
    ///
    /// # Errors
    /// Returns the reason if the namespaces cannot be compared.
    pub(super) fn shares(&self, kind: &str) -> std::result::Result<bool, &str> {
        match self.unseen_namespaces.get(kind) {
            Some(reason) => Err(reason),
            None => Ok(self.shared_namespaces.iter().any(|shared| shared == kind)),
        }
    }

    /// Whether the VMM has a pid namespace of its own; `None` if that is unknown.
    pub fn has_own_pid_namespace(&self) -> Option<bool> {
        self.shares("pid").ok().map(|shared| !shared)
    }

    fn of(receipt: &Receipt, store: &Store, pid: i32) -> Result<Self> {
        let mounts = mounts_of(pid);
        // The number that all files below `/proc` have.
        let pid = shown_as(pid).context(Operation::Inspect, format!("process {pid}"))?;
        let read = |file: &str| {
            let at = process_file(pid, file);
            std::fs::read(&at)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .context(Operation::Read, at)
        };
        let status = read("status")?;
        let numbers = |name: &str| -> Vec<u32> {
            field(&status, name).split_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        let ctx = receipt.step_context();
        let (shared_namespaces, unseen_namespaces) = compare_namespaces(pid);
        let (settings, limited, unread_limits) = limits::in_force(receipt);
        let (same_uid, unread_jails) = same_uid(receipt, store)?;
        let tree = match ctx.own_tree() {
            Ok(Some(tree)) => Known::Fact(TreeFacts::read(tree)),
            Ok(None) => Known::unknown(format!("no tree of this jail is at '{}'", receipt.root())),
            Err(cause) => Known::unknown(cause.to_string()),
        };
        Ok(Self {
            uids: numbers("Uid"),
            gids: numbers("Gid"),
            groups: numbers("Groups"),
            asked_owner: (receipt.spec.owner.uid, receipt.spec.owner.gid),
            capabilities: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
                .into_iter()
                .filter_map(|name| {
                    Some((name.to_owned(), u64::from_str_radix(field(&status, name), 16).ok()?))
                })
                .collect(),
            no_new_privs: field(&status, "NoNewPrivs") == "1",
            no_new_privs_threads: known(no_new_privs_threads(pid)),
            landlock: known(features::landlock().map_err(|cause| {
                format!("cannot ask the kernel for its Landlock version: {}", Reason(cause))
            })),
            seccomp: field(&status, "Seccomp").parse().unwrap_or_default(),
            shared_namespaces,
            unseen_namespaces,
            ids_are_mapped: !is_in_initial_user_namespace(),
            root_is_the_hosts: known(shares_root(pid)),
            descriptors: match &mounts {
                Ok(mounts) => known(descriptors(pid, mounts)),
                Err(cause) => Known::unknown(cause.to_string()),
            },
            mounts: known(mounts).map(|mounts| {
                let shown = |mount: Mount| {
                    (mount.point.to_string_lossy().into_owned(), mount.fs_type, mount.read_only)
                };
                mounts.into_iter().map(shown).collect()
            }),
            environment: known(read("environ")).map(|text| {
                let names =
                    text.split('\0').filter_map(|variable| Some(variable.split_once('=')?.0.to_owned()));
                names.collect()
            }),
            cgroups: known(read("cgroup")).map(|text| text.lines().map(str::to_owned).collect()),
            settings,
            limited,
            unread_limits,
            cgroup_versions: known(limits::versions()),
            limits: known(read("limits")).map(|text| text.lines().skip(1).filter_map(limit).collect()),
            tree,
            abstract_sockets: known(read("net/unix"))
                .map(|text| text.lines().filter(|line| line.contains(" @")).count()),
            same_uid,
            unread_jails,
        })
    }
}

/// Counts the threads with `no_new_privs`, which each thread has for itself.
fn no_new_privs_threads(pid: i32) -> Result<usize> {
    let directory = process_file(pid, "task");
    let mut count = 0;
    for thread in std::fs::read_dir(&directory).context(Operation::Read, &directory)? {
        let status = thread.context(Operation::Read, &directory)?.path().join("status");
        match read_file(&status) {
            Ok(status) => count += usize::from(field(&status, "NoNewPrivs") == "1"),
            Err(cause) if is_gone(&cause) => (),
            Err(cause) => return Err(cause).context(Operation::Read, status.display()),
        }
    }
    Ok(count)
}

/// Whether a file of a process or thread is missing because that has exited, or has closed it.
fn is_gone(cause: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(cause), Some(Errno::NOENT | Errno::SRCH))
}

/// The kinds of namespaces that a process shares with this one, and those that cannot be compared.
fn compare_namespaces(pid: i32) -> (Vec<String>, BTreeMap<String, String>) {
    let (mut shared, mut unseen) = (Vec::new(), BTreeMap::new());
    for kind in KINDS {
        let of = |whose: &dyn Display| {
            FileId::at(namespace_file(whose, kind)).map_err(|cause| (whose.to_string(), cause))
        };
        match of(&"self").and_then(|own| Ok((own, of(&pid)?))) {
            Ok((own, other)) if own == other => shared.push(kind.to_owned()),
            Ok(_) => (),
            // Before Linux 5.6 there are no time namespaces, so there is one for all.
            Err((_, Errno::NOENT)) if kind == "time" => (),
            Err((whose, cause)) => {
                let file = namespace_file(whose, kind);
                unseen.insert(kind.to_owned(), format!("cannot inspect '{file}': {}", Reason(cause)));
            }
        }
    }
    (shared, unseen)
}

/// Whether a process has the root directory of this process.
fn shares_root(pid: i32) -> Result<bool> {
    let root = |whose: &dyn Display| {
        let at = process_file(whose, "root");
        FileId::at(&at).context(Operation::Inspect, at)
    };
    Ok(root(&pid)? == root(&"self")?)
}

/// Parses a line of `/proc/PID/limits`, as `Max open files   2048   2048   files`.
fn limit(line: &str) -> Option<(String, Option<u64>)> {
    let (name, values) = (line.get(..26)?.trim(), line.get(26..)?);
    Some((name.to_owned(), values.split_whitespace().next()?.parse().ok()))
}

/// Reads the open file descriptors. One leads out of the jail if it was opened on a mount outside the jail.
fn descriptors(pid: i32, mounts: &[Mount]) -> Result<Vec<Descriptor>> {
    let mounts: BTreeSet<String> = mounts.iter().map(|mount| mount.id.to_string()).collect();
    let directory = process_file(pid, "fd");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&directory).context(Operation::Read, &directory)? {
        let name = entry.context(Operation::Read, &directory)?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        let at = format!("{directory}/{number}");
        let target = match std::fs::read_link(&at) {
            Ok(target) => target,
            // The VMM has closed it since it was listed.
            Err(cause) if is_gone(&cause) => continue,
            Err(cause) => return Err(cause).context(Operation::Read, at),
        };
        let reach = if target.is_absolute() && !target.starts_with("/memfd:") {
            let info = read_file(process_file(pid, &format!("fdinfo/{number}")));
            let mount = info.as_deref().map(|info| field(info, "mnt_id")).unwrap_or_default();
            match (mounts.contains(mount), std::fs::metadata(&at)) {
                _ if mount.is_empty() => Reach::Unknown,
                (true, _) => Reach::Inside,
                (false, Ok(facts)) if facts.is_dir() => Reach::OutsideDirectory,
                (false, Ok(_)) => Reach::OutsideFile,
                (false, Err(_)) => Reach::Unknown,
            }
        } else {
            Reach::Pathless
        };
        found.push(Descriptor { number, target: target.to_string_lossy().into_owned(), reach });
    }
    found.sort_by_key(|descriptor| descriptor.number);
    Ok(found)
}

/// The other running jails with the jail's uid, and those of which that is unknown.
fn same_uid(receipt: &Receipt, store: &Store) -> Result<(Vec<String>, Vec<String>)> {
    let (mut same, mut unread) = (Vec::new(), Vec::new());
    // In its own pid namespace a VMM sees no process of another jail.
    if receipt.spec.new_pid_ns {
        return Ok((same, unread));
    }
    for id in store.ids()?.into_iter().filter(|id| *id != receipt.id) {
        match store.read(&id) {
            Ok(Some(other)) if other.spec.owner.uid == receipt.spec.owner.uid => match other.state() {
                JailState::Running => same.push(id.to_string()),
                JailState::Foreign | JailState::Corrupt => unread.push(id.to_string()),
                JailState::Created | JailState::Exited | JailState::Abandoned => (),
            },
            Ok(_) => (),
            Err(_) => unread.push(id.to_string()),
        }
    }
    Ok((same, unread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_limits_are_parsed() {
        let line = "Max open files            2048                 4096                 files     ";
        assert_eq!(limit(line), Some(("Max open files".into(), Some(2048))));
        let line = "Max core file size        unlimited            unlimited            bytes     ";
        assert_eq!(limit(line), Some(("Max core file size".into(), None)));
    }
}
