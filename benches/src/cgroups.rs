//! The cgroups of the benches: three settings in either version, made as C would make them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use stockade::spec::JailBuilder;
use stockade_syscalls::call::Call;

use crate::{Done, text};

/// The cgroup that those of the bench's jails are made in.
const PARENT: &str = "stockade-bench";

/// Three settings of version 1, in two hierarchies.
const V1: [&str; 3] = ["cpu.shares=512", "cpuset.cpus=0", "cpuset.mems=0"];

/// Three settings of version 2: the first three whose controllers the host has there.
const V2: [&[&str]; 2] = [
    &["cpu.weight=50", "memory.high=max", "pids.max=64"],
    &["hugetlb.2MB.max=0", "hugetlb.2MB.rsvd.max=0", "hugetlb.1GB.max=0"],
];

/// A version of cgroups with three settings that this host can give.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    number: u8,
    /// Where its hierarchies are mounted.
    mounts: Vec<PathBuf>,
    settings: Vec<&'static str>,
}

impl Version {
    /// Looks for it on this host.
    pub(crate) fn find(number: u8) -> Done<Self> {
        let version = |mounts: Vec<PathBuf>, settings: &[&'static str]| Self {
            number,
            mounts,
            settings: settings.to_vec(),
        };
        if number == 1 {
            let mounts: Vec<_> = ["cpu", "cpuset"].map(|name| Path::new("/sys/fs/cgroup").join(name)).into();
            let there = mounts.iter().all(|mount| mount.join("tasks").exists());
            return if there { Ok(version(mounts, &V1)) } else { Err("no hierarchies of it".into()) };
        }
        let mount = mounted("cgroup2")?.pop().ok_or("it is not mounted")?;
        let controllers = fs::read_to_string(mount.join("cgroup.controllers")).map_err(text)?;
        let has = |setting: &&str| controllers.split_whitespace().any(|name| controller(setting) == name);
        let settings = V2.iter().find(|settings| settings.iter().all(has));
        settings.map(|settings| version(vec![mount], settings)).ok_or_else(|| "no controllers of it".into())
    }

    /// A jail with these settings.
    pub(crate) fn wish(&self, spec: JailBuilder) -> JailBuilder {
        let spec = self.settings.iter().fold(spec, |spec, setting| spec.cgroup(*setting));
        spec.cgroup_version(self.number).parent_cgroup(PARENT)
    }

    /// The flags of a jailer for these settings.
    pub(crate) fn flags(&self) -> Vec<String> {
        let version = self.number.to_string();
        let mut flags: Vec<String> =
            ["--cgroup-version", &version, "--parent-cgroup", PARENT].map(Into::into).into();
        flags.extend(self.settings.iter().flat_map(|setting| ["--cgroup".into(), (*setting).to_owned()]));
        flags
    }

    /// The cgroups that a jailer makes of those flags.
    pub(crate) fn of(&self, id: &str) -> Made {
        let directories = self.mounts.iter().map(|mount| mount.join(PARENT).join(id)).collect();
        Made { directories, procs: if self.number == 1 { "tasks" } else { "cgroup.procs" } }
    }

    /// Makes them, with their settings.
    pub(crate) fn make(&self, id: &str) -> Done<Made> {
        let made = self.of(id);
        for directory in &made.directories {
            if self.number == 2 {
                self.hand_down(directory)?;
            }
            fs::create_dir_all(directory).map_err(text)?;
        }
        for setting in &self.settings {
            let (file, value) = setting.split_once('=').ok_or("a setting without a value")?;
            let own = made.directories.iter().find(|directory| directory.join(file).exists());
            let own = own.ok_or_else(|| format!("no cgroup has {file}"))?;
            // Those of the parent come first: a cpuset has none by itself.
            if file.starts_with("cpuset.") {
                fs::write(own.with_file_name(file), value).map_err(text)?;
            }
            fs::write(own.join(file), value).map_err(text)?;
        }
        Ok(made)
    }

    /// Hands the controllers down from the root to the jails' parent.
    fn hand_down(&self, directory: &Path) -> Done {
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

/// Cgroups of one jail.
pub(crate) struct Made {
    directories: Vec<PathBuf>,
    /// The file that moves a process there.
    procs: &'static str,
}

impl Made {
    /// What a process does to move there by itself.
    pub(crate) fn joins(&self) -> Done<Vec<Call>> {
        let join = |directory: &PathBuf| {
            let file = directory.join(self.procs);
            let file = rustix::fs::open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            Ok(Call::Write { file: file.map_err(text)?, text: b"0" })
        };
        self.directories.iter().map(join).collect()
    }

    /// Moves a process there by its pid, as whoever does not start it has to.
    pub(crate) fn attach(&self, pid: i32) -> Done {
        let write = |directory: &PathBuf| fs::write(directory.join(self.procs), pid.to_string());
        self.directories.iter().try_for_each(write).map_err(text)
    }

    /// Removes them. A task leaves its cgroup of version 1 a little after it was reaped.
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
            Err(format!("{} stays in use", directory.display()))
        })
    }
}

/// The controller that a setting is of.
fn controller(setting: &str) -> &str {
    setting.split_once('.').map_or(setting, |(controller, _)| controller)
}

/// Where file systems of this kind are mounted.
fn mounted(kind: &str) -> Done<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/mounts").map_err(|e| format!("/proc/mounts: {e}"))?;
    let fields = mounts.lines().map(|line| line.split(' ').skip(1));
    let at = fields.filter_map(|mut fields| fields.next().zip(fields.next()));
    Ok(at.filter(|(_, of)| *of == kind).map(|(at, _)| at.into()).collect())
}

/// What the unified hierarchy hands down from its root, to be given back as it was found.
pub(crate) struct HandedDown(Option<(PathBuf, String)>);

impl HandedDown {
    pub(crate) fn look() -> Done<Self> {
        let Some(mount) = mounted("cgroup2")?.pop() else { return Ok(Self(None)) };
        let file = mount.join("cgroup.subtree_control");
        let before = fs::read_to_string(&file).map_err(text)?;
        Ok(Self(Some((file, before))))
    }

    /// Removes the parent cgroups, which outlive their jails, and hands down what was handed down before.
    pub(crate) fn restore(self) -> Done {
        for mount in [mounted("cgroup")?, mounted("cgroup2")?].concat() {
            let parent = mount.join(PARENT);
            if parent.exists() {
                fs::remove_dir(&parent).map_err(|e| format!("{}: {e}", parent.display()))?;
            }
        }
        let Some((file, before)) = self.0 else { return Ok(()) };
        let now = fs::read_to_string(&file).map_err(text)?;
        let more = now.split_whitespace().filter(|name| !before.split_whitespace().any(|had| had == *name));
        more.into_iter().try_for_each(|name| fs::write(&file, format!("-{name}"))).map_err(text)
    }
}
