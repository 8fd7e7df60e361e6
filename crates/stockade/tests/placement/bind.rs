//! Binds: the host's own files and directories in a jail, without a mount on the host.

use super::*;

use std::os::unix::fs::MetadataExt;

use stockade::snapshot::Snapshot;
use stockade::spec::Netns;
use testkit::{Mount, mount_lines_with, mounts_of};

/// A directory of the host with files in it, which the jail's user can write.
fn share(guard: &Guard) -> PathBuf {
    let share = guard.directory().join("share");
    fs::create_dir_all(share.join("deeper")).unwrap();
    fs::write(share.join("file"), "the host's").unwrap();
    fs::write(share.join("deeper/file"), "precious").unwrap();
    for path in [share.clone(), share.join("file")] {
        std::os::unix::fs::chown(path, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
    }
    share
}

/// Whether the host's mount table contains the test's name.
fn host_has_mount(guard: &Guard) -> bool {
    !mount_lines_with(guard.name()).is_empty()
}

fn unharmed(share: &Path) {
    assert_eq!(fs::read_to_string(share.join("deeper/file")).unwrap(), "precious");
    assert_eq!(fs::metadata(share).unwrap().uid(), OWNER.uid);
}

#[test]
fn a_bound_directory_is_the_hosts_own_without_a_mount_there() {
    privileged!(guard, {
        let share = share(&guard);
        for new_pid_ns in [false, true] {
            let arguments = [
                "read=/rw/file",
                "write=/rw/new=written inside",
                "read=/ro/file",
                "write=/ro/new=x",
                "write=/ro/file=x",
                "hold",
            ];
            let mut spec = spec(&guard, &guard.base(), &arguments);
            spec.new_pid_ns = new_pid_ns;
            spec.netns = if new_pid_ns { Netns::New } else { Netns::Host };
            let mut created = guard.store().create(&spec).unwrap();
            let bind = |name: &str| Placement::new(&share).named(name).how(How::Bind);
            created.place(bind("rw")).unwrap();
            created.place(bind("ro").read_only()).unwrap();
            assert!(!host_has_mount(&guard), "before the launch");
            let mut probe = Probe::launch(created);
            assert_eq!(probe.next()["read"], "the host's");
            assert_eq!(probe.next()["write"], "ok");
            assert_eq!(probe.next()["read"], "the host's");
            assert_eq!(probe.next()["write"], "EROFS");
            assert_eq!(probe.next()["write"], "EROFS");
            assert_eq!(fs::read_to_string(share.join("new")).unwrap(), "written inside");
            assert!(!host_has_mount(&guard), "while the VMM runs");
            probe.resume();
            probe.finish();
            unharmed(&share);
            fs::remove_file(share.join("new")).unwrap();
        }
    });
}

#[test]
fn a_bind_has_no_set_uid_bits_and_no_devices() {
    privileged!(guard, {
        let share = share(&guard);
        let null = rustix::fs::makedev(1, 3);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            share.join("null"),
            rustix::fs::FileType::CharacterDevice,
            mode,
            null,
        )
        .unwrap();
        let mut created = create(&guard, &["read=/share/null", "report"]);
        created.place(Placement::new(&share).how(How::Bind)).unwrap();
        let mut probe = Probe::launch(created);
        assert_eq!(probe.next()["read_error"], "EACCES");
        let report = probe.next();
        let mounts = report["mounts"].to_string();
        assert!(mounts.contains("/share"), "{mounts}");
        probe.finish();
    });
}

#[test]
fn a_running_vmm_gets_and_loses_binds() {
    privileged!(guard, {
        let share = share(&guard);
        let arguments = [
            "read=/share/file",
            "hold",
            "read=/share/file",
            "write=/ro/file=x",
            "read=/single",
            "hold",
            "read=/share/file",
            "read=/single",
            "hold",
        ];
        for new_pid_ns in [false, true] {
            let mut spec = spec(&guard, &guard.base(), &arguments);
            spec.new_pid_ns = new_pid_ns;
            let mut probe = Probe::launch(guard.store().create(&spec).unwrap());
            assert_eq!(probe.next()["read_error"], "ENOENT");
            let bind = |name: &str| Placement::new(&share).named(name).how(How::Bind);
            assert_eq!(probe.running.place(bind("share")).unwrap().how, How::Bind);
            probe.running.place(bind("ro").read_only()).unwrap();
            // Over another file, which is replaced at once.
            probe.running.place(Placement::new("/etc/passwd").named("single")).unwrap();
            let single = Placement::new(share.join("file")).named("single").how(How::Bind);
            probe.running.place(single).unwrap();
            assert!(!host_has_mount(&guard));
            probe.resume();
            assert_eq!(probe.next()["read"], "the host's");
            assert_eq!(probe.next()["write"], "EROFS");
            assert_eq!(probe.next()["read"], "the host's");
            // An open file in the bind does not prevent its removal.
            let pid = probe.running.pid();
            let held = fs::File::open(format!("/proc/{pid}/root/share/file")).unwrap();
            for name in ["share", "ro", "single"] {
                probe.running.unplace(&at(name)).unwrap();
            }
            let mounts = mounts_of(pid);
            let is_bind =
                |mount: &Mount| mount.point == Path::new("/share") || mount.point == Path::new("/ro");
            assert!(!mounts.iter().any(is_bind), "{mounts:?}");
            drop(held);
            probe.resume();
            assert_eq!(probe.next()["read_error"], "ENOENT");
            assert_eq!(probe.next()["read_error"], "ENOENT");
            probe.resume();
            probe.finish();
            unharmed(&share);
        }
    });
}

#[test]
fn a_bind_that_the_vmm_moved_is_reported_as_left() {
    privileged!(guard, {
        let share = share(&guard);
        let mut probe = Probe::launch(create(&guard, &["hold"]));
        probe.running.place(Placement::new(&share).named("parent/share").how(How::Bind)).unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", probe.running.pid()));
        fs::rename(root.join("parent"), root.join("moved")).unwrap();
        let error = probe.running.unplace(&at("parent/share")).unwrap_err().to_string();
        let line = "'/parent/share' is still in the jail: the VMM has moved its directory, and keeps the bind until it exits";
        assert_eq!(error, line);
        probe.resume();
        probe.finish();
        unharmed(&share);
    });
}

#[test]
fn a_bind_is_attached_after_removal_of_its_mount_point() {
    privileged!(guard, {
        let share = share(&guard);
        let mut created = create(&guard, &["read=/a/b/share/file"]);
        created.place(Placement::new(&share).named("a/b/share").how(How::Bind)).unwrap();
        fs::remove_dir_all(created.root().as_path().join("a")).unwrap();
        let mut probe = Probe::launch(created);
        assert_eq!(probe.next()["read"], "the host's");
        probe.finish();
        unharmed(&share);
    });
}

#[test]
fn a_bind_with_a_replaced_source_is_refused() {
    privileged!(guard, {
        let share = share(&guard);
        let mut created = create(&guard, &[]);
        created.place(Placement::new(&share).how(How::Bind)).unwrap();
        fs::rename(&share, guard.directory().join("other")).unwrap();
        fs::create_dir(&share).unwrap();
        let error = created.launch(Streams::default()).unwrap_err();
        let line = format!("'{}' was replaced since it was placed; place it again", share.display());
        assert_eq!(error.to_string(), line);
        // A symbolic link at the source's path is refused as such.
        fs::remove_dir(&share).unwrap();
        let mut created = create(&guard, &[]);
        created.place(Placement::new(guard.directory().join("other")).how(How::Bind)).unwrap();
        fs::rename(guard.directory().join("other"), &share).unwrap();
        std::os::unix::fs::symlink(&share, guard.directory().join("other")).unwrap();
        created.launch(Streams::default()).unwrap_err();
        unharmed(&share);
    });
}

#[test]
fn placements_below_or_over_a_bound_directory_are_refused() {
    privileged!(guard, {
        let share = share(&guard);
        let mut created = create(&guard, &[]);
        created.place(Placement::new(&share).how(How::Bind)).unwrap();
        let below = created.place(Placement::new("/etc/passwd").named("share/x")).unwrap_err();
        assert_eq!(
            below.to_string(),
            "'/share/x' is below '/share' in the jail, which is a bind; put the file into the bound directory itself"
        );
        let again = created.place(Placement::new(&share).how(How::Bind)).unwrap_err();
        let line =
            "'/share' exists in the jail, and a directory is never placed over something; use another name";
        assert_eq!(again.to_string(), line);
        assert!(!share.join("x").exists());
        tear_down(created);
        unharmed(&share);
    });
}

#[test]
fn a_vmm_in_its_own_user_namespace_gets_no_bind() {
    privileged!(guard, {
        let share = share(&guard);
        let busybox = Path::new("/usr/bin/busybox");
        if !testkit::has(busybox.exists(), "a_vmm_in_its_own_user_namespace_gets_no_bind", "busybox") {
            return;
        }
        let arguments = ["unshare", "-U", "-m", "/busybox", "sh", "-c", "echo 1; exec /busybox cat"];
        let mut spec = spec(&guard, &guard.base(), &arguments);
        spec.exec_file = ExecFile::new(busybox).unwrap();
        let mut probe = Probe::launch(guard.store().create(&spec).unwrap());
        probe.next();
        // In its user namespace the VMM could make a read-only bind writable.
        let error = probe.running.place(Placement::new(&share).how(How::Bind).read_only()).unwrap_err();
        let line = format!(
            "cannot open the mount namespace of process {}: operation not permitted",
            probe.running.pid()
        );
        assert_eq!(error.to_string(), line);
        assert!(!probe.running.receipt().root().as_path().join("share").exists());
        drop((probe.input, probe.output));
        assert!(probe.running.teardown().unwrap().is_clean());
        unharmed(&share);
    });
}

#[test]
fn teardown_of_a_running_jail_leaves_bound_directories() {
    privileged!(guard, {
        let share = share(&guard);
        let before = Snapshot::take(&[&share]).unwrap();
        let mut created = create(&guard, &["sleep"]);
        created.place(Placement::new(&share).how(How::Bind)).unwrap();
        let mut running = created.launch(Streams::default()).unwrap();
        running.place(Placement::new(&share).named("later").how(How::Bind)).unwrap();
        assert!(running.teardown().unwrap().is_clean());
        assert_eq!(Snapshot::take(&[&share]).unwrap(), before);
        unharmed(&share);
    });
}

#[test]
fn sockets_and_named_pipes_are_bound() {
    privileged!(guard, {
        let (pipe, socket) = (guard.directory().join("pipe"), guard.directory().join("socket"));
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RUSR, 0).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let open = |path: &Path| {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        };
        open(&pipe);
        open(&socket);
        let bind = |source: &Path, name: &str| Placement::new(source).named(name).how(How::Bind);
        let mut created = create(&guard, &["sleep"]);
        for (source, name) in [(&pipe, "pipe"), (&socket, "run/socket")] {
            assert_eq!(created.place(bind(source, name)).unwrap().how, How::Bind);
        }
        let mut running = created.launch(Streams::default()).unwrap();
        for (source, name) in [(&pipe, "later/pipe"), (&socket, "later/socket")] {
            running.place(bind(source, name)).unwrap();
        }
        let root = PathBuf::from(format!("/proc/{}/root", running.pid()));
        for (name, source) in
            [("pipe", &pipe), ("later/pipe", &pipe), ("run/socket", &socket), ("later/socket", &socket)]
        {
            let (inside, outside) = (fs::metadata(root.join(name)).unwrap(), fs::metadata(source).unwrap());
            assert_eq!((inside.dev(), inside.ino()), (outside.dev(), outside.ino()), "{name}");
        }
        std::os::unix::net::UnixStream::connect(root.join("run/socket")).unwrap();
        listener.accept().unwrap();
        for name in ["later/pipe", "later/socket", "pipe", "run/socket"] {
            running.unplace(&at(name)).unwrap();
            assert!(!root.join(name).exists(), "{name}");
        }
        let report = running.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(pipe.exists() && socket.exists());
    });
}

#[test]
fn a_source_that_the_jail_cannot_open_is_refused() {
    privileged!(guard, {
        // A directory above does not matter: the jail has its own path to a bind.
        let closed = guard.directory().join("closed");
        fs::create_dir(&closed).unwrap();
        let mode = |path: &Path, mode: u32| {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(&closed, 0o700);
        let (file, directory, socket) =
            (closed.join("file"), closed.join("directory"), closed.join("socket"));
        fs::write(&file, "content").unwrap();
        fs::create_dir(&directory).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let own = closed.join("own");
        fs::write(&own, "").unwrap();
        std::os::unix::fs::chown(&own, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let mut created = create(&guard, &["read=/file"]);
        for (path, bits, how, read_only) in [
            (&file, 0o600, How::Bind, false),
            (&file, 0o602, How::Bind, true),
            (&file, 0o640, How::Bind, true),
            (&directory, 0o700, How::Bind, false),
            (&directory, 0o744, How::Bind, true),
            (&socket, 0o644, How::Bind, false),
            (&own, 0o077, How::Link, false),
        ] {
            mode(path, bits);
            let placement = Placement::new(path).named("x").how(how);
            let placement = if read_only { placement.read_only() } else { placement };
            let error = created.place(placement).unwrap_err().to_string();
            let method = if how == How::Bind { "bind" } else { "hard link" };
            let line = format!(
                "12345:12346 cannot open '{}', and a {method} does not change its owner or mode; change them, use \
                 another method, or share it if it was created for this jail",
                path.display()
            );
            assert_eq!(error, line, "{bits:o}");
        }
        mode(&file, 0o604);
        created.place(Placement::new(&file).named("file").how(How::Bind)).unwrap();
        for (path, bits) in [(&file, 0o602), (&directory, 0o711), (&socket, 0o602)] {
            mode(path, bits);
            created.place(Placement::new(path).named("x").how(How::Bind)).unwrap();
            created.unplace(&at("x")).unwrap();
        }
        mode(&file, 0o604);
        let mut probe = Probe::launch(created);
        assert_eq!(probe.next()["read"], "content");
        probe.finish();
    });
}
