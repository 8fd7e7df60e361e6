//! All facts about one jail, for users and programs.

mod members;

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{CWD, FileType, ResolveFlags};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::spec::{ExitStatus, HostPath, JailId, JailPath, Known};
use crate::state::entry::{RECEIPT, lock_holder};
use crate::state::listing::RECORD_TIMEOUT;
use crate::state::{JailState, Receipt, Store};
use crate::steps::{External, ExternalKind, Step};
use crate::sys::ProcessRef;
use crate::sys::directory_names::entries;
use crate::sys::jail_root::JailRoot;
use crate::sys::open::{INSIDE, open_directory};

pub use members::{Member, Mount};

/// The facts about a jail. The field names are the keys of its JSON, and are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Its id.
    pub id: JailId,
    /// Its state.
    pub state: JailState,
    /// The fault of its receipt. A jail with one has few other facts.
    pub problem: Option<String>,
    /// The time of its creation, in milliseconds since 1970.
    pub created_ms: Option<u64>,
    /// The time since its creation, in seconds.
    pub age_seconds: Option<u64>,
    /// Its VMM, once started.
    pub vmm: Option<Process>,
    /// The monitor that watches the VMM, if it has one.
    pub monitor: Option<Process>,
    /// The owning process; `None` if the jail persists.
    pub keeper: Option<Process>,
    /// The pid of the process that holds its lock.
    pub locked_by: Option<i32>,
    /// The exit status of its VMM.
    pub ended: Option<ExitStatus>,
    /// The number of its processes that the kernel killed because memory ran out, up to now or to the exit of its VMM;
    /// `None` if its VMM was not started (unless another program starts it), or if no cgroup of the jail counts them. The VMM need not be one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<Known<u64>>,
    /// Its paths on the host.
    pub paths: Paths,
    /// Its processes while its VMM runs, with the monitor, in the order of their pids.
    pub processes: Vec<Member>,
    /// The mounts in the namespace of its VMM while the VMM runs.
    pub mounts: Known<Vec<Mount>>,
    /// Its specification.
    pub spec: Option<Value>,
    /// The steps of its receipt, as text.
    pub steps: Vec<String>,
    /// The enter steps of its VMM's process, as text.
    pub enter: Vec<String>,
}

/// A process of a jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Whether it is alive.
    pub alive: bool,
}

/// The paths of a jail on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Paths {
    /// The receipt.
    pub receipt: HostPath,
    /// The files of the VMM's log, the older first.
    pub logs: Vec<HostPath>,
    /// The root.
    pub root: Option<HostPath>,
    /// The file with the VMM's pid.
    pub pid_file: Option<HostPath>,
    /// The sockets in the jail's root and in its `/run`.
    pub sockets: Vec<HostPath>,
    /// The network namespace that was created for it.
    pub netns: Option<HostPath>,
    /// Its cgroups.
    pub cgroups: Vec<HostPath>,
}

impl Store {
    /// Examines a jail without its lock; `None` if no jail has this id. A corrupt receipt is no error, but
    /// [`Inspection::problem`].
    ///
    /// # Errors
    /// Returns an error if the receipt cannot be read.
    pub fn inspect(&self, id: &JailId) -> Result<Option<Inspection>> {
        let entry = self.entry_path(id);
        let (receipt, problem) = match self.read(id) {
            Ok(None) => return Ok(None),
            Ok(Some(receipt)) => (Some(receipt), None),
            Err(error @ Error::Receipt { .. }) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        let opened = open_directory(CWD, entry.as_path(), ResolveFlags::NO_SYMLINKS).ok();
        let paths = Paths {
            receipt: entry.join(RECEIPT),
            logs: self.logs(id),
            root: None,
            pid_file: None,
            sockets: Vec::new(),
            netns: None,
            cgroups: Vec::new(),
        };
        let found = Inspection {
            id: id.clone(),
            state: JailState::Corrupt,
            problem,
            created_ms: None,
            age_seconds: None,
            vmm: None,
            monitor: None,
            keeper: None,
            locked_by: opened.as_ref().and_then(lock_holder),
            ended: self.ended(id),
            oom_kills: None,
            paths,
            processes: Vec::new(),
            mounts: Known::default(),
            spec: None,
            steps: Vec::new(),
            enter: Vec::new(),
        };
        Ok(Some(match receipt {
            Some(receipt) => {
                let found = found.with(&receipt);
                let monitor = receipt.vmm_step().and_then(|vmm| vmm.monitor);
                let deadline = Instant::now() + RECORD_TIMEOUT;
                let ended = match found.state {
                    JailState::Exited => self.ended_soon(id, monitor, deadline),
                    _ => found.ended,
                };
                let is_started = receipt.vmm().is_some() || receipt.is_adopted();
                let oom_kills = is_started.then(|| self.oom_kills(&receipt)).flatten();
                Inspection { ended, oom_kills, ..found }
            }
            None => found,
        }))
    }
}

impl Inspection {
    fn with(self, receipt: &Receipt) -> Self {
        let process = |process: ProcessRef| Process {
            pid: process.pid,
            alive: receipt.is_here() && process.is_alive(),
        };
        let vmm = receipt.vmm_step();
        let ctx = receipt.step_context();
        // The jail's uid can make its tree inaccessible. Then the paths in it are left out.
        let tree = ctx.own_tree().ok().flatten();
        let root = receipt.root();
        let paths = Paths {
            pid_file: tree.and_then(|tree| pid_file(tree, receipt)),
            sockets: tree.map_or_else(Vec::new, |tree| sockets(tree, &root)),
            root: Some(root),
            netns: receipt.steps.iter().find_map(|step| match step {
                Step::NamedNetns(netns) => Some(netns.name.path()),
                Step::SharedNetns(netns) => Some(netns.name.path()),
                Step::External(External { what: ExternalKind::Netns, path }) => Some(path.clone()),
                _ => None,
            }),
            cgroups: receipt.cgroups().collect(),
            ..self.paths
        };
        Self {
            state: receipt.state(),
            created_ms: Some(receipt.created_ms),
            age_seconds: Some(receipt.age().as_secs()),
            vmm: vmm.map(|vmm| process(vmm.process)),
            monitor: vmm.and_then(|vmm| vmm.monitor).map(process),
            keeper: receipt.keeper.map(process),
            paths,
            processes: members::members(receipt),
            mounts: members::mounts_of(receipt),
            spec: spec(receipt),
            steps: receipt.steps.iter().map(ToString::to_string).collect(),
            enter: receipt.enter.iter().map(ToString::to_string).collect(),
            ..self
        }
    }
}

/// The specification, with the VMM's arguments as text: the receipt contains them as bytes.
fn spec(receipt: &Receipt) -> Option<Value> {
    let mut spec = serde_json::to_value(&receipt.spec).ok()?;
    let arguments = receipt.spec.arguments.iter().map(|argument| argument.to_string_lossy().into());
    spec["arguments"] = Value::Array(arguments.collect());
    Some(spec)
}

/// The most files of a directory to examine: the jail's uid can create any number.
const MOST: usize = 1_000;

fn pid_file(tree: &JailRoot, receipt: &Receipt) -> Option<HostPath> {
    let path = JailPath::new(receipt.layout.pid_file()).ok()?;
    tree.look(&path).ok()?.map(|_| tree.host_path(&path))
}

/// The accessible sockets in the jail's root and in its `/run`.
fn sockets(tree: &JailRoot, root: &HostPath) -> Vec<HostPath> {
    let mut sockets = Vec::new();
    for directory in [".", "run"] {
        let Ok(opened) = open_directory(tree.root(), Path::new(directory), INSIDE) else { continue };
        let Ok(entries) = entries(opened.as_fd(), MOST) else { continue };
        for entry in entries.iter().filter(|entry| entry.kind == FileType::Socket) {
            if let Ok(name) = entry.name.to_str() {
                let parent = if directory == "." { root.clone() } else { root.join(directory) };
                sockets.push(parent.join(name));
            }
        }
    }
    sockets.sort();
    sockets
}
