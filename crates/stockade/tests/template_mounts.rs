//! The template mount namespace: a VMM started by it sees the same mounts as one started without.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::Value;
use stockade::spec::{JailSpec, Owner};
use stockade::{Error, ExitStatus, Jail, RUNTIME_DIRECTORY, Streams, TemplateMounts};
use testkit::{Guard, mount_lines_of, mount_lines_with, privileged, probe_spec};

fn spec(guard: &Guard, id: &str) -> JailSpec {
    probe_spec(guard, id, &["sleep"])
}

/// The mounts of a jail's VMM, without their IDs.
fn mounts(guard: &Guard, id: &str) -> Vec<String> {
    let mut spec = spec(guard, id);
    spec.ramfs = Some(1 << 20);
    let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
    let lines = mount_lines_of(running.pid());
    assert!(running.teardown().unwrap().is_clean());
    let without_ids = |line: String| line.splitn(3, ' ').last().unwrap().replace(&guard.named(id), "ID");
    lines.into_iter().map(without_ids).collect()
}

/// The escapes through the root directory that a VMM of uid 0 found.
fn escapes(guard: &Guard, id: &str) -> Vec<Value> {
    let mut spec = spec(guard, id);
    spec.arguments = vec!["report".into()];
    spec.owner = Owner { uid: 0, gid: 0 };
    let (mut from, to) = std::io::pipe().unwrap();
    let streams = Streams { stdout: Some(to.into()), ..Streams::default() };
    let mut running = guard.store().create(&spec).unwrap().launch(streams).unwrap();
    let mut report = String::new();
    from.read_to_string(&mut report).unwrap();
    running.wait().unwrap();
    assert!(running.teardown().unwrap().is_clean());
    let report: Value = serde_json::from_str(&report).unwrap();
    let tried = report["escapes"].as_array().unwrap().iter();
    let over_the_root = ["dot-dot", "chroot-again", "host-path"];
    let tried: Vec<_> =
        tried.filter(|escape| over_the_root.contains(&escape["name"].as_str().unwrap())).cloned().collect();
    assert_eq!(tried.len(), over_the_root.len());
    tried.into_iter().filter(|escape| escape["held"] != true).collect()
}

fn uses_template_mounts(guard: &Guard, id: &str) -> bool {
    let running = guard.store().create(&spec(guard, id)).unwrap().launch(Streams::default()).unwrap();
    let used =
        running.receipt().enter.iter().any(|step| step.to_string().contains("template mount namespace"));
    assert!(running.teardown().unwrap().is_clean());
    used
}

/// Removes the template namespace with all its remains.
fn remove_all() {
    TemplateMounts::remove().unwrap();
    assert!(!Path::new(RUNTIME_DIRECTORY).exists());
}

#[test]
fn mounts_of_a_jail_do_not_depend_on_the_template_namespace() {
    privileged!(guard, {
        // A shared mount, so that its copies have a master.
        fs::create_dir(guard.base()).unwrap();
        rustix::mount::mount("stockade-test", guard.base(), "tmpfs", MountFlags::empty(), None).unwrap();
        rustix::mount::mount_change(guard.base(), MountPropagationFlags::SHARED).unwrap();
        remove_all();
        let by_copy = mounts(&guard, "copy");
        TemplateMounts::make().unwrap();
        let by_template = mounts(&guard, "template");
        rustix::mount::unmount(guard.base(), UnmountFlags::empty()).unwrap();
        fs::remove_dir(guard.base()).unwrap();
        assert_eq!(by_copy.len(), 2, "the root and the ramfs: {by_copy:?}");
        assert!(by_copy[0].contains(" master:"), "{by_copy:?}");
        assert_eq!(by_template, by_copy);
    });
}

#[test]
fn root_does_not_escape_with_or_without_template_mounts() {
    privileged!(guard, {
        remove_all();
        assert_eq!(escapes(&guard, "copy"), Vec::<Value>::new());
        TemplateMounts::make().unwrap();
        assert_eq!(escapes(&guard, "template"), Vec::<Value>::new());
    });
}

#[test]
fn the_hosts_mounts_are_copied_without_template_mounts() {
    privileged!(guard, {
        remove_all();
        assert!(TemplateMounts::find().unwrap_err().contains("host-setup"));
        assert!(!uses_template_mounts(&guard, "none"));
        TemplateMounts::make().unwrap();
        assert!(uses_template_mounts(&guard, "some"));
    });
}

#[test]
fn a_runtime_directory_that_others_can_write_is_not_trusted() {
    privileged!(guard, {
        remove_all();
        fs::create_dir(RUNTIME_DIRECTORY).unwrap();
        fs::set_permissions(RUNTIME_DIRECTORY, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(TemplateMounts::make(), Err(Error::InTheWay { .. })));
        assert!(!uses_template_mounts(&guard, "open"));
        fs::remove_dir(RUNTIME_DIRECTORY).unwrap();
        // The same if its mode changes later.
        TemplateMounts::make().unwrap();
        fs::set_permissions(RUNTIME_DIRECTORY, fs::Permissions::from_mode(0o707)).unwrap();
        assert!(!uses_template_mounts(&guard, "later"));
        remove_all();
    });
}

#[test]
fn make_uses_the_remains_of_a_killed_call() {
    privileged!(_guard, {
        let directory = Path::new(RUNTIME_DIRECTORY);
        for steps in 0..4 {
            remove_all();
            fs::DirBuilder::new().create(directory).unwrap();
            if steps > 0 {
                rustix::mount::mount_bind(directory, directory).unwrap();
            }
            if steps > 1 {
                fs::create_dir(directory.join("empty")).unwrap();
            }
            if steps > 2 {
                fs::write(directory.join("mounts"), "").unwrap();
            }
            assert!(TemplateMounts::find().is_err());
            TemplateMounts::make().unwrap();
            let own = mount_lines_with(RUNTIME_DIRECTORY);
            assert_eq!(own.len(), 2, "{own:#?}");
        }
    });
}

#[test]
fn sixteen_parallel_calls_make_one_namespace() {
    privileged!(_guard, {
        remove_all();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(TemplateMounts::make)).collect();
            assert!(all.into_iter().all(|one| one.join().unwrap().is_ok()));
        });
        let own = mount_lines_with(RUNTIME_DIRECTORY);
        assert_eq!(own.len(), 2, "{own:#?}");
    });
}

#[test]
fn a_lock_that_is_never_released_ends_the_call() {
    privileged!(_guard, {
        remove_all();
        fs::DirBuilder::new().mode(0o700).create(RUNTIME_DIRECTORY).unwrap();
        let holder = fs::File::open(RUNTIME_DIRECTORY).unwrap();
        holder.lock().unwrap();
        let refused = TemplateMounts::make().unwrap_err().to_string();
        let expected = "cannot lock '/run/stockade': resource temporarily unavailable; another process has locked it: \
                        end that process";
        assert_eq!(refused, expected);
        drop(holder);
        TemplateMounts::make().unwrap();
    });
}

#[test]
fn a_persistent_jail_starts_after_removal_of_template_mounts() {
    privileged!(guard, {
        TemplateMounts::make().unwrap();
        let spec = spec(&guard, "kept");
        guard.store().create(&spec).unwrap().persist().unwrap();
        remove_all();
        let Some(Jail::Created(created)) = guard.store().open(&spec.id).unwrap() else {
            panic!("it persists")
        };
        let mut running = created.launch(Streams::default()).unwrap();
        running.signal(rustix::process::Signal::KILL).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Killed(9));
        assert!(running.teardown().unwrap().is_clean());
    });
}
