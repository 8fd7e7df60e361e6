//! Receipts: the plan of a jail on disk, written before its first step is applied.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::entry::EnterStep;
use crate::error::Result;
use crate::plan::Plan;
use crate::spec::clock::now_ms;
use crate::spec::{ExecFile, ExitStatus, HostPath, JailId, JailPath, JailSpec, Layout, Nonce, Owner};
use crate::state::Tombstone;
use crate::steps::{FileHow, PlacedFile, Step, StepContext, Vmm};
use crate::sys::{ProcessRef, cache};

/// The version of the format. A receipt with another version is reported and never acted on.
const VERSION: u32 = 1;

/// The description of a jail that every process can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// The id of the jail.
    pub id: JailId,
    /// The id of the boot in which the jail was created.
    pub boot_id: String,
    /// The inode of the pid namespace in which the jail was created, and in which the pids are valid.
    pub pid_namespace: u64,
    /// The nonce, which marks everything created for the jail.
    pub nonce: Nonce,
    /// The jail's paths.
    pub layout: Layout,
    /// The specification of the jail.
    pub spec: JailSpec,
    /// The owning process; `None` for a persistent or detached jail.
    pub keeper: Option<ProcessRef>,
    /// Whether the jail was torn down. The remaining steps could not be undone, and `gc` or `rm` tries them again.
    pub over: bool,
    /// The time of its creation, in milliseconds since 1970.
    pub created_ms: u64,
    /// The steps, whether they were applied or not.
    pub steps: Vec<Step>,
    /// The number of steps that create the jail itself. The steps after them are placements and the VMM.
    pub made: usize,
    /// The enter steps of the VMM's process.
    pub enter: Vec<EnterStep>,
    /// Whether another process had locked the jail when the receipt was read without its lock. It is only found out about a
    /// receipt with another boot id.
    #[serde(skip)]
    pub(super) locked: bool,
}

/// The state of a jail, from its receipt and its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JailState {
    /// The jail exists, or is being created, and its VMM was not started.
    Created,
    /// Its VMM is running.
    Running,
    /// Its VMM exited after it was detached. The exit status and the log remain until the jail is removed.
    Exited,
    /// Its owning process or its VMM has exited, or it was torn down in part. `gc` removes it.
    Abandoned,
    /// It belongs to another pid namespace, so its processes cannot be examined here.
    Foreign,
    /// Its receipt cannot be understood, and stockade never acts on it.
    Corrupt,
}

impl JailState {
    /// All states.
    pub const ALL: [Self; 6] =
        [Self::Created, Self::Running, Self::Exited, Self::Abandoned, Self::Foreign, Self::Corrupt];
}

impl fmt::Display for JailState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Abandoned => "abandoned",
            Self::Foreign => "foreign",
            Self::Corrupt => "corrupt",
        })
    }
}

impl Receipt {
    pub(crate) fn new(spec: JailSpec, boot_id: String, plan: Plan) -> Result<Self> {
        Ok(Self {
            version: VERSION,
            id: spec.id.clone(),
            boot_id,
            pid_namespace: cache::pid_namespace()?,
            nonce: Nonce::new(),
            layout: Layout::new(&spec),
            spec,
            keeper: Some(ProcessRef::myself()),
            over: false,
            created_ms: now_ms(),
            made: plan.prepare.len(),
            steps: plan.prepare,
            enter: plan.enter,
            locked: false,
        })
    }

    /// Parses a receipt. An error is a predicate: "receipt FILE ...".
    pub(crate) fn parse(text: &[u8], id: &JailId) -> std::result::Result<Self, String> {
        parse(text, id, |receipt: &Self| (receipt.version, &receipt.id))
    }

    /// The VMM's process; `None` before it is started.
    pub fn vmm(&self) -> Option<ProcessRef> {
        self.vmm_step().map(|vmm| vmm.process)
    }

    pub(crate) fn vmm_step(&self) -> Option<&Vmm> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Vmm(vmm) => Some(vmm),
            _ => None,
        })
    }

    /// Whether another program creates the jail and starts its VMM.
    pub(crate) fn is_adopted(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::External(_)))
    }

    /// The jail's cgroups on this host.
    pub fn cgroups(&self) -> impl Iterator<Item = HostPath> {
        self.steps.iter().filter_map(Step::cgroup)
    }

    /// The hard links in the jail: the path in the jail, and the path on the host.
    pub fn linked(&self) -> impl Iterator<Item = (&JailPath, &HostPath)> {
        self.steps.iter().filter_map(|step| match step {
            Step::PlacedFile(PlacedFile { how: FileHow::Link, path, source, .. }) => Some((path, source)),
            _ => None,
        })
    }

    /// Paths inside the jail of all removable placements.
    pub fn placed(&self) -> impl Iterator<Item = &JailPath> {
        self.steps[self.made..].iter().filter_map(Step::placed_at)
    }

    /// Whether the receipt was written in this boot, so that its processes can be alive.
    ///
    /// Another boot id alone proves no reboot: a container may have one of its own. A sign of life refutes it.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.has_this_boot_id() || self.locked || self.shows_life()
    }

    pub(super) fn has_this_boot_id(&self) -> bool {
        is_boot(&self.boot_id)
    }

    /// Whether its pids are valid in this pid namespace, if it is of this boot.
    pub(super) fn is_of_this_namespace(&self) -> bool {
        is_namespace(self.pid_namespace)
    }

    /// Whether its pids are valid here, in this boot and this pid namespace.
    pub(crate) fn is_here(&self) -> bool {
        self.is_of_this_namespace() && self.is_of_this_boot()
    }

    /// The present state of the jail.
    pub fn state(&self) -> JailState {
        self.head().state(self.is_of_this_boot())
    }

    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            id: &self.id,
            pid_namespace: self.pid_namespace,
            exec_name: self.spec.exec_file.name(),
            base: &self.spec.base,
            owner: self.spec.owner,
            keeper: self.keeper,
            over: self.over,
            created_ms: self.created_ms,
            vmm: self.vmm(),
            monitor: self.vmm_step().and_then(|vmm| vmm.monitor),
        }
    }

    /// The tombstone of the jail.
    ///
    /// # Arguments
    /// `oom_kills` is the number of processes that the kernel killed because memory ran out, if it is known.
    pub(crate) fn tombstone(&self, status: Option<ExitStatus>, oom_kills: Option<u64>) -> Tombstone {
        let vmm = self.vmm().map(|vmm| (vmm.pid, status.unwrap_or(ExitStatus::Unknown)));
        let oom_kills = vmm.and(oom_kills);
        Tombstone { id: self.id.clone(), nonce: self.nonce.clone(), vmm, oom_kills }
    }

    /// The time since its creation.
    pub fn age(&self) -> Duration {
        self.head().age()
    }

    /// The start time of its VMM, in milliseconds since 1970. In another boot it is the time of the jail's creation.
    pub(crate) fn started_ms(&self, vmm: ProcessRef) -> u64 {
        let started = if self.is_of_this_boot() { now_ms().saturating_sub(vmm.age_ms()) } else { 0 };
        // Start times have a resolution of ten milliseconds, so it could be before the creation.
        started.max(self.created_ms)
    }

    /// The jail's root on the host.
    pub fn root(&self) -> HostPath {
        self.layout.root()
    }

    pub(crate) fn step_context(&self) -> StepContext {
        StepContext::new(self.layout.clone(), Some(self.nonce.clone()))
            .of_boot(self.is_of_this_boot())
            .of_user(self.spec.owner.uid)
    }
}

/// The part of a receipt that a list shows. The rest is only checked as JSON, which is much faster.
#[derive(Debug, Deserialize)]
pub(crate) struct ReceiptSummary {
    version: u32,
    id: JailId,
    boot_id: String,
    pid_namespace: u64,
    spec: SpecSummary,
    keeper: Option<ProcessRef>,
    over: bool,
    created_ms: u64,
    steps: Vec<StepSummary>,
}

/// The part of a specification that a list shows.
#[derive(Debug, Deserialize)]
struct SpecSummary {
    exec_file: ExecFile,
    base: HostPath,
    owner: Owner,
}

/// The processes of a step. Of all kinds of steps only the VMM's has any.
#[derive(Debug, Deserialize)]
struct StepSummary {
    #[serde(default)]
    process: Option<ProcessRef>,
    #[serde(default)]
    monitor: Option<ProcessRef>,
}

impl ReceiptSummary {
    /// As for [`Receipt::parse`].
    pub(crate) fn parse(text: &[u8], id: &JailId) -> std::result::Result<Self, String> {
        parse(text, id, |summary: &Self| (summary.version, &summary.id))
    }

    fn vmm_step(&self) -> Option<&StepSummary> {
        self.steps.iter().rev().find(|step| step.process.is_some())
    }

    /// Whether its boot id is this boot's. If not, only the whole receipt shows whether the jail is alive.
    pub(crate) fn has_this_boot(&self) -> bool {
        is_boot(&self.boot_id)
    }

    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            id: &self.id,
            pid_namespace: self.pid_namespace,
            exec_name: self.spec.exec_file.name(),
            base: &self.spec.base,
            owner: self.spec.owner,
            keeper: self.keeper,
            over: self.over,
            created_ms: self.created_ms,
            vmm: self.vmm_step().and_then(|step| step.process),
            monitor: self.vmm_step().and_then(|step| step.monitor),
        }
    }
}

/// The facts of a receipt that a list shows, from the whole receipt or from its summary.
///
/// It borrows them, because a part of both structures would change the order of the keys in the file.
#[derive(Debug)]
pub(crate) struct Head<'r> {
    pub(super) id: &'r JailId,
    /// The pid namespace in which the jail was created.
    pid_namespace: u64,
    pub(super) exec_name: &'r str,
    pub(super) base: &'r HostPath,
    pub(super) owner: Owner,
    keeper: Option<ProcessRef>,
    over: bool,
    created_ms: u64,
    pub(super) vmm: Option<ProcessRef>,
    pub(super) monitor: Option<ProcessRef>,
}

impl Head<'_> {
    /// The state of the jail.
    ///
    /// # Arguments
    /// `this_boot` is whether the receipt was written in this boot.
    pub(super) fn state(&self, this_boot: bool) -> JailState {
        match self.vmm {
            _ if !this_boot => JailState::Abandoned,
            _ if !is_namespace(self.pid_namespace) => JailState::Foreign,
            _ if self.over => JailState::Abandoned,
            Some(vmm) if vmm.is_alive() => JailState::Running,
            // A detached jail stays until its user removes it.
            Some(_) if self.keeper.is_none() => JailState::Exited,
            None if self.keeper.is_none_or(|keeper| keeper.is_alive()) => JailState::Created,
            Some(_) | None => JailState::Abandoned,
        }
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.created_ms))
    }
}

/// Parses a receipt, or a part of it.
///
/// # Arguments
/// `head` returns the version and the id.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    id: &JailId,
    head: impl Fn(&T) -> (u32, &JailId),
) -> std::result::Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    // The version alone is parsed only if the whole cannot be: a list reads a thousand receipts.
    let read: serde_json::Result<T> = serde_json::from_slice(text);
    let version = match &read {
        Ok(read) => Some(head(read).0),
        Err(_) => serde_json::from_slice(text).ok().map(|version: Version| version.version),
    };
    if let Some(version) = version.filter(|version| *version != VERSION) {
        return Err(format!(
            "has version {version}, but this stockade supports version {VERSION}; use the one that wrote it"
        ));
    }
    let read =
        read.map_err(|e| format!("is corrupt: {e}; remove the objects that it names, then its directory"))?;
    match head(&read).1 {
        its if its == id => Ok(read),
        other => Err(format!("belongs to jail '{other}'")),
    }
}

/// Whether this is the id of this boot. An unknown boot may be this one.
fn is_boot(boot_id: &str) -> bool {
    cache::boot_id().map_or(true, |boot| boot == boot_id)
}

/// Whether this is the pid namespace of this process. An unknown one is not.
fn is_namespace(pid_namespace: u64) -> bool {
    cache::pid_namespace().is_ok_and(|own| own == pid_namespace)
}
