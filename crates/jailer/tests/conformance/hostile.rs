//! What somebody with the jail's uid may have planted in its tree.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ground::{GID, Ground, UID, conforms, ours_or_original, refuses};

/// A root that is there already, the jail's own.
fn planted(ground: &Ground<'_>) {
    fs::create_dir_all(ground.root()).unwrap();
    std::os::unix::fs::chown(ground.root(), Some(UID), Some(GID)).unwrap();
}

#[test]
fn a_link_in_the_executables_place_is_refused() {
    conforms!(ground, {
        planted(&ground);
        let precious = ground.guard.file("precious", "precious");
        symlink(&precious, ground.copy()).unwrap();
        let cause = ours_or_original("Too many levels of symbolic links", "Symbolic link loop");
        let text = format!("Failed to open {}: {cause} (os error 40)", ground.copy().display());
        refuses(&ground.run(&[], &[]), &text);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    });
}

#[test]
fn a_hard_link_in_the_executables_place_is_refused() {
    conforms!(ground, {
        planted(&ground);
        let precious = ground.guard.file("precious", "precious");
        fs::hard_link(&precious, ground.copy()).unwrap();
        refuses(&ground.run(&[], &[]), &format!("Detected hard link at: {}", ground.copy().display()));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
    });
}

#[test]
fn a_folder_or_pipe_in_the_executables_place_is_refused() {
    conforms!(ground, {
        fs::create_dir_all(ground.copy()).unwrap();
        let text = format!("Failed to open {}: Is a directory (os error 21)", ground.copy().display());
        refuses(&ground.run(&[], &[]), &text);
        fs::remove_dir(ground.copy()).unwrap();
        if ours_or_original(true, false) {
            // The original waits there for a reader.
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, ground.copy(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
            let text = format!("Failed to open {}: File exists (os error 17)", ground.copy().display());
            refuses(&ground.run(&[], &[]), &text);
        }
    });
}

#[test]
fn a_link_in_a_folders_place_is_refused() {
    conforms!(ground, {
        let outside = ground.guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        for folder in ["dev", "dev/net", "run"] {
            planted(&ground);
            fs::create_dir_all(ground.inside(folder).parent().unwrap()).unwrap();
            symlink(&outside, ground.inside(folder)).unwrap();
            let output = ground.run(&[], &[]);
            if ours_or_original(true, false) {
                // The last of the way is not a directory, what lies before it a link.
                let cause = "Too many levels of symbolic links (os error 40)";
                refuses(&output, &format!("Failed to create directory /{folder}: {cause}"));
            }
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{folder}");
            let facts = fs::metadata(&outside).unwrap();
            assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o755), "{folder}");
            fs::remove_dir_all(ground.root()).unwrap();
        }
    });
}

#[test]
fn a_link_in_the_roots_place_is_refused() {
    conforms!(ground, {
        let outside = ground.guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir_all(ground.root().parent().unwrap()).unwrap();
        symlink(&outside, ground.root()).unwrap();
        let output = ground.run(&[], &["exit=3"]);
        if ours_or_original(true, false) {
            let cause = "Too many levels of symbolic links (os error 40)";
            let text = format!("Failed to create directory {}: {cause}", ground.root().display());
            refuses(&output, &text);
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        }
    });
}

#[test]
fn links_and_files_in_the_nodes_places_are_replaced_and_never_followed() {
    conforms!(ground, {
        planted(&ground);
        let precious = ground.guard.file("precious", "precious");
        fs::create_dir(ground.inside("dev")).unwrap();
        symlink(&precious, ground.inside("dev/kvm")).unwrap();
        fs::hard_link(&precious, ground.inside("dev/urandom")).unwrap();
        let output = ground.run(&[], &["exit=3"]);
        if ours_or_original(true, false) {
            assert_eq!(output.code, 3, "{output:?}");
            for node in ["dev/kvm", "dev/urandom"] {
                let facts = fs::symlink_metadata(ground.inside(node)).unwrap();
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
fn a_folder_in_a_nodes_place_is_refused() {
    conforms!(ground, {
        fs::create_dir_all(ground.inside("dev/kvm")).unwrap();
        let text = "Failed to create /dev/kvm via mknod inside the jail: File exists (os error 17)";
        refuses(&ground.run(&[], &[]), text);
    });
}

#[test]
fn whoever_races_with_the_start_gets_nothing_of_the_host() {
    conforms!(ground, {
        let precious = ground.guard.file("precious", "precious");
        let outside = ground.guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        planted(&ground);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // As the jail's uid could: folders, nodes and the executable become links whenever they can.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (name, target) in
                        [("dev", &outside), ("run", &outside), (ground.guard.name(), &precious)]
                    {
                        let at = ground.inside(name);
                        let _ = fs::rename(&at, ground.inside("aside"));
                        let _ = symlink(target, &at);
                        let _ = fs::remove_dir_all(ground.inside("aside"));
                        let _ = fs::remove_file(ground.inside("aside"));
                        let _ = fs::remove_file(&at);
                    }
                    let _ = symlink(&precious, ground.inside("dev/kvm"));
                }
            });
            for _ in 0..30 {
                // Whether it succeeds is the racer's doing.
                ground.run(&[], &["exit=0"]);
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
