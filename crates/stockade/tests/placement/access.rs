//! Whose what is placed is, and what the jail can do with it.

use super::*;

/// Owner and mode of something in the jail.
fn access(prepared: &Created, path: &str) -> (u32, u32, u32) {
    let facts = prepared.root().as_path().join(path).symlink_metadata().unwrap();
    (facts.uid(), facts.gid(), facts.mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn what_is_read_only_can_be_read_by_the_vmm_and_not_be_written_whichever_way_it_was_placed() {
    privileged!(guard, {
        let words = ["copy", "bind", "link", "tree/file"]
            .map(|name| [format!("read=/{name}"), format!("write=/{name}=x")])
            .concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut prepared = prepare(&guard, &[&words[..], &["write=/null=x", "write=/tree/new=x"]].concat());
        let image = guard.file("image", "an image");
        set_mode(&image, 0o644);
        let tree = guard.directory().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "an image").unwrap();
        let mut place = |source: &Path, name: &str, how: How| {
            prepared.place(Placement::new(source).named(name).how(how).read_only()).unwrap()
        };
        place(&image, "copy", How::Copy);
        place(&image, "bind", How::Bind);
        place(&image, "link", How::Link);
        place(&tree, "tree", How::Copy);
        place(Path::new("/dev/null"), "null", How::Node);
        assert_eq!(access(&prepared, "copy"), (0, OWNER.gid, 0o440), "no owner who could change the mode");
        assert_eq!(access(&prepared, "null"), (0, OWNER.gid, 0o440));
        assert_eq!(access(&prepared, "tree"), (0, OWNER.gid, 0o550));
        assert_eq!(access(&prepared, "tree/file"), (0, OWNER.gid, 0o440));
        assert_eq!(access(&prepared, "link"), (0, 0, 0o644), "the host's file stays as it is");
        let mut talk = Talk::begin(prepared);
        for (name, refusal) in
            [("copy", "EACCES"), ("bind", "EROFS"), ("link", "EACCES"), ("tree/file", "EACCES")]
        {
            assert_eq!(talk.hear()["read"], "an image", "{name}");
            assert_eq!(talk.hear()["write"], refusal, "{name}");
        }
        assert_eq!(talk.hear()["write"], "EACCES", "a device that is read-only");
        assert_eq!(talk.hear()["write"], "EACCES", "a new file in a directory that is read-only");
        talk.end();
        assert_eq!(fs::read_to_string(&image).unwrap(), "an image");
        assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "an image");
    });
}

#[test]
fn what_is_read_only_stays_executable() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let tool = guard.file("tool", "#!");
        set_mode(&tool, 0o4700);
        prepared.place(Placement::new(&tool).how(How::Copy).read_only()).unwrap();
        assert_eq!(access(&prepared, "tool"), (0, OWNER.gid, 0o550));
        tear_down(prepared);
    });
}

#[test]
fn a_read_only_link_is_had_only_of_what_the_jail_can_read_and_not_change() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let image = guard.file("image", "");
        let refused = format!(
            "{} cannot be a read-only link: 12345:12346 has to be able to read it, and nobody but its owner to write it: copy it",
            image.display()
        );
        for (uid, gid, mode, fits) in [
            (0, 0, 0o644, true),
            (0, OWNER.gid, 0o640, true),
            // Nothing for the jail's group, which counts before everybody else.
            (0, OWNER.gid, 0o604, false),
            (0, 0, 0o640, false),
            (0, 0, 0o664, false),
            (0, 0, 0o646, false),
            (OWNER.uid, 0, 0o444, false),
        ] {
            std::os::unix::fs::chown(&image, Some(uid), Some(gid)).unwrap();
            set_mode(&image, mode);
            let link = Placement::new(&image).named("x").how(How::Link).read_only();
            match prepared.place(link) {
                Ok(_) => assert!(fits, "{uid}:{gid} {mode:o} was linked"),
                Err(error) => {
                    assert!(!fits, "{uid}:{gid} {mode:o}: {error}");
                    assert_eq!(error.to_string(), refused);
                }
            }
            let after = image.metadata().unwrap();
            assert_eq!((after.uid(), after.gid(), after.mode() & 0o7777), (uid, gid, mode));
        }
        tear_down(prepared);
    });
}

#[test]
fn an_owner_can_be_chosen_and_folders_on_the_way_are_the_jails() {
    privileged!(guard, {
        let mut prepared = prepare(&guard, &[]);
        let image = guard.file("image", "");
        let other = Owner { uid: 77, gid: 78 };
        let place = |prepared: &mut Created, name: &str, read_only: bool| {
            let placement = Placement::new(&image).named(name).how(How::Copy).owner(other);
            prepared.place(if read_only { placement.read_only() } else { placement }).unwrap();
        };
        place(&mut prepared, "new/folder/image", false);
        place(&mut prepared, "other/image", true);
        assert_eq!(access(&prepared, "new/folder/image"), (77, 78, 0o644));
        assert_eq!(access(&prepared, "other/image"), (77, 78, 0o440));
        for folder in ["new", "new/folder", "other"] {
            assert_eq!(access(&prepared, folder), (OWNER.uid, OWNER.gid, 0o700), "{folder}");
        }
        prepared.place(Placement::new("/dev/null").named("deep/er/null").read_only()).unwrap();
        assert_eq!(access(&prepared, "deep"), (OWNER.uid, OWNER.gid, 0o700));
        let owned = Placement::new(&image).named("x").owner(OWNER).read_only();
        let error = prepared.place(owned).unwrap_err();
        assert_eq!(
            error.to_string(),
            "12345:12346 cannot own what is read-only: uid 12345 is the jail's own, and could make it writable"
        );
        tear_down(prepared);
    });
}
