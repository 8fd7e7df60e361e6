//! The facts about a VMM and its jail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;
use stockade_syscalls::features;
use stockade_syscalls::namespace::{KINDS, namespace_file};

use super::limits;
use super::tree::TreeFacts;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::JailId;
use crate::state::{JailState, Receipt, Store};
use crate::sys::file_id::FileId;
use crate::sys::mounts::{self, Mount};
use crate::sys::procfs::{field, process_file, read_file};
use std::fmt::Display;

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
    pub no_new_privs_threads: usize,
    /// The version of Landlock that the kernel offers to this process; `None` for none.
    pub landlock: Option<u32>,
    /// The seccomp mode: 0 for none, 1 for strict, 2 for a filter.
    pub seccomp: u32,
    /// The kinds of namespaces that it shares with this process.
    pub shared_namespaces: Vec<String>,
    /// Whether its root directory is that of this process.
    pub root_is_the_hosts: bool,
    /// Its mounts: mount point, type, and whether read-only.
    pub mounts: Vec<(String, String, bool)>,
    /// Its open file descriptors.
    pub descriptors: Vec<Descriptor>,
    /// The names of its environment variables at its start.
    pub environment: Vec<String>,
    /// Its cgroups, as lines of `/proc/PID/cgroup`.
    pub cgroups: Vec<String>,
    /// The requested cgroup settings, with the values in force.
    pub settings: Vec<Setting>,
    /// The settings in force by which the jail's cgroups limit memory, pids and cpu, as `FILE=VALUE`.
    pub limited: BTreeMap<String, Vec<String>>,
    /// The cgroup version, 1 or 2, that has each of these controllers on this host.
    pub cgroup_versions: BTreeMap<String, u32>,
    /// Soft resource limits by their names in `/proc`; `None` for no limit.
    pub limits: BTreeMap<String, Option<u64>>,
    /// Its tree on the host.
    pub tree: TreeFacts,
    /// The number of abstract Unix sockets that it can connect to.
    pub abstract_sockets: usize,
    /// Other running jails with its uid, within its pid namespace.
    pub same_uid: Vec<String>,
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
}

/// A requested cgroup setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The file.
    pub file: String,
    /// The requested value.
    pub asked: String,
    /// The value in force; `None` if the file cannot be read.
    pub found: Option<String>,
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

    fn of(receipt: &Receipt, store: &Store, pid: i32) -> Result<Self> {
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
        let (mounts, ctx) = (mounts::of_process(pid)?, receipt.step_context());
        let root = FileId::at(process_file(pid, "root"));
        let same_root = root.is_ok() && root == FileId::at(process_file("self", "root"));
        let (settings, limited) = limits::in_force(receipt);
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
            no_new_privs_threads: no_new_privs_threads(pid),
            landlock: features::landlock(),
            seccomp: field(&status, "Seccomp").parse().unwrap_or_default(),
            shared_namespaces: shared_namespaces(pid),
            root_is_the_hosts: same_root,
            descriptors: descriptors(pid, &mounts)?,
            mounts: mounts
                .into_iter()
                .map(|mount| (mount.point.to_string_lossy().into_owned(), mount.fs_type, mount.read_only))
                .collect(),
            environment: read("environ")?
                .split('\0')
                .filter_map(|variable| Some(variable.split_once('=')?.0.to_owned()))
                .collect(),
            cgroups: read("cgroup")?.lines().map(str::to_owned).collect(),
            settings,
            limited,
            cgroup_versions: limits::versions()?,
            limits: read("limits")?.lines().skip(1).filter_map(limit).collect(),
            tree: ctx.own_tree().ok().flatten().map(TreeFacts::read).unwrap_or_default(),
            abstract_sockets: read("net/unix")?.lines().filter(|line| line.contains(" @")).count(),
            same_uid: same_uid(receipt, store)?,
        })
    }
}

/// Counts the threads with `no_new_privs`, which each thread has for itself.
fn no_new_privs_threads(pid: i32) -> usize {
    let threads = std::fs::read_dir(process_file(pid, "task")).into_iter().flatten().flatten();
    let status = |thread: std::fs::DirEntry| read_file(thread.path().join("status"));
    threads
        .filter_map(|thread| status(thread).ok())
        .filter(|status| field(status, "NoNewPrivs") == "1")
        .count()
}

fn shared_namespaces(pid: i32) -> Vec<String> {
    let namespace = |whose: &dyn Display, kind: &str| FileId::at(namespace_file(whose, kind));
    let shared = KINDS.into_iter().filter(|kind| namespace(&pid, kind) == namespace(&"self", kind));
    shared.map(str::to_owned).collect()
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
    let entries = std::fs::read_dir(&directory).context(Operation::Read, &directory)?;
    let mut found = Vec::new();
    for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let at = format!("{directory}/{number}");
        // The VMM may have closed it since it was listed.
        let Ok(target) = std::fs::read_link(&at) else { continue };
        let info = read_file(process_file(pid, &format!("fdinfo/{number}"))).unwrap_or_default();
        let is_directory = std::fs::metadata(&at).is_ok_and(|facts| facts.is_dir());
        let reach = match (
            target.is_absolute() && !target.starts_with("/memfd:"),
            mounts.contains(field(&info, "mnt_id")),
        ) {
            (false, _) => Reach::Pathless,
            (true, true) => Reach::Inside,
            (true, false) if is_directory => Reach::OutsideDirectory,
            (true, false) => Reach::OutsideFile,
        };
        found.push(Descriptor { number, target: target.to_string_lossy().into_owned(), reach });
    }
    found.sort_by_key(|descriptor| descriptor.number);
    Ok(found)
}

fn same_uid(receipt: &Receipt, store: &Store) -> Result<Vec<String>> {
    // In its own pid namespace a VMM sees no process of another jail.
    if receipt.spec.new_pid_ns {
        return Ok(Vec::new());
    }
    let others = store.ids()?.into_iter().filter(|id| *id != receipt.id);
    let same = others.filter_map(|id| store.read(&id).ok().flatten()).filter(|other| {
        other.spec.owner.uid == receipt.spec.owner.uid && other.state() == JailState::Running
    });
    Ok(same.map(|other| other.id.to_string()).collect())
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
