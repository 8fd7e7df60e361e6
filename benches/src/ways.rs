//! The ways to start a VMM, each with the same work before and after.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::{JailBuilder, JailSpec};
use stockade::{Running, Streams};
use stockade_syscalls::call::Call;
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use crate::cgroups::{JailCgroups, Version};
use crate::child::{execute, reap, release, start};
use crate::floor::FloorEntry;
use crate::setup::Setup;
use crate::{Done, peers, text};

/// A prepared jail or its equivalent. Calling it starts the VMM with this output.
pub(crate) type Ready = Box<dyn FnOnce(OwnedFd) -> Done<Started> + Send>;

/// A started jail or its equivalent. Calling it waits for the VMM and removes the jail.
pub(crate) type Started = Box<dyn FnOnce() -> Done + Send>;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A unique id.
pub(crate) fn fresh_id() -> String {
    format!("bench-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Prepares one start by a way.
pub(crate) fn ready(setup: &Setup, way: &str) -> Done<Ready> {
    let launch = |spec: JailBuilder| launched(setup, &spec);
    let with_cgroups = |version: u8| Version::find(version).map(|version| version.add_to(plain(setup)));
    match way {
        "floor" => Ok(floor(setup)),
        "bare" => bare(setup, FloorEntry::calls),
        "pool-floor" => bare(setup, FloorEntry::switch_alone),
        "attached-v1" => attached(setup, 1),
        "attached-v2" => attached(setup, 2),
        "stockade" => launch(plain(setup)),
        "stockade-netns" => launch(plain(setup).new_netns()),
        "stockade-v1" => launch(with_cgroups(1)?),
        "stockade-v2" => launch(with_cgroups(2)?),
        "drop-in" => drop_in(setup, Cgroups::None),
        "drop-in-v1" => drop_in(setup, Cgroups::ByFlags(1)),
        "drop-in-v2" => drop_in(setup, Cgroups::ByFlags(2)),
        "drop-in-by-pid-v1" => drop_in(setup, Cgroups::ByPid(1)),
        peer => peers::ready(setup, peer),
    }
}

/// The specification of the bench's jails.
pub(crate) fn plain(setup: &Setup) -> JailBuilder {
    JailSpec::builder(fresh_id(), setup.vmm.clone()).base(setup.base())
}

/// Streams with this stdout.
pub(crate) fn streams(output: OwnedFd) -> Streams {
    Streams { stdout: Some(output), ..Streams::default() }
}

pub(crate) fn removed(mut running: Running) -> Done {
    running.wait().map_err(text)?;
    let report = running.teardown().map_err(text)?;
    if report.is_clean() { Ok(()) } else { Err(format!("left: {:?}", report.left)) }
}

fn launched(setup: &Setup, spec: &JailBuilder) -> Done<Ready> {
    let created = setup.store.create(&spec.build().map_err(text)?).map_err(text)?;
    Ok(Box::new(move |output| {
        let running = created.launch(streams(output)).map_err(text)?;
        Ok(Box::new(move || removed(running)))
    }))
}

fn reaping(child: OwnedFd) -> Started {
    Box::new(move || reap(&child))
}

/// Clone and exec alone.
fn floor(setup: &Setup) -> Ready {
    let vmm = setup.vmm.clone();
    Box::new(move |output| {
        Ok(reaping(start(vec![Call::Redirect([None, Some(output), None]), execute(&vmm, &[])])?))
    })
}

/// The bare system calls of a start in a jail, with everything else done before.
fn bare(setup: &Setup, calls: fn(FloorEntry, OwnedFd) -> Vec<Call>) -> Done<Ready> {
    let root = bare_root(setup)?;
    let way = FloorEntry::to(&root)?;
    Ok(Box::new(move |output| {
        let child = start(calls(way, output))?;
        Ok(Box::new(move || {
            reap(&child)?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// A root that contains only the VMM.
fn bare_root(setup: &Setup) -> Done<PathBuf> {
    let root = setup.directory.join(fresh_id());
    fs::create_dir(&root).map_err(text)?;
    fs::copy(&setup.vmm, root.join("vmm")).map_err(text)?;
    Ok(root)
}

/// The bare system calls, with the process moved into its cgroups by its pid, as a program must that does not start
/// the process.
fn attached(setup: &Setup, version: u8) -> Done<Ready> {
    let root = bare_root(setup)?;
    let way = FloorEntry::to(&root)?.after(vec![Call::WaitForRelease]);
    let cgroups = Version::find(version)?.create(&fresh_id())?;
    Ok(Box::new(move |output| {
        let child = start_attached(way.calls(output), &cgroups)?;
        Ok(Box::new(move || {
            reap(&child)?;
            cgroups.remove()?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// Clones a child that waits, moves it into these cgroups, and releases it.
fn start_attached(calls: Vec<Call>, cgroups: &JailCgroups) -> Done<OwnedFd> {
    let child = spawn(&mut Program::new(calls), CloneOptions::default()).map_err(text)?;
    cgroups.attach(child.pid.as_raw_nonzero().get())?;
    release(child)
}

/// The way in which a jailer's process joins its cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// No cgroups.
    None,
    /// By the jailer's flags, with this cgroup version.
    ByFlags(u8),
    /// By its pid, as Firecracker's jailer moves itself, with this cgroup version.
    ByPid(u8),
}

/// The drop-in of this workspace, as a program.
fn drop_in(setup: &Setup, cgroups: Cgroups) -> Done<Ready> {
    let own = std::env::current_exe().map_err(text)?;
    jailer(setup, own.with_file_name("jailer"), cgroups)
}

/// Any program with the flags of Firecracker's jailer.
pub(crate) fn jailer(setup: &Setup, program: PathBuf, cgroups: Cgroups) -> Done<Ready> {
    let (id, base) = (fresh_id(), setup.base());
    fs::create_dir_all(&base).map_err(text)?;
    let mut arguments: Vec<String> =
        ["--id", &id, "--uid", "1234", "--gid", "1234", "--exec-file"].map(Into::into).into();
    arguments.extend([
        setup.vmm.display().to_string(),
        "--chroot-base-dir".into(),
        base.display().to_string(),
    ]);
    let joined = match cgroups {
        Cgroups::None => None,
        Cgroups::ByFlags(version) => {
            let version = Version::find(version)?;
            arguments.extend(version.flags());
            Some(version.of(&id))
        }
        Cgroups::ByPid(version) => Some(Version::find(version)?.create(&id)?),
    };
    let jail = base.join("vmm").join(&id);
    Ok(Box::new(move |output| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut calls = vec![Call::Redirect([None, Some(output), None]), execute(&program, &arguments)];
        let child = match &joined {
            Some(joined) if matches!(cgroups, Cgroups::ByPid(_)) => {
                calls.insert(1, Call::WaitForRelease);
                start_attached(calls, joined)?
            }
            _ => start(calls)?,
        };
        Ok(Box::new(move || {
            reap(&child)?;
            joined.map_or(Ok(()), |joined| joined.remove())?;
            fs::remove_dir_all(jail).map_err(text)
        }))
    }))
}
