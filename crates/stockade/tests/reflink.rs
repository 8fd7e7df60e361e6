//! Reflinks, on filesystems in images that the test creates.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "the other tests of placements need more of it")]
#[path = "placement/common.rs"]
mod common;
#[path = "placement/filesystem.rs"]
mod filesystem;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use stockade::{How, Placement};
use testkit::{Guard, Privilege, privileged};

use common::*;
use filesystem::{can_make, is_alone, mounted, run};

/// The test for one kind of filesystem.
fn shares_blocks(guard: &Guard, kind: &str) {
    let directory = mounted(guard, kind, &[]);
    let (first, second) = (directory.join("first"), directory.join("second"));
    let content = "content ".repeat(1 << 17);
    for file in [&first, &second] {
        fs::write(file, &content).unwrap();
    }
    // Before the sync they take no blocks, and a comparison would show nothing.
    run("sync", &[]);
    let free = |path: &Path| rustix::fs::statvfs(path).unwrap().f_bfree;
    let spec = spec(guard, &directory.join("base"), &["write=/auto=x"]);
    let mut created = guard.store().create(&spec).unwrap();
    replaces_and_is_taken_out(&mut created, &first, &second, How::Reflink);
    run("sync", &[]);
    let before = free(&directory);
    // A hard link is possible too, but a jail that writes to it writes to the host's file.
    std::os::unix::fs::chown(&first, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
    assert_eq!(created.place(Placement::new(&first).named("auto")).unwrap().how, How::Reflink, "{kind}");
    for number in 0..20 {
        let placement = Placement::new(&first).named(format!("image-{number}")).how(How::Reflink);
        created.place(if number % 2 == 0 { placement } else { placement.read_only() }).unwrap();
    }
    let facts = fs::metadata(created.root().join("image-1")).unwrap();
    assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o777), (0, OWNER.gid, 0o440));
    assert_eq!(fs::read_to_string(created.root().join("image-1")).unwrap(), content);
    run("sync", &[]);
    let taken = (before.saturating_sub(free(&directory))) * 4096;
    assert!(taken < 10 << 20, "{kind}: 21 reflinks of 1 MiB took {taken} bytes");
    let elsewhere = guard.file("elsewhere", "");
    let error = created.place(Placement::new(&elsewhere).how(How::Reflink)).unwrap_err().to_string();
    let line = "' cannot be reflinked into the jail: it is on another filesystem; copy it instead";
    assert!(error.ends_with(line), "{error}");
    assert_eq!(created.place(Placement::new(&elsewhere)).unwrap().how, How::Copy);
    for privilege in Privilege::ALL {
        let source = directory.join(privilege.name());
        fs::write(&source, &content).unwrap();
        privilege.give_to(&source);
        for (how, read_only) in [(How::Reflink, false), (How::Reflink, true), (How::Auto, false)] {
            let placement = Placement::new(&source).how(how);
            let placement = if read_only { placement.read_only() } else { placement };
            let placed = created.place(placement).unwrap();
            assert_eq!(placed.how, How::Reflink);
            is_reported(placed.stripped.as_ref(), &source, privilege);
            has_lost(&created.root(), privilege.name(), &source, privilege);
        }
    }
    let mut probe = Probe::launch(created);
    assert_eq!(probe.next()["write"], "ok");
    probe.finish();
    assert_eq!(fs::read_to_string(&first).unwrap(), content, "the jail writes to its own file");
    run("umount", &[&directory]);
}

fn on(kind: &str, test: &str, needs: &str) {
    if !is_alone(test) {
        return;
    }
    privileged!(guard, {
        if can_make(kind, test, needs) {
            shares_blocks(&guard, kind);
        }
    });
}

#[test]
fn a_reflink_shares_its_blocks_on_xfs() {
    on("xfs", "a_reflink_shares_its_blocks_on_xfs", "mkfs.xfs");
}

#[test]
fn a_reflink_shares_its_blocks_on_btrfs() {
    on("btrfs", "a_reflink_shares_its_blocks_on_btrfs", "mkfs.btrfs");
}
