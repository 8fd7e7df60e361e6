//! Owner, mode and access of placements.

use super::*;

/// Owner and mode of a path in the jail.
fn access(created: &Created, path: &str) -> (u32, u32, u32) {
    let facts = created.root().as_path().join(path).symlink_metadata().unwrap();
    (facts.uid(), facts.gid(), facts.mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_read_only_placement_by_any_method_is_never_written() {
    privileged!(guard, {
        let arguments = ["copy", "bind", "link", "tree/file"]
            .map(|name| [format!("read=/{name}"), format!("write=/{name}=x")])
            .concat();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut created = create(&guard, &[&arguments[..], &["write=/null=x", "write=/tree/new=x"]].concat());
        let image = guard.file("image", "an image");
        set_mode(&image, 0o644);
        let tree = guard.directory().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "an image").unwrap();
        let mut place = |source: &Path, name: &str, how: How| {
            created.place(Placement::new(source).named(name).how(how).read_only()).unwrap()
        };
        place(&image, "copy", How::Copy);
        place(&image, "bind", How::Bind);
        place(&image, "link", How::Link);
        place(&tree, "tree", How::Copy);
        place(Path::new("/dev/null"), "null", How::Node);
        assert_eq!(access(&created, "copy"), (0, OWNER.gid, 0o440), "no owner who could change the mode");
        assert_eq!(access(&created, "null"), (0, OWNER.gid, 0o440));
        assert_eq!(access(&created, "tree"), (0, OWNER.gid, 0o550));
        assert_eq!(access(&created, "tree/file"), (0, OWNER.gid, 0o440));
        assert_eq!(access(&created, "link"), (0, 0, 0o644), "the host's file is unchanged");
        let mut probe = Probe::launch(created);
        for (name, refusal) in
            [("copy", "EACCES"), ("bind", "EROFS"), ("link", "EACCES"), ("tree/file", "EACCES")]
        {
            assert_eq!(probe.next()["read"], "an image", "{name}");
            assert_eq!(probe.next()["write"], refusal, "{name}");
        }
        assert_eq!(probe.next()["write"], "EACCES", "a read-only device");
        assert_eq!(probe.next()["write"], "EACCES", "a new file in a read-only directory");
        probe.finish();
        assert_eq!(fs::read_to_string(&image).unwrap(), "an image");
        assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "an image");
    });
}

#[test]
fn a_read_only_placement_remains_executable() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let tool = guard.file("tool", "#!");
        set_mode(&tool, 0o4700);
        created.place(Placement::new(&tool).how(How::Copy).read_only()).unwrap();
        assert_eq!(access(&created, "tool"), (0, OWNER.gid, 0o550));
        tear_down(created);
    });
}

#[test]
fn a_read_only_link_needs_a_file_that_the_jail_can_only_read() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let image = guard.file("image", "");
        let refused = format!(
            "'{}' cannot be a read-only hard link: 12345:12346 has to be able to read it, and only its owner to write \
             it; copy it instead",
            image.display()
        );
        for (uid, gid, mode, fits) in [
            (0, 0, 0o644, true),
            (0, OWNER.gid, 0o640, true),
            // No permission for the jail's group, which has precedence over that for others.
            (0, OWNER.gid, 0o604, false),
            (0, 0, 0o640, false),
            (0, 0, 0o664, false),
            (0, 0, 0o646, false),
            (OWNER.uid, 0, 0o444, false),
        ] {
            std::os::unix::fs::chown(&image, Some(uid), Some(gid)).unwrap();
            set_mode(&image, mode);
            let link = Placement::new(&image).named("x").how(How::Link).read_only();
            match created.place(link) {
                Ok(_) => assert!(fits, "{uid}:{gid} {mode:o} was linked"),
                Err(error) => {
                    assert!(!fits, "{uid}:{gid} {mode:o}: {error}");
                    assert_eq!(error.to_string(), refused);
                }
            }
            let after = image.metadata().unwrap();
            assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (uid, gid, mode));
        }
        tear_down(created);
    });
}

#[test]
fn a_placement_has_the_chosen_owner_and_parents_have_the_jails() {
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let image = guard.file("image", "");
        let other = Owner { uid: 77, gid: 78 };
        let place = |created: &mut Created, name: &str, read_only: bool| {
            let placement = Placement::new(&image).named(name).how(How::Copy).owner(other);
            created.place(if read_only { placement.read_only() } else { placement }).unwrap();
        };
        place(&mut created, "new/deeper/image", false);
        place(&mut created, "other/image", true);
        assert_eq!(access(&created, "new/deeper/image"), (77, 78, 0o644));
        assert_eq!(access(&created, "other/image"), (77, 78, 0o440));
        for parent in ["new", "new/deeper", "other"] {
            assert_eq!(access(&created, parent), (OWNER.uid, OWNER.gid, 0o700), "{parent}");
        }
        created.place(Placement::new("/dev/null").named("deep/er/null").read_only()).unwrap();
        assert_eq!(access(&created, "deep"), (OWNER.uid, OWNER.gid, 0o700));
        let owned = Placement::new(&image).named("x").owner(OWNER).read_only();
        let error = created.place(owned).unwrap_err();
        assert_eq!(
            error.to_string(),
            "12345:12346 cannot own a read-only file: uid 12345 is the jail's own and could make it writable; use \
             another owner"
        );
        tear_down(created);
    });
}
