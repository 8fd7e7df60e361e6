//! The life of a jail through the library, complete and cut short.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use stockade::spec::{ExecFile, HostPath, Netns, Owner, Profile};
use stockade::{Created, Error, ErrorKind, ExitStatus, How, JailState, Placement, Streams, TeardownOptions};
use testkit::{privileged, probe_spec};

/// Runs a jail to its end and tears it down. Returns the lines of the VMM's output, and its exit status.
fn live(created: Created) -> (Vec<Value>, ExitStatus) {
    let (from, to) = std::io::pipe().unwrap();
    let streams = Streams { stdout: Some(OwnedFd::from(to)), ..Streams::default() };
    let mut running = created.launch(streams).unwrap();
    let output = std::io::read_to_string(from).unwrap();
    let status = running.wait().unwrap();
    let report = running.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
    (output.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), status)
}

fn is_sorted_list(value: &Value, wanted: &[&str]) {
    let names: Vec<&str> = value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(names, wanted);
}

#[test]
fn a_vmm_sees_its_jail_and_nothing_else() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "seen", &["report"]);
        spec.owner = Owner { uid: 12_345, gid: 12_346 };
        let (lines, status) = live(guard.store().create(&spec).unwrap());
        assert_eq!(status, ExitStatus::Exited(0));
        let seen = &lines[0];
        assert_eq!((seen["uid"].as_u64(), seen["euid"].as_u64()), (Some(12_345), Some(12_345)));
        assert_eq!((seen["gid"].as_u64(), seen["egid"].as_u64()), (Some(12_346), Some(12_346)));
        assert_eq!(seen["groups"], Value::Array(vec![]));
        assert_eq!(seen["environment"], Value::Array(vec![]));
        assert_eq!(seen["descriptors"], serde_json::json!([0, 1, 2]));
        assert_eq!(seen["cwd"], "/");
        assert_eq!(seen["mounts"].as_array().unwrap().len(), 1, "{}", seen["mounts"]);
        assert_eq!(seen["sid"], seen["pid"], "its own session, so no terminal to inject into");
        assert_eq!(seen["capabilities"]["effective"], "0x0");
        assert_eq!(seen["signals"]["blocked"], serde_json::json!([]));
        let ignored = seen["signals"]["ignored"].as_array().unwrap();
        assert!(!ignored.contains(&13.into()), "SIGPIPE, which this program ignores, is at its default");
        is_sorted_list(&seen["root_entries"], &["dev", "run", "stockade-probe", "stockade-probe.pid"]);
        for device in seen["devices"].as_array().unwrap() {
            assert_eq!(
                (device["mode"].as_str(), device["uid"].as_u64()),
                (Some("0600"), Some(12_345)),
                "{device}"
            );
        }
        for escape in seen["escapes"].as_array().unwrap() {
            assert_eq!(escape["held"], true, "{escape}");
        }
    });
}

#[test]
fn files_that_the_caller_holds_open_do_not_reach_the_vmm() {
    privileged!(guard, {
        // Without close-on-exec, as in careless callers, at low and at high numbers.
        let file = fs::File::open("/etc/passwd").unwrap();
        let held = [3, 50, 900].map(|least| rustix::io::fcntl_dupfd_cloexec(&file, least).unwrap());
        for fd in &held {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
        }
        let (lines, _) = live(guard.store().create(&probe_spec(&guard, "fds", &["report"])).unwrap());
        assert_eq!(lines[0]["descriptors"], serde_json::json!([0, 1, 2]));
        drop(held);
    });
}

#[test]
fn limits_and_firecrackers_arguments_reach_the_vmm() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "limits", &["limits", "args"]);
        spec.limits.extend(["no-file=100", "fsize=5000"].map(|limit| limit.parse().unwrap()));
        spec.profile = Profile::firecracker();
        let (lines, _) = live(guard.store().create(&spec).unwrap());
        assert_eq!(lines[0]["limits"], serde_json::json!({ "no-file": [100, 100], "fsize": [5000, 5000] }));
        let arguments: Vec<&str> =
            lines[1]["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect();
        let [
            path,
            "--id",
            id,
            "--start-time-us",
            start,
            "--start-time-cpu-us",
            cpu,
            "--parent-cpu-time-us",
            parent,
            "limits",
            "args",
        ] = arguments[..]
        else {
            panic!("{arguments:?}")
        };
        assert_eq!((path, id), ("/stockade-probe", spec.id.as_str()));
        assert_eq!(start, spec.started_us.to_string());
        // Firecracker subtracts the first from its processor time, and adds the second.
        let (cpu, parent) = (cpu.parse::<u64>().unwrap(), parent.parse::<u64>().unwrap());
        assert!(0 < cpu && cpu == parent, "{arguments:?}");
    });
}

#[test]
fn the_exit_status_of_a_vmm_is_returned() {
    privileged!(guard, {
        for (argument, expected, code) in [
            ("exit=0", ExitStatus::Exited(0), 0),
            ("exit=7", ExitStatus::Exited(7), 7),
            ("signal=9", ExitStatus::Killed(9), 137),
        ] {
            let (_, status) = live(guard.store().create(&probe_spec(&guard, "end", &[argument])).unwrap());
            assert_eq!((status, status.shell_code()), (expected, code), "{argument}");
        }
    });
}

#[test]
fn all_parts_of_a_jail_are_removed_with_it() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "all", &["report", "listen=/run/api.sock", "write=/ramfs/x=y"]);
        spec.netns = Netns::from_argument(&guard.named("net")).unwrap();
        spec.ramfs = Some(1 << 20);
        spec.new_pid_ns = true;
        spec.cgroups = vec!["pids.max=64".parse().unwrap(), "cpuset.cpus=0".parse().unwrap()];
        spec.parent_cgroup = Some(guard.name().parse().unwrap());
        let (lines, status) = live(guard.store().create(&spec).unwrap());
        assert_eq!(status, ExitStatus::Exited(0));
        assert_eq!(lines[0]["pid"], 1);
        assert_eq!(lines[0]["network"], serde_json::json!(["lo"]));
        assert_eq!(lines[0]["mounts"].as_array().unwrap().len(), 2);
        assert_eq!((&lines[1]["listen"], &lines[2]["write"]), (&"ok".into(), &"ok".into()));
        // The guard checks that nothing is left.
    });
}

#[test]
fn the_vmm_is_in_its_cgroup_from_its_first_instruction() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "cg", &["sleep"]);
        spec.cgroups = vec!["pids.max=64".parse().unwrap()];
        spec.parent_cgroup = Some(guard.name().parse().unwrap());
        let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", running.pid())).unwrap();
        let wanted = format!("pids:/{}/{}", guard.name(), spec.id);
        assert!(cgroups.lines().any(|line| line.ends_with(&wanted)), "{cgroups}");
        assert!(running.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_joined_namespace_remains_unchanged() {
    privileged!(guard, {
        let name = guard.named("net");
        let ip = |verb: &str| {
            testkit::run_with(std::process::Command::new("ip").args(["netns", verb, &name])).code
        };
        assert_eq!(ip("add"), 0);
        for argument in [name.clone(), format!("/run/netns/{name}")] {
            let mut spec = probe_spec(&guard, "join", &["report"]);
            spec.netns = Netns::from_argument(&argument).unwrap();
            let (lines, _) = live(guard.store().create(&spec).unwrap());
            assert_eq!(lines[0]["network"], serde_json::json!(["lo"]));
        }
        assert_eq!(ip("delete"), 0, "it still exists");
    });
}

#[test]
fn placed_files_are_found_by_the_vmm() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "place", &["read=/image", "read=/deep/er/name", "read=/own"]);
        spec.owner = Owner { uid: 12_345, gid: 12_346 };
        let image = guard.file("image", "an image");
        let own = guard.file("own", "the jail's own");
        std::os::unix::fs::chown(&own, Some(12_345), Some(12_346)).unwrap();
        let mut created = guard.store().create(&spec).unwrap();
        assert_eq!(created.place(&image).unwrap().to_string(), "/image");
        let deep = created.place(Placement::new(&image).named("deep/er/name").how(How::Copy)).unwrap();
        assert_eq!(deep.to_string(), "/deep/er/name");
        created.place(&own).unwrap();
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let root = created.root();
        assert_ne!(
            inode(root.join("image").as_path().into()),
            inode(image.clone()),
            "another's file is copied"
        );
        assert_eq!(inode(root.join("own").as_path().into()), inode(own.clone()), "the owner's own is linked");
        let (lines, _) = live(created);
        assert_eq!(lines[0]["read"], "an image");
        assert_eq!(lines[1]["read"], "an image");
        assert_eq!(lines[2]["read"], "the jail's own");
        assert_eq!(fs::read_to_string(&own).unwrap(), "the jail's own", "the host's name of it remains");
        assert_eq!(fs::metadata(&image).unwrap().uid(), 0, "the host's file keeps its owner");
    });
}

#[test]
fn a_device_is_placed_as_a_node() {
    privileged!(guard, {
        let mut created = guard.store().create(&probe_spec(&guard, "node", &[])).unwrap();
        created.place(Placement::new("/dev/null").named("nothing")).unwrap();
        let facts = fs::metadata(created.root().join("nothing")).unwrap();
        assert_eq!(
            (facts.rdev(), facts.mode() & 0o777, facts.uid()),
            (rustix::fs::makedev(1, 3), 0o600, 1234)
        );
        assert!(created.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_refused_placement_leaves_the_jail_usable() {
    privileged!(guard, {
        let mut created = guard.store().create(&probe_spec(&guard, "refuse", &["exit=3"])).unwrap();
        let file = guard.file("file", "");
        let refused = |error: Error| assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{error}");
        refused(created.place("/no/such/file").unwrap_err());
        refused(created.place("/etc").unwrap_err());
        refused(created.place(Placement::new(&file).named("../out")).unwrap_err());
        refused(created.place(Placement::new(&file).how(How::Link)).unwrap_err());
        refused(created.place(Placement::new(&file).how(How::Node)).unwrap_err());
        assert_eq!(live(created).1, ExitStatus::Exited(3));
    });
}

#[test]
fn a_failure_after_the_clone_names_its_step_and_cause() {
    privileged!(guard, {
        let script = guard.file("script", "#!/no/such/interpreter\n");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut spec = probe_spec(&guard, "exec", &[]);
        spec.exec_file = ExecFile::new(&script).unwrap();
        let error = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(
                "cannot execute in the jail: /script: its interpreter '/no/such/interpreter' is not in"
            ),
            "{text}"
        );
        assert_eq!(error.kind(), ErrorKind::NotFound);

        let mut spec = probe_spec(&guard, "netns", &[]);
        spec.netns = Netns::Join(HostPath::existing(&guard.file("no-netns", "")).unwrap());
        let error = guard.store().create(&spec).unwrap_err();
        assert!(
            error.to_string().ends_with("/no-netns' is not a network namespace; remove it, or name another"),
            "{error}"
        );
    });
}

#[test]
fn a_failed_step_undoes_the_steps_before_it() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "undo", &[]);
        spec.netns = Netns::from_argument(&guard.named("net")).unwrap();
        spec.cgroups = vec!["pids.max=no-number".parse().unwrap()];
        spec.parent_cgroup = Some(guard.name().parse().unwrap());
        let error = guard.store().create(&spec).unwrap_err();
        assert!(error.to_string().starts_with("cannot write '"), "{error}");
        assert!(error.to_string().contains("pids.max"), "{error}");
        // The guard checks that nothing is left.
    });
}

#[test]
fn an_impossible_cgroup_is_refused_before_any_step() {
    privileged!(guard, {
        let mut spec = probe_spec(&guard, "nocg", &[]);
        spec.cgroups = vec!["nosuch.thing=1".parse().unwrap()];
        let error = guard.store().create(&spec).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::InvalidSpec, "this host has no cgroup controller 'nosuch'")
        );
        assert!(!guard.base().exists() && !guard.state().exists(), "nothing was made");
    });
}

#[test]
fn an_id_in_use_is_refused_with_the_reason() {
    privileged!(guard, {
        let store = guard.store();
        let spec = probe_spec(&guard, "twice", &["sleep"]);
        let created = store.create(&spec).unwrap();
        let error = store.create(&spec).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "jail '{}' is locked by pid {}; try again when that has finished",
                spec.id,
                std::process::id()
            )
        );
        let running = created.launch(Streams::default()).unwrap();
        let error = store.create(&spec).unwrap_err();
        assert_eq!(error.to_string(), format!("jail '{}' is running as pid {}", spec.id, running.pid()));
        assert_eq!(error.kind(), ErrorKind::InUse);
        // No process holds the lock any more, but the VMM is running.
        let pid = running.pid();
        drop(running);
        let error = store.create(&spec).unwrap_err();
        assert_eq!(error.to_string(), format!("jail '{}' is running as pid {pid}", spec.id));
        kill(pid);
        let report = store.collect(false).unwrap();
        assert!(report.is_clean() && report.jails.len() == 1, "{report:?}");
    });
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // It is a child of this process, so it has to be reaped.
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
}

#[test]
fn a_listing_contains_states_and_pids() {
    privileged!(guard, {
        let store = guard.store();
        assert_eq!(store.list().unwrap(), vec![], "no directory, no jails");
        let created = store.create(&probe_spec(&guard, "a", &["sleep"])).unwrap();
        let running =
            store.create(&probe_spec(&guard, "b", &["sleep"])).unwrap().launch(Streams::default()).unwrap();
        let states: Vec<_> = store.list().unwrap().into_iter().map(|jail| (jail.state, jail.pid)).collect();
        assert_eq!(states, [(JailState::Created, None), (JailState::Running, Some(running.pid()))]);
        assert!(running.teardown().unwrap().is_clean());
        assert!(created.teardown().unwrap().is_clean());
        assert!(
            !guard.state().exists() && !guard.base().exists(),
            "the last jail takes the directories along"
        );
    });
}

#[test]
fn a_stubborn_vmm_is_killed_after_its_grace() {
    privileged!(guard, {
        let mut polite = probe_spec(&guard, "polite", &["sleep"]);
        polite.new_pid_ns = false;
        let mut running = guard.store().create(&polite).unwrap().launch(Streams::default()).unwrap();
        assert_eq!(running.stop(Duration::from_secs(20)).unwrap(), ExitStatus::Killed(15));
        assert!(running.teardown().unwrap().is_clean());

        let (from, to) = std::io::pipe().unwrap();
        let streams = Streams { stdout: Some(to.into()), ..Streams::default() };
        let stubborn = probe_spec(&guard, "stubborn", &["ignore=15", "clock", "sleep"]);
        let mut running = guard.store().create(&stubborn).unwrap().launch(streams).unwrap();
        // After its first line it ignores SIGTERM.
        std::io::BufRead::read_line(&mut std::io::BufReader::new(from), &mut String::new()).unwrap();
        assert_eq!(running.stop(Duration::from_millis(50)).unwrap(), ExitStatus::Killed(9));
        assert!(running.teardown().unwrap().is_clean());
    });
}

#[test]
fn descendants_die_with_the_jail() {
    privileged!(guard, {
        for (id, pid_ns, cgroup) in [("plain", false, false), ("pidns", true, false), ("cgroup", false, true)]
        {
            for argument in ["spawn=3", "daemon=3", "outcast=3"] {
                let mut spec = probe_spec(&guard, &format!("{id}-{}", &argument[..5]), &[argument, "sleep"]);
                spec.new_pid_ns = pid_ns;
                if cgroup {
                    spec.cgroups = vec!["pids.max=64".parse().unwrap()];
                    spec.parent_cgroup = Some(guard.name().parse().unwrap());
                }
                let (from, to) = std::io::pipe().unwrap();
                let streams = Streams { stdout: Some(to.into()), ..Streams::default() };
                let running = guard.store().create(&spec).unwrap().launch(streams).unwrap();
                let mut line = String::new();
                std::io::BufRead::read_line(&mut std::io::BufReader::new(from), &mut line).unwrap();
                let report: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(report["spawned"].as_array().unwrap().len(), 3, "{report}");
                let report = running.teardown().unwrap();
                assert!(report.is_clean(), "{id} {argument}: {report:?}");
                // The guard checks that no process is left: orphans would be its children.
            }
        }
    });
}

#[test]
fn a_dropped_created_jail_is_removed() {
    privileged!(guard, {
        drop(guard.store().create(&probe_spec(&guard, "drop", &[])).unwrap());
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn corrupt_receipts_are_reported_and_never_acted_on() {
    privileged!(guard, {
        let store = guard.store();
        let good = store.create(&probe_spec(&guard, "good", &[])).unwrap();
        let receipt =
            fs::read_to_string(store.directory().join(good.receipt().id.as_str()).join("receipt.json"))
                .unwrap();
        let future = receipt.replacen("\"version\":1", "\"version\":2", 1);
        let cases = [
            ("truncated", &receipt[..receipt.len() / 2], "is corrupt"),
            ("empty", "", "is corrupt"),
            ("future", &future, "has version 2"),
            ("stolen", &receipt, "belongs to jail '"),
        ];
        for (id, text, _) in cases {
            let entry = store.directory().join(id);
            fs::create_dir(&entry).unwrap();
            fs::write(entry.join("receipt.json"), text).unwrap();
        }
        let foreign = store.directory().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("receipt.json"), &receipt).unwrap();
        std::os::unix::fs::chown(foreign.join("receipt.json"), Some(1234), None).unwrap();

        let before = guard.snapshot();
        let collection = store.collect(false).unwrap();
        assert_eq!(guard.snapshot(), before, "nothing was touched");
        assert_eq!(collection.jails, vec![]);
        let problem = |id: &str| {
            let wanted = format!("jail {id}");
            collection
                .problems
                .iter()
                .find(|p| p.what == wanted)
                .unwrap_or_else(|| panic!("{id}: {collection:?}"))
        };
        for (id, _, reason) in cases {
            assert!(problem(id).reason.contains(reason), "{:?}", problem(id));
        }
        assert!(problem("foreign").reason.contains("belongs to uid 1234"), "{:?}", problem("foreign"));
        let corrupt =
            store.list().unwrap().into_iter().filter(|jail| jail.state == JailState::Corrupt).count();
        assert_eq!(corrupt, 5);
        for id in ["truncated", "empty", "future", "stolen", "foreign"] {
            fs::remove_dir_all(store.directory().join(id)).unwrap();
        }
        assert!(good.teardown().unwrap().is_clean());
    });
}

#[test]
fn many_jails_run_in_parallel() {
    privileged!(guard, {
        let store = guard.store();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (store, guard) = (&store, &guard);
                scope.spawn(move || {
                    for round in 0..5 {
                        let mut spec = probe_spec(guard, &format!("{thread}-{round}"), &["exit=5"]);
                        spec.new_pid_ns = round % 2 == 0;
                        let mut running = store.create(&spec).unwrap().launch(Streams::default()).unwrap();
                        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
                        let report = running.teardown().unwrap();
                        assert!(report.is_clean(), "{report:?}");
                    }
                });
            }
        });
        assert!(
            !guard.base().exists() && !guard.state().exists(),
            "the last jail takes the directories along"
        );
    });
}

#[test]
fn a_teardown_can_give_the_vmm_time_to_exit() {
    privileged!(guard, {
        // The first returns only after an exit on SIGTERM. The second VMM ignores SIGTERM.
        for (arguments, grace) in
            [(&["sleep"][..], Duration::MAX), (&["ignore=15", "sleep"], Duration::from_millis(20))]
        {
            let running = guard.store().create(&probe_spec(&guard, "grace", arguments)).unwrap();
            let running = running.launch(Streams::default()).unwrap();
            let options = TeardownOptions { grace: Some(grace), ..TeardownOptions::default() };
            let report = running.teardown_with(options).unwrap();
            assert!(report.is_clean(), "{arguments:?}: {report:?}");
        }
    });
}
