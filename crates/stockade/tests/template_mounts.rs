//! The skeleton mount namespace: seen from inside, a jail that was started by it is the same.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde_json::Value;
use stockade::spec::{ExecFile, HostPath, JailSpec, Owner};
use stockade::{Error, ExitStatus, Jail, RUNTIME_DIRECTORY, Streams, TemplateMounts};
use testkit::{Guard, privileged, program};

fn spec(guard: &Guard, id: &str) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named(id).parse().unwrap(), vmm, base);
    spec.arguments = vec!["sleep".into()];
    spec
}

/// The mounts that the VMM of a jail has, without their numbers.
fn mounts(guard: &Guard, id: &str) -> Vec<String> {
    let mut spec = spec(guard, id);
    spec.ramfs = Some(1 << 20);
    let running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", running.pid())).unwrap();
    assert!(running.teardown().unwrap().is_clean());
    let table = table.replace(guard.named(id).as_str(), "ID");
    table.lines().map(|line| line.splitn(3, ' ').last().unwrap().to_owned()).collect()
}

/// The ways out over the root that a VMM of uid 0 has found, in a jail by the skeleton or without.
fn ways_out(guard: &Guard, id: &str) -> Vec<Value> {
    let mut spec = spec(guard, id);
    spec.arguments = vec!["report".into()];
    spec.owner = Owner { uid: 0, gid: 0 };
    let (mut from, to) = std::io::pipe().unwrap();
    let streams = Streams { stdout: Some(to.into()), ..Streams::default() };
    let mut running = guard.store().create(&spec).unwrap().launch(streams).unwrap();
    let mut said = String::new();
    from.read_to_string(&mut said).unwrap();
    running.wait().unwrap();
    assert!(running.teardown().unwrap().is_clean());
    let said: Value = serde_json::from_str(&said).unwrap();
    let tried = said["escapes"].as_array().unwrap().iter();
    let over_the_root = ["dot-dot", "chroot-again", "host-path"];
    let tried: Vec<_> =
        tried.filter(|way| over_the_root.contains(&way["name"].as_str().unwrap())).cloned().collect();
    assert_eq!(tried.len(), over_the_root.len());
    tried.into_iter().filter(|way| way["held"] != true).collect()
}

fn uses_the_skeleton(guard: &Guard, id: &str) -> bool {
    let running = guard.store().create(&spec(guard, id)).unwrap().launch(Streams::default()).unwrap();
    let used = running.receipt().enter.iter().any(|step| step.to_string().contains("skeleton"));
    assert!(running.teardown().unwrap().is_clean());
    used
}

/// Takes everything of the skeleton away, whatever state a test has left it in.
fn remove_all() {
    TemplateMounts::remove().unwrap();
    assert!(!Path::new(RUNTIME_DIRECTORY).exists());
}

#[test]
fn what_a_jail_sees_does_not_depend_on_the_skeleton() {
    privileged!(guard, {
        // On a shared mount, whose copies have a master to name.
        fs::create_dir(guard.base()).unwrap();
        rustix::mount::mount("stockade-test", guard.base(), "tmpfs", MountFlags::empty(), None).unwrap();
        rustix::mount::mount_change(guard.base(), MountPropagationFlags::SHARED).unwrap();
        remove_all();
        let by_copy = mounts(&guard, "copy");
        TemplateMounts::make().unwrap();
        let by_skeleton = mounts(&guard, "skel");
        rustix::mount::unmount(guard.base(), UnmountFlags::empty()).unwrap();
        fs::remove_dir(guard.base()).unwrap();
        assert_eq!(by_copy.len(), 2, "the root and the ramfs: {by_copy:?}");
        assert!(by_copy[0].contains(" master:"), "{by_copy:?}");
        assert_eq!(by_skeleton, by_copy);
    });
}

#[test]
fn root_climbs_out_neither_with_the_skeleton_nor_without() {
    privileged!(guard, {
        remove_all();
        assert_eq!(ways_out(&guard, "copy"), Vec::<Value>::new());
        TemplateMounts::make().unwrap();
        assert_eq!(ways_out(&guard, "skel"), Vec::<Value>::new());
    });
}

#[test]
fn without_a_skeleton_the_hosts_mounts_are_copied() {
    privileged!(guard, {
        remove_all();
        assert!(TemplateMounts::find().unwrap_err().contains("host-setup"));
        assert!(!uses_the_skeleton(&guard, "none"));
        TemplateMounts::make().unwrap();
        assert!(uses_the_skeleton(&guard, "some"));
    });
}

#[test]
fn a_directory_that_others_may_write_to_is_not_trusted() {
    privileged!(guard, {
        remove_all();
        fs::create_dir(RUNTIME_DIRECTORY).unwrap();
        fs::set_permissions(RUNTIME_DIRECTORY, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(TemplateMounts::make(), Err(Error::InTheWay { .. })));
        assert!(!uses_the_skeleton(&guard, "open"));
        fs::remove_dir(RUNTIME_DIRECTORY).unwrap();
        // Nor is one that was opened up afterwards.
        TemplateMounts::make().unwrap();
        fs::set_permissions(RUNTIME_DIRECTORY, fs::Permissions::from_mode(0o707)).unwrap();
        assert!(!uses_the_skeleton(&guard, "later"));
        remove_all();
    });
}

#[test]
fn what_a_killed_call_has_left_is_used() {
    privileged!(_guard, {
        let directory = Path::new(RUNTIME_DIRECTORY);
        for made in 0..4 {
            remove_all();
            fs::DirBuilder::new().create(directory).unwrap();
            if made > 0 {
                rustix::mount::mount_bind(directory, directory).unwrap();
            }
            if made > 1 {
                fs::create_dir(directory.join("empty")).unwrap();
            }
            if made > 2 {
                fs::write(directory.join("mounts"), "").unwrap();
            }
            assert!(TemplateMounts::find().is_err());
            TemplateMounts::make().unwrap();
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert_eq!(table.lines().filter(|line| line.contains(RUNTIME_DIRECTORY)).count(), 2, "{table}");
        }
    });
}

#[test]
fn sixteen_at_once_make_one() {
    privileged!(_guard, {
        remove_all();
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(TemplateMounts::make)).collect();
            assert!(all.into_iter().all(|one| one.join().unwrap().is_ok()));
        });
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(table.lines().filter(|line| line.contains(RUNTIME_DIRECTORY)).count(), 2, "{table}");
    });
}

#[test]
fn a_jail_that_was_prepared_by_it_starts_without_it() {
    privileged!(guard, {
        TemplateMounts::make().unwrap();
        let spec = spec(&guard, "kept");
        guard.store().create(&spec).unwrap().persist().unwrap();
        remove_all();
        let Some(Jail::Created(prepared)) = guard.store().open(&spec.id).unwrap() else {
            panic!("it stands")
        };
        let mut running = prepared.launch(Streams::default()).unwrap();
        running.signal(rustix::process::Signal::KILL).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Killed(9));
        assert!(running.teardown().unwrap().is_clean());
    });
}
