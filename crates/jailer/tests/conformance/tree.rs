//! Sections 2 and 3: the jail's tree, its modes and owners, and what becomes of one that is there already.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::mount::UnmountFlags;

use crate::ground::{GID, Ground, UID, conforms, ours_or_original, refuses, run, said, strace, wait_for};

/// Mode, uid and gid of a path, of a link itself.
fn facts(path: &Path) -> (u32, u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.mode() & 0o7777, facts.uid(), facts.gid())
}

#[test]
fn folders_are_the_owners_alone() {
    conforms!(ground, {
        ground.run(&[], &[]);
        for folder in ["/", "/dev", "/dev/net", "/run"] {
            let at = ground.inside(folder);
            assert!(at.is_dir());
            assert_eq!(facts(&at), (0o700, UID, GID), "{folder}");
        }
        // The way there is root's.
        for folder in [ground.exec_dir(), ground.exec_dir().join(&ground.id)] {
            assert_eq!(facts(&folder), (0o755, 0, 0), "{}", folder.display());
        }
    });
}

#[test]
fn nodes_are_the_owners_alone_and_mean_the_devices() {
    conforms!(ground, {
        ground.run(&[], &[]);
        let misc = fs::read_to_string("/proc/misc").unwrap();
        let minor = misc.lines().find_map(|line| line.trim().strip_suffix(" userfaultfd")?.parse().ok());
        let mut nodes = vec![("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];
        nodes.extend(minor.map(|minor| ("/dev/userfaultfd", 10, minor)));
        for (node, major, minor) in &nodes {
            let at = ground.inside(node);
            assert_eq!(facts(&at), (0o600, UID, GID), "{node}");
            let found = fs::symlink_metadata(&at).unwrap();
            assert!(found.file_type().is_char_device());
            assert_eq!(found.rdev(), rustix::fs::makedev(*major, *minor), "{node}");
        }
        let in_dev = fs::read_dir(ground.inside("/dev")).unwrap().count();
        assert_eq!(in_dev, nodes.len(), "these in dev, one of them in net, and nothing else");
    });
}

#[test]
fn the_executable_has_its_sources_content_and_mode() {
    conforms!(ground, {
        // A file of its own: the probe has other names.
        let bytes = fs::read(&ground.exec).unwrap();
        fs::remove_file(&ground.exec).unwrap();
        fs::write(&ground.exec, &bytes).unwrap();
        fs::set_permissions(&ground.exec, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(ground.run(&[], &["exit=4"]).code, 4);
        assert_eq!(facts(&ground.copy()), (0o750, UID, GID));
        assert_eq!(fs::read(ground.copy()).unwrap(), bytes);
    });
}

#[test]
fn the_callers_umask_applies_to_files_and_nodes_and_not_to_folders() {
    conforms!(ground, {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "umask 0277; exec \"$0\" \"$@\""]).arg(crate::ground::jailer());
        let output = testkit::run_with(shell.args(ground.words(&[], &["report"])));
        assert_eq!(said(&output)[0]["umask"], "0277", "and the VMM gets it");
        assert_eq!(facts(&ground.copy()), (0o500, UID, GID));
        assert_eq!(facts(&ground.inside("/dev/kvm")), (0o400, UID, GID));
        assert_eq!(facts(&ground.inside("/dev")), (0o700, UID, GID));
        assert_eq!(facts(&ground.root()), (0o700, UID, GID));
    });
}

/// The modes of all that a start has made, by path, cgroups too.
fn modes_under(umask: &str, ground: &Ground<'_>) -> BTreeMap<PathBuf, u32> {
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).arg(crate::ground::jailer());
    // Cgroups of version 2 are made by the same lines, and tests of their own look after what they enable.
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let pids = mounts.lines().any(|line| line.starts_with("cgroup ") && line.contains(",pids"));
    let cgroup = ["--cgroup-version", "1", "--cgroup", "pids.max=64"];
    let words = ground.words(if pids { &cgroup } else { &[] }, &["exit=3"]);
    assert_eq!(testkit::run_with(shell.args(words)).code, 3);
    let cgroups = crate::ground::cgroup_mounts().into_iter().map(|mount| mount.join(ground.guard.name()));
    let mut found = BTreeMap::new();
    for top in cgroups.filter(|cgroup| cgroup.exists()).chain([ground.exec_dir()]) {
        let is_cgroup = top != ground.exec_dir();
        let mut rest = vec![top.clone()];
        while let Some(path) = rest.pop() {
            found.insert(path.clone(), facts(&path).0);
            if path.is_dir() {
                let below = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
                // The files of a cgroup are the kernel's.
                rest.extend(below.filter(|path| !is_cgroup || path.is_dir()));
            }
        }
        if is_cgroup {
            crate::ground::remove_cgroups(&top);
        }
    }
    fs::remove_dir_all(ground.exec_dir()).unwrap();
    found
}

#[test]
fn a_umask_of_nothing_lets_nobody_write_whom_the_usual_one_does_not() {
    conforms!(ground, {
        let usual = modes_under("022", &ground);
        let nothing = modes_under("000", &ground);
        assert!(usual.len() > 10, "{usual:?}");
        assert!(usual.keys().eq(nothing.keys()), "{usual:?}\n{nothing:?}");
        let wider = nothing.iter().filter(|(path, mode)| **mode & !usual[*path] != 0);
        let wider: Vec<String> = wider.map(|(path, mode)| format!("{} {mode:o}", path.display())).collect();
        // The original's directories and cgroups are everybody's then, and so is its pid file.
        assert_eq!(wider.is_empty(), ours_or_original(true, false), "{wider:#?}");
        // A strict one takes away.
        let strict = modes_under("077", &ground);
        assert!(strict.iter().all(|(path, mode)| mode & !usual[path] == 0), "{strict:?}");
        assert_eq!(strict[&ground.copy()], 0o700);
        assert_eq!(strict[&ground.inside("/dev/kvm")], 0o600);
    });
}

#[test]
fn the_executables_powers_do_not_come_along() {
    conforms!(ground, {
        let bytes = fs::read(&ground.exec).unwrap();
        for power in testkit::Powerful::ALL {
            fs::remove_file(&ground.exec).unwrap();
            fs::write(&ground.exec, &bytes).unwrap();
            power.give_to(&ground.exec);
            let report = ground.report(&[]);
            assert_eq!((&report["euid"], &report["egid"]), (&UID.into(), &GID.into()), "{power:?}");
            assert_eq!(report["capabilities"]["effective"], "0x0", "{power:?}");
            assert_eq!(facts(&ground.copy()), (0o755, UID, GID), "{power:?}");
            assert_eq!(testkit::attributes(&ground.copy()), [""; 0], "{power:?}");
            fs::remove_dir_all(ground.exec_dir()).unwrap();
        }
    });
}

#[test]
fn the_pid_file_is_roots_and_has_the_pid_alone() {
    conforms!(ground, {
        let live = ground.start(&[]);
        assert_eq!(fs::read_to_string(ground.pid_file()).unwrap(), live.pid().to_string());
        assert_eq!(facts(&ground.pid_file()), (0o644, 0, 0));
    });
}

#[test]
fn links_to_the_executable_and_the_base_are_followed() {
    conforms!(ground, {
        let (vmm, base) = (ground.guard.directory().join("link"), ground.guard.directory().join("base-link"));
        std::os::unix::fs::symlink(&ground.exec, &vmm).unwrap();
        std::os::unix::fs::symlink(&ground.base, &base).unwrap();
        let mut words = ground.words(&[], &["exit=3"]);
        words[3] = vmm.into();
        words[9] = base.into();
        assert_eq!(run(&words).code, 3);
        assert!(ground.copy().is_file(), "under the name of what the link leads to");
    });
}

#[test]
fn the_base_is_srv_jailer_unless_given() {
    if Path::new("/srv/jailer").exists() {
        // Then this test would leave a jail among others.
        return testkit::skip("tree::the_base_is_srv_jailer_unless_given", "a host without /srv/jailer");
    }
    conforms!(ground, {
        let mut words = ground.words(&[], &[]);
        words.drain(8..10);
        let text = "Failed to canonicalize path /srv/jailer: No such file or directory (os error 2)";
        refuses(&run(&words), text);
    });
}

#[test]
fn the_vmm_sees_its_tree_and_nothing_else() {
    conforms!(ground, {
        let report = ground.report(&[]);
        let name = ground.guard.name();
        let mut wanted = ["dev".to_owned(), "run".to_owned(), name.to_owned(), format!("{name}.pid")];
        wanted.sort();
        assert_eq!(report["root_entries"], serde_json::json!(wanted));
        ground.id = "jail-2".to_owned();
        let mounts = ground.start(&[]).proc("mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
    });
}

#[test]
fn what_the_caller_has_put_into_the_root_is_there_for_the_vmm() {
    conforms!(ground, {
        fs::create_dir_all(ground.root()).unwrap();
        std::os::unix::fs::chown(ground.root(), Some(UID), Some(GID)).unwrap();
        fs::write(ground.inside("kernel"), "a kernel").unwrap();
        std::os::unix::fs::chown(ground.inside("kernel"), Some(UID), Some(GID)).unwrap();
        assert_eq!(ground.said(&[], &["read=/kernel"])[0]["read"], "a kernel");
    });
}

#[test]
fn mounts_made_before_and_after_the_start_reach_the_vmm() {
    conforms!(ground, {
        let images = ground.guard.directory().join("images");
        for at in [images.clone(), ground.inside("before"), ground.inside("after")] {
            fs::create_dir_all(at).unwrap();
        }
        // Of a kind that a slave can follow.
        let base = ground.guard.directory();
        rustix::mount::mount_bind(base, base).unwrap();
        rustix::mount::mount_change(base, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        rustix::mount::mount_bind(&images, ground.inside("before")).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            let live = ground.start(&[]);
            rustix::mount::mount_bind(&images, ground.inside("after")).unwrap();
            let mounts = live.proc("mountinfo");
            rustix::mount::unmount(ground.inside("after"), UnmountFlags::DETACH).unwrap();
            for at in ["/before", "/after"] {
                assert!(mounts.lines().any(|line| line.split(' ').nth(4) == Some(at)), "{at} in {mounts}");
            }
        });
        rustix::mount::unmount(ground.inside("before"), UnmountFlags::DETACH).unwrap();
        rustix::mount::unmount(base, UnmountFlags::DETACH).unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn mounts_of_the_jail_do_not_reach_the_host() {
    conforms!(ground, {
        let live = ground.start(&[]);
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!host.contains(ground.guard.name()), "{host}");
        assert_ne!(
            fs::read_link(format!("/proc/{}/ns/mnt", live.pid())).unwrap(),
            fs::read_link("/proc/self/ns/mnt").unwrap()
        );
    });
}

#[test]
fn without_urandom_there_is_a_warning_and_a_vmm() {
    conforms!(ground, {
        // The third node that is made.
        let inject = ["-qq", "-o", "/dev/null", "-e", "trace=mknod,mknodat"];
        let fault = "inject=mknod,mknodat:error=EPERM:when=3";
        let command = ground.command(&[], &["exit=5"]);
        let Some(mut command) = strace(
            "tree::without_urandom_there_is_a_warning_and_a_vmm",
            &[&inject[..], &["-e", fault]].concat(),
            &command,
        ) else {
            return;
        };
        let output = testkit::run_with(&mut command);
        assert_eq!((output.code, output.stderr.as_str()), (5, ""), "{output:?}");
        assert_eq!(
            output.stdout,
            "Warning! Could not create /dev/urandom device inside jailer: Failed to create /dev/urandom via \
             mknod inside the jail: Operation not permitted (os error 1).\nMMDS version 2 will not be \
             available to use.\n"
        );
        assert!(!ground.inside("/dev/urandom").exists() && ground.inside("/dev/kvm").exists());
    });
}

#[test]
fn a_second_start_in_a_dead_jails_root_succeeds() {
    conforms!(ground, {
        assert_eq!(ground.run(&[], &["exit=3"]).code, 3);
        let second = ground.run(&[], &["exit=4"]);
        if ours_or_original(true, false) {
            assert_eq!((second.code, second.stderr.as_str()), (4, ""), "{second:?}");
            assert_eq!(facts(&ground.inside("/dev/kvm")), (0o600, UID, GID));
        } else {
            let text = "Failed to create /dev/net/tun via mknod inside the jail: File exists (os error 17)";
            refuses(&second, text);
        }
    });
}

#[test]
fn a_dead_jails_pid_file_is_replaced() {
    conforms!(ground, {
        fs::create_dir_all(ground.root()).unwrap();
        fs::write(ground.pid_file(), "1").unwrap();
        let output = ground.run(&[], &["exit=3"]);
        if ours_or_original(true, false) {
            assert_eq!(output.code, 3, "{output:?}");
            assert_ne!(fs::read_to_string(ground.pid_file()).unwrap(), "1");
        } else {
            let text = format!("Failed to open file {}.pid: File exists (os error 17)", ground.in_jail());
            refuses(&output, &text);
        }
    });
}

#[test]
fn a_folder_in_the_pid_files_place_is_refused() {
    conforms!(ground, {
        fs::create_dir_all(ground.pid_file()).unwrap();
        let text = format!("Failed to open file {}.pid: File exists (os error 17)", ground.in_jail());
        refuses(&ground.run(&[], &[]), &text);
    });
}

#[test]
fn a_left_over_old_root_is_no_obstacle() {
    conforms!(ground, {
        fs::create_dir_all(ground.inside("old_root")).unwrap();
        let output = ground.run(&[], &["exit=3"]);
        if ours_or_original(true, false) {
            assert_eq!(output.code, 3, "{output:?}");
        } else {
            refuses(
                &output,
                "Failed to create the jail root directory before pivoting root: File exists (os error 17)",
            );
        }
    });
}

#[test]
fn a_live_jail_is_not_started_again() {
    conforms!(ground, {
        let live = ground.start(&[]);
        let busy = format!("Failed to open {}: Text file busy (os error 26)", ground.copy().display());
        let hint = format!("{busy}\nHint: The jail is in use by process {}.", live.pid());
        refuses(&ground.run(&[], &[]), ours_or_original(&hint, &busy));
        if ours_or_original(true, false) {
            // Even one that has taken its executable away.
            fs::remove_file(ground.copy()).unwrap();
            refuses(&ground.run(&[], &[]), &hint);
        }
        assert_eq!(ground.told_pid(), live.pid(), "and keeps its pid file");
        drop(live);
        assert_eq!(ground.run(&[], &["exit=3"]).code, ours_or_original(3, 1));
    });
}

#[test]
fn a_longer_old_executable_is_replaced_as_a_whole() {
    conforms!(ground, {
        fs::create_dir_all(ground.root()).unwrap();
        let long = fs::metadata(&ground.exec).unwrap().len() + 1000;
        fs::write(ground.copy(), vec![b'x'; usize::try_from(long).unwrap()]).unwrap();
        assert_eq!(ground.run(&[], &["exit=3"]).code, 3);
        let copy = fs::read(ground.copy()).unwrap();
        let source = fs::read(&ground.exec).unwrap();
        if ours_or_original(true, false) {
            assert!(copy == source, "it has {} bytes instead of {}", copy.len(), source.len());
            assert_eq!(fs::read_dir(ground.root()).unwrap().count(), 4, "and no other file is left");
        } else {
            assert!(copy[..source.len()] == source && copy.len() > source.len());
        }
    });
}

#[test]
fn what_a_killed_start_left_is_no_obstacle() {
    conforms!(ground, {
        // Cut off at its last call but the exec, with everything made.
        let trace = ["-qq", "-o", "/dev/null", "-e", "trace=setuid", "-e", "inject=setuid:signal=KILL"];
        let Some(mut command) =
            strace("tree::what_a_killed_start_left_is_no_obstacle", &trace, &ground.command(&[], &[]))
        else {
            return;
        };
        let cut_off = testkit::run_with(&mut command);
        assert_eq!(cut_off.code, 137, "{cut_off:?}");
        assert_eq!(ground.run(&[], &["exit=3"]).code, ours_or_original(3, 1));
    });
}

#[test]
fn several_jails_of_one_executable_live_side_by_side() {
    conforms!(ground, {
        let first = ground.start(&[]);
        ground.id = "jail-2".to_owned();
        let second = ground.start(&[]);
        assert_ne!(first.pid(), second.pid());
        assert_eq!(fs::read_dir(ground.exec_dir()).unwrap().count(), 2);
        drop(second);
        assert!(first.proc("cmdline").starts_with(&ground.in_jail()));
    });
}

#[test]
fn of_many_starts_at_once_at_most_one_succeeds() {
    conforms!(ground, {
        for round in 0..5 {
            ground.id = format!("jail-{round}");
            let start = || {
                let mut command = ground.command(&[], &["sleep"]);
                command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            };
            let mut children: Vec<_> = (0..6).map(|_| start()).collect();
            // Each ends with a message or becomes the VMM.
            let mut live = 0;
            for child in &mut children {
                let pid = child.id();
                let became = wait_for("a start's outcome", || {
                    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
                    let became = line.starts_with(ground.in_jail().as_bytes());
                    (became || child.try_wait().unwrap().is_some()).then_some(became)
                });
                live += usize::from(became);
            }
            for mut child in children {
                let _ = child.kill();
                let output = child.wait_with_output().unwrap();
                if output.status.code().is_some() {
                    assert_eq!(output.status.code(), Some(1), "{output:?}");
                    assert!(!output.stderr.is_empty());
                }
            }
            assert!(live <= 1, "{live} live in one root");
            assert_eq!(ground.run(&[], &["exit=3"]).code, ours_or_original(3, 1), "and the next start works");
        }
    });
}
