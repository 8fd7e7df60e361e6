//! What is read of the host.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};
use rustix::process::Resource;
use rustix::thread::CapabilitySet;
use stockade_syscalls::features::Feature;

use crate::host::{CgroupLayout, TemplateMounts, TrackingPoint};
use crate::spec::{HostPath, NETNS_DIRECTORY};
use crate::state::{JailState, Store};
use crate::sys::mounts;

/// The jails that the host is asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where they are made.
    pub base: HostPath,
    /// The name of their executable.
    pub exec_name: String,
    /// An id, for the length of paths.
    pub id: String,
    /// Their uid.
    pub uid: u32,
    /// Where receipts are kept.
    pub store: Store,
}

/// What is so. A plain structure: a test can write one by hand.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: String,
    /// System calls that are missing or forbidden: name, version, and whether a filter forbids it.
    pub missing_calls: Vec<(&'static str, &'static str, bool)>,
    /// The effective uid.
    pub uid: u32,
    /// Which of the capabilities that making jails takes this process has not.
    pub missing_capabilities: Vec<&'static str>,
    /// Which hierarchies are mounted where.
    pub cgroups: CgroupLayout,
    /// The controllers that the root of the unified hierarchy hands down already.
    pub delegated: Vec<String>,
    /// Whether cgroups of the unified hierarchy can be killed as a whole; `None` if there is none to look at.
    pub cgroup_kill: Option<bool>,
    /// Whether this process may make cgroups below its own.
    pub tracking: bool,
    /// What opening a device says, `None` if all is well: `/dev/kvm` and `/dev/net/tun`.
    pub devices: Vec<(&'static str, Option<String>)>,
    /// The base.
    pub base: BaseFacts,
    /// The hard limit of descriptors, if there is one.
    pub open_files: Option<u64>,
    /// The limit of processes of one user, if there is one.
    pub processes: Option<u64>,
    /// The uid of the jails.
    pub jail_uid: u32,
    /// Whether processes that change their uid stay dumpable: `fs.suid_dumpable`.
    pub suid_dumpable: Option<u64>,
    /// `pid_max` of the kernel.
    pub pid_max: Option<u64>,
    /// Kinds of namespaces of which none may be made.
    pub forbidden_namespaces: Vec<&'static str>,
    /// Whether the directory of named network namespaces hands its mounts on; `None` if it is no mount.
    pub netns_shared: Option<bool>,
    /// How long the path of an API socket is on the host, in bytes.
    pub socket_path: PathBuf,
    /// Why there is no skeleton.
    pub no_template_mounts: Option<String>,
    /// How many jails are dead, and how many receipts damaged.
    pub stale: (usize, usize),
    /// What is in the state directory and belongs to no jail, by path.
    pub strays: Vec<PathBuf>,
    /// Why receipts cannot be read.
    pub no_receipts: Option<String>,
    /// Where swap is.
    pub swap: Vec<String>,
    /// Whether simultaneous multithreading is on.
    pub smt: bool,
    /// Whether pages of equal content are merged.
    pub ksm: bool,
    /// The security modules.
    pub lsm: Vec<String>,
}

/// What is so of the directory that jails are made in, or of what is there on the way to it.
#[derive(Clone, Debug, Default)]
pub struct BaseFacts {
    /// The directory.
    pub path: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// What is there of it.
    pub existing: PathBuf,
    /// Where the filesystem is mounted that this is on.
    pub mount: PathBuf,
    /// Whether that belongs to root, and nobody else may write to it.
    pub is_roots: bool,
    /// What it is mounted with that is in the way of jails: `ro`, `noexec`, `nodev`.
    pub options: Vec<&'static str>,
    /// The filesystem.
    pub filesystem: &'static str,
    /// Free bytes.
    pub free_bytes: u64,
    /// Free inodes; `None` where the filesystem counts none.
    pub free_inodes: Option<u64>,
}

/// What making jails takes of root.
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
    /// Reads the facts. What cannot be read counts as not there.
    pub fn read(question: &Question) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse::<u64>().ok();
        let capabilities = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let capabilities = capabilities.unwrap_or(CapabilitySet::empty());
        let cgroups = CgroupLayout::read_mounts()
            .and_then(|layout| layout.with_unified(Path::new("")))
            .unwrap_or_default();
        let unified = cgroups.v2.as_ref().map(|unified| unified.mount.clone());
        let tracking = TrackingPoint::find(&cgroups).is_some();
        let listings = question.store.list();
        let count = |state| listings.iter().flatten().filter(|listing| listing.state == state).count();
        let probe = |feature: Feature| {
            let (name, version) = feature.name_and_version();
            feature.probe().err().map(|cause| (name, version, cause == rustix::io::Errno::PERM))
        };
        let is_none_allowed =
            |kind: &&str| number(&format!("/proc/sys/user/max_{kind}_namespaces")) == Some(0);
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            missing_calls: Feature::ALL.into_iter().filter_map(probe).collect(),
            uid: rustix::process::geteuid().as_raw(),
            missing_capabilities: CAPABILITIES
                .into_iter()
                .filter(|(_, needed)| !capabilities.contains(*needed))
                .map(|(name, _)| name)
                .collect(),
            delegated: unified.as_ref().map_or_else(Vec::new, |mount| {
                let file = mount.join("cgroup.subtree_control");
                text(&file.to_string()).split_whitespace().map(str::to_owned).collect()
            }),
            cgroup_kill: unified.as_ref().and_then(|mount| can_kill(mount.as_path())),
            cgroups,
            tracking,
            devices: ["/dev/kvm", "/dev/net/tun"].map(|path| (path, opened(path).err())).to_vec(),
            base: BaseFacts::read(&question.base),
            open_files: rustix::process::getrlimit(Resource::Nofile).maximum,
            processes: rustix::process::getrlimit(Resource::Nproc).maximum,
            jail_uid: question.uid,
            suid_dumpable: number("/proc/sys/fs/suid_dumpable"),
            pid_max: number("/proc/sys/kernel/pid_max"),
            forbidden_namespaces: ["mnt", "net", "pid"].into_iter().filter(is_none_allowed).collect(),
            netns_shared: is_shared(Path::new(NETNS_DIRECTORY)),
            socket_path: question
                .base
                .join(&question.exec_name)
                .join(&question.id)
                .join(format!("root/run/{}.socket", question.exec_name))
                .as_path()
                .to_owned(),
            no_template_mounts: TemplateMounts::find().err(),
            stale: (count(JailState::Abandoned), count(JailState::Corrupt)),
            strays: question.store.strays(),
            no_receipts: listings.as_ref().err().map(ToString::to_string),
            swap: text("/proc/swaps")
                .lines()
                .skip(1)
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect(),
            smt: text("/sys/devices/system/cpu/smt/active").trim() == "1",
            ksm: text("/sys/kernel/mm/ksm/run").trim() == "1",
            lsm: text("/sys/kernel/security/lsm").trim().split(',').map(str::to_owned).collect(),
        }
    }
}

impl BaseFacts {
    fn read(base: &HostPath) -> Self {
        let path = base.as_path();
        let existing = path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        let mut facts = Self {
            path: path.to_owned(),
            exists: existing == path,
            existing: existing.to_owned(),
            mount: existing.ancestors().find(|path| is_mounted(path)).unwrap_or(Path::new("/")).to_owned(),
            ..Self::default()
        };
        if let Ok(stat) = rustix::fs::stat(existing) {
            facts.is_roots = stat.st_uid == 0 && stat.st_mode & 0o022 == 0;
        }
        if let Ok(mount) = rustix::fs::statvfs(existing) {
            let hindering = [
                ("ro", StatVfsMountFlags::RDONLY),
                ("noexec", StatVfsMountFlags::NOEXEC),
                ("nodev", StatVfsMountFlags::NODEV),
            ];
            let set = hindering.into_iter().filter(|(_, flag)| mount.f_flag.contains(*flag));
            facts.options = set.map(|(name, _)| name).collect();
            facts.free_bytes = mount.f_bavail.saturating_mul(mount.f_frsize);
            facts.free_inodes = (mount.f_files > 0).then_some(mount.f_favail);
        }
        if let Ok(kind) = rustix::fs::statfs(existing) {
            facts.filesystem = name_of(u64::try_from(kind.f_type).unwrap_or_default());
        }
        facts
    }
}

/// Whether something is mounted there.
fn is_mounted(path: &Path) -> bool {
    let facts = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    facts.is_ok_and(|facts| facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn name_of(magic: u64) -> &'static str {
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

/// What the kernel says of opening a device.
fn opened(path: &str) -> Result<(), String> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open(path, flags, Mode::empty()).map(drop).map_err(|cause| cause.to_string())
}

/// Whether a cgroup below the root has the file; the root itself never has.
fn can_kill(mount: &Path) -> Option<bool> {
    let below = std::fs::read_dir(mount).ok()?.flatten().find(|entry| entry.path().is_dir())?;
    Some(below.path().join("cgroup.kill").exists())
}

/// Whether the mount at this path is shared; `None` if nothing is mounted there.
fn is_shared(at: &Path) -> Option<bool> {
    // The last one is on top.
    Some(mounts::table().ok()?.iter().rfind(|mount| mount.point == at)?.shared)
}
