//! Late refusals: nothing of the jail remains, not even the parent cgroups created for it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::{ExecFile, HostPath, JailSpec, Owner};
use stockade::{ErrorKind, ExitStatus, Streams};
use testkit::{Guard, privileged, probe_spec, program};

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

const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// A base that is `jails` in a directory of its own.
fn in_base(guard: &Guard) -> (JailSpec, PathBuf) {
    let base = guard.directory().join("way/jails");
    std::fs::create_dir_all(base.join("stockade-probe")).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let id = guard.named("unsafe").parse().unwrap();
    let mut spec = JailSpec::new(id, vmm, HostPath::future_directory(&base).unwrap());
    spec.owner = OWNER;
    (spec, guard.directory().join("way"))
}

/// Gives the jail's uid or gid the permission to write by an access control list.
fn grant(directory: &Path, tag: u8, id: u32, mask: u8) {
    let entry = |tag: u8, bits: u8, id: u32| [vec![tag, 0, bits, 0], id.to_le_bytes().to_vec()].concat();
    let none = u32::MAX;
    let list = [
        vec![2, 0, 0, 0],
        entry(0x01, 7, none),
        if tag == 0x02 { entry(tag, 7, id) } else { Vec::new() },
        entry(0x04, 5, none),
        if tag == 0x08 { entry(tag, 7, id) } else { Vec::new() },
        entry(0x10, mask, none),
        entry(0x20, 5, none),
    ];
    let name = "system.posix_acl_access";
    rustix::fs::setxattr(directory, name, &list.concat(), rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn a_base_that_the_jails_uid_can_change_is_refused() {
    privileged!(guard, {
        let (spec, way) = in_base(&guard);
        let base = way.join("jails");
        let exec_dir = base.join("stockade-probe");
        let mode = |path: &Path, mode: u32| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let own = |path: &Path, uid: u32, gid: u32| {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        };
        let refused = |directory: &Path, what: &str| {
            let path = directory.display();
            let error = guard.store().create(&spec).map(drop).expect_err(what);
            let line = format!(
                "chroot-base-dir: 12345:12346 can write to '{path}', and so exchange jails; run 'chown root: {path}; \
                 chmod go-w {path}', or use --allow-unsafe-base"
            );
            assert_eq!(error.to_string(), line, "{what}");
            assert_eq!(error.kind(), ErrorKind::InvalidSpec);
            assert!(!exec_dir.join(spec.id.as_str()).exists(), "{what}: something was created");
            let mut allowed = spec.clone();
            allowed.allow_unsafe_base = true;
            assert!(guard.store().create(&allowed).unwrap().teardown().unwrap().is_clean(), "{what}");
            std::fs::create_dir_all(&exec_dir).unwrap();
        };
        let accepted = |what: &str| {
            let created = guard.store().create(&spec).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(created.teardown().unwrap().is_clean(), "{what}");
            std::fs::create_dir_all(&exec_dir).unwrap();
        };
        accepted("every directory is root's");
        for directory in [&exec_dir, &base, &way] {
            for (uid, gid, bits, what) in [
                (OWNER.uid, 0, 0o755, "its own"),
                (OWNER.uid, 0, 0o555, "its own, which it can make writable"),
                (0, OWNER.gid, 0o775, "of its group"),
                (0, 0, 0o757, "of everyone"),
            ] {
                own(directory, uid, gid);
                mode(directory, bits);
                refused(directory, what);
            }
            own(directory, 0, 0);
            mode(directory, 0o755);
            for (tag, id) in [(0x02, OWNER.uid), (0x08, OWNER.gid)] {
                grant(directory, tag, id, 7);
                refused(directory, "by an access control list");
                grant(directory, tag, id, 5);
                accepted("the list's mask forbids it");
                grant(directory, tag, 1, 7);
                accepted("the list is for another user");
            }
            rustix::fs::removexattr(directory, "system.posix_acl_access").unwrap();
            for (uid, gid, bits, what) in
                [(1, OWNER.gid, 0o755, "of another user"), (0, OWNER.gid, 0o707, "its group may not write")]
            {
                own(directory, uid, gid);
                mode(directory, bits);
                accepted(what);
            }
            own(directory, 0, 0);
            mode(directory, 0o755);
        }
        // As /tmp: every user may create files there, and no user can rename those of others.
        mode(&way, 0o1777);
        accepted("the sticky bit above");
        own(&base, OWNER.uid, 0);
        refused(&base, "its own in a directory as /tmp");
        own(&base, 0, 0);
        mode(&exec_dir, 0o1777);
        refused(&exec_dir, "the sticky bit does not keep names of jails free");
        mode(&exec_dir, 0o757);
        let mut root = spec.clone();
        root.owner = Owner { uid: 0, gid: 0 };
        assert!(guard.store().create(&root).unwrap().teardown().unwrap().is_clean());
    });
}
