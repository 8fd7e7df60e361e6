//! The ways in which a VMM is started, each with the same work before and after.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::{JailBuilder, JailSpec};
use stockade::{Running, Streams};
use stockade_syscalls::call::Call;
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use crate::cgroups::{Made, Version};
use crate::child::{execute, reap, start};
use crate::floor::WayIn;
use crate::ground::Ground;
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
    let launch = |spec: JailBuilder| launched(ground, &spec);
    let wish = |version: u8| Version::find(version).map(|version| version.wish(plain(ground)));
    match way {
        "floor" => Ok(floor(ground)),
        "bare" => bare(ground, WayIn::calls),
        "pool-floor" => bare(ground, WayIn::switch_alone),
        "attached-v1" => attached(ground, 1),
        "attached-v2" => attached(ground, 2),
        "stockade" => launch(plain(ground)),
        "stockade-netns" => launch(plain(ground).new_netns()),
        "stockade-v1" => launch(wish(1)?),
        "stockade-v2" => launch(wish(2)?),
        "drop-in" => drop_in(ground, Cgroups::None),
        "drop-in-v1" => drop_in(ground, Cgroups::Asked(1)),
        "drop-in-v2" => drop_in(ground, Cgroups::Asked(2)),
        "drop-in-by-pid-v1" => drop_in(ground, Cgroups::ByPid(1)),
        peer => peers::ready(ground, peer),
    }
}

/// The specification that all jails of the bench have.
pub(crate) fn plain(ground: &Ground) -> JailBuilder {
    JailSpec::builder(fresh_id(), ground.vmm.clone()).base(ground.base())
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
    let prepared = ground.store.create(&spec.build().map_err(text)?).map_err(text)?;
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

/// The system calls that a start in a jail takes, with everything else done before: as C would have it.
fn bare(ground: &Ground, calls: fn(WayIn, OwnedFd) -> Vec<Call>) -> Done<Ready> {
    let root = bare_root(ground)?;
    let way = WayIn::to(&root)?;
    Ok(Box::new(move |output| {
        let child = start(calls(way, output))?;
        Ok(Box::new(move || {
            reap(&child)?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// A directory with nothing but the VMM.
fn bare_root(ground: &Ground) -> Done<PathBuf> {
    let root = ground.directory.join(fresh_id());
    fs::create_dir(&root).map_err(text)?;
    fs::copy(&ground.vmm, root.join("vmm")).map_err(text)?;
    Ok(root)
}

/// The same, put into its cgroups from outside, by its pid, as whoever does not start the process itself has to.
fn attached(ground: &Ground, version: u8) -> Done<Ready> {
    let root = bare_root(ground)?;
    let way = WayIn::to(&root)?.after(vec![Call::WaitForRelease]);
    let cgroups = Version::find(version)?.make(&fresh_id())?;
    Ok(Box::new(move |output| {
        let child = start_attached(way.calls(output), &cgroups)?;
        Ok(Box::new(move || {
            reap(&child)?;
            cgroups.remove()?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// Clones a child that waits, and lets it go on once it is in these cgroups.
fn start_attached(calls: Vec<Call>, cgroups: &Made) -> Done<OwnedFd> {
    let child = spawn(&mut Program::new(calls), CloneOptions::default()).map_err(text)?;
    cgroups.attach(child.pid.as_raw_nonzero().get())?;
    let (pidfd, outcome) = child.release_and_wait();
    outcome.map_err(text)?.map_or(Ok(pidfd), |failure| Err(failure.errno.to_string()))
}

/// How a jailer's process gets into cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// Not at all.
    None,
    /// By the jailer's flags, of this version.
    Asked(u8),
    /// Of this version, moved there by its pid, as the original jailer moves itself.
    ByPid(u8),
}

/// The drop-in of this workspace, as a program.
fn drop_in(ground: &Ground, cgroups: Cgroups) -> Done<Ready> {
    let own = std::env::current_exe().map_err(text)?;
    jailer(ground, own.with_file_name("jailer"), cgroups)
}

/// Any program with the flags of Firecracker's jailer.
pub(crate) fn jailer(ground: &Ground, program: PathBuf, cgroups: Cgroups) -> Done<Ready> {
    let (id, base) = (fresh_id(), ground.base());
    fs::create_dir_all(&base).map_err(text)?;
    let mut words: Vec<String> =
        ["--id", &id, "--uid", "1234", "--gid", "1234", "--exec-file"].map(Into::into).into();
    words.extend([ground.vmm.display().to_string(), "--chroot-base-dir".into(), base.display().to_string()]);
    let made = match cgroups {
        Cgroups::None => None,
        Cgroups::Asked(version) => {
            let version = Version::find(version)?;
            words.extend(version.flags());
            Some(version.of(&id))
        }
        Cgroups::ByPid(version) => Some(Version::find(version)?.make(&id)?),
    };
    let jail = base.join("vmm").join(&id);
    Ok(Box::new(move |output| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut calls = vec![Call::Redirect([None, Some(output), None]), execute(&program, &words)];
        let child = match &made {
            Some(made) if matches!(cgroups, Cgroups::ByPid(_)) => {
                calls.insert(1, Call::WaitForRelease);
                start_attached(calls, made)?
            }
            _ => start(calls)?,
        };
        Ok(Box::new(move || {
            reap(&child)?;
            made.map_or(Ok(()), |made| made.remove())?;
            fs::remove_dir_all(jail).map_err(text)
        }))
    }))
}
