//! Hostile files that a process with the jail's uid may have planted in the jail's tree.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::fixture::{Fixture, GID, LOOP, UID, conforms, drop_in_or_firecracker, refuses};

/// Creates the jail's root with the jail's owner.
fn create_root(fixture: &Fixture<'_>) {
    fs::create_dir_all(fixture.root()).unwrap();
    std::os::unix::fs::chown(fixture.root(), Some(UID), Some(GID)).unwrap();
}

#[test]
fn a_symlink_at_the_executables_path_is_refused() {
    conforms!(fixture, {
        create_root(&fixture);
        let precious = fixture.guard.file("precious", "precious");
        symlink(&precious, fixture.copy()).unwrap();
        let text = |cause: &str| format!("Failed to open {}: {cause}", fixture.copy().display());
        LOOP.refuses(&fixture.run(&[], &[]), LOOP.in_glibc(), text);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    });
}

#[test]
fn a_hard_link_at_the_executables_path_is_refused() {
    conforms!(fixture, {
        create_root(&fixture);
        let precious = fixture.guard.file("precious", "precious");
        fs::hard_link(&precious, fixture.copy()).unwrap();
        refuses(&fixture.run(&[], &[]), &format!("Detected hard link at: {}", fixture.copy().display()));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    });
}

#[test]
fn a_directory_or_pipe_at_the_executables_path_is_refused() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.copy()).unwrap();
        let text = format!("Failed to open {}: Is a directory (os error 21)", fixture.copy().display());
        refuses(&fixture.run(&[], &[]), &text);
        fs::remove_dir(fixture.copy()).unwrap();
        if drop_in_or_firecracker(true, false) {
            // Firecracker's jailer blocks in the open until a reader comes.
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, fixture.copy(), rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
            let text = format!("Failed to open {}: File exists (os error 17)", fixture.copy().display());
            refuses(&fixture.run(&[], &[]), &text);
        }
    });
}

#[test]
fn a_symlink_at_a_directorys_path_is_refused() {
    conforms!(fixture, {
        let outside = fixture.guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        for directory in ["dev", "dev/net", "run"] {
            create_root(&fixture);
            fs::create_dir_all(fixture.inside(directory).parent().unwrap()).unwrap();
            symlink(&outside, fixture.inside(directory)).unwrap();
            let output = fixture.run(&[], &[]);
            if drop_in_or_firecracker(true, false) {
                // The last component fails with ENOTDIR, a symbolic link before it with ELOOP.
                let cause = "Too many levels of symbolic links (os error 40)";
                refuses(&output, &format!("Failed to create directory /{directory}: {cause}"));
            }
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{directory}");
            let facts = fs::metadata(&outside).unwrap();
            assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o755), "{directory}");
            fs::remove_dir_all(fixture.root()).unwrap();
        }
    });
}

#[test]
fn a_symlink_at_the_roots_path_is_refused() {
    conforms!(fixture, {
        let outside = fixture.guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir_all(fixture.root().parent().unwrap()).unwrap();
        symlink(&outside, fixture.root()).unwrap();
        let output = fixture.run(&[], &["exit=3"]);
        if drop_in_or_firecracker(true, false) {
            let cause = "Too many levels of symbolic links (os error 40)";
            let text = format!("Failed to create directory {}: {cause}", fixture.root().display());
            refuses(&output, &text);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        }
    });
}

#[test]
fn links_and_files_at_node_paths_are_replaced_not_followed() {
    conforms!(fixture, {
        create_root(&fixture);
        let precious = fixture.guard.file("precious", "precious");
        fs::create_dir(fixture.inside("dev")).unwrap();
        symlink(&precious, fixture.inside("dev/kvm")).unwrap();
        fs::hard_link(&precious, fixture.inside("dev/urandom")).unwrap();
        let output = fixture.run(&[], &["exit=3"]);
        if drop_in_or_firecracker(true, false) {
            assert_eq!(output.code, 3, "{output:?}");
            for node in ["dev/kvm", "dev/urandom"] {
                let facts = fs::symlink_metadata(fixture.inside(node)).unwrap();
                assert!(facts.file_type().is_char_device(), "{node}");
            }
        } else {
            assert_eq!(output.code, 1, "{output:?}");
        }
        let facts = fs::metadata(&precious).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o644), "the host's file keeps owner and mode");
    });
}

#[test]
fn a_directory_at_a_nodes_path_is_refused() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.inside("dev/kvm")).unwrap();
        let text = "Failed to create /dev/kvm via mknod inside the jail: File exists (os error 17)";
        refuses(&fixture.run(&[], &[]), text);
    });
}

#[test]
fn a_race_with_the_start_reaches_nothing_of_the_host() {
    conforms!(fixture, {
        let precious = fixture.guard.file("precious", "precious");
        let outside = fixture.guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        create_root(&fixture);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A process of the jail's uid could do the same: it replaces directories, nodes and the executable by
            // symbolic links.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (name, target) in
                        [("dev", &outside), ("run", &outside), (fixture.guard.name(), &precious)]
                    {
                        let at = fixture.inside(name);
                        let _ = fs::rename(&at, fixture.inside("aside"));
                        let _ = symlink(target, &at);
                        let _ = fs::remove_dir_all(fixture.inside("aside"));
                        let _ = fs::remove_file(fixture.inside("aside"));
                        let _ = fs::remove_file(&at);
                    }
                    let _ = symlink(&precious, fixture.inside("dev/kvm"));
                }
            });
            for _ in 0..30 {
                // The start may fail, depending on the race.
                fixture.run(&[], &["exit=0"]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        let facts = fs::metadata(&precious).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o644));
        let facts = fs::metadata(&outside).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o755));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    });
}
