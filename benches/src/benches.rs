//! The benches and their lengths.

use crate::cgroups::Version;
use crate::peers::Peers;
use crate::series::{Bench, HostKind};

/// The length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Everything once, as a functional test.
    Smoke,
    /// A minute.
    Quick,
    /// For `docs/performance.md`.
    Full,
}

impl Length {
    fn rounds(self, full: u32) -> u32 {
        match self {
            Self::Smoke => 1,
            Self::Quick => (full / 10).max(3),
            Self::Full => full,
        }
    }

    fn many(self, full: u32) -> u32 {
        match self {
            Self::Smoke => (full / 100).max(2),
            Self::Quick => (full / 10).max(2),
            Self::Full => full,
        }
    }
}

const fn host(mounts: u32, has_template: bool) -> HostKind {
    HostKind { mounts, has_template }
}

/// A host like this one, with a template namespace.
pub(crate) const HERE: HostKind = host(0, true);

/// The numbers of additional mounts of a host.
const MOUNTS: [u32; 3] = [0, 500, 5_000];

/// All benches.
pub(crate) fn all(length: Length, peers: &Peers, missing: &mut Vec<String>) -> Vec<Bench> {
    let mut all: Vec<Bench> = [1, 10, 100].iter().map(|at_once| start(*at_once, length, peers)).collect();
    all.extend([among_tasks(length, peers), drop_in(length, peers)]);
    for version in [1, 2] {
        match Version::find(version) {
            Ok(_) => all.push(cgroups(version, length, peers)),
            Err(cause) => missing.push(format!("not measured: cgroup v{version}: {cause}")),
        }
    }
    all.extend([pool(length), lives(length), throughput(length)]);
    all.extend([1, 500].iter().map(|many| teardown(*many, length)));
    all
}

/// From the start call to the VMM's first instruction.
fn start(at_once: u32, length: Length, peers: &Peers) -> Bench {
    let rounds = length.rounds(200 / at_once.isqrt());
    let at_once = if length == Length::Smoke { at_once.min(10) } else { at_once };
    let mut bench = Bench::new(format!("start to first instruction, {at_once} at once"), "µs", rounds);
    let question = |way: &str| format!("start {way} {at_once}");
    bench = bench.series("clone and execve alone", HERE, question("floor"));
    bench = bench.series("the bare system calls", HERE, question("bare"));
    for mounts in MOUNTS {
        bench = bench.series(format!("stockade, {mounts} mounts"), host(mounts, true), question("stockade"));
        bench = bench.series(
            format!("stockade without template namespace, {mounts} mounts"),
            host(mounts, false),
            question("stockade"),
        );
    }
    bench = bench.series("stockade with a new netns", HERE, question("stockade-netns"));
    for peer in peers.available.iter().filter(|peer| at_once <= 10 && **peer != "jailer") {
        bench = bench.series(*peer, HERE, question(peer));
        bench = bench.claim("stockade, 0 mounts", *peer, None);
    }
    let classic = |mounts: u32| format!("stockade without template namespace, {mounts} mounts");
    bench
        .claim("stockade, 0 mounts", "the bare system calls", (at_once == 1).then_some(2.0))
        .claim("stockade, 0 mounts", classic(0), (at_once == 1).then_some(0.9))
        .claim("stockade, 500 mounts", classic(500), (at_once == 10).then_some(0.55))
        .claim("stockade, 5000 mounts", "stockade, 0 mounts", Some(1.1))
}

/// The drop-in as a whole process, next to another jailer if one is available.
fn drop_in(length: Length, peers: &Peers) -> Bench {
    let mut bench = Bench::new("the drop-in from its own exec on", "µs", length.rounds(100));
    bench = bench.series("clone and execve alone", HERE, "start floor 1");
    for mounts in [0, 500] {
        bench = bench.series(format!("drop-in, {mounts} mounts"), host(mounts, true), "start drop-in 1");
        bench = bench.series(
            format!("drop-in without template namespace, {mounts} mounts"),
            host(mounts, false),
            "start drop-in 1",
        );
        bench = bench.claim(
            format!("drop-in, {mounts} mounts"),
            format!("drop-in without template namespace, {mounts} mounts"),
            None,
        );
        if peers.has("jailer") {
            bench =
                bench.series(format!("other jailer, {mounts} mounts"), host(mounts, false), "start jailer 1");
            bench = bench.claim(
                format!("drop-in, {mounts} mounts"),
                format!("other jailer, {mounts} mounts"),
                None,
            );
        }
    }
    bench
}

/// On a host with many tasks, all of which `pivot_root` examines.
fn among_tasks(length: Length, peers: &Peers) -> Bench {
    let many = length.many(4000);
    let mut bench =
        Bench::new(format!("start to first instruction, among {many} tasks"), "µs", length.rounds(60))
            .among(many)
            .series("clone and execve alone", HERE, "start floor 1")
            .series("the bare system calls", HERE, "start bare 1")
            .series("stockade", HERE, "start stockade 1")
            .series("stockade without template namespace", host(0, false), "start stockade 1")
            .series("drop-in", HERE, "start drop-in 1")
            .claim("stockade", "the bare system calls", Some(2.0))
            .claim("stockade", "stockade without template namespace", None);
    for peer in peers.available.iter().filter(|peer| ["jailer", "bubblewrap"].contains(peer)) {
        let own = if *peer == "jailer" { "drop-in" } else { "stockade" };
        bench = bench.series(*peer, HERE, format!("start {peer} 1")).claim(own, *peer, None);
    }
    bench
}

/// With three cgroup settings, on a host that was idle before.
fn cgroups(version: u8, length: Length, peers: &Peers) -> Bench {
    let title = format!("start with three cgroup v{version} settings");
    let by_pid = "the bare system calls, attached by pid";
    let question = |way: &str| format!("start-idle {way}-v{version}");
    let mut bench = Bench::new(title, "µs", length.rounds(100))
        .series("clone and execve alone", HERE, "start-idle floor")
        .series(by_pid, HERE, question("attached"))
        .series("stockade without cgroups", HERE, "start-idle stockade")
        .series("stockade", HERE, question("stockade"))
        .series("drop-in", HERE, question("drop-in"))
        .claim("stockade", by_pid, Some(if version == 1 { 0.2 } else { 0.1 }))
        .claim("clone and execve alone", by_pid, None);
    if version == 1 {
        let by_pid = "drop-in without cgroups, attached by pid";
        bench = bench
            .series("drop-in without cgroups", HERE, "start-idle drop-in")
            .series(by_pid, HERE, question("drop-in-by-pid"))
            .claim("drop-in", by_pid, Some(0.2))
            .claim("drop-in without cgroups", by_pid, None);
        if peers.has("jailer") {
            bench = bench.series("other jailer", HERE, question("jailer"));
            bench = bench.claim("drop-in", "other jailer", Some(0.2));
        }
    }
    bench
}

fn pool(length: Length) -> Bench {
    Bench::new("start of a jail from a pool", "µs", length.rounds(100))
        .series("clone, execve and the switch of the mounts", HERE, "start pool-floor 1")
        .series("taken from a pool and launched", HERE, "pool 5")
        .series("stockade, prepared before", HERE, "start stockade 1")
        .claim("taken from a pool and launched", "clone, execve and the switch of the mounts", Some(1.3))
}

fn lives(length: Length) -> Bench {
    Bench::new("a whole life", "µs", length.rounds(200))
        .series("the bare system calls", HERE, "life floor")
        .series("stockade", HERE, "life stockade")
        .series("stockade with a named netns", HERE, "life stockade-netns")
        .series("stockade with three cgroup settings", HERE, "life stockade-cgroups")
        .series("stockade, executable bound", HERE, "life stockade-bound")
        .series("a shell script", HERE, "life shell")
        .series("the bare system calls with netns and cgroups", HERE, "life floor-all")
        .series("stockade with netns and cgroups", HERE, "life stockade-all")
        .series("stockade with netns and cgroups, executable bound", HERE, "life stockade-all-bound")
        .series("a shell script with netns and cgroups", HERE, "life shell-all")
        .claim("stockade with netns and cgroups", "a shell script with netns and cgroups", Some(0.1))
        .claim("stockade with netns and cgroups", "the bare system calls with netns and cgroups", None)
        .claim("stockade", "the bare system calls", None)
        .claim("stockade", "a shell script", Some(0.1))
        .claim("stockade, executable bound", "a shell script", Some(0.1))
        .claim(
            "stockade with netns and cgroups, executable bound",
            "a shell script with netns and cgroups",
            Some(0.1),
        )
        .claim("the bare system calls", "a shell script", None)
}

fn throughput(length: Length) -> Bench {
    let many = length.many(1000);
    Bench::new(format!("{many} lives in two threads"), "lives/s", length.rounds(10))
        .series("the bare system calls", HERE, format!("throughput floor {many}"))
        .series("stockade", HERE, format!("throughput stockade {many}"))
        .series("stockade with a named netns", HERE, format!("throughput stockade-netns {many}"))
        .claim("the bare system calls", "stockade", None)
}

fn teardown(many: u32, length: Length) -> Bench {
    let many = if many == 1 { 1 } else { length.many(many) };
    Bench::new(
        format!("teardown of {many} running jails"),
        "µs",
        length.rounds(if many == 1 { 100 } else { 5 }),
    )
    .series("one by one", HERE, format!("teardown one-by-one {many}"))
    .series("together", HERE, format!("teardown together {many}"))
    .claim("together", "one by one", None)
}
