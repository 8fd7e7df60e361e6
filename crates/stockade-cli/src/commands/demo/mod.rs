//! `stockade demo`: creates a real jail, examines it from inside, runs a tiny guest, and removes the jail.

mod conversation;
mod report;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};
use serde::Serialize;
use serde_json::Value;
use stockade::snapshot::Snapshot;
use stockade::spec::{DEFAULT_BASE, ExecFile, HostPath, JailSpec, Netns, Profile, reason};
use stockade::{Placement, Streams};

use crate::flags::state::StateArgs;
use crate::terminal::output::{Failure, print, print_json, require_root, success_if};
use crate::terminal::signals::stop_signals;
use conversation::Conversation;

/// The results of the demo.
#[derive(Debug, Serialize)]
pub(crate) struct Demo {
    /// Whether every escape failed, the guest ran or KVM is missing, and nothing was left behind.
    ok: bool,
    id: String,
    root: String,
    phases: Phases,
    /// The probe's report from inside.
    probe: Value,
    /// The placed file, with its path in the jail and its method.
    placed: String,
    /// `hlt`, or the reason why the guest did not reach it.
    kvm_guest: String,
    /// Objects that exist after the teardown; empty if it was clean.
    leftovers: Vec<String>,
}

/// The duration of each phase, in microseconds.
#[derive(Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to the names in the JSON")]
pub(crate) struct Phases {
    /// Preparing the jail.
    prepare_us: u64,
    /// Placing a file into it.
    place_us: u64,
    /// From the clone to the exec of the probe.
    launch_us: u64,
    /// The life of the probe: its report, its escape attempts, and the guest.
    run_us: u64,
    /// Tearing the jail down.
    teardown_us: u64,
    /// All phases.
    total_us: u64,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sudo stockade demo")]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Directory that holds the jail.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BASE)]
    pub(crate) chroot_base_dir: PathBuf,
    /// Print a JSON report.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode, Failure> {
    require_root("demo")?;
    let demo = act(args)?;
    if args.json {
        print_json(&demo)?;
    } else {
        print(&report::text(&demo))?;
    }
    Ok(success_if(demo.ok))
}

fn act(args: &DemoArgs) -> Result<Demo, Failure> {
    let store = args.state.store()?;
    let spec = spec(args)?;
    let id = spec.id.to_string();
    // An interrupted demo still removes its jail: it takes only a moment.
    let _signals = stop_signals()?;
    // A process that outlives the jail becomes a child of this one, and `children` finds it.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let watched = [spec.base.as_path().to_owned(), store.directory().as_path().to_owned()];
    let watched: Vec<&Path> = watched.iter().map(AsRef::as_ref).collect();
    let before = Snapshot::take(&watched)?;
    let mut phases = Phases::default();
    let begin = Instant::now();

    let mut created = timed(&mut phases.prepare_us, || store.create(&spec))?;
    let root = created.root().to_string();
    let source = something_to_place()?;
    let placed = timed(&mut phases.place_us, || created.place(Placement::new(source).named("placed")))?;
    let (streams, conversation) = streams()?;
    let mut running = timed(&mut phases.launch_us, || created.launch(streams))?;
    let lived = Instant::now();
    let report = conversation.read_report(running.pid(), source);
    if report.is_err() {
        // A probe that does not answer may not exit either.
        running.signal(rustix::process::Signal::KILL)?;
    }
    running.wait()?;
    phases.run_us = micros(lived);
    let torn_down = timed(&mut phases.teardown_us, || running.teardown())?;
    phases.total_us = micros(begin);

    let after = Snapshot::take(&watched)?;
    let mut leftovers: Vec<String> =
        torn_down.left.iter().map(|left| format!("{}: {}", left.what, left.reason)).collect();
    leftovers.extend(children());
    // Other jails come and go. Each object of this one has its id in its name.
    leftovers.extend(before.added(&after).filter(|what| what.contains(&id)).map(str::to_owned));

    let report = report?;
    let held = report.escapes_held();
    let guest_ran = report.kvm_guest == "hlt" || !Path::new("/dev/kvm").exists();
    Ok(Demo {
        ok: held && guest_ran && leftovers.is_empty() && report.placed_is_whole,
        id,
        root,
        phases,
        probe: report.probe,
        placed: placed.to_string(),
        kvm_guest: report.kvm_guest,
        leftovers,
    })
}

/// The jail of the demo: its VMM is this program as the probe.
fn spec(args: &DemoArgs) -> Result<JailSpec, Failure> {
    let myself = std::env::current_exe()
        .map_err(|e| Failure::new(format!("cannot find this program: {}", reason(&e))))?;
    let base = HostPath::future_directory(&args.chroot_base_dir)
        .map_err(|e| Failure::new(format!("--chroot-base-dir: {}", reason(&e))))?;
    let mut random = [0; 4];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Failure::new(format!("cannot generate an id: {}", reason(&e))))?;
    let id = format!("demo-{:08x}", u32::from_ne_bytes(random)).parse()?;
    let mut spec = JailSpec::new(id, ExecFile::new(&myself)?, base);
    spec.profile = Profile::plain();
    spec.netns = Netns::New;
    spec.new_pid_ns = true;
    spec.arguments = ["probe", "report", "hold", "read=/placed", "guest"].map(Into::into).to_vec();
    Ok(spec)
}

/// A small file that every Linux system has.
fn something_to_place() -> Result<&'static Path, Failure> {
    let candidates = ["/etc/os-release", "/etc/hostname", "/etc/passwd"].map(Path::new);
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new("found none of '/etc/os-release', '/etc/hostname' and '/etc/passwd' to place")
    })
}

fn streams() -> Result<(Streams, Conversation), Failure> {
    let pipe = || {
        pipe_with(PipeFlags::CLOEXEC)
            .map_err(|e| Failure::new(format!("cannot create a pipe: {}", reason(&e))))
    };
    let (stdin, to_probe): (OwnedFd, OwnedFd) = pipe()?;
    let (from_probe, stdout) = pipe()?;
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: None };
    Ok((streams, Conversation::new(to_probe, from_probe, Duration::from_secs(20))))
}

/// Reports whether a process of the jail was left to this one.
fn children() -> Option<String> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::All, options) {
        Err(Errno::CHILD) => None,
        _ => Some("a process of the jail".to_owned()),
    }
}

fn timed<T>(into: &mut u64, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = act();
    *into = micros(begin);
    result
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
