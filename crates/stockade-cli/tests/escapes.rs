//! Former escapes: set-uid files, the launcher's keyring, and the launcher's own program.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::BufRead;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Guard, mount_lines_of, privileged, program, run_with, said, stockade};

/// Starts a jail with a sleeping probe. Returns its id, its root and its VMM's pid.
fn sleeper(guard: &Guard, name: &str, flags: &[&str]) -> (String, PathBuf, i32) {
    let id = guard.named(name);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let arguments = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    said(guard, &[&arguments[..], flags].concat());
    let pid = said(guard, &["start", &id, "--", "sleep"]).trim().parse().unwrap();
    let root = guard.base().join("stockade-probe").join(&id).join("root");
    (id, root, pid)
}

/// Creates a file of the jail's owner in its root.
fn put(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    chown(&path, Some(1234), Some(1234)).unwrap();
}

/// Mount points that a process sees without `nosuid`.
fn suid_mounts(pid: i32) -> Vec<String> {
    let honours = |line: &String| !line.split(' ').nth(5).unwrap().split(',').any(|flag| flag == "nosuid");
    mount_lines_of(pid).into_iter().filter(honours).collect()
}

#[test]
fn every_mount_in_a_jail_is_nosuid() {
    privileged!(guard, {
        let share = guard.directory().join("share");
        std::fs::create_dir(&share).unwrap();
        let bind = format!("{}=share:bind", share.display());
        let flags = ["--ramfs", "1M", "--place", &bind];
        let (id, _, pid) = sleeper(&guard, "mounts", &flags);
        assert_eq!(suid_mounts(pid), Vec::<String>::new());
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_later_mount_of_the_host_is_nosuid_after_an_exec() {
    privileged!(guard, {
        use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
        // A shared mount as the base, so that mounts propagate into jails on every host.
        let (base, extra) = (guard.directory().join("shared"), guard.directory().join("extra"));
        std::fs::create_dir(&base).unwrap();
        std::fs::create_dir(&extra).unwrap();
        rustix::mount::mount(c"none", &base, c"tmpfs", MountFlags::empty(), c"").unwrap();
        rustix::mount::mount_change(&base, MountPropagationFlags::SHARED).unwrap();
        let (id, probe) = (guard.named("later"), program("stockade-probe").display().to_string());
        let base_flag = base.display().to_string();
        said(&guard, &["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base_flag]);
        let pid: i32 = said(&guard, &["start", &id, "--", "sleep"]).trim().parse().unwrap();
        let at = base.join("stockade-probe").join(&id).join("root/run");
        rustix::mount::mount_bind(&extra, &at).unwrap();
        let (before, exec) =
            (suid_mounts(pid), stockade(&guard, &["exec", &id, "--", "/stockade-probe", "exit=0"]));
        let after = suid_mounts(pid);
        rustix::mount::unmount(&at, UnmountFlags::DETACH).unwrap();
        said(&guard, &["rm", "--force", &id]);
        rustix::mount::unmount(&base, UnmountFlags::DETACH).unwrap();
        assert_eq!(before.len(), 1, "it has spread: {before:?}");
        assert_eq!((exec.code, exec.stderr.as_str()), (0, ""));
        assert_eq!(after, Vec::<String>::new());
    });
}

#[test]
fn jails_are_nosuid_where_the_hosts_mounts_are_copied() {
    privileged!(guard, {
        // With a separate runtime directory there is no template mount namespace, so the host's mounts are copied.
        let (id, base) = (guard.named("classic"), guard.base().display().to_string());
        let probe = program("stockade-probe").display().to_string();
        let mut run = Command::new("unshare");
        run.args(["--mount", "sh", "-c", "mount -t tmpfs none /run && exec \"$0\" \"$@\""]);
        run.arg(program("stockade")).args(["run", "--id", &id, "--exec-file", &probe]);
        run.args([
            "--chroot-base-dir",
            &base,
            "--place",
            "/proc=proc:bind",
            "--",
            "read=/proc/self/mountinfo",
        ]);
        run.env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut run);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let table: Value = serde_json::from_str(output.stdout.trim()).unwrap();
        let lines: Vec<&str> = table["read"].as_str().unwrap().lines().collect();
        assert!(lines.len() >= 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.split(' ').nth(5).unwrap().contains("nosuid")), "{lines:?}");
    });
}

#[test]
fn the_root_of_a_jail_is_nosuid_even_without_mount_setattr() {
    privileged!(guard, {
        let test = "the_root_of_a_jail_is_nosuid_even_without_mount_setattr";
        if !testkit::has(Path::new("/usr/bin/strace").exists(), test, "strace") {
            return;
        }
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        // A kernel before 5.12, and a seccomp filter of that time; with the host's mounts and with the template's.
        for (number, (errno, before)) in
            [("ENOSYS", ""), ("EPERM", ""), ("ENOSYS", "mount -t tmpfs none /run && ")].iter().enumerate()
        {
            let id = guard.named(&format!("old{number}"));
            said(&guard, &["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base]);
            let script = format!("{before} exec strace -qq -f -o /dev/null \"$0\" \"$@\"");
            let mut start = Command::new("unshare");
            start.args(["--mount", "sh", "-c", &script, &format!("--inject=mount_setattr:error={errno}")]);
            start.arg(program("stockade")).args(["start", &id, "--", "sleep"]);
            start.env("STOCKADE_STATE_DIR", guard.state());
            // strace exits with the VMM.
            let mut tracer = start.stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            std::io::BufReader::new(tracer.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let pid: i32 = line.trim().parse().unwrap();
            assert_eq!(suid_mounts(pid), Vec::<String>::new(), "{errno}, {before:?}");
            // A traced process exists until its tracer has waited for it.
            said(&guard, &["kill", &id]);
            tracer.wait().unwrap();
            said(&guard, &["rm", "--force", &id]);
        }
    });
}

#[test]
fn the_launchers_session_keyring_is_out_of_reach() {
    privileged!(guard, {
        let (id, base) = (guard.named("keys"), guard.base().display().to_string());
        let (stockade, probe) = (program("stockade"), program("stockade-probe").display().to_string());
        let (other, _, _) = sleeper(&guard, "other", &[]);
        let script = "set -e; \"$0\" run --id \"$1\" --exec-file \"$2\" --chroot-base-dir \"$3\" -- keys; \
                      \"$0\" exec \"$4\" -- /stockade-probe keys; \"$0\" exec --root \"$4\" -- /stockade-probe keys; \
                      \"$2\" keys";
        let mut launcher = Command::new(&probe);
        launcher.args(["odd", "sh", "-c", script]).arg(stockade).args([&id, &probe, &base, &other]);
        launcher.env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut launcher);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let lines: Vec<Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        // The bytes read, then the result of clearing: each process has its own empty keyring.
        let nothing = json!({ "keys": [{ "Ok": 0 }, { "Ok": 0 }] });
        assert_eq!(lines[..2], [nothing.clone(), nothing]);
        // uid 0 has keyrings on the host, so root in a jail has no access to keys at all: ENOSYS.
        assert_eq!(lines[2], json!({ "keys": [{ "Err": 38 }, { "Err": 38 }] }));
        assert_eq!(
            lines[3]["keys"][0],
            json!({ "Ok": 4 }),
            "the launcher's key is still there: 4 bytes are its number"
        );
        said(&guard, &["rm", "--force", &other]);
    });
}

#[test]
fn a_start_without_keyrings_never_keeps_the_launchers() {
    privileged!(guard, {
        let test = "a_start_without_keyrings_never_keeps_the_launchers";
        if !testkit::has(Path::new("/usr/bin/strace").exists(), test, "strace") {
            return;
        }
        let (id, base) = (guard.named("keyless"), guard.base().display().to_string());
        let probe = program("stockade-probe").display().to_string();
        let run = |inject: &str| {
            let mut command = Command::new("strace");
            command
                .args(["-qq", "-f", "-o", "/dev/null", &format!("--inject={inject}")])
                .arg(program("stockade"));
            command.args([
                "run",
                "--id",
                &id,
                "--exec-file",
                &probe,
                "--chroot-base-dir",
                &base,
                "--",
                "exit=7",
            ]);
            run_with(command.env("STOCKADE_STATE_DIR", guard.state()))
        };
        // A kernel without keys, and a filter that also forbids them to the VMM.
        assert_eq!(run("keyctl:error=ENOSYS").code, 7);
        assert_eq!(run("keyctl:error=EPERM").code, 7);
        for (inject, line) in [
            // A filter that forbids only `KEYCTL_JOIN_SESSION_KEYRING`.
            ("keyctl:error=EPERM:when=1", "cannot reset session keyring: operation not permitted"),
            (
                "keyctl:error=EDQUOT:when=1",
                "cannot reset session keyring: disk quota exceeded; raise kernel.keys.root_maxkeys and \
                 kernel.keys.root_maxbytes",
            ),
            (
                "sched_setattr:error=EPERM",
                "cannot reset scheduling policy and nice value: operation not permitted; run stockade with \
                 CAP_SYS_NICE, or with SCHED_OTHER and nice value 0",
            ),
        ] {
            let output = run(inject);
            assert_eq!((output.code, output.stderr), (125, format!("stockade: {line}\n")), "{inject}");
        }
    });
}

#[test]
fn an_exec_process_never_executes_stockade_itself() {
    privileged!(guard, {
        let (id, root, _) = sleeper(&guard, "self", &["--place", "/proc=proc:bind"]);
        put(&root, "script", b"#!/proc/self/exe\n");
        put(&root, "with-argument", b"#! /proc/self/exe  --help \n");
        put(&root, "chain", b"#!/script\n");
        put(&root, "elf", &stockade_probe::foreign_interpreter());
        std::os::unix::fs::symlink("/proc/self/exe", root.join("link")).unwrap();
        for program in ["/script", "/with-argument", "/chain", "/elf", "/link"] {
            for root in [&[][..], &["--root"]] {
                let arguments = [&["exec"][..], root, &[&id, "--", program, "--help"]].concat();
                let output = stockade(&guard, &arguments);
                let all = format!("{}{}", output.stdout, output.stderr);
                assert!(!all.contains("Usage:"), "{arguments:?}: {all}");
                assert!([1, 125, 126, 127].contains(&output.code), "{arguments:?}: {} {all}", output.code);
            }
        }
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn scripts_of_a_jail_run_as_under_execve() {
    privileged!(guard, {
        let (id, root, _) = sleeper(&guard, "scripts", &[]);
        put(&root, "plain", b"#!/stockade-probe\n");
        put(&root, "spaced", b"#!  /stockade-probe \t args  \nrest");
        put(&root, "chain", b"#!/spaced second\n");
        put(&root, "no-end", b"#!/stockade-probe args");
        put(&root, "empty", b"#!\n");
        put(&root, "long", format!("#!/{}\n", "x".repeat(300)).as_bytes());
        put(&root, "loop", b"#!/loop\n");
        put(&root, "text", b"no program\n");
        put(&root, "missing", b"#!/not/there\n");
        let args = |arguments: &[&str]| json!({ "args": arguments }).to_string() + "\n";
        let runs = |program: &str| said(&guard, &["exec", &id, "--", program, "args"]);
        // The probe takes the path of the script for an action, so it prints only an error.
        let plain = stockade(&guard, &["exec", &id, "--", "/plain", "args"]);
        assert_eq!((plain.code, plain.stderr.as_str()), (2, "stockade-probe: unknown action '/plain'\n"));
        let printed = stockade(&guard, &["exec", &id, "--", "/spaced", "exit=7"]);
        assert_eq!(printed.stdout, args(&["/stockade-probe", "args", "/spaced", "exit=7"]));
        let printed = stockade(&guard, &["exec", &id, "--", "/chain", "third"]);
        assert_eq!(
            printed.stdout,
            args(&["/stockade-probe", "args", "/spaced", "second", "/chain", "third"])
        );
        let printed = stockade(&guard, &["exec", &id, "--", "/no-end"]);
        assert_eq!(printed.stdout, args(&["/stockade-probe", "args", "/no-end"]));
        for (program, code) in [
            ("/empty", 126),
            ("/long", 126),
            ("/loop", 126),
            ("/text", 126),
            ("/missing", 127),
            ("/run", 126),
        ] {
            let output = stockade(&guard, &["exec", &id, "--", program]);
            assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{program}: {}", output.stderr);
            assert_eq!(output.stderr.lines().count(), 1, "{program}: {}", output.stderr);
        }
        assert_eq!(runs("/stockade-probe"), args(&["/stockade-probe", "args"]));
        said(&guard, &["rm", "--force", &id]);
    });
}
