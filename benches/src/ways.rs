//! The ways in which a VMM is started, each with the same work before and after.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::{JailBuilder, JailSpec};
use stockade::{Running, Streams};
use stockade_syscalls::call::Call;
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{Birth, spawn};

use crate::child::{execute, reap, start};
use crate::floor::WayIn;
use crate::ground::{Ground, PARENT};
use crate::{Done, peers, text};

/// A jail, or what comes near to one, that is ready to be started with this as its output.
pub(crate) type Ready = Box<dyn FnOnce(OwnedFd) -> Done<Started> + Send>;

/// One that was started, to be removed.
pub(crate) type Started = Box<dyn FnOnce() -> Done + Send>;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// An id that no other jail has.
pub(crate) fn fresh_id() -> String {
    format!("bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Prepares one start in a way of this name.
pub(crate) fn ready(ground: &Ground, way: &str) -> Done<Ready> {
    match way {
        "floor" => Ok(floor(ground)),
        "bare" => bare(ground, true),
        "pool-floor" => bare(ground, false),
        "attach" => attach(ground),
        "stockade" => launched(ground, &plain(ground)),
        "stockade-netns" => launched(ground, &plain(ground).new_netns()),
        "stockade-cgroups" => launched(ground, &with_cgroups(plain(ground))),
        "drop-in" => drop_in(ground, None),
        "drop-in-cgroups" => drop_in(ground, Some("cgroups")),
        peer => peers::ready(ground, peer),
    }
}

/// The specification that all jails of the bench have.
pub(crate) fn plain(ground: &Ground) -> JailBuilder {
    JailSpec::builder(fresh_id(), ground.vmm.clone()).base(ground.base())
}

/// Three settings, in two hierarchies of version 1.
pub(crate) const SETTINGS: [&str; 3] = ["cpu.shares=512", "cpuset.cpus=0", "cpuset.mems=0"];

pub(crate) fn with_cgroups(spec: JailBuilder) -> JailBuilder {
    let spec = SETTINGS.into_iter().fold(spec, JailBuilder::cgroup);
    spec.cgroup_version(1).parent_cgroup(PARENT)
}

/// The streams that start with this output.
pub(crate) fn streams(output: OwnedFd) -> Streams {
    Streams { stdout: Some(output), ..Streams::default() }
}

pub(crate) fn removed(mut running: Running) -> Done {
    running.wait().map_err(text)?;
    let report = running.teardown().map_err(text)?;
    if report.is_clean() { Ok(()) } else { Err(format!("left: {:?}", report.left)) }
}

fn launched(ground: &Ground, spec: &JailBuilder) -> Done<Ready> {
    let prepared = ground.store.prepare(&spec.build().map_err(text)?).map_err(text)?;
    Ok(Box::new(move |output| {
        let running = prepared.launch(streams(output)).map_err(text)?;
        Ok(Box::new(move || removed(running)))
    }))
}

fn ended(child: OwnedFd) -> Started {
    Box::new(move || reap(&child))
}

/// Clone and exec, and nothing else.
fn floor(ground: &Ground) -> Ready {
    let vmm = ground.vmm.clone();
    Box::new(move |output| {
        Ok(ended(start(vec![Call::Redirect([None, Some(output), None]), execute(&vmm, &[])])?))
    })
}

/// The system calls that a start in a jail takes, with everything else done before: as C would have it. Without
/// `whole`, only the switch of the mounts.
fn bare(ground: &Ground, whole: bool) -> Done<Ready> {
    let root = ground.directory.join(fresh_id());
    fs::create_dir(&root).map_err(text)?;
    fs::copy(&ground.vmm, root.join("vmm")).map_err(text)?;
    let way = WayIn::to(&root)?;
    Ok(Box::new(move |output| {
        let child = start(way.calls(output, whole))?;
        Ok(Box::new(move || {
            reap(&child)?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// Clone and exec of a child that is put into two cgroups of version 1 from outside, by its pid, as whoever does
/// not start the process itself has to.
fn attach(ground: &Ground) -> Done<Ready> {
    let cgroups = ["cpu", "cpuset"]
        .map(|controller| Path::new("/sys/fs/cgroup").join(controller).join(PARENT).join(fresh_id()));
    let vmm = ground.vmm.clone();
    for cgroup in &cgroups {
        fs::create_dir_all(cgroup).map_err(text)?;
    }
    inherit(&cgroups[1])?;
    Ok(Box::new(move |output| {
        let calls = vec![Call::Redirect([None, Some(output), None]), Call::WaitForGo, execute(&vmm, &[])];
        let child = spawn(&mut Program::new(calls), Birth::default()).map_err(text)?;
        for cgroup in &cgroups {
            fs::write(cgroup.join("cgroup.procs"), child.pid.as_raw_nonzero().to_string()).map_err(text)?;
        }
        let (pidfd, outcome) = child.go_and_tell();
        outcome.map_err(text)?;
        Ok(Box::new(move || {
            reap(&pidfd)?;
            cgroups.iter().try_for_each(|cgroup| remove_cgroup(cgroup))
        }))
    }))
}

/// Gives a cpuset its processors and memory.
fn inherit(cpuset: &Path) -> Done {
    for cgroup in [cpuset.parent().unwrap_or(cpuset), cpuset] {
        ["cpuset.cpus", "cpuset.mems"]
            .iter()
            .try_for_each(|file| fs::write(cgroup.join(file), "0"))
            .map_err(text)?;
    }
    Ok(())
}

/// A task leaves its cgroup of version 1 a little after it was reaped.
fn remove_cgroup(cgroup: &Path) -> Done {
    for _ in 0..10_000 {
        match fs::remove_dir(cgroup) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                std::thread::yield_now();
            }
            removed => return removed.map_err(text),
        }
    }
    Err(format!("{} stays in use", cgroup.display()))
}

/// The drop-in of this workspace, as a program.
fn drop_in(ground: &Ground, cgroups: Option<&str>) -> Done<Ready> {
    let own = std::env::current_exe().map_err(text)?;
    jailer(ground, own.with_file_name("jailer"), cgroups.is_some())
}

/// Any program with the flags of Firecracker's jailer.
pub(crate) fn jailer(ground: &Ground, program: PathBuf, cgroups: bool) -> Done<Ready> {
    let (id, base) = (fresh_id(), ground.base());
    fs::create_dir_all(&base).map_err(text)?;
    let mut words: Vec<String> =
        ["--id", &id, "--uid", "1234", "--gid", "1234", "--exec-file"].map(Into::into).into();
    words.extend([ground.vmm.display().to_string(), "--chroot-base-dir".into(), base.display().to_string()]);
    if cgroups {
        words.extend(["--cgroup-version", "1", "--parent-cgroup", PARENT].map(String::from));
        words.extend(SETTINGS.into_iter().flat_map(|setting| ["--cgroup".to_owned(), setting.to_owned()]));
    }
    let jail = base.join("vmm").join(&id);
    Ok(Box::new(move |output| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let child = start(vec![Call::Redirect([None, Some(output), None]), execute(&program, &words)])?;
        Ok(Box::new(move || {
            reap(&child)?;
            if cgroups {
                for controller in ["cpu", "cpuset"] {
                    remove_cgroup(&Path::new("/sys/fs/cgroup").join(controller).join(PARENT).join(&id))?;
                }
            }
            fs::remove_dir_all(jail).map_err(text)
        }))
    }))
}
