//! The VMM's namespaces, for an exec process to join.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;
use stockade_syscalls::call::Call;
use stockade_syscalls::descriptors::{above_standard, copy_above_standard};
use stockade_syscalls::namespace::namespace_file;

use crate::entry::EnterStep;
use crate::error::{Context, Operation, Result};
use crate::sys::file_id::FileId;
use crate::sys::process::{PidFd, file_of};

/// The VMM's namespaces that are not the caller's.
///
/// They are held open, so that the compared namespaces are the joined ones, even if the VMM enters others.
pub(super) struct Namespaces {
    mounts: OwnedFd,
    /// Whether the VMM has a pid namespace of its own.
    pub(super) pid: bool,
    others: Vec<(LinkNameSpaceType, OwnedFd)>,
}

impl Namespaces {
    /// All that can be joined, except those of mounts and pids.
    const OTHERS: [(&str, LinkNameSpaceType); 5] = [
        ("cgroup", LinkNameSpaceType::ControlGroup),
        ("ipc", LinkNameSpaceType::InterProcessCommunication),
        ("net", LinkNameSpaceType::Network),
        ("time", LinkNameSpaceType::Time),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ];

    pub(super) fn of(vmm: &PidFd) -> Result<Self> {
        let mut others = Vec::new();
        for (kind, which) in Self::OTHERS {
            others.extend(open_unless_own(vmm, kind)?.map(|namespace| (which, namespace)));
        }
        let pid = open_unless_own(vmm, "pid")?.is_some();
        // Last: it fails unless the VMM has existed all the time.
        Ok(Self { mounts: vmm.mount_namespace()?, pid, others })
    }

    pub(super) fn has(&self, kind: LinkNameSpaceType) -> bool {
        self.others.iter().any(|(other, _)| *other == kind)
    }

    /// The steps that join all of them but the pid namespace, with their calls.
    pub(super) fn join(&self) -> Result<Vec<(EnterStep, Call)>> {
        let copy = |fd: &OwnedFd| copy_above_standard(fd).context(Operation::Open, "a namespace");
        let mut calls = Vec::new();
        for (kind, namespace) in &self.others {
            calls.push((EnterStep::JoinNamespaces, Call::JoinNamespace(copy(namespace)?, *kind)));
        }
        calls.push((EnterStep::JoinMounts, Call::JoinMounts(copy(&self.mounts)?)));
        Ok(calls)
    }
}

/// Opens the VMM's namespace of this kind; `None` if it is the caller's too.
fn open_unless_own(vmm: &PidFd, kind: &str) -> Result<Option<OwnedFd>> {
    let file = file_of(vmm.pid(), &format!("ns/{kind}"));
    let file = file.context(Operation::Inspect, format!("process {}", vmm.pid()))?;
    let (namespace, own) = (open(file)?, open(namespace_file("self", kind))?);
    Ok((identity(&namespace)? != identity(&own)?).then_some(namespace))
}

fn open(at: String) -> Result<OwnedFd> {
    let opened = rustix::fs::open(&at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.and_then(above_standard).context(Operation::Open, at)
}

fn identity(namespace: &OwnedFd) -> Result<FileId> {
    FileId::of(namespace).context(Operation::Inspect, "a namespace")
}
