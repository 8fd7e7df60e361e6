//! Section 5: the refusals before anything is created, and their order.

use std::ffi::OsString;

use crate::fixture::{alone, conforms, drop_in_or_firecracker, refuses, run, strace};

/// A valid command line with some flags changed.
fn with(changes: &[(&str, &str)]) -> Vec<OsString> {
    let exec = std::env::current_exe().unwrap();
    let mut flags = vec![
        ("id", OsString::from("a")),
        ("exec-file", exec.into_os_string()),
        ("uid", "1".into()),
        ("gid", "1".into()),
        ("chroot-base-dir", "/".into()),
    ];
    for (name, value) in changes {
        match flags.iter_mut().find(|(known, _)| known == name && *name != "cgroup") {
            Some(flag) => flag.1 = value.into(),
            None => flags.push((name, value.into())),
        }
    }
    flags.into_iter().flat_map(|(name, value)| [format!("--{name}").into(), value]).collect()
}

fn refused(changes: &[(&str, &str)], message: &str) {
    refuses(&run(&with(changes)), message);
}

#[test]
fn an_id_of_invalid_length_is_refused() {
    alone!({
        let text =
            |n| format!("Invalid instance ID: Invalid len ({n});  the length must be between 1 and 64");
        refused(&[("id", "")], &text(0));
        refused(&[("id", &"x".repeat(65))], &text(65));
        // The length is counted in bytes, not in characters.
        refused(&[("id", &"ü".repeat(33))], &text(66));
    });
}

#[test]
fn an_id_with_invalid_characters_is_refused() {
    alone!({
        for (id, c, at) in [("a_b", '_', 1), ("../x", '.', 0), ("ü/", '/', 1), ("a b", ' ', 1)] {
            refused(&[("id", id)], &format!("Invalid instance ID: Invalid char ({c}) at position {at}"));
        }
    });
}

#[test]
fn a_missing_executable_or_one_that_is_no_file_is_refused() {
    alone!({
        let text = "Failed to canonicalize path /no/such/file: No such file or directory (os error 2)";
        refused(&[("exec-file", "/no/such/file")], text);
        refused(&[("exec-file", "/proc/../dev")], "/dev is not a file");
        refused(&[("exec-file", "/dev/null")], "/dev/null is not a file");
    });
}

#[test]
fn a_missing_base_or_one_that_is_no_directory_is_refused() {
    alone!({
        let text = "Failed to canonicalize path /no/such/base: No such file or directory (os error 2)";
        refused(&[("chroot-base-dir", "/no/such/base")], text);
        refused(&[("chroot-base-dir", "/proc/../dev/null")], "/dev/null is not a directory");
    });
}

#[test]
fn an_invalid_uid_or_gid_is_refused() {
    alone!({
        for bad in ["x", "-1", "4294967296", "", "1 "] {
            refused(&[("uid", bad)], &format!("Invalid uid: {bad}"));
            refused(&[("gid", bad)], &format!("Invalid gid: {bad}"));
        }
    });
}

#[test]
fn a_parent_cgroup_outside_the_hierarchy_is_refused() {
    alone!({
        for bad in ["/abs", "..", "a/../b", "./a", "a/.."] {
            refused(
                &[("parent-cgroup", bad)],
                "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
            );
        }
    });
}

#[test]
fn an_invalid_cgroup_version_is_refused() {
    alone!({
        for bad in ["v2", "256", "-1", ""] {
            refused(&[("cgroup-version", bad)], &format!("{bad} is an invalid cgroup version specifier"));
        }
    });
}

#[test]
fn an_unknown_cgroup_version_is_refused() {
    alone!({
        let text = "Hierarchy not found: No hierarchy found for this cgroup version.";
        refused(&[("cgroup-version", "3"), ("cgroup", "cpu.shares=1")], text);
        refused(&[("cgroup-version", "0"), ("cgroup", "cpu.shares=1")], text);
    });
}

#[test]
fn a_cgroup_setting_of_invalid_form_is_refused() {
    alone!({
        for bad in ["cpu.shares", "cpu.shares=", "cpu.shares=1=2", "=", ""] {
            refused(&any_version(bad), &format!("Invalid format for cgroups: {bad}"));
        }
    });
}

#[test]
fn a_cgroup_file_outside_its_directory_is_refused() {
    alone!({
        for bad in ["../cpu.shares=1", "/etc/cpu.shares=1", "./cpu.shares=1", "a/../cpu.shares=1"] {
            refused(&any_version(bad), &format!("Cgroup invalid file: {bad}"));
        }
        refused(&any_version("shares=1"), "Cgroup invalid file: shares");
    });
}

#[test]
fn an_unavailable_controller_is_refused() {
    alone!({
        refused(&any_version("nosuch.thing=1"), "Controller nosuch is unavailable");
        // A controller must match a whole mount option.
        refused(&any_version("re.latime=1"), "Controller re is unavailable");
    });
}

/// The setting, with a cgroup version that this host has.
fn any_version(setting: &str) -> Vec<(&'static str, &str)> {
    let first = testkit::cgroup_mounts().iter().any(|mount| mount.fs_type == "cgroup");
    vec![("cgroup-version", if first { "1" } else { "2" }), ("cgroup", setting)]
}

#[test]
fn an_invalid_limit_is_refused() {
    alone!({
        refused(&[("resource-limit", "fsize")], "Invalid format for resources limits: fsize");
        refused(&[("resource-limit", "cores=1")], "Invalid resource argument: cores");
        let text = "Invalid limit value for resource: ";
        refused(&[("resource-limit", "fsize=x")], &format!("{text}x: invalid digit found in string"));
        refused(&[("resource-limit", "no-file=1=2")], &format!("{text}1=2: invalid digit found in string"));
        refused(&[("resource-limit", "fsize=")], &format!("{text}: cannot parse integer from empty string"));
        refused(
            &[("resource-limit", "no-file=18446744073709551616")],
            &format!("{text}18446744073709551616: number too large to fit in target type"),
        );
    });
}

#[test]
fn the_first_mistake_in_the_order_of_checks_is_reported() {
    alone!({
        let version = any_version("nosuch.x=1")[0].1;
        // Each mistake with its message.
        let mistakes = [
            ("id", "a_b", "Invalid instance ID: Invalid char (_) at position 1"),
            ("exec-file", "/dev/null", "/dev/null is not a file"),
            ("chroot-base-dir", "/dev/null", "/dev/null is not a directory"),
            ("uid", "x", "Invalid uid: x"),
            ("gid", "x", "Invalid gid: x"),
            (
                "parent-cgroup",
                "..",
                "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
            ),
            ("cgroup-version", "x", "x is an invalid cgroup version specifier"),
            ("cgroup", "nosuch.x=1", "Controller nosuch is unavailable"),
            ("cgroup", "bad", "Invalid format for cgroups: bad"),
            ("resource-limit", "cores=1", "Invalid resource argument: cores"),
        ];
        for first in 0..mistakes.len() {
            let mut changes: Vec<_> =
                mistakes[first..].iter().map(|(name, value, _)| (*name, *value)).collect();
            if first > 6 {
                changes.push(("cgroup-version", version));
            }
            refused(&changes, mistakes[first].2);
        }
    });
}

#[test]
fn a_refused_start_creates_nothing() {
    conforms!(fixture, {
        let output = fixture.run(&["--resource-limit", "cores=1"], &[]);
        refuses(&output, "Invalid resource argument: cores");
        assert_eq!(std::fs::read_dir(&fixture.base).unwrap().count(), 0);
    });
}

#[test]
fn a_directory_that_cannot_be_created_is_reported() {
    conforms!(fixture, {
        std::fs::write(fixture.exec_dir(), "a file").unwrap();
        let text =
            format!("Failed to create directory {}: Not a directory (os error 20)", fixture.root().display());
        refuses(&fixture.run(&[], &[]), &text);
    });
}

#[test]
fn kernel_errors_have_firecrackers_messages() {
    conforms!(fixture, {
        let (root, copy) = (fixture.root().display().to_string(), fixture.copy().display().to_string());
        let copied = format!("Failed to copy {} to {copy}", fixture.exec.display());
        let tree = format!("Failed to create directory {root}");
        let owner = format!("Failed to change owner for {copy}");
        let null = "Failed to open file /dev/null".to_owned();
        let text = str::to_owned;
        let has_template = drop_in_or_firecracker(stockade::TemplateMounts::find().is_ok(), false);
        // The executable and the file of a template mount namespace are opened before it.
        let last_open = if has_template { "open:when=3" } else { "open:when=2" };
        // In the template mount namespace the jail's tree covers the empty directory, which is never unmounted.
        let change_root = if has_template { "chroot" } else { "pivot_root" };
        // The failing call of the drop-in, that of Firecracker's jailer (in the order of its effects), the flag, and
        // the message.
        let rows = [
            ("mkdirat:when=2", "mkdir,mkdirat:when=1", "", tree),
            ("fchownat:when=1", "fchown:when=1", "", owner),
            ("copy_file_range", "copy_file_range,sendfile:when=1", "", copied),
            ("fchmodat:when=1", "chmod,fchmodat:when=2", "", text("Failed to change permissions on /dev")),
            (
                "fchmodat:when=2",
                "chmod,fchmodat:when=3",
                "",
                text("Failed to change permissions on /dev/net"),
            ),
            ("fchmod:when=1", "chmod,fchmodat:when=1", "", text("Failed to change permissions on /")),
            ("fchownat:when=4", "chown,fchownat:when=4", "", text("Failed to change owner for /run")),
            (
                "mknodat:when=2",
                "mknod,mknodat:when=2",
                "",
                text("Failed to create /dev/kvm via mknod inside the jail"),
            ),
            ("unshare", "unshare", "", text("Failed to unshare into new mount namespace")),
            // Not EPERM: it would mean a kernel without the call, for which there is a fallback.
            ("mount_setattr", "mount:when=1", "", text("Failed to change the propagation type to slave")),
            ("open_tree", "mount:when=2", "", text("Failed to bind mount the jail root directory")),
            ("move_mount", "mount:when=2", "", text("Failed to bind mount the jail root directory")),
            ("fchdir:when=1", "chdir:when=1", "", text("Failed to change current directory")),
            (change_root, "pivot_root", "", text("Failed to pivot root")),
            ("umount2", "umount2", "", text("Failed to unmount the old jail root")),
            ("chdir", "chdir:when=2", "", text("Failed to chdir into chroot directory")),
            ("setgid", "setgid", "", text("Failed to exec into Firecracker")),
            ("setgroups", "setgroups", "", text("Failed to exec into Firecracker")),
            ("setuid", "setuid", "", text("Failed to exec into Firecracker")),
            ("clone3", "clone,clone3", "--new-pid-ns", text("Failed cloning into a new child process")),
            ("clone3", "clone,clone3,fork", "--daemonize", text("Failed to daemonize")),
            ("setsid", "setsid", "--daemonize", text("Failed to daemonize: setsid")),
            ("dup2,dup3", "dup2,dup3", "--daemonize", text("Failed to duplicate fd")),
            // The last open before the steps of the process.
            (last_open, "open:when=4", "--daemonize", null),
        ];
        for (drop_in, firecracker, flag, message) in rows {
            if flag == "--daemonize" && !drop_in_or_firecracker(true, false) {
                // Firecracker's jailer has already exited with success.
                continue;
            }
            if drop_in == "umount2" && has_template {
                continue;
            }
            let _ = std::fs::remove_dir_all(fixture.exec_dir());
            let (calls, when) = split(drop_in_or_firecracker(drop_in, firecracker));
            let (only, fault) = (format!("trace={calls}"), format!("inject={calls}:error=EACCES{when}"));
            let options = ["-f", "-qq", "-o", "/dev/null", "-e", &only, "-e", &fault];
            let flags: Vec<&str> = if flag.is_empty() { vec![] } else { vec![flag] };
            let name = "messages::kernel_errors_have_firecrackers_messages";
            let Some(mut command) = strace(name, &options, &fixture.command(&flags, &[])) else { return };
            refuses(&testkit::run_with(&mut command), &format!("{message}: Permission denied (os error 13)"));
        }
    });
}

/// Splits a fault into the calls and the condition.
fn split(fault: &str) -> (&str, &str) {
    fault.split_at(fault.find(':').unwrap_or(fault.len()))
}
