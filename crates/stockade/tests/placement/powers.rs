//! Set-uid and set-gid bits and file capabilities: whichever way something is placed, the jail has none of them, and
//! what was taken away is said.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;

use stockade::{Exec, Running};
use testkit::{Powerful, attributes, give_access_list, give_capability, program, set_mode};

use super::*;

/// A copy of the probe with this power, root's, which anybody may execute.
fn probe_with(guard: &Guard, power: Powerful) -> PathBuf {
    let file = guard.directory().join(power.name());
    fs::copy(program("stockade-probe"), &file).unwrap();
    power.give_to(&file);
    file
}

/// What a program of the jail reports that is run in there as the jail's uid.
fn report_of(running: &Running, program: &str) -> serde_json::Value {
    let (says, stdout) = std::io::pipe().unwrap();
    let streams = Streams { stdout: Some(OwnedFd::from(stdout)), ..Streams::default() };
    let exec = Exec::with_program(program).unwrap().arguments(["report"]).streams(streams);
    let visitor = running.exec(exec).unwrap();
    let report = std::io::read_to_string(says).unwrap();
    visitor.wait().unwrap();
    serde_json::from_str(&report).unwrap()
}

/// That whoever reports is the jail's owner and can do no more.
fn is_powerless(report: &serde_json::Value) {
    assert_eq!((&report["euid"], &report["egid"]), (&OWNER.uid.into(), &OWNER.gid.into()));
    assert_eq!(report["capabilities"]["effective"], "0x0");
}

#[test]
fn no_way_to_place_a_file_lets_a_power_of_it_into_the_jail() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &["hold"]);
        let root = prepared.root();
        for power in Powerful::ALL {
            let source = probe_with(&guard, power);
            let asked = |how| Placement::new(&source).how(how);
            let cases = [
                ("auto-ro", asked(How::Auto).read_only()),
                ("copy", asked(How::Copy)),
                ("copy-ro", asked(How::Copy).read_only()),
            ];
            for (name, placement) in cases {
                let name = format!("{name}-{}", power.name());
                let placed = prepared.place(placement.named(&name)).unwrap();
                assert_eq!(placed.how, How::Copy, "{name}: on a filesystem without reflinks");
                says(placed.stripped.as_ref(), &source, power);
                has_lost(&root, &name, &source, power);
            }
            let error = prepared.place(asked(How::Link).read_only()).unwrap_err();
            let line = format!(
                "{} cannot be linked into the jail: a link would keep its {}: use :copy",
                source.display(),
                power.words()
            );
            assert_eq!(error.to_string(), line);
            assert_eq!(error.kind(), stockade::ErrorKind::InvalidSpec);
            assert!(!root.as_path().join(power.name()).exists(), "nothing was placed");
        }
        let mut talk = Talk::begin(prepared);
        for power in Powerful::ALL {
            is_powerless(&report_of(&talk.running, &format!("/auto-ro-{}", power.name())));
        }
        talk.go_on();
        talk.end();
    });
}

#[test]
fn a_link_is_refused_to_the_files_owner_too_and_auto_takes_a_copy() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let plain = guard.file("plain", "");
        std::os::unix::fs::chown(&plain, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let placed = prepared.place(Placement::new(&plain)).unwrap();
        assert_eq!((placed.how, placed.stripped), (How::Link, None), "as ever without powers");
        for power in Powerful::ALL {
            let source = guard.file(power.name(), "");
            // Giving away takes powers away, so that comes first.
            std::os::unix::fs::chown(&source, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
            power.give_to(&source);
            let placed = prepared.place(Placement::new(&source)).unwrap();
            assert_eq!(placed.how, How::Copy);
            says(placed.stripped.as_ref(), &source, power);
            has_lost(&prepared.root(), power.name(), &source, power);
            prepared.place(Placement::new(&source).named("x").how(How::Link)).unwrap_err();
        }
        // The sticky bit does nothing on a file: a link may keep it, a copy has it not.
        let sticky = guard.file("sticky", "");
        std::os::unix::fs::chown(&sticky, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        set_mode(&sticky, 0o1644);
        let placed = prepared.place(Placement::new(&sticky)).unwrap();
        assert_eq!((placed.how, placed.stripped), (How::Link, None));
        let placed = prepared.place(Placement::new(&sticky).named("copy").how(How::Copy)).unwrap();
        assert_eq!(placed.stripped.unwrap().to_string(), format!("the sticky bit of {}", sticky.display()));
        assert_eq!(prepared.root().join("copy").as_path().metadata().unwrap().mode() & 0o7777, 0o644);
        tear_down(prepared);
    });
}

#[test]
fn an_access_list_stays_with_the_hosts_file() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let source = guard.file("image", "");
        set_mode(&source, 0o644);
        give_access_list(&source);
        assert_eq!(attributes(&source), ["system.posix_acl_access"]);
        let placed = prepared.place(Placement::new(&source).how(How::Copy).read_only()).unwrap();
        assert_eq!(placed.stripped, None, "it is no power of the file");
        let directory = guard.directory().join("directory");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "").unwrap();
        give_access_list(&directory.join("file"));
        prepared.place(&directory).unwrap();
        for copy in ["image", "directory/file"] {
            assert_eq!(attributes(prepared.root().join(copy).as_path()), [""; 0], "{copy}");
        }
        tear_down(prepared);
    });
}

#[test]
fn a_directory_is_copied_without_the_powers_of_what_is_in_it() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let source = guard.directory().join("tools");
        fs::create_dir_all(source.join("deep/er")).unwrap();
        for power in Powerful::ALL {
            let file = source.join("deep").join(power.name());
            fs::write(&file, "").unwrap();
            power.give_to(&file);
        }
        set_mode(&source.join("deep/er"), 0o2775);
        for (name, read_only) in [("tools", false), ("tools-ro", true)] {
            let asked = Placement::new(&source).named(name);
            let placed = prepared.place(if read_only { asked.read_only() } else { asked }).unwrap();
            let stripped = placed.stripped.unwrap();
            assert_eq!(stripped.count, 4, "{stripped}");
            assert!(stripped.path.as_path().starts_with(source.join("deep")), "{stripped}");
            let said = format!("of {}, and the like of 3 more in the directory", stripped.path);
            assert!(stripped.to_string().ends_with(&said), "{stripped}");
            for power in Powerful::ALL {
                let below = format!("deep/{}", power.name());
                has_lost(&prepared.root(), &format!("{name}/{below}"), &source.join(&below), power);
            }
            let deepest = prepared.root().join(name).join("deep/er").as_path().metadata().unwrap();
            assert_eq!(deepest.mode() & 0o7777, if read_only { 0o550 } else { 0o775 });
        }
        set_mode(&source, 0o2755);
        let itself = prepared.place(Placement::new(&source).named("again")).unwrap().stripped.unwrap();
        assert_eq!((itself.path.as_path(), itself.count), (source.as_path(), 5));
        assert_eq!(prepared.root().join("again").as_path().metadata().unwrap().mode() & 0o7777, 0o755);
        tear_down(prepared);
    });
}

#[test]
fn powers_have_no_effect_through_a_bind() {
    privileged!(guard, {
        let tools = guard.directory().join("tools");
        fs::create_dir(&tools).unwrap();
        let mut prepared = prepare(&guard, &["hold"]);
        for power in Powerful::ALL {
            let file = probe_with(&guard, power);
            fs::hard_link(&file, tools.join(power.name())).unwrap();
            let placed = prepared.place(Placement::new(&file).how(How::Bind).read_only()).unwrap();
            assert_eq!(placed.stripped, None, "the host's file is as it is");
        }
        prepared.place(Placement::new(&tools).how(How::Bind)).unwrap();
        let mut talk = Talk::begin(prepared);
        for power in Powerful::ALL {
            let later = Placement::new(tools.join(power.name())).named(format!("later-{}", power.name()));
            talk.running.place(later.how(How::Bind)).unwrap();
            for program in ["", "tools/", "later-"].map(|before| format!("/{before}{}", power.name())) {
                is_powerless(&report_of(&talk.running, &program));
            }
        }
        talk.go_on();
        talk.end();
    });
}

#[test]
fn the_executable_has_no_powers_in_the_jail_copied_or_bound() {
    privileged!(guard, {
        for power in Powerful::ALL {
            let vmm = probe_with(&guard, power);
            // On the host it has it: otherwise there would be nothing to see here.
            let mut on_the_host = std::process::Command::new(&vmm);
            let on_the_host = testkit::run_with(on_the_host.arg("report").uid(OWNER.uid).gid(OWNER.gid));
            let report: serde_json::Value = serde_json::from_str(&on_the_host.stdout).unwrap();
            let has = match power {
                Powerful::SetUid => report["euid"] == 0,
                Powerful::SetGid => report["egid"] == 0,
                Powerful::Capability => report["capabilities"]["effective"] == "0x2",
            };
            assert!(has, "{power:?} on the host");
            for bind_executable in [false, true] {
                let mut spec = spec(&guard, &guard.base(), &["report"]);
                spec.exec_file = ExecFile::new(&vmm).unwrap();
                spec.bind_executable = bind_executable;
                let prepared = guard.store().create(&spec).unwrap();
                if bind_executable {
                    assert_eq!(prepared.stripped(), []);
                } else {
                    assert_eq!(prepared.stripped().len(), 1);
                    says(prepared.stripped().first(), &vmm, power);
                    has_lost(&prepared.root(), power.name(), &vmm, power);
                }
                let mut talk = Talk::begin(prepared);
                is_powerless(&talk.hear());
                talk.end();
            }
        }
    });
}

#[test]
fn a_placement_that_fails_leaves_nothing_to_be_said_of_the_next() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let source = guard.file("source", "content");
        set_mode(&source, 0o4755);
        let mut break_off = |_| std::ops::ControlFlow::Break(());
        prepared.place_with_progress(&source, &mut break_off).unwrap_err();
        assert_eq!(prepared.place(guard.file("next", "")).unwrap().stripped, None);
        give_capability(&source);
        let both = prepared.place(&source).unwrap().stripped.unwrap().to_string();
        assert_eq!(both, format!("the set-uid bit and file capabilities of {}", source.display()));
        tear_down(prepared);
    });
}
