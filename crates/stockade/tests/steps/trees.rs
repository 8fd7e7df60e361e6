//! Placed directories: copied content, refusals, and interference by the jail.

use super::*;

use std::os::unix::fs::MetadataExt;

#[test]
fn a_tree_has_the_sources_modes_and_the_jails_owner() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let source = firmware(&guard);
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        // More bits than the umask allows, fewer than a directory needs while it is filled, and a set-uid bit.
        mode(&source, 0o775);
        mode(&source.join("roms/old"), 0o555);
        mode(&source.join("bios.bin"), 0o4662);
        apply_all(&ground, &[placed_tree(&source, "usr/share/firmware").into()]);
        let at = ground.inside("usr/share/firmware");
        for (name, mode) in [("", 0o775), ("roms", 0o755), ("roms/old", 0o555), ("bios.bin", 0o662)] {
            let facts = std::fs::symlink_metadata(at.join(name)).unwrap();
            let seen = (facts.mode() & 0o7777, facts.uid(), facts.gid());
            assert_eq!(seen, (mode, OWNER.uid, OWNER.gid), "{name}: {:o}", seen.0);
        }
        for (name, target, content) in
            [("net.rom", "roms/old/net.rom", "rom"), ("roms/bios.bin", "../bios.bin", "bios")]
        {
            assert_eq!(std::fs::read_link(at.join(name)).unwrap(), Path::new(target));
            assert_eq!(std::fs::read_to_string(at.join(name)).unwrap(), content);
            assert_eq!(std::fs::symlink_metadata(at.join(name)).unwrap().uid(), OWNER.uid);
        }
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), 3, "and nothing else");
        assert_eq!(
            std::fs::metadata(source.join("bios.bin")).unwrap().uid(),
            0,
            "the host's file remains root's"
        );
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_tree_with_a_symlink_out_of_it_is_refused_with_its_path() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let source = firmware(&guard);
        // `up` leads to the top of the tree, so one `..` behind it leads out.
        std::fs::create_dir_all(source.join("a/b")).unwrap();
        std::os::unix::fs::symlink("../..", source.join("a/b/up")).unwrap();
        for target in ["/etc/passwd", "../outside", "a/b/up/..", "a/b/up/../outside", "/no/such"] {
            let link = source.join("link");
            std::os::unix::fs::symlink(target, &link).unwrap();
            let step = Step::from(placed_tree(&source, "firmware"));
            let error = step.apply(&ground.ctx).expect_err(target);
            let line = format!(
                "'{}' is a symbolic link to '{target}', which is not in the placed directory; replace it with the file",
                link.display()
            );
            assert_eq!(error.to_string(), line);
            assert!(!ground.inside("firmware").exists(), "nothing of it is visible");
            assert_eq!(step.undo(&ground.ctx), UndoOutcome::NeverThere, "nothing of it is left");
            std::fs::remove_file(link).unwrap();
        }
        // A dangling one whose target would be inside is allowed.
        std::os::unix::fs::symlink("roms/../missing", source.join("link")).unwrap();
        apply_all(&ground, &[placed_tree(&source, "firmware").into()]);
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_tree_with_a_special_file_is_refused_with_its_path() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let source = firmware(&guard);
        let special = source.join("roms/special");
        let node = |kind| {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &special, kind, mode, rustix::fs::makedev(1, 3)).unwrap();
        };
        for kind in [
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::FileType::BlockDevice,
            rustix::fs::FileType::Fifo,
            rustix::fs::FileType::Socket,
        ] {
            node(kind);
            let step = Step::from(placed_tree(&source, "firmware"));
            let error = step.apply(&ground.ctx).expect_err("it is refused");
            let line = format!(
                "'{}' is neither a file, a directory nor a symbolic link; remove it or place the files one by one",
                special.display()
            );
            assert_eq!(error.to_string(), line, "{kind:?}");
            assert_eq!(step.undo(&ground.ctx), UndoOutcome::NeverThere);
            std::fs::remove_file(&special).unwrap();
        }
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_tree_cut_off_by_a_kill_is_removed() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let step = Step::from(placed_tree(&firmware(&guard), "usr/share/firmware"));
        apply_all(&ground, std::slice::from_ref(&step));
        // The state after a kill before the last call: complete, under the temporary name of this receipt.
        let cut_off = ground.inside(&format!("usr/share/.stockade-{}", Nonce::new()));
        std::fs::rename(ground.inside("usr/share/firmware"), &cut_off).unwrap();
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::Removed);
        assert!(!cut_off.exists());
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::NeverThere);
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_tree_that_contains_the_jail_is_refused() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let step = Step::from(placed_tree(guard.directory(), "all"));
        let error = step.apply(&ground.ctx).expect_err("it would never end");
        let line =
            format!("'{}' has the jail itself in it; place another directory", guard.directory().display());
        assert_eq!(error.to_string(), line);
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::NeverThere);
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_tree_is_placed_over_nothing_and_through_no_symlink() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let source = firmware(&guard);
        let outside = guard.directory().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, ground.inside("link")).unwrap();
        for path in ["link", "link/below"] {
            let step = Step::from(placed_tree(&source, path));
            step.apply(&ground.ctx).expect_err(path);
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was created outside");
            assert_eq!(std::fs::metadata(&outside).unwrap().uid(), 0);
        }
        assert!(ground.inside("link").is_symlink(), "the symbolic link remains");
        // A source that became a symbolic link after the plan is not followed either.
        let step = Step::from(placed_tree(&source, "firmware"));
        std::fs::rename(&source, guard.directory().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("/etc", &source).unwrap();
        step.apply(&ground.ctx).expect_err("the source is a symbolic link now");
        undo_all(&ground, &ground.jail());
    });
}

/// A process that is killed at the end of the test.
struct Hostile(std::process::Child);

impl Drop for Hostile {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_tree_replaced_during_placement_has_no_outside_effect() {
    privileged!(guard, {
        use std::os::unix::process::CommandExt;
        let ground = Ground::with_jail(&guard);
        let source = firmware(&guard);
        let outside = guard.directory().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("bios.bin"), "precious").unwrap();
        let script = format!(
            "while :; do for t in .stockade-*; do \
             mv -T \"$t\" moved$((n=n+1)) && ln -s {} \"$t\"; done; mkdir -p .stockade-x; done 2>/dev/null",
            outside.display()
        );
        let hostile = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(ground.inside(""))
            .uid(OWNER.uid)
            .gid(OWNER.gid)
            .spawn();
        let hostile = Hostile(hostile.unwrap());
        let step = Step::from(placed_tree(&source, "firmware"));
        let (mut placed, mut prevented) = (0, 0);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while (placed < 100 || prevented < 10) && std::time::Instant::now() < deadline {
            match step.apply(&ground.ctx) {
                Ok(()) => placed += 1,
                Err(_) => prevented += 1,
            }
            step.undo(&ground.ctx);
            let seen = std::fs::metadata(&outside).unwrap();
            assert_eq!((seen.uid(), seen.mode() & 0o777), (0, 0o755));
            assert_eq!(std::fs::read_to_string(outside.join("bios.bin")).unwrap(), "precious");
            assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was created outside");
        }
        drop(hostile);
        println!("{placed} trees placed, {prevented} prevented");
        assert!(placed > 0 && prevented > 0, "{placed} placed, {prevented} prevented: there was no race");
        undo_all(&ground, &ground.jail());
    });
}
