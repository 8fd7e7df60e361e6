//! What is placed into a jail: where it is found, whose it is, what the jail can do with it, and that it can
//! be taken out again.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod bind;
mod common;
mod powers;
mod progress;
mod sparse;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stockade::spec::{ExecFile, Owner};
use stockade::{Created, How, Placement, Streams};
use testkit::{Guard, privileged};

use common::*;

#[test]
fn whatever_was_placed_is_replaced_and_taken_out_whichever_way_it_was_placed() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let (first, second) = (guard.file("first", "first"), guard.file("second", "second"));
        for file in [&first, &second] {
            std::os::unix::fs::chown(file, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        }
        for how in [How::Copy, How::Link, How::Bind] {
            replaces_and_is_taken_out(&mut prepared, &first, &second, how);
        }
        let devices = (Path::new("/dev/null"), Path::new("/dev/zero"));
        replaces_and_is_taken_out(&mut prepared, devices.0, devices.1, How::Node);
        assert_eq!(fs::read_to_string(&first).unwrap(), "first", "the host's files stay as they are");
        assert_eq!(fs::read_to_string(&second).unwrap(), "second");
        tear_down(prepared);
    });
}

#[test]
fn one_way_replaces_another() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &["read=/image"]);
        let (first, second) = (guard.file("first", "first"), guard.file("second", "second"));
        prepared.place(Placement::new(&first).named("image").how(How::Bind)).unwrap();
        prepared.place(Placement::new("/dev/null").named("image")).unwrap();
        prepared.place(Placement::new(&second).named("image")).unwrap();
        // Were the bind still on the list, the VMM would see that.
        let mut talk = Talk::begin(prepared);
        assert_eq!(talk.hear()["read"], "second");
        talk.end();
        assert_eq!(fs::read_to_string(&first).unwrap(), "first");
    });
}

#[test]
fn what_is_part_of_the_jail_is_neither_replaced_nor_taken_out() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        for path in ["dev/kvm", "stockade-probe", "dev", "run"] {
            let error = prepared.unplace(&at(path)).unwrap_err();
            assert_eq!(error.to_string(), format!("/{path} was not placed into the jail"));
            let bind = Placement::new(guard.file("file", "")).named(path).how(How::Bind);
            prepared.place(bind).unwrap_err();
        }
        assert_eq!(on_receipt(&prepared, "/dev/kvm"), 1);
        tear_down(prepared);
    });
}

#[test]
fn a_way_that_cannot_be_had_is_refused_with_its_reason_and_nothing_is_placed() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let (file, steps) = (guard.file("file", ""), prepared.receipt().steps.len());
        let elsewhere = PathBuf::from("/dev/shm").join(guard.name());
        fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::chown(&elsewhere, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let socket = guard.directory().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let ways =
            "a node is for devices, a link or reflink for files, a bind or copy for files and directories";
        let cases: [(Placement, String); 8] = [
            (
                Placement::new(&file).how(How::Link),
                "does not belong to 12345:12346, and a link cannot change that for the host's file: copy it"
                    .into(),
            ),
            (
                Placement::new(&elsewhere).how(How::Link),
                "is not on the jail's filesystem, and a link would have to be: copy it".into(),
            ),
            (
                Placement::new(&elsewhere).how(How::Reflink),
                "cannot be reflinked into the jail: it is on another filesystem".into(),
            ),
            (Placement::new("/dev/null").how(How::Bind), format!("cannot be placed by bind: {ways}")),
            (Placement::new(&socket).how(How::Bind), format!("cannot be placed by bind: {ways}")),
            (Placement::new("/etc").how(How::Reflink), format!("cannot be placed by reflink: {ways}")),
            (
                Placement::new(&file).how(How::Bind).owner(OWNER),
                "is bound as it is, and its owner stays: leave the owner out, or copy it".into(),
            ),
            (Placement::new("/var").how(How::Bind), "has the jail itself in it".into()),
        ];
        for (placement, reason) in cases {
            let source = placement.source().display().to_string();
            let error = prepared.place(placement.named("x")).unwrap_err();
            assert_eq!(error.to_string(), format!("{source} {reason}"));
            assert_eq!(error.kind(), stockade::ErrorKind::InvalidSpec);
        }
        drop(listener);
        fs::remove_file(&elsewhere).unwrap();
        assert_eq!(prepared.receipt().steps.len(), steps, "nothing of it is on the receipt");
        assert!(!prepared.root().as_path().join("x").exists());
        tear_down(prepared);
    });
}

#[test]
fn a_placement_that_was_killed_in_its_middle_is_no_obstacle_to_the_next() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let nonce = prepared.receipt().nonce.to_string();
        let directory = guard.directory().join("directory");
        fs::create_dir(&directory).unwrap();
        let file = guard.file("file", "");
        std::os::unix::fs::chown(&file, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let cut_off = prepared.root().as_path().join(format!(".stockade-{nonce}"));
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
            prepared.place(Placement::new(source).named("x").how(how)).unwrap();
            prepared.unplace(&at("x")).unwrap();
            assert!(!cut_off.exists(), "{how}");
        }
        tear_down(prepared);
    });
}
