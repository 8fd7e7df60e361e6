//! What is read of a VMM and its jail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;
use stockade_syscalls::features;

use super::limits;
use super::tree::TreeFacts;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::JailId;
use crate::state::{JailState, Receipt, Store};
use crate::sys::mounts::{self, Mount};

/// What is so. A plain structure: a test can write one by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditFacts {
    /// Real, effective, saved and filesystem uid.
    pub uids: Vec<u32>,
    /// The same for the group.
    pub gids: Vec<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The uid and gid that were asked for.
    pub asked_owner: (u32, u32),
    /// Capability sets by their names in `/proc`, `CapEff` for one.
    pub capabilities: BTreeMap<String, u64>,
    /// Whether it can gain no privileges by executing something.
    pub no_new_privs: bool,
    /// How many of its threads cannot.
    pub no_new_privs_threads: usize,
    /// The version of Landlock that the kernel offers to whoever looks.
    pub landlock: Option<u32>,
    /// The mode of its filter of system calls: 0 is none.
    pub seccomp: u32,
    /// Kinds of namespaces that it shares with whoever looks.
    pub shared_namespaces: Vec<String>,
    /// Whether its root directory is the one of whoever looks.
    pub root_is_the_hosts: bool,
    /// Its mounts: where, type, and whether read-only.
    pub mounts: Vec<(String, String, bool)>,
    /// Its descriptors.
    pub descriptors: Vec<Descriptor>,
    /// The names in the environment that it was started with.
    pub environment: Vec<String>,
    /// Its cgroups, as the kernel names them.
    pub cgroups: Vec<String>,
    /// Cgroup settings that were asked for, and what is in force.
    pub settings: Vec<Setting>,
    /// The settings in force by which the cgroups made for it limit each of memory, pids and cpu, as `FILE=VALUE`.
    pub limited: BTreeMap<String, Vec<String>>,
    /// Which version of cgroups has each of these controllers on this host.
    pub cgroup_versions: BTreeMap<String, u32>,
    /// Soft limits of the process by their names in `/proc`; `None` is unlimited.
    pub limits: BTreeMap<String, Option<u64>>,
    /// Its tree on the host.
    pub tree: TreeFacts,
    /// Abstract Unix sockets that it can connect to.
    pub abstract_sockets: usize,
    /// Other jails that run with its uid, in its pid namespace.
    pub same_uid: Vec<String>,
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// Its number.
    pub number: u32,
    /// What it leads to, as the kernel names it.
    pub target: String,
    /// How far it reaches.
    pub reach: Reach,
}

/// How far a descriptor reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// To nothing with a path: a pipe, a socket, an eventfd.
    Pathless,
    /// To something in the jail.
    Inside,
    /// To a device or file of the host.
    OutsideFile,
    /// To a directory of the host, from which everything can be reached.
    OutsideDirectory,
}

/// A cgroup setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The file.
    pub file: String,
    /// What was asked for.
    pub asked: String,
    /// What is in force; `None` if it cannot be read.
    pub found: Option<String>,
}

impl AuditFacts {
    /// Reads the facts of a jail whose VMM runs; `None` if there is no jail of that id.
    ///
    /// # Errors
    /// [`Error::NotRunning`], or what the kernel says of reading `/proc`.
    pub fn read(store: &Store, id: &JailId) -> Result<Option<Self>> {
        let Some(receipt) = store.read(id)? else { return Ok(None) };
        let gone = || Error::NotRunning(id.clone());
        let watched = store.vmm(id)?.ok_or_else(gone)?;
        let vmm = receipt.vmm().ok_or_else(gone)?;
        let facts = Self::of(&receipt, store, vmm.pid);
        // While its descriptor is held and it lives, the pid is nobody else's.
        if watched.wait_until(Some(Instant::now()))?.is_some() || !vmm.is_alive() {
            return Err(gone());
        }
        facts.map(Some)
    }

    fn of(receipt: &Receipt, store: &Store, pid: i32) -> Result<Self> {
        let read = |file: &str| {
            let at = format!("/proc/{pid}/{file}");
            std::fs::read(&at)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .context(Operation::Read, at)
        };
        let status = read("status")?;
        let numbers = |name: &str| -> Vec<u32> {
            field(&status, name).split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let (mounts, ctx) = (mounts::of_process(pid)?, receipt.step_context());
        let root = |whose: &str| rustix::fs::stat(format!("/proc/{whose}/root"));
        let same_root = matches!((root(&pid.to_string()), root("self")),
            (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino));
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

/// The rest of the line that begins with this name.
fn field<'t>(status: &'t str, name: &str) -> &'t str {
    let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    rest.unwrap_or_default().trim()
}

/// Each thread has a word of its own in this.
fn no_new_privs_threads(pid: i32) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status"));
    threads
        .filter_map(|thread| status(thread).ok())
        .filter(|status| field(status, "NoNewPrivs") == "1")
        .count()
}

fn shared_namespaces(pid: i32) -> Vec<String> {
    let inode =
        |whose: &str, kind: &str| rustix::fs::stat(format!("/proc/{whose}/ns/{kind}")).ok().map(|f| f.st_ino);
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let shared = kinds.into_iter().filter(|kind| inode(&pid.to_string(), kind) == inode("self", kind));
    shared.map(str::to_owned).collect()
}

/// `Max open files   2048   2048   files`.
fn limit(line: &str) -> Option<(String, Option<u64>)> {
    let (name, values) = (line.get(..26)?.trim(), line.get(26..)?);
    Some((name.to_owned(), values.split_whitespace().next()?.parse().ok()))
}

/// A descriptor leads out of the jail if the mount that it was opened on is none of the jail's.
fn descriptors(pid: i32, mounts: &[Mount]) -> Result<Vec<Descriptor>> {
    let mounts: BTreeSet<String> = mounts.iter().map(|mount| mount.id.to_string()).collect();
    let folder = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(&folder).context(Operation::Read, &folder)?;
    let mut found = Vec::new();
    for number in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let at = format!("{folder}/{number}");
        // Closed since it was listed.
        let Ok(target) = std::fs::read_link(&at) else { continue };
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let directory = std::fs::metadata(&at).is_ok_and(|facts| facts.is_dir());
        let reach = match (
            target.is_absolute() && !target.starts_with("/memfd:"),
            mounts.contains(field(&info, "mnt_id")),
        ) {
            (false, _) => Reach::Pathless,
            (true, true) => Reach::Inside,
            (true, false) if directory => Reach::OutsideDirectory,
            (true, false) => Reach::OutsideFile,
        };
        found.push(Descriptor { number, target: target.to_string_lossy().into_owned(), reach });
    }
    found.sort_by_key(|descriptor| descriptor.number);
    Ok(found)
}

fn same_uid(receipt: &Receipt, store: &Store) -> Result<Vec<String>> {
    // In a pid namespace of its own it sees no process of another jail.
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
    fn tables_of_the_kernel_are_read() {
        let line = "Max open files            2048                 4096                 files     ";
        assert_eq!(limit(line), Some(("Max open files".into(), Some(2048))));
        let line = "Max core file size        unlimited            unlimited            bytes     ";
        assert_eq!(limit(line), Some(("Max core file size".into(), None)));
        assert_eq!(field("Uid:\t1\t2\nUidX:\t3\n", "Uid"), "1\t2");
    }
}
