//! The launcher on a host with cgroup v2 alone, as in today's distributions.
//!
//! On other hosts these tests are skipped; `cargo xtask vm-test` runs them in a virtual machine.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;

use rustix::io::Errno;
use serde_json::Value;
use stockade::entry::EnterStep;
use stockade::spec::{CgroupVersion, JailSpec};
use stockade::steps::Step;
use stockade::{Created, Error, ErrorKind, Running, Streams};
use testkit::{Guard, probe_spec, program, unified};

/// A jail with the test's own parent cgroup.
fn spec(guard: &Guard, id: &str, arguments: &[&str], settings: &[&str]) -> JailSpec {
    let mut spec = probe_spec(guard, id, arguments);
    spec.cgroups = settings.iter().map(|setting| setting.parse().unwrap()).collect();
    spec.parent_cgroup = Some(guard.name().parse().unwrap());
    spec
}

/// A cgroup on this host.
fn cgroup(path: impl AsRef<Path>) -> PathBuf {
    testkit::unified_mount().unwrap().join(path)
}

/// The jail's cgroup on this host.
fn own_cgroup(spec: &JailSpec) -> PathBuf {
    cgroup(spec.parent_cgroup.as_ref().unwrap().as_path()).join(spec.id.as_str())
}

fn read(file: impl AsRef<Path>) -> String {
    let file = file.as_ref();
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim_end().to_owned()
}

/// The cgroup of a process, from `/proc`.
fn cgroup_of(pid: i32) -> String {
    read(format!("/proc/{pid}/cgroup"))
}

/// The pids of the processes that a probe started, from its report.
fn spawned(report: &Value) -> Vec<i64> {
    report["spawned"].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect()
}

fn has_exited(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Launches a VMM, and waits for its first line of output.
fn launch_and_read(created: Created) -> (Running, Value) {
    let (from, to): (PipeReader, _) = std::io::pipe().unwrap();
    let running = created.launch(Streams { stdout: Some(to.into()), ..Streams::default() }).unwrap();
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line).unwrap();
    (running, serde_json::from_str(&line).unwrap())
}

fn tear_down(running: Running) {
    let report = running.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// A foreign process in a cgroup.
struct Foreign(Child);

impl Foreign {
    fn in_cgroup(cgroup: &Path) -> Self {
        let child =
            Command::new(program("stockade-probe")).arg("sleep").stdin(Stdio::null()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_vmm_is_in_its_cgroup_from_its_first_instruction() {
    unified!(guard, {
        for version in [None, Some(CgroupVersion::V2)] {
            let mut spec = spec(&guard, "created", &["sleep"], &["pids.max=64"]);
            spec.cgroup_version = version;
            let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
            assert_eq!(cgroup_of(running.pid()), format!("0::/{}/{}", guard.name(), spec.id), "{version:?}");
            tear_down(running);
        }
    });
}

#[test]
fn the_clone_itself_counts_against_the_cgroup() {
    unified!(guard, {
        // The limit applies to forks alone. So it would not refuse a process that moves in after its clone.
        let spec = spec(&guard, "refused", &["exit=0"], &["pids.max=0"]);
        let error = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap_err();
        let Error::Enter { step, cause } = &error else { panic!("{error}") };
        assert!(matches!(**step, EnterStep::Clone { cgroup: Some(_), .. }), "{error}");
        assert_eq!(*cause, Errno::AGAIN, "{error}");
        assert!(!own_cgroup(&spec).exists());
    });
}

#[test]
fn all_settings_are_in_force() {
    unified!(guard, {
        let settings = [
            "pids.max=64",
            "memory.max=67108864",
            "cpu.max=50000 100000",
            "cpuset.cpus=0",
            "cpuset.mems=0",
            "memory.swap.max=0",
        ];
        let spec = spec(&guard, "set", &["sleep"], &settings);
        let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
        for setting in settings {
            let (file, value) = setting.split_once('=').unwrap();
            assert_eq!(read(own_cgroup(&spec).join(file)), value, "{file}");
        }
        let status = read(format!("/proc/{}/status", running.pid()));
        assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
        assert_eq!(read(own_cgroup(&spec).join("pids.current")), "1");
        tear_down(running);
    });
}

#[test]
fn a_value_that_the_kernel_refuses_leaves_nothing() {
    unified!(guard, {
        let spec = spec(&guard, "bad", &[], &["pids.max=no-number"]);
        let error = guard.store().create(&spec).unwrap_err().to_string();
        let file = own_cgroup(&spec).join("pids.max");
        assert_eq!(error, format!("cannot write '{}': invalid argument", file.display()));
        assert!(!own_cgroup(&spec).exists() && !guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn parents_enable_the_requested_controllers_and_no_others() {
    unified!(guard, {
        // An existing parent that enables no controllers for child cgroups, and two missing ones.
        let parent = cgroup(guard.name());
        fs::create_dir(&parent).unwrap();
        assert_eq!(read(parent.join("cgroup.subtree_control")), "");
        let mut spec = spec(&guard, "nested", &["sleep"], &["pids.max=64", "memory.max=max", "pids.max=32"]);
        spec.parent_cgroup = Some(format!("{}/a/b", guard.name()).parse().unwrap());
        let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
        for above in [parent.clone(), parent.join("a"), parent.join("a/b")] {
            assert_eq!(read(above.join("cgroup.subtree_control")), "memory pids", "{}", above.display());
        }
        assert_eq!(read(own_cgroup(&spec).join("cgroup.subtree_control")), "");
        assert_eq!(read(own_cgroup(&spec).join("pids.max")), "32", "the last one counts");
        assert_eq!(cgroup_of(running.pid()), format!("0::/{}/a/b/{}", guard.name(), spec.id));
        tear_down(running);
        assert!(!own_cgroup(&spec).exists());
        assert!(parent.join("a/b").exists(), "parents serve other jails too, and remain");
    });
}

#[test]
fn a_parent_alone_is_joined_and_outlives_the_jail() {
    unified!(guard, {
        let parent = cgroup(guard.name());
        fs::create_dir(&parent).unwrap();
        for version in [None, Some(CgroupVersion::V2)] {
            let mut spec = spec(&guard, "join", &["daemon=2", "sleep"], &[]);
            spec.cgroup_version = version;
            let (running, report) = launch_and_read(guard.store().create(&spec).unwrap());
            // In its own tracking cgroup below the parent, by which teardown finds all processes.
            let tracking = format!("0::/{}/stockade-{}-", guard.name(), guard.named("join"));
            assert!(cgroup_of(running.pid()).starts_with(&tracking), "{version:?}");
            let mut neighbour = Foreign::in_cgroup(&parent);
            tear_down(running);
            assert!(spawned(&report).iter().all(|pid| has_exited(*pid)));
            assert!(neighbour.lives(), "the cgroup is not the jail's own");
            assert!(parent.exists());
        }
    });
}

#[test]
fn a_named_parent_without_settings_has_to_exist() {
    unified!(guard, {
        for version in [None, Some(CgroupVersion::V2)] {
            let mut spec = spec(&guard, "absent", &["sleep"], &[]);
            spec.cgroup_version = version;
            let error = guard.store().create(&spec).unwrap_err();
            let place = version.map_or("any hierarchy", |_| "cgroup v2");
            let line = format!(
                "there is no cgroup '{}' in {place}; create it, or give the jail a cgroup setting, for which it is \
                 created",
                guard.name()
            );
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, line));
            assert!(!guard.base().exists() && !guard.state().exists());
        }
    });
}

#[test]
fn a_missing_default_parent_is_not_created() {
    unified!(guard, {
        for version in [None, Some(CgroupVersion::V2)] {
            let mut spec = spec(&guard, "absent", &["sleep"], &[]);
            (spec.cgroup_version, spec.parent_cgroup) = (version, None);
            let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
            let own = read("/proc/self/cgroup").trim_end_matches('/').to_owned();
            let tracking = format!("{own}/stockade-{}-", guard.named("absent"));
            assert!(cgroup_of(running.pid()).starts_with(&tracking), "{version:?}");
            assert!(!cgroup("stockade-probe").exists());
            tear_down(running);
        }
    });
}

#[test]
fn a_parent_with_a_process_is_refused_with_the_reason() {
    unified!(guard, {
        let parent = cgroup(guard.name());
        fs::create_dir(&parent).unwrap();
        let mut foreign = Foreign::in_cgroup(&parent);
        // The kernel itself refuses for memory, but not for pids, which is a threaded controller.
        for (nested, setting) in [("", "memory.max=max"), ("", "pids.max=64"), ("/a", "pids.max=64")] {
            let mut spec = spec(&guard, "busy", &[], &[setting]);
            spec.parent_cgroup = Some(format!("{}{nested}", guard.name()).parse().unwrap());
            let error = guard.store().create(&spec).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot write '{}/cgroup.subtree_control': device or resource busy; a cgroup with processes in \
                     it cannot enable controllers for child cgroups: use another parent cgroup or move them out",
                    parent.display()
                )
            );
            assert_eq!(error.kind(), ErrorKind::System);
            let below = fs::read_dir(&parent).unwrap().flatten();
            let below: Vec<_> = below.filter(|entry| entry.file_type().unwrap().is_dir()).collect();
            assert!(below.is_empty(), "{below:?}");
            let facts = ["cgroup.subtree_control", "cgroup.type"].map(|file| read(parent.join(file)));
            assert_eq!(facts, ["", "domain"], "the foreign cgroup is unchanged");
            assert!(!guard.base().exists() && !guard.state().exists());
        }
        assert!(foreign.lives());
    });
}

#[test]
fn a_parent_with_enabled_controllers_takes_no_process() {
    unified!(guard, {
        let store = guard.store();
        let other = store.create(&spec(&guard, "other", &[], &["memory.max=max"])).unwrap();
        let tracked = spec(&guard, "tracked", &["sleep"], &[]);
        tear_down(store.create(&tracked).unwrap().launch(Streams::default()).unwrap());
        let mut bare = spec(&guard, "join", &[], &[]);
        bare.new_pid_ns = true;
        let error = store.create(&bare).unwrap().launch(Streams::default());
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "cannot clone a child, in a new pid namespace, in cgroup {}: device or resource busy; a cgroup that \
                 enables controllers for child cgroups takes no process: give the jail a cgroup setting, and so a \
                 cgroup of its own below it",
                cgroup(guard.name()).display()
            )
        );
        assert_eq!(store.list().unwrap().len(), 1, "the failed jail is removed");
        assert!(other.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_threaded_parent_is_refused_with_the_reason() {
    unified!(guard, {
        let parent = cgroup(guard.name());
        fs::create_dir(&parent).unwrap();
        let _foreign = Foreign::in_cgroup(&parent);
        fs::write(parent.join("cgroup.subtree_control"), "+pids").unwrap();
        assert_eq!(read(parent.join("cgroup.type")), "domain threaded");
        let spec = spec(&guard, "threads", &[], &["pids.max=64"]);
        let error = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot clone a child, in cgroup {}: operation not supported; a cgroup above it has processes in it: \
                 use another parent cgroup or move them out",
                own_cgroup(&spec).display()
            )
        );
        assert!(!own_cgroup(&spec).exists());
    });
}

#[test]
fn a_cgroup_with_foreign_processes_is_refused_and_left_alone() {
    unified!(guard, {
        let spec = spec(&guard, "taken", &[], &["pids.max=64"]);
        for below in ["", "deeper/down"] {
            let cgroup = own_cgroup(&spec).join(below);
            fs::create_dir_all(&cgroup).unwrap();
            let mut foreign = Foreign::in_cgroup(&cgroup);
            let error = guard.store().create(&spec).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InTheWay, "{below:?}: {error}");
            let named = format!("with process {} in it", foreign.0.id());
            assert!(error.to_string().contains(&named), "{below:?}: {error}");
            assert!(foreign.lives() && cgroup.exists(), "{below:?}");
            // The cgroups above are unchanged too.
            assert_eq!(read(own_cgroup(&spec).parent().unwrap().join("cgroup.subtree_control")), "");
        }
    });
}

#[test]
fn a_thread_in_a_threaded_cgroup_is_named() {
    unified!(guard, {
        let spec = spec(&guard, "thread", &[], &["pids.max=64"]);
        let threads = own_cgroup(&spec).join("threads");
        fs::create_dir_all(&threads).unwrap();
        let mut foreign = Foreign::in_cgroup(&own_cgroup(&spec));
        fs::write(threads.join("cgroup.type"), "threaded").unwrap();
        fs::write(threads.join("cgroup.procs"), foreign.0.id().to_string()).unwrap();
        let error = guard.store().create(&spec).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", foreign.0.id())), "{error}");
        assert!(foreign.lives() && threads.exists());
    });
}

#[test]
fn a_file_that_the_cgroup_lacks_is_named() {
    unified!(guard, {
        for file in ["pids.maximum", "memory.limit"] {
            let spec = spec(&guard, "file", &[], &[&format!("{file}=1")]);
            let error = guard.store().create(&spec).unwrap_err();
            let at = own_cgroup(&spec).join(file);
            let line = format!("cannot write '{}': no such file in this cgroup", at.display());
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, line));
            assert!(!own_cgroup(&spec).exists() && !guard.base().exists() && !guard.state().exists());
        }
    });
}

#[test]
fn a_disk_is_limited_by_its_number() {
    unified!(guard, {
        let controllers = read(cgroup("cgroup.controllers"));
        if !controllers.split(' ').any(|name| name == "io") {
            return testkit::skip("a_disk_is_limited_by_its_number", "io in cgroup v2");
        }
        let mut devices: Vec<_> = fs::read_dir("/sys/block").unwrap().flatten().collect();
        devices.sort_by_key(fs::DirEntry::path);
        let Some(device) = devices.first() else {
            return testkit::skip("a_disk_is_limited_by_its_number", "a block device");
        };
        let device = read(device.path().join("dev"));
        let setting = format!("io.max={device} rbps=1048576 wiops=120");
        let spec = spec(&guard, "disk", &["sleep"], &[&setting]);
        let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
        let line = format!("{device} rbps=1048576 wbps=max riops=max wiops=120");
        assert_eq!(read(own_cgroup(&spec).join("io.max")), line);
        tear_down(running);
    });
}

#[test]
fn an_existing_empty_cgroup_is_made_anew() {
    unified!(guard, {
        let spec = spec(&guard, "empty", &["sleep"], &["pids.max=64"]);
        fs::create_dir_all(own_cgroup(&spec).join("below/it")).unwrap();
        // Values of it that the jail does not set: of its own controller, and of a cgroup that stops its processes.
        fs::write(own_cgroup(&spec).join("cgroup.max.depth"), "1").unwrap();
        fs::write(own_cgroup(&spec).join("cgroup.freeze"), "1").unwrap();
        let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
        assert_eq!(read(own_cgroup(&spec).join("cgroup.procs")), running.pid().to_string());
        assert_eq!(read(own_cgroup(&spec).join("cgroup.max.depth")), "max");
        assert_eq!(read(own_cgroup(&spec).join("cgroup.freeze")), "0");
        assert!(!own_cgroup(&spec).join("below").exists());
        tear_down(running);
        assert!(!own_cgroup(&spec).exists());
    });
}

#[test]
fn descendants_die_with_the_cgroup() {
    unified!(guard, {
        for (id, argument, pid_namespace) in
            [("children", "spawn=5", false), ("daemons", "daemon=5", false), ("pidns", "daemon=5", true)]
        {
            let mut spec = spec(&guard, id, &[argument, "sleep"], &["pids.max=64"]);
            spec.new_pid_ns = pid_namespace;
            let (running, report) = launch_and_read(guard.store().create(&spec).unwrap());
            assert_eq!(spawned(&report).len(), 5, "{report}");
            // The host's pids: in a pid namespace the probe reports others.
            let pids = read(own_cgroup(&spec).join("cgroup.procs"));
            let pids: Vec<i64> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
            assert_eq!(pids.len(), 6, "{pids:?}");
            tear_down(running);
            assert!(pids.iter().all(|pid| has_exited(*pid)), "{id}");
            assert!(!own_cgroup(&spec).exists(), "{id}");
        }
    });
}

#[test]
fn a_frozen_jail_dies_too() {
    unified!(guard, {
        let spec = spec(&guard, "frozen", &["daemon=2", "sleep"], &["pids.max=64"]);
        let (running, _) = launch_and_read(guard.store().create(&spec).unwrap());
        fs::write(own_cgroup(&spec).join("cgroup.freeze"), "1").unwrap();
        tear_down(running);
        assert!(!own_cgroup(&spec).exists());
    });
}

#[test]
fn cgroups_below_the_jails_own_are_removed_with_it() {
    unified!(guard, {
        let spec = spec(&guard, "below", &["daemon=2", "sleep"], &["pids.max=64"]);
        let (running, report) = launch_and_read(guard.store().create(&spec).unwrap());
        let own = own_cgroup(&spec);
        for below in ["one", "one/two", "one/two/three", "other"] {
            fs::create_dir(own.join(below)).unwrap();
        }
        let pids = spawned(&report);
        for (pid, below) in pids.iter().zip(["one", "one/two/three"]) {
            fs::write(own.join(below).join("cgroup.procs"), pid.to_string()).unwrap();
        }
        tear_down(running);
        assert!(!own.exists());
        assert!(pids.iter().all(|pid| has_exited(*pid)));
    });
}

#[test]
fn processes_in_threaded_cgroups_are_killed() {
    unified!(guard, {
        let spec = spec(&guard, "threads", &["daemon=1", "sleep"], &["pids.max=64"]);
        let (running, report) = launch_and_read(guard.store().create(&spec).unwrap());
        let (threads, pid) = (own_cgroup(&spec).join("threads"), spawned(&report)[0]);
        fs::create_dir(&threads).unwrap();
        fs::write(threads.join("cgroup.type"), "threaded").unwrap();
        fs::write(threads.join("cgroup.procs"), pid.to_string()).unwrap();
        // A threaded cgroup lists no processes. Only `cgroup.kill` reaches this one.
        let list = fs::read_to_string(threads.join("cgroup.procs")).unwrap_err();
        assert_eq!(list.raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
        tear_down(running);
        assert!(has_exited(pid) && !own_cgroup(&spec).exists());
    });
}

#[test]
fn processes_that_outlive_their_vmm_are_collected() {
    unified!(guard, {
        let store = guard.store();
        let spec = spec(&guard, "dead", &["daemon=2", "sleep"], &["pids.max=64"]);
        let (mut running, report) = launch_and_read(store.create(&spec).unwrap());
        running.signal(rustix::process::Signal::KILL).unwrap();
        running.wait().unwrap();
        drop(running);
        let pids = spawned(&report);
        assert!(pids.iter().all(|pid| !has_exited(*pid)), "they outlive the VMM");
        let collection = store.collect(false).unwrap();
        assert!(collection.is_clean() && collection.jails.len() == 1, "{collection:?}");
        assert!(pids.iter().all(|pid| has_exited(*pid)));
        assert!(!own_cgroup(&spec).exists() && cgroup(guard.name()).exists());
    });
}

#[test]
fn a_request_for_cgroup_v1_is_refused() {
    unified!(guard, {
        let mut spec = spec(&guard, "v1", &["exit=0"], &["pids.max=64"]);
        spec.cgroup_version = Some(CgroupVersion::V1);
        let error = guard.store().create(&spec).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::InvalidSpec, "this host has no hierarchy of cgroup v1; use v2")
        );
        assert!(!guard.base().exists() && !guard.state().exists(), "nothing was made");
        assert!(!cgroup(guard.name()).exists(), "no cgroup either");
    });
}

#[test]
fn an_unavailable_controller_is_named() {
    unified!(guard, {
        for version in [None, Some(CgroupVersion::V2)] {
            let mut spec = spec(&guard, "nosuch", &[], &["pids.max=64", "nosuch.thing=1"]);
            spec.cgroup_version = version;
            let error = guard.store().create(&spec).unwrap_err();
            assert_eq!(error.to_string(), "this host has no cgroup controller 'nosuch'", "{version:?}");
        }
        assert!(!guard.base().exists() && !cgroup(guard.name()).exists(), "nothing was made");
    });
}

#[test]
fn twenty_parallel_jails_have_a_cgroup_each() {
    unified!(guard, {
        const JAILS: usize = 20;
        let (store, all_run) = (guard.store(), Barrier::new(JAILS));
        std::thread::scope(|scope| {
            for number in 0..JAILS {
                let (store, guard, all_run) = (&store, &guard, &all_run);
                scope.spawn(move || {
                    let limit = format!("pids.max={}", number + 10);
                    let spec = spec(guard, &number.to_string(), &["sleep"], &[&limit, "memory.max=max"]);
                    let running = store.create(&spec).and_then(|jail| jail.launch(Streams::default()));
                    // Also after a failure, so that the other threads do not wait forever.
                    all_run.wait();
                    let running = running.unwrap();
                    assert_eq!(
                        read(own_cgroup(&spec).join("cgroup.procs")),
                        running.pid().to_string(),
                        "it alone"
                    );
                    assert_eq!(read(own_cgroup(&spec).join("pids.max")), (number + 10).to_string());
                    tear_down(running);
                });
            }
        });
        let left = fs::read_dir(cgroup(guard.name())).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.file_type().unwrap().is_dir()).count(), 0);
    });
}

#[test]
fn the_receipt_names_one_cgroup() {
    unified!(guard, {
        let spec = spec(&guard, "steps", &[], &["pids.max=64", "cpu.weight=50"]);
        let created = guard.store().create(&spec).unwrap();
        let cgroups: Vec<_> = created
            .receipt()
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::CgroupV2(step) => Some(step.directory().as_path().to_owned()),
                Step::CgroupV1(step) => panic!("{step}"),
                _ => None,
            })
            .collect();
        assert_eq!(cgroups, [own_cgroup(&spec)]);
        assert!(created.teardown().unwrap().is_clean());
    });
}
