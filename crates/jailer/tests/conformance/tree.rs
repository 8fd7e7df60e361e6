//! Sections 2 and 3: the jail's tree, its modes and owners, and starts in an existing tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;
use testkit::Output;

use crate::fixture::{
    Fixture, GID, NO_PROC, UID, conforms, drop_in_or_firecracker, json_lines, processes_below, refuses, run,
    strace, wait_for,
};

/// Mode, uid and gid of a path, without following a symbolic link.
fn facts(path: &Path) -> (u32, u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.mode() & 0o7777, facts.uid(), facts.gid())
}

#[test]
fn directories_belong_to_the_owner_alone() {
    conforms!(fixture, {
        fixture.run(&[], &[]);
        for directory in ["/", "/dev", "/dev/net", "/run"] {
            let at = fixture.inside(directory);
            assert!(at.is_dir());
            assert_eq!(facts(&at), (0o700, UID, GID), "{directory}");
        }
        // The directories above the root belong to root.
        for directory in [fixture.exec_dir(), fixture.exec_dir().join(&fixture.id)] {
            assert_eq!(facts(&directory), (0o755, 0, 0), "{}", directory.display());
        }
    });
}

#[test]
fn nodes_belong_to_the_owner_and_are_the_right_devices() {
    conforms!(fixture, {
        fixture.run(&[], &[]);
        let misc = fs::read_to_string("/proc/misc").unwrap();
        let minor = misc.lines().find_map(|line| line.trim().strip_suffix(" userfaultfd")?.parse().ok());
        let mut nodes = vec![("/dev/net/tun", 10, 200), ("/dev/kvm", 10, 232), ("/dev/urandom", 1, 9)];
        nodes.extend(minor.map(|minor| ("/dev/userfaultfd", 10, minor)));
        for (node, major, minor) in &nodes {
            let at = fixture.inside(node);
            assert_eq!(facts(&at), (0o600, UID, GID), "{node}");
            let found = fs::symlink_metadata(&at).unwrap();
            assert!(found.file_type().is_char_device());
            assert_eq!(found.rdev(), rustix::fs::makedev(*major, *minor), "{node}");
        }
        let in_dev = fs::read_dir(fixture.inside("/dev")).unwrap().count();
        assert_eq!(in_dev, nodes.len(), "/dev has these nodes, one of them in net, and nothing else");
    });
}

#[test]
fn the_executable_has_its_sources_content_and_mode() {
    conforms!(fixture, {
        // A separate file: the fixture's executable is a hard link of the probe.
        let bytes = fs::read(&fixture.exec).unwrap();
        fs::remove_file(&fixture.exec).unwrap();
        fs::write(&fixture.exec, &bytes).unwrap();
        fs::set_permissions(&fixture.exec, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(fixture.run(&[], &["exit=4"]).code, 4);
        assert_eq!(facts(&fixture.copy()), (0o750, UID, GID));
        assert_eq!(fs::read(fixture.copy()).unwrap(), bytes);
    });
}

#[test]
fn the_umask_applies_to_files_and_nodes_not_directories() {
    conforms!(fixture, {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 0277; exec \"$0\" \"$@\""]).arg(crate::fixture::jailer());
        let output = testkit::run_with(shell.args(fixture.arguments(&[], &["report"])));
        assert_eq!(json_lines(&output)[0]["umask"], "0277", "and the VMM gets it");
        assert_eq!(facts(&fixture.copy()), (0o500, UID, GID));
        assert_eq!(facts(&fixture.inside("/dev/kvm")), (0o400, UID, GID));
        assert_eq!(facts(&fixture.inside("/dev")), (0o700, UID, GID));
        assert_eq!(facts(&fixture.root()), (0o700, UID, GID));
    });
}

/// The modes of all files and cgroups that a start creates, by path.
fn modes_under(umask: &str, fixture: &Fixture<'_>) -> BTreeMap<PathBuf, u32> {
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(crate::fixture::jailer());
    // The same code creates cgroups in cgroup v2, whose tests disable enabled controllers again.
    let pids = testkit::cgroup_v1_mount("pids").is_some();
    let cgroup = ["--cgroup-version", "1", "--cgroup", "pids.max=64"];
    let arguments = fixture.arguments(if pids { &cgroup } else { &[] }, &["exit=3"]);
    assert_eq!(testkit::run_with(shell.args(arguments)).code, 3);
    let cgroups = testkit::cgroup_mounts().into_iter().map(|mount| mount.point.join(fixture.guard.name()));
    let mut found = BTreeMap::new();
    for top in cgroups.filter(|cgroup| cgroup.exists()).chain([fixture.exec_dir()]) {
        let is_cgroup = top != fixture.exec_dir();
        let mut rest = vec![top.clone()];
        while let Some(path) = rest.pop() {
            found.insert(path.clone(), facts(&path).0);
            if path.is_dir() {
                let below = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
                // The files of a cgroup belong to the kernel.
                rest.extend(below.filter(|path| !is_cgroup || path.is_dir()));
            }
        }
        if is_cgroup {
            crate::fixture::remove_cgroups(&top);
        }
    }
    fs::remove_dir_all(fixture.exec_dir()).unwrap();
    found
}

#[test]
fn a_umask_of_0_makes_nothing_more_writable_than_022() {
    conforms!(fixture, {
        let usual = modes_under("022", &fixture);
        let nothing = modes_under("000", &fixture);
        assert!(usual.len() > 10, "{usual:?}");
        assert!(usual.keys().eq(nothing.keys()), "{usual:?}\n{nothing:?}");
        let wider = nothing.iter().filter(|(path, mode)| **mode & !usual[*path] != 0);
        let wider: Vec<String> = wider.map(|(path, mode)| format!("{} {mode:o}", path.display())).collect();
        // Firecracker's jailer then creates world-writable directories, cgroups and pid files.
        assert_eq!(wider.is_empty(), drop_in_or_firecracker(true, false), "{wider:#?}");
        // A strict umask removes bits.
        let strict = modes_under("077", &fixture);
        assert!(strict.iter().all(|(path, mode)| mode & !usual[path] == 0), "{strict:?}");
        assert_eq!(strict[&fixture.copy()], 0o700);
        assert_eq!(strict[&fixture.inside("/dev/kvm")], 0o600);
    });
}

#[test]
fn the_executables_privileges_do_not_come_along() {
    conforms!(fixture, {
        let bytes = fs::read(&fixture.exec).unwrap();
        for privilege in testkit::Privilege::ALL {
            fs::remove_file(&fixture.exec).unwrap();
            fs::write(&fixture.exec, &bytes).unwrap();
            privilege.give_to(&fixture.exec);
            let report = fixture.report(&[]);
            assert_eq!((&report["euid"], &report["egid"]), (&UID.into(), &GID.into()), "{privilege:?}");
            assert_eq!(report["capabilities"]["effective"], "0x0", "{privilege:?}");
            assert_eq!(facts(&fixture.copy()), (0o755, UID, GID), "{privilege:?}");
            assert_eq!(testkit::attributes(&fixture.copy()), [""; 0], "{privilege:?}");
            fs::remove_dir_all(fixture.exec_dir()).unwrap();
        }
    });
}

#[test]
fn the_pid_file_is_roots_and_contains_only_the_pid() {
    conforms!(fixture, {
        let live = fixture.start(&[]);
        assert_eq!(fs::read_to_string(fixture.pid_file()).unwrap(), live.pid().to_string());
        assert_eq!(facts(&fixture.pid_file()), (0o644, 0, 0));
    });
}

#[test]
fn symlinks_to_the_executable_and_the_base_are_followed() {
    conforms!(fixture, {
        let (vmm, base) =
            (fixture.guard.directory().join("link"), fixture.guard.directory().join("base-link"));
        std::os::unix::fs::symlink(&fixture.exec, &vmm).unwrap();
        std::os::unix::fs::symlink(&fixture.base, &base).unwrap();
        let mut arguments = fixture.arguments(&[], &["exit=3"]);
        arguments[3] = vmm.into();
        arguments[9] = base.into();
        assert_eq!(run(&arguments).code, 3);
        assert!(fixture.copy().is_file(), "the copy has the name of the symbolic link's target");
    });
}

#[test]
fn the_default_base_is_srv_jailer() {
    if Path::new("/srv/jailer").exists() {
        // The test would leave a jail there.
        return testkit::skip("tree::the_default_base_is_srv_jailer", "a host without /srv/jailer");
    }
    conforms!(fixture, {
        let mut arguments = fixture.arguments(&[], &[]);
        arguments.drain(8..10);
        let text = "Failed to canonicalize path /srv/jailer: No such file or directory (os error 2)";
        refuses(&run(&arguments), text);
    });
}

#[test]
fn the_vmm_sees_its_tree_and_nothing_else() {
    conforms!(fixture, {
        let report = fixture.report(&[]);
        let name = fixture.guard.name();
        let mut wanted = ["dev".to_owned(), "run".to_owned(), name.to_owned(), format!("{name}.pid")];
        wanted.sort();
        assert_eq!(report["root_entries"], serde_json::json!(wanted));
        fixture.id = "jail-2".to_owned();
        let live = fixture.start(&[]);
        let mounts = testkit::mounts_of(live.pid());
        assert_eq!(mounts.len(), 1, "{mounts:?}");
    });
}

#[test]
fn files_that_the_caller_put_into_the_root_reach_the_vmm() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.root()).unwrap();
        std::os::unix::fs::chown(fixture.root(), Some(UID), Some(GID)).unwrap();
        fs::write(fixture.inside("kernel"), "a kernel").unwrap();
        std::os::unix::fs::chown(fixture.inside("kernel"), Some(UID), Some(GID)).unwrap();
        assert_eq!(fixture.json_lines(&[], &["read=/kernel"])[0]["read"], "a kernel");
    });
}

#[test]
fn mounts_before_and_after_the_start_reach_the_vmm() {
    conforms!(fixture, {
        let images = fixture.guard.directory().join("images");
        for at in [images.clone(), fixture.inside("before"), fixture.inside("after")] {
            fs::create_dir_all(at).unwrap();
        }
        // Shared, so that mounts propagate to a slave.
        let base = fixture.guard.directory();
        rustix::mount::mount_bind(base, base).unwrap();
        rustix::mount::mount_change(base, rustix::mount::MountPropagationFlags::SHARED).unwrap();
        rustix::mount::mount_bind(&images, fixture.inside("before")).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            let live = fixture.start(&[]);
            rustix::mount::mount_bind(&images, fixture.inside("after")).unwrap();
            let mounts = testkit::mounts_of(live.pid());
            rustix::mount::unmount(fixture.inside("after"), UnmountFlags::DETACH).unwrap();
            for at in ["/before", "/after"] {
                assert!(mounts.iter().any(|mount| mount.point == Path::new(at)), "{at} in {mounts:?}");
            }
        });
        rustix::mount::unmount(fixture.inside("before"), UnmountFlags::DETACH).unwrap();
        rustix::mount::unmount(base, UnmountFlags::DETACH).unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn mounts_of_the_jail_do_not_reach_the_host() {
    conforms!(fixture, {
        let live = fixture.start(&[]);
        assert_eq!(testkit::mount_lines_with(fixture.guard.name()), [""; 0]);
        assert_ne!(
            fs::read_link(format!("/proc/{}/ns/mnt", live.pid())).unwrap(),
            fs::read_link("/proc/self/ns/mnt").unwrap()
        );
    });
}

#[test]
fn a_start_without_urandom_warns_and_runs_the_vmm() {
    conforms!(fixture, {
        // The third node that is created.
        let inject = ["-qq", "-o", "/dev/null", "-e", "trace=mknod,mknodat"];
        let fault = "inject=mknod,mknodat:error=EPERM:when=3";
        let command = fixture.command(&[], &["exit=5"]);
        let Some(mut command) = strace(
            "tree::a_start_without_urandom_warns_and_runs_the_vmm",
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
        assert!(!fixture.inside("/dev/urandom").exists() && fixture.inside("/dev/kvm").exists());
    });
}

#[test]
fn a_second_start_in_a_dead_jails_root_succeeds() {
    conforms!(fixture, {
        assert_eq!(fixture.run(&[], &["exit=3"]).code, 3);
        let second = fixture.run(&[], &["exit=4"]);
        if drop_in_or_firecracker(true, false) {
            assert_eq!((second.code, second.stderr.as_str()), (4, ""), "{second:?}");
            assert_eq!(facts(&fixture.inside("/dev/kvm")), (0o600, UID, GID));
        } else {
            let text = "Failed to create /dev/net/tun via mknod inside the jail: File exists (os error 17)";
            refuses(&second, text);
        }
    });
}

#[test]
fn a_dead_jails_pid_file_is_replaced() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.root()).unwrap();
        fs::write(fixture.pid_file(), "1").unwrap();
        let output = fixture.run(&[], &["exit=3"]);
        if drop_in_or_firecracker(true, false) {
            assert_eq!(output.code, 3, "{output:?}");
            assert_ne!(fs::read_to_string(fixture.pid_file()).unwrap(), "1");
        } else {
            let text = format!("Failed to open file {}.pid: File exists (os error 17)", fixture.in_jail());
            refuses(&output, &text);
        }
    });
}

#[test]
fn a_directory_at_the_pid_files_path_is_refused() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.pid_file()).unwrap();
        let text = format!("Failed to open file {}.pid: File exists (os error 17)", fixture.in_jail());
        refuses(&fixture.run(&[], &[]), &text);
    });
}

#[test]
fn a_left_over_old_root_is_no_obstacle() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.inside("old_root")).unwrap();
        let output = fixture.run(&[], &["exit=3"]);
        if drop_in_or_firecracker(true, false) {
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
fn a_running_jail_is_not_started_again() {
    conforms!(fixture, {
        let live = fixture.start(&[]);
        let busy = format!("Failed to open {}: Text file busy (os error 26)", fixture.copy().display());
        let hint = format!("{busy}\nHint: The jail is in use by process {}.", live.pid());
        refuses(&fixture.run(&[], &[]), drop_in_or_firecracker(&hint, &busy));
        if drop_in_or_firecracker(true, false) {
            // Also if the jail has removed its executable.
            fs::remove_file(fixture.copy()).unwrap();
            refuses(&fixture.run(&[], &[]), &hint);
        }
        assert_eq!(fixture.written_pid(), live.pid(), "the pid file is unchanged");
        drop(live);
        assert_eq!(fixture.run(&[], &["exit=3"]).code, drop_in_or_firecracker(3, 1));
    });
}

/// Starts the jail again by a launcher that cannot inspect its processes.
fn started_again_by(fixture: &Fixture<'_>, launcher: &[&str]) -> Output {
    let again = fixture.command(&[], &["exit=3"]);
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(again.get_program()).args(again.get_args());
    testkit::run_with(&mut command)
}

#[test]
fn a_running_jail_is_not_started_by_one_who_cannot_look() {
    conforms!(fixture, {
        if std::env::var_os("STOCKADE_VM").is_some() {
            let test = "tree::a_running_jail_is_not_started_by_one_who_cannot_look";
            return testkit::skip(test, "setpriv of util-linux, which the virtual machine does not have");
        }
        let live = fixture.start(&[]);
        let busy = format!("Failed to open {}: Text file busy (os error 26)", fixture.copy().display());
        let before = fs::metadata(fixture.copy()).unwrap();
        let without_ptrace = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
        let namespace = ["unshare", "--pid", "--fork", "--mount-proc"];
        let old_procfs = ["unshare", "--pid", "--fork"];
        for launcher in [&without_ptrace[..], &namespace, &old_procfs] {
            let refused = started_again_by(&fixture, launcher);
            assert!(refused.code == 1 && refused.stderr.starts_with(&busy), "{launcher:?}: {refused:?}");
            let after = fs::metadata(fixture.copy()).unwrap();
            assert_eq!((before.ino(), before.len()), (after.ino(), after.len()), "{launcher:?}");
            assert_eq!(fixture.written_pid(), live.pid(), "the pid file is unchanged");
        }
        drop(live);
        let again = started_again_by(&fixture, &namespace);
        assert_eq!(again.code, drop_in_or_firecracker(3, 1), "{again:?}");
    });
}

#[test]
fn a_longer_old_executable_is_replaced_as_a_whole() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.root()).unwrap();
        let long = fs::metadata(&fixture.exec).unwrap().len() + 1000;
        fs::write(fixture.copy(), vec![b'x'; usize::try_from(long).unwrap()]).unwrap();
        fs::set_permissions(fixture.copy(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(fixture.run(&[], &["exit=3"]).code, 3);
        let copy = fs::read(fixture.copy()).unwrap();
        let source = fs::read(&fixture.exec).unwrap();
        if drop_in_or_firecracker(true, false) {
            assert!(copy == source, "the copy has {} bytes instead of {}", copy.len(), source.len());
            assert_eq!(fs::read_dir(fixture.root()).unwrap().count(), 4, "no other file remains");
        } else {
            assert!(copy[..source.len()] == source && copy.len() > source.len());
        }
    });
}

#[test]
fn an_old_executables_mode_does_not_remain() {
    conforms!(fixture, {
        fs::create_dir_all(fixture.root()).unwrap();
        fs::write(fixture.copy(), "old").unwrap();
        fs::set_permissions(fixture.copy(), fs::Permissions::from_mode(0o644)).unwrap();
        let output = fixture.run(&[], &["exit=3"]);
        if drop_in_or_firecracker(true, false) {
            assert_eq!((output.code, output.stderr.as_str()), (3, ""), "{output:?}");
            assert_eq!(facts(&fixture.copy()), (0o755, UID, GID));
        } else {
            // It writes into the file, which keeps its mode.
            refuses(&output, "Failed to exec into Firecracker: Permission denied (os error 13)");
            assert_eq!(facts(&fixture.copy()), (0o644, UID, GID));
        }
    });
}

#[test]
fn a_proc_without_system_files_is_no_obstacle() {
    conforms!(fixture, {
        let only_processes = "mount -t proc -o subset=pid proc /proc && exec \"$0\" \"$@\"";
        for script in [only_processes, NO_PROC] {
            for flags in [&[][..], &["--daemonize"], &["--new-pid-ns"]] {
                let output = fixture.run_in_mount_namespace(script, flags, &["exit=3"]);
                let code = if flags.is_empty() { 3 } else { 0 };
                assert_eq!((output.code, output.stderr.as_str()), (code, ""), "{script} {flags:?}");
                fixture.written_pid();
                wait_for("the end of the VMM", || processes_below(&fixture.base).is_empty().then_some(()));
                assert!(fixture.inside("/dev/kvm").exists());
                // Its number is in /proc/misc.
                assert!(!fixture.inside("/dev/userfaultfd").exists(), "{script}");
                fs::remove_dir_all(fixture.exec_dir()).unwrap();
            }
        }
    });
}

#[test]
fn a_running_jail_is_found_without_proc() {
    conforms!(fixture, {
        let live = fixture.start(&[]);
        let text = format!("Failed to open {}: Text file busy (os error 26)", fixture.copy().display());
        refuses(&fixture.run_in_mount_namespace(NO_PROC, &[], &[]), &text);
        assert_eq!(fixture.written_pid(), live.pid(), "the pid file is unchanged");
    });
}

#[test]
fn the_remains_of_a_killed_start_are_no_obstacle() {
    conforms!(fixture, {
        // Killed at the last call before the exec, after everything is created.
        let trace = ["-qq", "-o", "/dev/null", "-e", "trace=setuid", "-e", "inject=setuid:signal=KILL"];
        let Some(mut command) =
            strace("tree::the_remains_of_a_killed_start_are_no_obstacle", &trace, &fixture.command(&[], &[]))
        else {
            return;
        };
        let cut_off = testkit::run_with(&mut command);
        assert_eq!(cut_off.code, 137, "{cut_off:?}");
        assert_eq!(fixture.run(&[], &["exit=3"]).code, drop_in_or_firecracker(3, 1));
    });
}

#[test]
fn several_jails_of_one_executable_run_side_by_side() {
    conforms!(fixture, {
        let first = fixture.start(&[]);
        fixture.id = "jail-2".to_owned();
        let second = fixture.start(&[]);
        assert_ne!(first.pid(), second.pid());
        assert_eq!(fs::read_dir(fixture.exec_dir()).unwrap().count(), 2);
        drop(second);
        assert!(first.proc("cmdline").starts_with(&fixture.in_jail()));
    });
}

#[test]
fn at_most_one_of_concurrent_starts_succeeds() {
    conforms!(fixture, {
        for round in 0..5 {
            fixture.id = format!("jail-{round}");
            let start = || {
                let mut command = fixture.command(&[], &["sleep"]);
                command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            };
            let mut children: Vec<_> = (0..6).map(|_| start()).collect();
            // Each fails with a message or becomes the VMM.
            let mut live = 0;
            for child in &mut children {
                let pid = child.id();
                let became = wait_for("a start's outcome", || {
                    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
                    let became = line.starts_with(fixture.in_jail().as_bytes());
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
            assert!(live <= 1, "{live} running VMMs in one root");
            assert_eq!(
                fixture.run(&[], &["exit=3"]).code,
                drop_in_or_firecracker(3, 1),
                "the next start works"
            );
        }
    });
}
