//! Special mode bits and file capabilities: no method of placement carries them into a jail, and the stripped ones are
//! reported.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;

use stockade::{Exec, Running};
use testkit::{Privilege, attributes, give_access_list, give_capability, program, set_mode};

use super::*;

/// A copy of the probe with this privilege, owned by root and executable by all.
fn probe_with(guard: &Guard, privilege: Privilege) -> PathBuf {
    let file = guard.directory().join(privilege.name());
    fs::copy(program("stockade-probe"), &file).unwrap();
    privilege.give_to(&file);
    file
}

/// Executes a program of the jail in it as the jail's uid, and returns its report.
fn report_of(running: &Running, program: &str) -> serde_json::Value {
    let (output, stdout) = std::io::pipe().unwrap();
    let streams = Streams { stdout: Some(OwnedFd::from(stdout)), ..Streams::default() };
    let exec = Exec::with_program(program).unwrap().arguments(["report"]).streams(streams);
    let process = running.exec(exec).unwrap();
    let report = std::io::read_to_string(output).unwrap();
    process.wait().unwrap();
    serde_json::from_str(&report).unwrap()
}

/// Checks that the reporting process is the jail's owner and has no capabilities.
fn is_unprivileged(report: &serde_json::Value) {
    assert_eq!((&report["euid"], &report["egid"]), (&OWNER.uid.into(), &OWNER.gid.into()));
    assert_eq!(report["capabilities"]["effective"], "0x0");
}

#[test]
fn privileges_of_a_file_do_not_enter_the_jail_by_any_method() {
    privileged!(guard, {
        let mut created = create(&guard, &["hold"]);
        let root = created.root();
        for privilege in Privilege::ALL {
            let source = probe_with(&guard, privilege);
            let request = |how| Placement::new(&source).how(how);
            let cases = [
                ("auto-ro", request(How::Auto).read_only()),
                ("copy", request(How::Copy)),
                ("copy-ro", request(How::Copy).read_only()),
            ];
            for (name, placement) in cases {
                let name = format!("{name}-{}", privilege.name());
                let placed = created.place(placement.named(&name)).unwrap();
                assert_eq!(placed.how, How::Copy, "{name}: on a filesystem without reflinks");
                is_reported(placed.stripped.as_ref(), &source, privilege);
                has_lost(&root, &name, &source, privilege);
            }
            let error = created.place(request(How::Link).read_only()).unwrap_err();
            let line = format!(
                "'{}' cannot be a hard link in the jail, which would keep its {}; copy it instead",
                source.display(),
                privilege.text()
            );
            assert_eq!(error.to_string(), line);
            assert_eq!(error.kind(), stockade::ErrorKind::InvalidSpec);
            assert!(!root.as_path().join(privilege.name()).exists(), "nothing was placed");
        }
        let mut probe = Probe::launch(created);
        for privilege in Privilege::ALL {
            is_unprivileged(&report_of(&probe.running, &format!("/auto-ro-{}", privilege.name())));
        }
        probe.resume();
        probe.finish();
    });
}

#[test]
fn a_privileged_file_of_the_jails_owner_is_never_linked() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let plain = guard.file("plain", "");
        std::os::unix::fs::chown(&plain, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let placed = created.place(Placement::new(&plain)).unwrap();
        assert_eq!((placed.how, placed.stripped), (How::Link, None), "without privileges it is linked");
        for privilege in Privilege::ALL {
            let source = guard.file(privilege.name(), "");
            // First, since a change of owner clears privileges.
            std::os::unix::fs::chown(&source, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
            privilege.give_to(&source);
            let placed = created.place(Placement::new(&source)).unwrap();
            assert_eq!(placed.how, How::Copy);
            is_reported(placed.stripped.as_ref(), &source, privilege);
            has_lost(&created.root(), privilege.name(), &source, privilege);
            created.place(Placement::new(&source).named("x").how(How::Link)).unwrap_err();
        }
        // The sticky bit has no effect on a file: a hard link keeps it, a copy does not have it.
        let sticky = guard.file("sticky", "");
        std::os::unix::fs::chown(&sticky, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        set_mode(&sticky, 0o1644);
        let placed = created.place(Placement::new(&sticky)).unwrap();
        assert_eq!((placed.how, placed.stripped), (How::Link, None));
        let placed = created.place(Placement::new(&sticky).named("copy").how(How::Copy)).unwrap();
        assert_eq!(placed.stripped.unwrap().to_string(), format!("the sticky bit of {}", sticky.display()));
        assert_eq!(created.root().join("copy").as_path().metadata().unwrap().mode() & 0o7777, 0o644);
        tear_down(created);
    });
}

#[test]
fn an_access_list_stays_with_the_hosts_file() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let source = guard.file("image", "");
        set_mode(&source, 0o644);
        give_access_list(&source);
        assert_eq!(attributes(&source), ["system.posix_acl_access"]);
        let placed = created.place(Placement::new(&source).how(How::Copy).read_only()).unwrap();
        assert_eq!(placed.stripped, None, "it is no privilege of the file");
        let directory = guard.directory().join("directory");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "").unwrap();
        give_access_list(&directory.join("file"));
        created.place(&directory).unwrap();
        for copy in ["image", "directory/file"] {
            assert_eq!(attributes(created.root().join(copy).as_path()), [""; 0], "{copy}");
        }
        tear_down(created);
    });
}

#[test]
fn a_directory_is_copied_without_privileges_of_its_files() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let source = guard.directory().join("tools");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        for privilege in Privilege::ALL {
            let file = source.join("deep").join(privilege.name());
            fs::write(&file, "").unwrap();
            privilege.give_to(&file);
        }
        set_mode(&source.join("deep/er"), 0o2775);
        for (name, read_only) in [("tools", false), ("tools-ro", true)] {
            let request = Placement::new(&source).named(name);
            let placed = created.place(if read_only { request.read_only() } else { request }).unwrap();
            let stripped = placed.stripped.unwrap();
            assert_eq!(stripped.count, 4, "{stripped}");
            assert!(stripped.path.as_path().starts_with(source.join("deep")), "{stripped}");
            let end = format!("of {}, and the like of 3 more in the directory", stripped.path);
            assert!(stripped.to_string().ends_with(&end), "{stripped}");
            for privilege in Privilege::ALL {
                let below = format!("deep/{}", privilege.name());
                has_lost(&created.root(), &format!("{name}/{below}"), &source.join(&below), privilege);
            }
            let deepest = created.root().join(name).join("deep/er").as_path().metadata().unwrap();
            assert_eq!(deepest.mode() & 0o7777, if read_only { 0o550 } else { 0o775 });
        }
        set_mode(&source, 0o2755);
        let itself = created.place(Placement::new(&source).named("again")).unwrap().stripped.unwrap();
        assert_eq!((itself.path.as_path(), itself.count), (source.as_path(), 5));
        assert_eq!(created.root().join("again").as_path().metadata().unwrap().mode() & 0o7777, 0o755);
        tear_down(created);
    });
}

#[test]
fn privileges_have_no_effect_through_a_bind() {
    privileged!(guard, {
        let tools = guard.directory().join("tools");
        fs::create_dir(&tools).unwrap();
        let mut created = create(&guard, &["hold"]);
        for privilege in Privilege::ALL {
            let file = probe_with(&guard, privilege);
            fs::hard_link(&file, tools.join(privilege.name())).unwrap();
            let placed = created.place(Placement::new(&file).how(How::Bind).read_only()).unwrap();
            assert_eq!(placed.stripped, None, "the host's file is unchanged");
        }
        created.place(Placement::new(&tools).how(How::Bind)).unwrap();
        let mut probe = Probe::launch(created);
        for privilege in Privilege::ALL {
            let later =
                Placement::new(tools.join(privilege.name())).named(format!("later-{}", privilege.name()));
            probe.running.place(later.how(How::Bind)).unwrap();
            for program in ["", "tools/", "later-"].map(|before| format!("/{before}{}", privilege.name())) {
                is_unprivileged(&report_of(&probe.running, &program));
            }
        }
        probe.resume();
        probe.finish();
    });
}

#[test]
fn the_executable_has_no_privileges_in_the_jail() {
    privileged!(guard, {
        for privilege in Privilege::ALL {
            let vmm = probe_with(&guard, privilege);
            // The privilege has an effect on the host. Otherwise the test would show nothing.
            let mut on_the_host = std::process::Command::new(&vmm);
            let on_the_host = testkit::run_with(on_the_host.arg("report").uid(OWNER.uid).gid(OWNER.gid));
            let report: serde_json::Value = serde_json::from_str(&on_the_host.stdout).unwrap();
            let has = match privilege {
                Privilege::SetUid => report["euid"] == 0,
                Privilege::SetGid => report["egid"] == 0,
                Privilege::Capabilities => report["capabilities"]["effective"] == "0x2",
            };
            assert!(has, "{privilege:?} on the host");
            for bind_executable in [false, true] {
                let mut spec = spec(&guard, &guard.base(), &["report"]);
                spec.exec_file = ExecFile::new(&vmm).unwrap();
                spec.bind_executable = bind_executable;
                let created = guard.store().create(&spec).unwrap();
                if bind_executable {
                    assert_eq!(created.stripped(), []);
                } else {
                    assert_eq!(created.stripped().len(), 1);
                    is_reported(created.stripped().first(), &vmm, privilege);
                    has_lost(&created.root(), privilege.name(), &vmm, privilege);
                }
                let mut probe = Probe::launch(created);
                is_unprivileged(&probe.next());
                probe.finish();
            }
        }
    });
}

#[test]
fn a_failed_placement_reports_nothing_for_the_next() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let source = guard.file("source", "content");
        set_mode(&source, 0o4755);
        let mut break_off = |_| std::ops::ControlFlow::Break(());
        created.place_with_progress(&source, &mut break_off).unwrap_err();
        assert_eq!(created.place(guard.file("next", "")).unwrap().stripped, None);
        give_capability(&source);
        let both = created.place(&source).unwrap().stripped.unwrap().to_string();
        assert_eq!(both, format!("the set-uid bit and file capabilities of {}", source.display()));
        tear_down(created);
    });
}
