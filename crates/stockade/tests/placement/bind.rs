//! The host's own files and directories in a jail, without a mount on the host.

use super::*;

use stockade::snapshot::Snapshot;
use stockade::spec::Netns;

/// A directory of the host that the jail's user may write to, with something in it.
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

/// Whether the host's mount table names something of this test.
fn host_has_mount(guard: &Guard) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(guard.name())
}

fn unharmed(share: &Path) {
    assert_eq!(fs::read_to_string(share.join("deeper/file")).unwrap(), "precious");
    assert_eq!(fs::metadata(share).unwrap().uid(), OWNER.uid);
}

#[test]
fn a_bound_directory_is_the_hosts_own_in_the_jail_and_in_no_mount_table_of_the_host() {
    privileged!(guard, {
        let share = share(&guard);
        for new_pid_ns in [false, true] {
            let words = [
                "read=/rw/file",
                "write=/rw/new=written inside",
                "read=/ro/file",
                "write=/ro/new=x",
                "write=/ro/file=x",
                "hold",
            ];
            let mut spec = spec(&guard, &guard.base(), &words);
            spec.new_pid_ns = new_pid_ns;
            spec.netns = if new_pid_ns { Netns::New } else { Netns::Host };
            let mut prepared = guard.store().create(&spec).unwrap();
            let bind = |name: &str| Placement::new(&share).named(name).how(How::Bind);
            prepared.place(bind("rw")).unwrap();
            prepared.place(bind("ro").read_only()).unwrap();
            assert!(!host_has_mount(&guard), "before the launch");
            let mut talk = Talk::begin(prepared);
            assert_eq!(talk.hear()["read"], "the host's");
            assert_eq!(talk.hear()["write"], "ok");
            assert_eq!(talk.hear()["read"], "the host's");
            assert_eq!(talk.hear()["write"], "EROFS");
            assert_eq!(talk.hear()["write"], "EROFS");
            assert_eq!(fs::read_to_string(share.join("new")).unwrap(), "written inside");
            assert!(!host_has_mount(&guard), "while the VMM runs");
            talk.go_on();
            talk.end();
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
        let mut prepared = prepare(&guard, &["read=/share/null", "report"]);
        prepared.place(Placement::new(&share).how(How::Bind)).unwrap();
        let mut talk = Talk::begin(prepared);
        assert_eq!(talk.hear()["read_error"], "EACCES");
        let report = talk.hear();
        let mounts = report["mounts"].to_string();
        assert!(mounts.contains("/share"), "{mounts}");
        talk.end();
    });
}

#[test]
fn a_running_vmm_gets_and_loses_binds() {
    privileged!(guard, {
        let share = share(&guard);
        let words = [
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
            let mut spec = spec(&guard, &guard.base(), &words);
            spec.new_pid_ns = new_pid_ns;
            let mut talk = Talk::begin(guard.store().create(&spec).unwrap());
            assert_eq!(talk.hear()["read_error"], "ENOENT");
            let bind = |name: &str| Placement::new(&share).named(name).how(How::Bind);
            assert_eq!(talk.running.place(bind("share")).unwrap().how, How::Bind);
            talk.running.place(bind("ro").read_only()).unwrap();
            // In the place of another file, and at once.
            talk.running.place(Placement::new("/etc/passwd").named("single")).unwrap();
            let single = Placement::new(share.join("file")).named("single").how(How::Bind);
            talk.running.place(single).unwrap();
            assert!(!host_has_mount(&guard));
            talk.go_on();
            assert_eq!(talk.hear()["read"], "the host's");
            assert_eq!(talk.hear()["write"], "EROFS");
            assert_eq!(talk.hear()["read"], "the host's");
            // What is held open does not keep it there.
            let pid = talk.running.pid();
            let held = fs::File::open(format!("/proc/{pid}/root/share/file")).unwrap();
            for name in ["share", "ro", "single"] {
                talk.running.unplace(&at(name)).unwrap();
            }
            let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
            assert!(!table.contains(" /share ") && !table.contains(" /ro "), "{table}");
            drop(held);
            talk.go_on();
            assert_eq!(talk.hear()["read_error"], "ENOENT");
            assert_eq!(talk.hear()["read_error"], "ENOENT");
            talk.go_on();
            talk.end();
            unharmed(&share);
        }
    });
}

#[test]
fn a_bind_that_the_vmm_has_moved_is_not_said_to_be_taken_out() {
    privileged!(guard, {
        let share = share(&guard);
        let mut talk = Talk::begin(prepare(&guard, &["hold"]));
        talk.running.place(Placement::new(&share).named("folder/share").how(How::Bind)).unwrap();
        let root = PathBuf::from(format!("/proc/{}/root", talk.running.pid()));
        fs::rename(root.join("folder"), root.join("moved")).unwrap();
        let error = talk.running.unplace(&at("folder/share")).unwrap_err().to_string();
        let line = "'/folder/share' is still in the jail: the VMM has moved its directory, and keeps the bind until it exits";
        assert_eq!(error, line);
        talk.go_on();
        talk.end();
        unharmed(&share);
    });
}

#[test]
fn a_bind_is_attached_though_its_mount_point_was_removed_meanwhile() {
    privileged!(guard, {
        let share = share(&guard);
        let mut prepared = prepare(&guard, &["read=/a/b/share/file"]);
        prepared.place(Placement::new(&share).named("a/b/share").how(How::Bind)).unwrap();
        fs::remove_dir_all(prepared.root().as_path().join("a")).unwrap();
        let mut talk = Talk::begin(prepared);
        assert_eq!(talk.hear()["read"], "the host's");
        talk.end();
        unharmed(&share);
    });
}

#[test]
fn a_source_that_was_exchanged_is_refused() {
    privileged!(guard, {
        let share = share(&guard);
        let mut prepared = prepare(&guard, &[]);
        prepared.place(Placement::new(&share).how(How::Bind)).unwrap();
        fs::rename(&share, guard.directory().join("other")).unwrap();
        fs::create_dir(&share).unwrap();
        let error = prepared.launch(Streams::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is not what it was when it was placed", share.display()));
        // A link in its place is refused for being one.
        fs::remove_dir(&share).unwrap();
        let mut prepared = prepare(&guard, &[]);
        prepared.place(Placement::new(guard.directory().join("other")).how(How::Bind)).unwrap();
        fs::rename(guard.directory().join("other"), &share).unwrap();
        std::os::unix::fs::symlink(&share, guard.directory().join("other")).unwrap();
        prepared.launch(Streams::default()).unwrap_err();
        unharmed(&share);
    });
}

#[test]
fn nothing_is_placed_below_a_bind_and_no_directory_over_anything() {
    privileged!(guard, {
        let share = share(&guard);
        let mut prepared = prepare(&guard, &[]);
        prepared.place(Placement::new(&share).how(How::Bind)).unwrap();
        let below = prepared.place(Placement::new("/etc/passwd").named("share/x")).unwrap_err();
        assert_eq!(
            below.to_string(),
            "/share/x in the jail is below /share, which is a bind: put the file into the bound directory itself"
        );
        let again = prepared.place(Placement::new(&share).how(How::Bind)).unwrap_err();
        assert!(again.to_string().starts_with("/share is in the jail already"), "{again}");
        assert!(!share.join("x").exists());
        tear_down(prepared);
        unharmed(&share);
    });
}

#[test]
fn a_vmm_with_a_user_namespace_of_its_own_gets_no_bind() {
    privileged!(guard, {
        let share = share(&guard);
        let busybox = Path::new("/usr/bin/busybox");
        if !testkit::has(busybox.exists(), "a_vmm_with_a_user_namespace_of_its_own_gets_no_bind", "busybox") {
            return;
        }
        let words = ["unshare", "-U", "-m", "/busybox", "sh", "-c", "echo 1; exec /busybox cat"];
        let mut spec = spec(&guard, &guard.base(), &words);
        spec.exec_file = ExecFile::new(busybox).unwrap();
        let mut talk = Talk::begin(guard.store().create(&spec).unwrap());
        talk.hear();
        // In there a read-only bind could be made writable.
        let error = talk.running.place(Placement::new(&share).how(How::Bind).read_only()).unwrap_err();
        let line = format!(
            "failed to open the mount namespace of process {}: Operation not permitted (os error 1)",
            talk.running.pid()
        );
        assert_eq!(error.to_string(), line);
        assert!(!talk.running.receipt().root().as_path().join("share").exists());
        drop((talk.hears, talk.says));
        assert!(talk.running.teardown().unwrap().is_clean());
        unharmed(&share);
    });
}

#[test]
fn a_teardown_of_a_running_jail_leaves_what_was_bound() {
    privileged!(guard, {
        let share = share(&guard);
        let before = Snapshot::take(&[&share]).unwrap();
        let mut prepared = prepare(&guard, &["sleep"]);
        prepared.place(Placement::new(&share).how(How::Bind)).unwrap();
        let mut running = prepared.launch(Streams::default()).unwrap();
        running.place(Placement::new(&share).named("later").how(How::Bind)).unwrap();
        assert!(running.teardown().unwrap().is_clean());
        assert_eq!(Snapshot::take(&[&share]).unwrap(), before);
        unharmed(&share);
    });
}
