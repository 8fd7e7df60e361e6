//! Late refusals: nothing of the jail remains, not even the parent cgroups created for it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::{ExecFile, JailSpec};
use stockade::{ErrorKind, ExitStatus, Streams};
use testkit::{Guard, privileged, probe_spec};

/// The parent cgroup of the test's jails, in the host's hierarchy for pids.
fn parent(guard: &Guard) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/pids");
    let mount =
        if v1.exists() { v1.to_owned() } else { testkit::unified_mount().expect("a hierarchy with pids") };
    mount.join(guard.name())
}

fn spec(guard: &Guard, id: &str, setting: &str) -> JailSpec {
    let mut spec = probe_spec(guard, id, &["exit=5"]);
    spec.cgroups = vec![setting.parse().unwrap()];
    spec.parent_cgroup = Some(format!("{}/a/b", guard.name()).parse().unwrap());
    spec
}

#[test]
fn parents_created_for_a_jail_that_never_ran_are_removed() {
    privileged!(guard, {
        let (store, parent) = (guard.store(), parent(&guard));
        store.create(&spec(&guard, "setting", "pids.max=no-number")).unwrap_err();
        assert!(!parent.exists(), "a setting was refused");

        let script = guard.file("script", "#!/no/such/interpreter\n");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let mut no_vmm = spec(&guard, "exec", "pids.max=9");
        no_vmm.exec_file = ExecFile::new(&script).unwrap();
        let created = store.create(&no_vmm).unwrap();
        assert!(parent.join("a/b").join(no_vmm.id.as_str()).exists());
        created.launch(Streams::default()).unwrap_err();
        assert!(!parent.exists(), "the VMM could not be executed");

        let mut created = store.create(&spec(&guard, "place", "pids.max=9")).unwrap();
        created.place("/no/such/file").unwrap_err();
        drop(created);
        assert!(!parent.exists(), "a file was missing");
    });
}

#[test]
fn parents_of_others_remain() {
    privileged!(guard, {
        let (store, parent) = (guard.store(), parent(&guard));
        // An empty one that another program created.
        std::fs::create_dir(&parent).unwrap();
        store.create(&spec(&guard, "setting", "pids.max=no-number")).unwrap_err();
        assert!(parent.exists() && !parent.join("a").exists());

        // One with a second jail in it.
        let first = store.create(&spec(&guard, "first", "pids.max=9")).unwrap();
        let second = store.create(&spec(&guard, "second", "pids.max=9")).unwrap();
        drop(first);
        let mut running = second.launch(Streams::default()).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
        assert!(running.teardown().unwrap().is_clean());
        assert!(parent.join("a/b").exists(), "a jail that has run leaves its parents");
    });
}

#[test]
fn refused_jails_do_not_disturb_others() {
    privileged!(guard, {
        let (store, count) = (guard.store(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (guard, store, count) = (&guard, &store, &count);
                scope.spawn(move || {
                    for round in 0..40 {
                        let id = format!("{thread}-{round}");
                        if thread % 2 == 0 {
                            let error = store.create(&spec(guard, &id, "pids.max=no-number")).unwrap_err();
                            assert!(error.to_string().ends_with(": invalid argument"), "{error}");
                        } else {
                            let created = store.create(&spec(guard, &id, "pids.max=9")).unwrap();
                            assert!(created.teardown().unwrap().is_clean());
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 160);
    });
}

#[test]
fn a_cgroup_file_of_the_other_version_is_refused_early() {
    privileged!(guard, {
        let v1 = testkit::unified_mount().is_none();
        let (setting, instead) = if v1 {
            ("memory.max=1G", "memory.limit_in_bytes")
        } else {
            ("memory.limit_in_bytes=1G", "memory.max")
        };
        let error = guard.store().create(&spec(&guard, "other", setting)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidSpec);
        assert!(error.to_string().ends_with(&format!("; use '{instead}'")), "{error}");
        assert!(!parent(&guard).exists() && !guard.base().exists() && !guard.state().exists());
    });
}
