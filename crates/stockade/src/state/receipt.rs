//! The plan on disk: what was going to be made for a jail, written down before anything is.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::entry::EnterStep;
use crate::plan::Plan;
use crate::spec::clock::now_ms;
use crate::spec::{ExecFile, ExitStatus, HostPath, JailId, JailPath, JailSpec, Layout, Nonce, Owner};
use crate::state::Tombstone;
use crate::steps::{FileHow, PlacedFile, Step, StepContext, Vmm};
use crate::sys::{ProcessRef, cache};

/// The version of the format; a receipt of a later one is reported and left alone.
const VERSION: u32 = 1;

/// What is known of a jail by any process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    version: u32,
    /// Whose it is.
    pub id: JailId,
    /// In which boot it was made.
    pub boot_id: String,
    /// In which pid namespace, by the inode of its file: pids mean other processes elsewhere.
    pub pid_namespace: u64,
    /// What marks the things made for it.
    pub nonce: Nonce,
    /// Where the jail is.
    pub layout: Layout,
    /// What the jail is to be.
    pub spec: JailSpec,
    /// The process that made it, with whose death the jail is dead; `None` for a jail that stands by itself
    /// until somebody launches its VMM or removes it.
    pub keeper: Option<ProcessRef>,
    /// Whether it was torn down: the steps still here could not be undone, and are to be tried again.
    pub over: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// What was made, or was going to be.
    pub steps: Vec<Step>,
    /// How many of the steps make the jail itself; those after them came later.
    pub made: usize,
    /// What the VMM's process does to itself when it is launched.
    pub enter: Vec<EnterStep>,
}

/// How a jail is, as its receipt and the host tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JailState {
    /// It is made, or being made, by a process that lives.
    Created,
    /// Its VMM runs.
    Running,
    /// Its VMM has ended, and it waits to be removed: how it ended and what it wrote can be asked for.
    Exited,
    /// Its VMM has ended, or its maker has before there was one.
    Abandoned,
    /// It was made in another pid namespace of this host: what becomes of it is known there alone.
    Foreign,
    /// Its receipt cannot be understood.
    Corrupt,
}

impl JailState {
    /// Every one.
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
    pub(crate) fn new(spec: JailSpec, boot_id: String, plan: Plan) -> Self {
        Self {
            version: VERSION,
            id: spec.id.clone(),
            boot_id,
            pid_namespace: cache::pid_namespace(),
            nonce: Nonce::new(),
            layout: Layout::new(&spec),
            spec,
            keeper: Some(ProcessRef::myself()),
            over: false,
            created_ms: now_ms(),
            made: plan.prepare.len(),
            steps: plan.prepare,
            enter: plan.enter,
        }
    }

    /// Reads a receipt's text. The text of an error completes the sentence "receipt FILE …".
    pub(crate) fn parse(text: &[u8], id: &JailId) -> Result<Self, String> {
        parse(text, id, |receipt: &Self| (receipt.version, &receipt.id))
    }

    /// The VMM's process, once it was started.
    pub fn vmm(&self) -> Option<ProcessRef> {
        self.vmm_step().map(|vmm| vmm.process)
    }

    pub(crate) fn vmm_step(&self) -> Option<&Vmm> {
        self.steps.iter().rev().find_map(|step| match step {
            Step::Vmm(vmm) => Some(vmm),
            _ => None,
        })
    }

    /// The files that the jail shares with the host by a hard link: where each is in the jail, and on the host.
    pub fn linked(&self) -> impl Iterator<Item = (&JailPath, &HostPath)> {
        self.steps.iter().filter_map(|step| match step {
            Step::PlacedFile(PlacedFile { how: FileHow::Link, path, source, .. }) => Some((path, source)),
            _ => None,
        })
    }

    /// Where in the jail that is which was placed and can be taken out again.
    pub fn placed(&self) -> impl Iterator<Item = &JailPath> {
        self.steps[self.made..].iter().filter_map(Step::placed_at)
    }

    /// Whether the processes on it can still be there.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        is_boot(&self.boot_id)
    }

    /// Whether the pids on it mean what they meant to whoever wrote it.
    pub(crate) fn is_here(&self) -> bool {
        self.is_of_this_boot() && self.pid_namespace == cache::pid_namespace()
    }

    /// How the jail is now.
    pub fn state(&self) -> JailState {
        let origin = (self.boot_id.as_str(), self.pid_namespace);
        state(origin, self.over, self.keeper, self.vmm())
    }

    /// What is told of the jail when it goes.
    pub(crate) fn tombstone(&self, ended: Option<ExitStatus>) -> Tombstone {
        let vmm = self.vmm().map(|vmm| (vmm.pid, ended.unwrap_or(ExitStatus::Unknown)));
        Tombstone { id: self.id.clone(), nonce: self.nonce.clone(), vmm }
    }

    /// How long ago it was made.
    pub fn age(&self) -> Duration {
        age(self.created_ms)
    }

    /// When its VMM was started, in milliseconds since 1970; that of another boot tells no more than when the jail was
    /// made.
    pub(crate) fn started_ms(&self, vmm: ProcessRef) -> u64 {
        let started = if self.is_of_this_boot() { now_ms().saturating_sub(vmm.age_ms()) } else { 0 };
        // It is counted in ticks of ten milliseconds.
        started.max(self.created_ms)
    }

    /// The jail's root on the host.
    pub fn root(&self) -> HostPath {
        self.layout.root()
    }

    pub(crate) fn step_context(&self) -> StepContext {
        StepContext::new(self.layout.clone(), Some(self.nonce.clone())).of_boot(self.is_of_this_boot())
    }
}

/// What a list tells of a jail: the rest of the receipt is looked at as JSON alone, which is a fraction of the work.
#[derive(Debug, Deserialize)]
pub(crate) struct ReceiptSummary {
    version: u32,
    pub(crate) id: JailId,
    boot_id: String,
    pid_namespace: u64,
    pub(crate) spec: SpecSummary,
    keeper: Option<ProcessRef>,
    over: bool,
    created_ms: u64,
    steps: Vec<StepSummary>,
}

/// The same of what the jail is to be.
#[derive(Debug, Deserialize)]
pub(crate) struct SpecSummary {
    pub(crate) exec_file: ExecFile,
    pub(crate) base: HostPath,
    pub(crate) owner: Owner,
}

/// The same of a step: of all kinds the VMM's alone has a process.
#[derive(Debug, Deserialize)]
struct StepSummary {
    #[serde(default)]
    process: Option<ProcessRef>,
}

impl ReceiptSummary {
    /// As for [`Receipt::parse`].
    pub(crate) fn parse(text: &[u8], id: &JailId) -> Result<Self, String> {
        parse(text, id, |summary: &Self| (summary.version, &summary.id))
    }

    pub(crate) fn vmm(&self) -> Option<ProcessRef> {
        self.steps.iter().rev().find_map(|step| step.process)
    }

    pub(crate) fn state(&self) -> JailState {
        state((&self.boot_id, self.pid_namespace), self.over, self.keeper, self.vmm())
    }

    pub(crate) fn age(&self) -> Duration {
        age(self.created_ms)
    }
}

/// Reads a receipt's text, or a part of it, which tells its version and id by `head`.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    id: &JailId,
    head: impl Fn(&T) -> (u32, &JailId),
) -> Result<T, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    // As a whole, and for its version alone only where that fails: a list reads a thousand of them.
    let read: serde_json::Result<T> = serde_json::from_slice(text);
    let version = match &read {
        Ok(read) => Some(head(read).0),
        Err(_) => serde_json::from_slice(text).ok().map(|version: Version| version.version),
    };
    if let Some(version) = version.filter(|version| *version != VERSION) {
        return Err(format!("has version {version}; this stockade knows version {VERSION}"));
    }
    let read = read.map_err(|e| format!("is damaged: {e}"))?;
    match head(&read).1 {
        its if its == id => Ok(read),
        other => Err(format!("is that of jail {other}")),
    }
}

/// How a jail is now, of which these facts are written down.
///
/// # Arguments
/// `origin` is the boot and the pid namespace in which it was made.
fn state(origin: (&str, u64), over: bool, keeper: Option<ProcessRef>, vmm: Option<ProcessRef>) -> JailState {
    match vmm {
        _ if !is_boot(origin.0) => JailState::Abandoned,
        _ if origin.1 != cache::pid_namespace() => JailState::Foreign,
        _ if over => JailState::Abandoned,
        Some(vmm) if vmm.is_alive() => JailState::Running,
        // It stood by itself, and only whoever made it stand removes it.
        Some(_) if keeper.is_none() => JailState::Exited,
        None if keeper.is_none_or(|keeper| keeper.is_alive()) => JailState::Created,
        _ => JailState::Abandoned,
    }
}

fn age(created_ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(created_ms))
}

/// Whether this is the boot of that name.
fn is_boot(boot_id: &str) -> bool {
    cache::boot_id().is_ok_and(|boot| boot == boot_id)
}
