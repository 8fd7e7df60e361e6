//! The cgroups of the benches: three settings in cgroup v1 or v2, created with bare system calls.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use stockade::spec::JailBuilder;
use stockade_syscalls::call::Call;

use crate::{Done, text};

/// The parent of the cgroups of the bench's jails.
const PARENT: &str = "stockade-bench";

/// Three settings of cgroup v1, in two hierarchies.
const V1: [&str; 3] = ["cpu.shares=512", "cpuset.cpus=0", "cpuset.mems=0"];

/// Sets of three settings of cgroup v2. The first set whose controllers the host has is used.
const V2: [&[&str]; 2] = [
    &["cpu.weight=50", "memory.high=max", "pids.max=64"],
    &["hugetlb.2MB.max=0", "hugetlb.2MB.rsvd.max=0", "hugetlb.1GB.max=0"],
];

/// A cgroup version with three settings that are available on this host.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    number: u8,
    /// The mount points of its hierarchies.
    mounts: Vec<PathBuf>,
    settings: Vec<&'static str>,
}

impl Version {
    /// Finds a cgroup version on this host.
    pub(crate) fn find(number: u8) -> Done<Self> {
        let version = |mounts: Vec<PathBuf>, settings: &[&'static str]| Self {
            number,
            mounts,
            settings: settings.to_vec(),
        };
        if number == 1 {
            let mounts: Vec<_> = ["cpu", "cpuset"].map(|name| Path::new("/sys/fs/cgroup").join(name)).into();
            let is_mounted = mounts.iter().all(|mount| mount.join("tasks").exists());
            return if is_mounted { Ok(version(mounts, &V1)) } else { Err("no hierarchies".into()) };
        }
        let mount = mounted("cgroup2")?.pop().ok_or("not mounted")?;
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).map_err(text)?;
        let has = |setting: &&str| controllers.split_whitespace().any(|name| controller(setting) == name);
        let settings = V2.iter().find(|settings| settings.iter().all(has));
        settings.map(|settings| version(vec![mount], settings)).ok_or_else(|| "no controllers".into())
    }

    /// Adds the settings to a specification.
    pub(crate) fn add_to(&self, spec: JailBuilder) -> JailBuilder {
        let spec = self.settings.iter().fold(spec, |spec, setting| spec.cgroup(*setting));
        spec.cgroup_version(self.number).parent_cgroup(PARENT)
    }

    /// The jailer flags for these settings.
    pub(crate) fn flags(&self) -> Vec<String> {
        let version = self.number.to_string();
        let mut flags: Vec<String> =
            ["--cgroup-version", &version, "--parent-cgroup", PARENT].map(Into::into).into();
        flags.extend(self.settings.iter().flat_map(|setting| ["--cgroup".into(), (*setting).to_owned()]));
        flags
    }

    /// The cgroups that a jailer creates for those flags.
    pub(crate) fn of(&self, id: &str) -> JailCgroups {
        let directories = self.mounts.iter().map(|mount| mount.join(PARENT).join(id)).collect();
        JailCgroups { directories, procs: if self.number == 1 { "tasks" } else { "cgroup.procs" } }
    }

    /// Creates the cgroups with their settings.
    pub(crate) fn create(&self, id: &str) -> Done<JailCgroups> {
        let cgroups = self.of(id);
        for directory in &cgroups.directories {
            if self.number == 2 {
                self.enable_controllers(directory)?;
            }
            fs::create_dir_all(directory).map_err(text)?;
        }
        for setting in &self.settings {
            let (file, value) = setting.split_once('=').ok_or("a setting without a value")?;
            let own = cgroups.directories.iter().find(|directory| directory.join(file).exists());
            let own = own.ok_or_else(|| format!("no cgroup has {file}"))?;
            // The parent first: a new cpuset is empty.
            if file.starts_with("cpuset.") {
                fs::write(own.with_file_name(file), value).map_err(text)?;
            }
            fs::write(own.join(file), value).map_err(text)?;
        }
        Ok(cgroups)
    }

    /// Enables the controllers for child cgroups from the root to the jails' parent.
    fn enable_controllers(&self, directory: &Path) -> Done {
        let parent = directory.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(text)?;
        let names = self.settings.iter().map(|setting| format!("+{}", controller(setting)));
        let names = names.collect::<Vec<_>>().join(" ");
        [parent.parent().unwrap_or(parent), parent]
            .iter()
            .try_for_each(|above| fs::write(above.join("cgroup.subtree_control"), &names))
            .map_err(text)
    }
}

/// The cgroups of one jail.
pub(crate) struct JailCgroups {
    directories: Vec<PathBuf>,
    /// The name of the file that moves a process.
    procs: &'static str,
}

impl JailCgroups {
    /// The calls with which a process joins the cgroups itself.
    pub(crate) fn joins(&self) -> Done<Vec<Call>> {
        let join = |directory: &PathBuf| {
            let file = directory.join(self.procs);
            let file = rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            Ok(Call::Write { file: file.map_err(text)?, text: b"0" })
        };
        self.directories.iter().map(join).collect()
    }

    /// Moves a process into the cgroups by its pid, as a program must that does not start the process.
    pub(crate) fn attach(&self, pid: i32) -> Done {
        let write = |directory: &PathBuf| fs::write(directory.join(self.procs), pid.to_string());
        self.directories.iter().try_for_each(write).map_err(text)
    }

    /// Removes the cgroups. In cgroup v1 a task leaves its cgroup a moment after it was reaped.
    pub(crate) fn remove(&self) -> Done {
        self.directories.iter().try_for_each(|directory| {
            for _ in 0..10_000 {
                match fs::remove_dir(directory) {
                    Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                        std::thread::yield_now();
                    }
                    removed => return removed.map_err(text),
                }
            }
            Err(format!("{} remains busy", directory.display()))
        })
    }
}

/// The controller of a setting.
fn controller(setting: &str) -> &str {
    setting.split_once('.').map_or(setting, |(controller, _)| controller)
}

/// The mount points of file systems of this type.
fn mounted(kind: &str) -> Done<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|e| format!("/proc/mounts: {e}"))?;
    let fields = mounts.lines().map(|line| line.split(' ').skip(1));
    let at = fields.filter_map(|mut fields| fields.next().zip(fields.next()));
    Ok(at.filter(|(_, of)| *of == kind).map(|(at, _)| at.into()).collect())
}

/// The controllers that the root of the unified hierarchy enables for child cgroups, for restoring them.
pub(crate) struct EnabledControllers(Option<(PathBuf, String)>);

impl EnabledControllers {
    pub(crate) fn read() -> Done<Self> {
        let Some(mount) = mounted("cgroup2")?.pop() else { return Ok(Self(None)) };
        let file = mount.join("cgroup.subtree_control");
        let before = fs::read_to_string(&file).map_err(text)?;
        Ok(Self(Some((file, before))))
    }

    /// Removes the parent cgroups, which outlive their jails, and disables the controllers that the benches enabled.
    pub(crate) fn restore(self) -> Done {
        for mount in [mounted("cgroup")?, mounted("cgroup2")?].concat() {
            let parent = mount.join(PARENT);
            if parent.exists() {
                fs::remove_dir(&parent).map_err(|e| format!("{}: {e}", parent.display()))?;
            }
        }
        let Some((file, before)) = self.0 else { return Ok(()) };
        let now = fs::read_to_string(&file).map_err(text)?;
        let added = now.split_whitespace().filter(|name| !before.split_whitespace().any(|old| old == *name));
        added.into_iter().try_for_each(|name| fs::write(&file, format!("-{name}"))).map_err(text)
    }
}
