//! `exec` and `shell`: an exec process has the VMM's limits, ends with the jail, and never gets the caller's terminal.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use testkit::{Guard, Output, has, privileged, program, run_with, stdout_of};

fn command(guard: &Guard, arguments: &[&str]) -> Command {
    let mut command = testkit::command(guard, arguments);
    command.env_remove("TERM");
    command
}

fn stockade(guard: &Guard, arguments: &[&str]) -> Output {
    run_with(&mut command(guard, arguments))
}

fn said(guard: &Guard, arguments: &[&str]) -> String {
    stdout_of(&mut command(guard, arguments))
}

/// Starts a jail with a sleeping probe. Returns its id and its VMM's pid.
fn sleeper(guard: &Guard, name: &str, flags: &[&str]) -> (String, i32) {
    let id = guard.named(name);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    said(guard, &[&fixed[..], flags].concat());
    let pid = said(guard, &["start", &id, "--", "sleep"]).trim().parse().unwrap();
    (id, pid)
}

fn refused(guard: &Guard, arguments: &[&str], code: i32, line: &str) {
    let output = stockade(guard, arguments);
    assert_eq!((output.stderr, output.stdout.as_str()), (format!("stockade: {line}\n"), ""));
    assert_eq!(output.code, code, "{arguments:?}");
}

/// A sleeping exec process, and the command that waits for it. Drop ends both, also in a failed test.
struct Asleep {
    command: Child,
    pid: i32,
}

impl Asleep {
    fn new(guard: &Guard, arguments: &[&str]) -> Self {
        let all = [arguments, &["args", "sleep"]].concat();
        let spawned = command(guard, &all).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut asleep = Self { command: spawned.unwrap(), pid: 0 };
        asleep.command.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        asleep.pid = child_of(&asleep.command);
        asleep
    }

    fn code(&mut self) -> Option<i32> {
        self.command.wait().unwrap().code()
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        if matches!(self.command.try_wait(), Ok(None)) {
            let process = Pid::from_raw(self.pid);
            let _ = process.map(|process| rustix::process::kill_process(process, Signal::KILL));
            let _ = self.command.kill().and_then(|()| self.command.wait());
        }
    }
}

fn child_of(command: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", command.id());
    std::fs::read_to_string(children).unwrap().trim().parse().unwrap()
}

fn namespace(pid: i32, kind: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

#[test]
fn an_exec_process_has_the_vmms_limits_and_ends_with_the_jail() {
    privileged!(guard, {
        let net = guard.named("net");
        let limited =
            ["--new-pid-ns", "--netns", &net, "--cgroup", "pids.max=9", "--parent-cgroup", guard.name()];
        for (name, flags) in [("plain", &[][..]), ("limited", &limited)] {
            let (id, vmm) = sleeper(&guard, name, flags);
            let mut asleep = Asleep::new(&guard, &["exec", &id, "--", "/stockade-probe"]);
            let process = asleep.pid;
            for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
                assert_eq!(namespace(process, kind), namespace(vmm, kind), "{name}: {kind}");
            }
            let of = |pid: i32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            for file in ["cgroup", "limits"] {
                assert_eq!(of(process, file), of(vmm, file), "{name}: {file}");
            }
            let held = |pid: i32| {
                let kept = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp:", "SigBlk"];
                let is_kept = |line: &&str| kept.iter().any(|name| line.starts_with(name));
                of(pid, "status").lines().filter(is_kept).map(str::to_owned).collect::<Vec<_>>()
            };
            assert_eq!(held(process), held(vmm), "{name}");
            let root = |pid: i32| {
                let facts = rustix::fs::stat(format!("/proc/{pid}/root")).unwrap();
                (facts.st_dev, facts.st_ino)
            };
            assert_eq!(root(process), root(vmm), "{name}");
            assert_eq!(said(&guard, &["rm", "--force", &id]), format!("{id}\n"));
            assert_eq!(asleep.code(), Some(137), "{name}: it is killed with the jail");
        }
    });
}

#[test]
fn an_exec_process_sees_the_jail_and_not_the_caller() {
    privileged!(guard, {
        let (id, _) = sleeper(&guard, "sees", &[]);
        let secret = File::open("/etc/passwd").unwrap();
        rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
        let arguments = ["exec", &id, "stockade-probe", "report"];
        let report: Value = serde_json::from_str(&said(&guard, &arguments)).unwrap();
        assert_eq!(report["descriptors"], json!([0, 1, 2]));
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/";
        assert_eq!(report["environment"], json!([path]));
        assert_eq!((&report["cwd"], &report["sid"]), (&json!("/"), &report["pid"]));
        let escapes = report["escapes"].as_array().unwrap();
        assert!(!escapes.is_empty() && escapes.iter().all(|escape| escape["held"] == true), "{escapes:?}");
        let arguments = ["exec", "--env", "A=b=c", "--env", "PATH=/x", &id, "/stockade-probe", "report"];
        let report: Value = serde_json::from_str(&said(&guard, &arguments)).unwrap();
        assert_eq!(report["environment"], json!(["A=b=c", "PATH=/x"]));
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn exit_codes_signals_and_stdin_are_passed_on() {
    privileged!(guard, {
        let (id, _) = sleeper(&guard, "through", &[]);
        for (word, code) in [("exit=0", 0), ("exit=255", 255), ("signal=9", 137), ("signal=15", 143)] {
            let output = stockade(&guard, &["exec", &id, "--", "stockade-probe", word]);
            assert_eq!((output.code, output.stderr.as_str()), (code, ""), "{word}");
        }
        let mut held = command(&guard, &["exec", &id, "stockade-probe", "hold", "exit=6"]);
        let mut held = held.stdin(Stdio::piped()).spawn().unwrap();
        held.stdin.take().unwrap().write_all(b"x").unwrap();
        assert_eq!(held.wait().unwrap().code(), Some(6));
        let mut asleep = Asleep::new(&guard, &["exec", &id, "stockade-probe"]);
        let pid = Pid::from_raw(i32::try_from(asleep.command.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        assert_eq!(asleep.code(), Some(143));
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn root_keeps_only_capabilities_over_files() {
    privileged!(guard, {
        for (name, flags) in [("plain", &[][..]), ("own", &["--new-pid-ns"][..])] {
            let (id, vmm) = sleeper(&guard, name, flags);
            let arguments =
                ["exec", "--root", &id, "stockade-probe", "write=/stockade-probe.pid=mine", "report"];
            let output = said(&guard, &arguments);
            let (wrote, report) = output.split_once('\n').unwrap();
            assert_eq!(wrote, "{\"write\":\"ok\"}");
            let report: Value = serde_json::from_str(report).unwrap();
            assert_eq!((&report["uid"], &report["gid"]), (&json!(0), &json!(0)));
            // CHOWN, DAC_OVERRIDE and FOWNER.
            let sets = json!({ "effective": "0xb", "permitted": "0xb", "inheritable": "0x0",
                               "bounding": "0xb", "ambient": "0x0" });
            assert_eq!(report["capabilities"], sets, "{name}");
            for escape in report["escapes"].as_array().unwrap() {
                assert!(escape["held"] == true || escape["name"] == "become-root", "{name}: {escape}");
            }
            let mut asleep = Asleep::new(&guard, &["exec", "--root", &id, "stockade-probe"]);
            let process = asleep.pid;
            assert_ne!(namespace(process, "pid"), namespace(std::process::id().cast_signed(), "pid"));
            assert_eq!(namespace(process, "pid") == namespace(vmm, "pid"), name == "own");
            said(&guard, &["rm", "--force", &id]);
            assert_eq!(asleep.code(), Some(137));
        }
    });
}

const BUSYBOX: &str = "/bin/busybox";

#[test]
fn a_program_of_the_host_is_a_sealed_copy() {
    if !has(Path::new(BUSYBOX).exists(), "a_program_of_the_host_is_a_sealed_copy", "busybox") {
        return;
    }
    privileged!(guard, {
        let (id, _) = sleeper(&guard, "lent", &[]);
        let busybox = ["exec", "--host-program", BUSYBOX, &id];
        let listed = said(&guard, &[&busybox[..], &["ls", "/"]].concat());
        assert_eq!(listed, "dev\nrun\nstockade-probe\nstockade-probe.pid\n");
        let output = stockade(&guard, &[&busybox[..], &["--", "sh", "-c", "exit 9"]].concat());
        assert_eq!(output.code, 9);
        let mut arguments = command(&guard, &[&busybox[..], &["cat"]].concat());
        let mut running = arguments.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        running.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        running.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let exe = format!("/proc/{}/exe", child_of(&running));
        assert!(std::fs::read_link(&exe).unwrap().to_string_lossy().starts_with("/memfd:exec"));
        // Root cannot write to it from inside, so no other process can.
        assert!(File::options().write(true).open(&exe).and_then(|mut file| file.write_all(b"x")).is_err());
        drop(running.stdin.take());
        assert!(running.wait().unwrap().success());
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_failed_exec_is_one_line_with_an_exit_code_of_its_own() {
    privileged!(guard, {
        let no_jail = format!("no jail '{}'; list the jails with `stockade ps`", guard.name());
        refused(&guard, &["exec", guard.name(), "x"], 125, &no_jail);
        let (id, _) = sleeper(&guard, "wrong", &[]);
        let gone = "no such file or directory";
        let none = format!(
            "cannot execute in the jail: sh: {gone}; the jail has no such program, or not its interpreter: \
             use a static program of the host with --host-program"
        );
        refused(&guard, &["shell", &id], 127, &none);
        let file = "cannot execute in the jail: /stockade-probe.pid: permission denied; make it executable for the \
                    jail's uid";
        refused(&guard, &["exec", &id, "/stockade-probe.pid"], 126, file);
        refused(
            &guard,
            &["exec", &id, "../x"],
            125,
            "'../x' is not a path inside a jail; use one without '..'",
        );
        refused(
            &guard,
            &["exec", "--env", "A", &id, "x"],
            125,
            "--env: 'A' is not NAME=VALUE; use for example TERM=linux",
        );
        let missing = format!("--host-program: cannot open '/no/such': {gone}; check the path");
        refused(&guard, &["exec", "--host-program", "/no/such", &id], 125, &missing);
        let directory = "--host-program: '/etc' is not a regular file; name a file";
        refused(&guard, &["exec", "--host-program", "/etc", &id], 125, directory);
        let pipe = guard.directory().join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        let no_file = format!("--host-program: '{}' is not a regular file; name a file", pipe.display());
        refused(&guard, &["exec", "--host-program", &pipe.display().to_string(), &id], 125, &no_file);
        let script = guard.file("script", "#!/bin/sh\n").display().to_string();
        let interpreted = format!(
            "cannot execute in the jail: script: {gone}; it needs an interpreter that the jail does not have: \
             use a static program"
        );
        refused(&guard, &["exec", "--host-program", &script, &id], 127, &interpreted);
        refused(
            &guard,
            &["exec", &id],
            125,
            "the following required arguments were not provided: <PROGRAM>...; add it",
        );
        said(&guard, &["kill", &id]);
        said(&guard, &["wait", &id]);
        refused(
            &guard,
            &["exec", &id, "x"],
            125,
            &format!("jail '{id}' is not running; see its state with `stockade ps`"),
        );
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_shell_has_its_own_terminal_and_the_callers_is_restored() {
    if !has(
        Path::new(BUSYBOX).exists(),
        "a_shell_has_its_own_terminal_and_the_callers_is_restored",
        "busybox",
    ) {
        return;
    }
    privileged!(guard, {
        let (id, _) = sleeper(&guard, "shell", &[]);
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ioctl_tiocgptpeer(&ours, flags).unwrap();
        tcsetwinsize(&theirs, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let stream = || Stdio::from(theirs.try_clone().unwrap());
        let mut shell = command(&guard, &["shell", "--host-program", BUSYBOX, &id]);
        shell.stdin(stream()).stdout(stream()).stderr(stream()).env("TERM", "vt100");
        let mut shell = shell.spawn().unwrap();
        let mut typed = File::from(ours.try_clone().unwrap());
        let mut screen = Screen { terminal: File::from(ours), text: String::new() };
        screen.wait_for("/ $ ");
        assert!(
            !tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ECHO),
            "every key is handed on"
        );
        typed.write_all(b"stty size; echo kind $TERM\r").unwrap();
        screen.wait_for("33 77\r\n");
        screen.wait_for("kind vt100\r\n");
        // The shell handles the interrupt and continues.
        typed.write_all(b"echo run''s; sleep 1000\r").unwrap();
        screen.wait_for("runs\r\n");
        typed.write_all(b"\x03").unwrap();
        screen.wait_for("/ $ ");
        typed.write_all(b"exit 4\r").unwrap();
        screen.wait_for("exit 4\r\n");
        assert_eq!(shell.wait().unwrap().code(), Some(4));
        assert!(tcgetattr(&theirs).unwrap().local_modes.contains(LocalModes::ECHO), "as it was before");
        said(&guard, &["rm", "--force", &id]);
    });
}

/// The output of a terminal since the last read.
struct Screen {
    terminal: File,
    text: String,
}

impl Screen {
    fn wait_for(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            let mut buffer = [0; 1024];
            let length = self.terminal.read(&mut buffer).unwrap();
            self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let end = self.text.find(wanted).unwrap() + wanted.len();
        self.text.drain(..end);
    }
}

#[test]
fn a_file_size_limit_applies_to_the_program_not_its_copy() {
    privileged!(guard, {
        let (id, _) = sleeper(&guard, "small", &["--resource-limit", "fsize=4096"]);
        let limits = said(&guard, &["exec", &id, "--", "/stockade-probe", "limits"]);
        let limits: Value = serde_json::from_str(&limits).unwrap();
        assert_eq!(limits["limits"]["fsize"], json!([4096, 4096]));
        // If the launcher itself has such a limit, the copy fails with an error and no process is killed.
        let mut exec = Command::new("prlimit");
        exec.arg("--fsize=4096").arg(program("stockade")).args([
            "exec",
            &id,
            "--",
            "/stockade-probe",
            "limits",
        ]);
        let output = run_with(exec.env("STOCKADE_STATE_DIR", guard.state()));
        if rustix::process::getrlimit(rustix::process::Resource::Fsize).maximum.is_none()
            && !rustix::thread::capabilities(None)
                .unwrap()
                .effective
                .contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
        {
            assert_eq!(output.code, 126, "{}", output.stderr);
            assert!(output.stderr.contains("file too large"), "{}", output.stderr);
        }
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn exec_as_root_warns_of_the_hosts_files() {
    privileged!(guard, {
        let image = guard.file("image", "of the host");
        let place = format!("{}:ro:link", image.display());
        let (id, _) = sleeper(&guard, "linked", &["--place", &place]);
        let output = stockade(&guard, &["exec", "--root", &id, "--", "/stockade-probe", "exit=0"]);
        let line = format!(
            "stockade: '/image' is a hard link to the host's '{}', which a root program in the jail can change; place it \
             with :copy\n",
            image.display()
        );
        assert_eq!((output.code, output.stderr), (0, line));
        assert_eq!(said(&guard, &["exec", &id, "--", "/stockade-probe", "exit=0"]), "");
        said(&guard, &["rm", "--force", &id]);
        std::fs::remove_file(&image).unwrap();
    });
}
