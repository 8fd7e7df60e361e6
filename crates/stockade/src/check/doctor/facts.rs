//! The facts about a host.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use crate::error::Error;
use crate::host::{CgroupLayout, TemplateMounts, TrackingPoint};
use crate::spec::{HostPath, Layout, NETNS_DIRECTORY, Owner, Reason};
use crate::state::{JailState, Store};
use crate::sys::access::unsafe_directory;
use crate::sys::cgroup::{has_kill, subtree_control};
use crate::sys::modes::is_roots_own;
use crate::sys::mounts;
use crate::sys::procfs::{read, read_file};

use super::trials::Trials;
use crate::spec::known::{Known, known};
use crate::sys::user_namespace::try_is_initial;

/// The jails for which a host is checked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The base.
    pub base: HostPath,
    /// The name of the VMM's executable.
    pub exec_name: String,
    /// An id, for the length of the socket's path.
    pub id: String,
    /// The uid of the VMMs.
    pub uid: u32,
    /// The state directory.
    pub store: Store,
}

/// The facts about a host. A plain structure: a test can write one by hand.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: String,
    /// The effective uid.
    pub uid: u32,
    /// The capabilities that creating jails requires and this process lacks.
    pub missing_capabilities: Vec<&'static str>,
    /// Whether this process is in a user namespace other than the initial one.
    pub in_user_namespace: Known<bool>,
    /// Whether it may inspect the processes of other users (CAP_SYS_PTRACE).
    pub lacks_ptrace: bool,
    /// The outcomes of the trials.
    pub trials: Trials,
    /// Whether the root directory is a mount point.
    pub root_is_mount_point: Known<bool>,
    /// The files in `/proc` that jails need and that cannot be read, each with the cause.
    pub unread_proc: Vec<String>,
    /// The mounted cgroup hierarchies.
    pub cgroups: CgroupLayout,
    /// Why the hierarchies are unknown; `None` if they are known.
    pub no_cgroups: Option<String>,
    /// The controllers that the root of cgroup v2 enables for child cgroups (`cgroup.subtree_control`).
    pub delegated: Vec<String>,
    /// Whether cgroups of cgroup v2 have `cgroup.kill`; `None` if there is no child cgroup to examine.
    pub cgroup_kill: Option<bool>,
    /// Whether this process can create cgroups below its own.
    pub tracking: bool,
    /// `/dev/kvm` and `/dev/net/tun`, each with the error of opening it, or `None`.
    pub devices: Vec<(&'static str, Option<String>)>,
    /// The base.
    pub base: BaseFacts,
    /// The hard limit of open file descriptors; `None` for no limit.
    pub open_files: Option<u64>,
    /// The hard limit of processes of one user; `None` for no limit.
    pub processes: Option<u64>,
    /// The uid of the jails.
    pub jail_uid: u32,
    /// Whether processes that change their uid stay dumpable: `fs.suid_dumpable`.
    pub suid_dumpable: Known<u64>,
    /// `kernel.pid_max`.
    pub pid_max: Known<u64>,
    /// The kinds of namespaces that cannot be created.
    pub forbidden_namespaces: Vec<&'static str>,
    /// Whether the directory of named network namespaces is a shared mount; `None` if it is not a mount.
    pub netns_shared: Known<Option<bool>>,
    /// The path of an API socket on the host.
    pub socket_path: PathBuf,
    /// Why there is no template mount namespace; `None` if there is one.
    pub no_template_mounts: Option<String>,
    /// The numbers of abandoned and of corrupt jails.
    pub stale: (usize, usize),
    /// Paths in the state directory that belong to no jail.
    pub strays: Vec<PathBuf>,
    /// Why the receipts cannot be read; `None` if they can.
    pub no_receipts: Option<String>,
    /// The swap devices and files.
    pub swap: Known<Vec<String>>,
    /// Whether simultaneous multithreading is on.
    pub smt: Known<bool>,
    /// Whether the kernel merges identical pages.
    pub ksm: Known<bool>,
    /// The active security modules.
    pub lsm: Known<Vec<String>>,
}

/// The facts about the base, or about its deepest existing ancestor.
#[derive(Clone, Debug)]
pub struct BaseFacts {
    /// The base.
    pub path: PathBuf,
    /// Whether the base exists.
    pub exists: bool,
    /// The base, or its deepest existing ancestor; all further facts are about this directory.
    pub existing: PathBuf,
    /// The mount point of its filesystem.
    pub mount: PathBuf,
    /// Whether it belongs to root, and no other user can write to it.
    pub is_root_only: bool,
    /// The directory on the way to the jails that their uid can change, or the error of examining one.
    pub unsafe_directory: Result<Option<PathBuf>, String>,
    /// Mount options that obstruct jails: `ro`, `noexec`, `nodev`.
    pub options: Vec<&'static str>,
    /// The type of its filesystem.
    pub filesystem: &'static str,
    /// Free bytes.
    pub free_bytes: u64,
    /// Free inodes; `None` if the filesystem does not count inodes.
    pub free_inodes: Option<u64>,
    /// Why some of these facts are unknown; `None` if all are known.
    pub unread: Option<String>,
}

impl Default for BaseFacts {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            exists: false,
            existing: PathBuf::new(),
            mount: PathBuf::new(),
            is_root_only: false,
            unsafe_directory: Ok(None),
            options: Vec::new(),
            filesystem: "",
            free_bytes: 0,
            free_inodes: None,
            unread: None,
        }
    }
}

/// The capabilities that creating jails requires.
const CAPABILITIES: [(&str, CapabilitySet); 10] = [
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_KILL", CapabilitySet::KILL),
    ("CAP_MKNOD", CapabilitySet::MKNOD),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETPCAP", CapabilitySet::SETPCAP),
    ("CAP_SETUID", CapabilitySet::SETUID),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_SYS_CHROOT", CapabilitySet::SYS_CHROOT),
];

impl HostFacts {
    /// Reads the facts, and tries what a jail does, in child processes.
    pub fn read(question: &Question) -> Self {
        let read = |path: &str| read(path).map_err(Error::from);
        let text = |path: &str| known(read(path));
        let number =
            |path: &str| {
                known(read(path).map_err(|cause| cause.to_string()).and_then(|text| {
                    text.trim().parse::<u64>().map_err(|_| format!("'{path}' is no number"))
                }))
            };
        let capabilities = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let capabilities = capabilities.unwrap_or(CapabilitySet::empty());
        let (cgroups, no_cgroups) = match CgroupLayout::read_mounts().and_then(CgroupLayout::with_controllers)
        {
            Ok(layout) => (layout, None),
            Err(cause) => (CgroupLayout::default(), Some(cause.to_string())),
        };
        let unified = cgroups.v2.as_ref().map(|unified| unified.mount.clone());
        let tracking = TrackingPoint::find(&cgroups).is_some();
        let listings = question.store.list();
        let count = |state| listings.iter().flatten().filter(|listing| listing.state == state).count();
        let is_none_allowed =
            |kind: &&str| number(&format!("/proc/sys/user/max_{kind}_namespaces")).fact() == Some(&0);
        let base = BaseFacts::read(question);
        let trials = Trials::make(&base.existing, question.uid);
        Self {
            trials,
            in_user_namespace: known(
                try_is_initial()
                    .map(|initial| !initial)
                    .map_err(|cause| format!("cannot inspect '/proc/self/ns/user': {}", Reason(cause))),
            ),
            lacks_ptrace: !capabilities.contains(CapabilitySet::SYS_PTRACE),
            root_is_mount_point: known(root_is_mount_point()),
            unread_proc: OF_PROC.into_iter().filter_map(|path| Some(read(path).err()?.to_string())).collect(),
            no_cgroups,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            uid: rustix::process::geteuid().as_raw(),
            missing_capabilities: CAPABILITIES
                .into_iter()
                .filter(|(_, needed)| !capabilities.contains(*needed))
                .map(|(name, _)| name)
                .collect(),
            delegated: unified.as_ref().map_or_else(Vec::new, |mount| {
                let file = subtree_control(mount);
                let text = read_file(&file).unwrap_or_default();
                text.split_whitespace().map(str::to_owned).collect()
            }),
            cgroup_kill: unified.as_ref().and_then(|mount| can_kill(mount.as_path())),
            cgroups,
            tracking,
            devices: ["/dev/kvm", "/dev/net/tun"].map(|path| (path, try_open(path).err())).to_vec(),
            base,
            open_files: rustix::process::getrlimit(Resource::Nofile).maximum,
            processes: rustix::process::getrlimit(Resource::Nproc).maximum,
            jail_uid: question.uid,
            suid_dumpable: number("/proc/sys/fs/suid_dumpable"),
            pid_max: number("/proc/sys/kernel/pid_max"),
            forbidden_namespaces: ["mnt", "net", "pid"].into_iter().filter(is_none_allowed).collect(),
            netns_shared: is_shared(Path::new(NETNS_DIRECTORY)),
            socket_path: Layout::unchecked(question.base.clone(), &question.exec_name, &question.id)
                .root()
                .join(format!("run/{}.socket", question.exec_name))
                .as_path()
                .to_owned(),
            no_template_mounts: TemplateMounts::find().err(),
            stale: (count(JailState::Abandoned), count(JailState::Corrupt)),
            strays: question.store.strays(),
            no_receipts: listings.as_ref().err().map(ToString::to_string),
            swap: text("/proc/swaps").map(|text| {
                let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
                names.map(str::to_owned).collect()
            }),
            smt: text("/sys/devices/system/cpu/smt/active").map(|text| text.trim() == "1"),
            ksm: text("/sys/kernel/mm/ksm/run").map(|text| text.trim() == "1"),
            lsm: text("/sys/kernel/security/lsm")
                .map(|text| text.trim().split(',').map(str::to_owned).collect()),
        }
    }
}

/// The files that each command reads. A proc with `subset=pid` lacks the second.
const OF_PROC: [&str; 2] = ["/proc/self/mountinfo", "/proc/sys/kernel/random/boot_id"];

fn root_is_mount_point() -> Result<bool, String> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.and_then(|root| mounts::is_mount_point(root.as_fd()))
        .map_err(|cause| format!("cannot inspect '/': {}", Reason(cause)))
}

impl BaseFacts {
    fn read(question: &Question) -> Self {
        let path = question.base.as_path();
        // The usual group of a user of its own.
        let owner = Owner { uid: question.uid, gid: question.uid };
        let unsafe_directory = match owner.uid {
            // Root can change every directory.
            0 => Ok(None),
            _ => unsafe_directory(&question.base.join(&question.exec_name), owner),
        };
        let existing = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let mut facts = Self {
            path: path.to_owned(),
            exists: existing == path,
            existing: existing.to_owned(),
            mount: existing
                .ancestors()
                .find(|path| is_mount_point(path))
                .unwrap_or(Path::new("/"))
                .to_owned(),
            unsafe_directory: unsafe_directory
                .map(|found| found.map(|directory| directory.as_path().to_owned()))
                .map_err(|(directory, cause)| format!("cannot inspect '{directory}': {}", Reason(cause))),
            ..Self::default()
        };
        let mut unread = Vec::new();
        let mut note = |cause: Errno| unread.push(Reason(cause).to_string());
        match rustix::fs::stat(existing) {
            Ok(stat) => facts.is_root_only = is_roots_own(&stat),
            Err(cause) => note(cause),
        }
        match rustix::fs::statvfs(existing) {
            Err(cause) => note(cause),
            Ok(mount) => {
                let obstructive = [
                    ("ro", StatVfsMountFlags::RDONLY),
                    ("noexec", StatVfsMountFlags::NOEXEC),
                    ("nodev", StatVfsMountFlags::NODEV),
                ];
                let set = obstructive.into_iter().filter(|(_, flag)| mount.f_flag.contains(*flag));
                facts.options = set.map(|(name, _)| name).collect();
                facts.free_bytes = mount.f_bavail.saturating_mul(mount.f_frsize);
                facts.free_inodes = (mount.f_files > 0).then_some(mount.f_favail);
            }
        }
        match rustix::fs::statfs(existing) {
            Ok(kind) => facts.filesystem = filesystem_name(u64::try_from(kind.f_type).unwrap_or_default()),
            Err(cause) => note(cause),
        }
        facts.unread = unread.into_iter().next();
        facts
    }
}

fn is_mount_point(path: &Path) -> bool {
    let directory = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    directory.and_then(|directory| mounts::is_mount_point(directory.as_fd())) == Ok(true)
}

/// The name of a filesystem by its magic number (`statfs`).
fn filesystem_name(magic: u64) -> &'static str {
    match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        _ => "another filesystem",
    }
}

fn try_open(device: &str) -> Result<(), String> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(device, flags, Mode::empty()).map(drop).map_err(|cause| Reason(cause).to_string())
}

/// Whether child cgroups have `cgroup.kill`; the root never has it.
fn can_kill(mount: &Path) -> Option<bool> {
    let child = std::fs::read_dir(mount).ok()?.flatten().find(|entry| entry.path().is_dir())?;
    Some(has_kill(&child.path().into()))
}

/// Whether the mount at this path is shared; `None` if the path is not a mount point.
fn is_shared(at: &Path) -> Known<Option<bool>> {
    // The last mount in the table is the topmost.
    known(mounts::table().map_err(Error::from))
        .map(|table| Some(table.iter().rfind(|mount| mount.point == at)?.shared))
}
