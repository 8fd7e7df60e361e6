//! Placements: their path, owner and access in the jail, and their removal.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod bind;
mod common;
mod powers;
mod progress;
mod share;
mod sparse;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stockade::spec::{ExecFile, Owner};
use stockade::{Created, How, Placement, Streams};
use testkit::{Guard, privileged};

use common::*;

#[test]
fn a_placement_by_any_method_is_replaced_and_taken_out() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let (first, second) = (guard.file("first", "first"), guard.file("second", "second"));
        for file in [&first, &second] {
            std::os::unix::fs::chown(file, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        }
        for how in [How::Copy, How::Link, How::Bind] {
            replaces_and_is_taken_out(&mut created, &first, &second, how);
        }
        let devices = (Path::new("/dev/null"), Path::new("/dev/zero"));
        replaces_and_is_taken_out(&mut created, devices.0, devices.1, How::Node);
        assert_eq!(fs::read_to_string(&first).unwrap(), "first", "the host's files are unchanged");
        assert_eq!(fs::read_to_string(&second).unwrap(), "second");
        tear_down(created);
    });
}

#[test]
fn a_placement_replaces_one_by_another_method() {
    privileged!(guard, {
        let mut created = create(&guard, &["read=/image"]);
        let (first, second) = (guard.file("first", "first"), guard.file("second", "second"));
        created.place(Placement::new(&first).named("image").how(How::Bind)).unwrap();
        created.place(Placement::new("/dev/null").named("image")).unwrap();
        created.place(Placement::new(&second).named("image")).unwrap();
        // If the bind were still on the receipt, the VMM would see it.
        let mut probe = Probe::launch(created);
        assert_eq!(probe.next()["read"], "second");
        probe.finish();
        assert_eq!(fs::read_to_string(&first).unwrap(), "first");
    });
}

#[test]
fn parts_of_the_jail_are_neither_replaced_nor_taken_out() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        for path in ["dev/kvm", "stockade-probe", "dev", "run"] {
            let error = created.unplace(&at(path)).unwrap_err();
            assert_eq!(error.to_string(), format!("'/{path}' was not placed into the jail"));
            let bind = Placement::new(guard.file("file", "")).named(path).how(How::Bind);
            created.place(bind).unwrap_err();
        }
        assert_eq!(on_receipt(&created, "/dev/kvm"), 1);
        tear_down(created);
    });
}

#[test]
fn an_impossible_method_is_refused_with_its_reason() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let (file, steps) = (guard.file("file", ""), created.receipt().steps.len());
        let elsewhere = PathBuf::from("/dev/shm").join(guard.name());
        fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::chown(&elsewhere, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let socket = guard.directory().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let methods = "use `node` for devices, `bind`, `link` or `share` for sockets and named pipes, any but `node` for files, `bind` or `copy` for directories";
        let cases: [(Placement, String); 11] = [
            (
                Placement::new(&file).how(How::Link),
                "does not belong to 12345:12346, and a hard link cannot change its owner; share it if it was created for this jail, or use another method"
                    .into(),
            ),
            (
                Placement::new(&elsewhere).how(How::Link),
                "is not on the jail's filesystem, which a hard link needs; copy it instead".into(),
            ),
            (
                Placement::new(&elsewhere).how(How::Reflink),
                "cannot be reflinked into the jail: it is on another filesystem; copy it instead".into(),
            ),
            (Placement::new("/dev/null").how(How::Bind), format!("cannot be placed by bind; {methods}")),
            (Placement::new(&socket).how(How::Copy), format!("cannot be placed by copy; {methods}")),
            (Placement::new("/etc").how(How::Share), format!("cannot be placed by share; {methods}")),
            (
                Placement::new(&file).how(How::Share).owner(Owner { uid: 7, gid: 7 }).read_only(),
                "cannot be shared read-only, because the jail's uid would own it; bind it instead".into(),
            ),
            (
                Placement::new(&elsewhere).how(How::Share),
                "is not on the jail's filesystem, which a hard link needs; copy it instead".into(),
            ),
            (Placement::new("/etc").how(How::Reflink), format!("cannot be placed by reflink; {methods}")),
            (
                Placement::new(&file).how(How::Bind).owner(OWNER),
                "keeps its owner in a bind; omit the owner or copy it instead".into(),
            ),
            (
                Placement::new("/var").how(How::Bind),
                "has the jail itself in it; place another directory".into(),
            ),
        ];
        for (placement, reason) in cases {
            let source = placement.source().display().to_string();
            let error = created.place(placement.named("x")).unwrap_err();
            assert_eq!(error.to_string(), format!("'{source}' {reason}"));
            assert_eq!(error.kind(), stockade::ErrorKind::InvalidSpec);
        }
        drop(listener);
        fs::remove_file(&elsewhere).unwrap();
        assert_eq!(created.receipt().steps.len(), steps, "nothing of it is on the receipt");
        assert!(!created.root().as_path().join("x").exists());
        tear_down(created);
    });
}

#[test]
fn the_remains_of_a_killed_placement_do_not_disturb_the_next() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let directory = guard.directory().join("directory");
        fs::create_dir(&directory).unwrap();
        let file = guard.file("file", "");
        std::os::unix::fs::chown(&file, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let cut_off = created.root().as_path().join(format!(".stockade-{}", stockade::Nonce::new()));
        for (source, how) in [
            (&directory, How::Copy),
            (&directory, How::Bind),
            (&file, How::Copy),
            (&file, How::Link),
            (&file, How::Bind),
        ] {
            if source.is_dir() {
                fs::create_dir(&cut_off).unwrap();
                fs::write(cut_off.join("half"), "").unwrap();
            } else {
                fs::write(&cut_off, "half").unwrap();
            }
            created.place(Placement::new(source).named("x").how(how)).unwrap();
            created.unplace(&at("x")).unwrap();
            assert!(!cut_off.exists(), "{how}");
        }
        tear_down(created);
    });
}
