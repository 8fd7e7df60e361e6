//! Closed outputs, full disks, read-only directories and killed terminals: at most one line, no panic, no leftovers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Guard, Output, command, privileged, program, run_with, said, stockade};

/// The flags of a jail with the probe in the test's base directory.
fn flags(guard: &Guard) -> String {
    format!(
        "--exec-file {} --chroot-base-dir {}",
        program("stockade-probe").display(),
        guard.base().display()
    )
}

/// Creates a jail and starts its VMM, which prints a line and sleeps.
fn start(guard: &Guard, id: &str) {
    let line = format!("create --id {id} {}", flags(guard));
    said(guard, &line.split(' ').collect::<Vec<_>>());
    said(guard, &["start", id, "--", "clock", "sleep"]);
    // Before that, `logs` reports that there is no log.
    while stockade(guard, &["logs", id]).stdout.is_empty() {}
}

/// A command line of each command that prints much, or prints while it works.
fn printing(guard: &Guard) -> Vec<String> {
    let mut lines: Vec<String> = [
        "--help",
        "run --help",
        "ps",
        "ps -q",
        "ps --json",
        "inspect vm",
        "inspect --all --json",
        "logs vm",
        "profiles",
        "profiles qemu",
        "profiles --json",
        "top --once",
        "top --json",
        "gc",
        "gc --json",
        "doctor",
        "doctor --json",
        "audit vm",
        "audit --all --json",
        "audit --sarif vm",
        "events --all --timeout 1",
        "events --all --json --timeout 1",
        "version",
        "exec vm -- /stockade-probe report",
    ]
    .map(str::to_owned)
    .to_vec();
    lines.extend(["", "--json "].map(|json| format!("plan {json}--id other {}", flags(guard))));
    lines
}

/// Runs a command line with this stdout.
fn printing_to(guard: &Guard, line: &str, stdout: impl Into<Stdio>) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let mut command = command(guard, &line.split(' ').collect::<Vec<_>>());
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    // Dropped here, so that only the child holds the write ends of its output.
    drop(command);
    let output = child.wait_with_output().unwrap();
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Output { code: code.unwrap_or(-1), stdout: String::new(), stderr }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    privileged!(guard, {
        start(&guard, "vm");
        for line in printing(&guard) {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let output = printing_to(&guard, &line, writer);
            // The exit code of the program in the jail may vary.
            assert!(output.code == 0 || line.starts_with("exec "), "{line}: {output:?}");
            assert!(
                !output.stderr.contains("panicked") && !output.stderr.contains("stockade: "),
                "{line}: {output:?}"
            );
        }
        // The command finishes its work without a reader.
        start(&guard, "other");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let removed = printing_to(&guard, "rm --force vm other", writer);
        assert_eq!((removed.code, removed.stderr.as_str()), (0, ""));
        assert_eq!(said(&guard, &["ps", "-q"]), "");
    });
}

#[test]
fn a_full_stdout_is_one_line() {
    privileged!(guard, {
        start(&guard, "vm");
        let said_of_it = "stockade: cannot write to stdout: no space left on device\n";
        for line in printing(&guard) {
            // The program in the jail writes to stdout itself.
            if line.starts_with("exec ") {
                continue;
            }
            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = printing_to(&guard, &line, full);
            let code = if line.starts_with("run ") { 125 } else { 1 };
            assert_eq!((output.code, output.stderr.as_str()), (code, said_of_it), "{line}");
        }
        said(&guard, &["rm", "--force", "vm"]);
    });
}

/// Runs a script with the test's state directory on a separate filesystem, mounted with these options.
fn with_state_on(guard: &Guard, options: &str, script: &str) -> Output {
    std::fs::create_dir_all(guard.state()).unwrap();
    let whole = format!("mount -t tmpfs -o {options} none $STOCKADE_STATE_DIR && {{ {script}; }}");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &whole]);
    let output =
        run_with(command.env("STOCKADE_STATE_DIR", guard.state()).env("stockade", program("stockade")));
    std::fs::remove_dir(guard.state()).unwrap();
    assert!(!output.stderr.contains("panicked"), "{output:?}");
    output
}

#[test]
fn a_full_state_directory_is_one_line_and_leaves_nothing() {
    privileged!(guard, {
        let flags = flags(&guard);
        // Without space for a receipt, and with space for the first one but not for the next, which has the VMM's pid.
        // The file for the exit status is created between the two.
        for (fill, file) in
            [("head -c 4096 /dev/zero > $STOCKADE_STATE_DIR/.full", "receipt.json"), ("true", "ended.new")]
        {
            for command in [
                format!("run --id vm {flags} -- exit=0"),
                format!("run --id vm {flags} --daemonize -- sleep"),
            ] {
                let script =
                    format!("{fill}; $stockade {command}; code=$?; ls $STOCKADE_STATE_DIR; exit $code");
                let output = with_state_on(&guard, "size=4k", &script);
                assert_eq!((output.code, output.stdout.as_str()), (125, ""), "{output:?}");
                let at = guard.state().join("vm").join(file);
                let line = format!("stockade: cannot write '{}': no space left on device\n", at.display());
                assert_eq!(output.stderr, line);
                assert!(!guard.base().exists(), "{command}");
            }
        }
    });
}

#[test]
fn rm_needs_no_space_in_the_state_directory() {
    privileged!(guard, {
        let flags = flags(&guard);
        let script = format!(
            "$stockade create --id vm {flags} && $stockade start vm -- sleep && \
             {{ head -c 99999 /dev/zero > $STOCKADE_STATE_DIR/.full; $stockade rm --force vm && $stockade ps -q; }}"
        );
        let output = with_state_on(&guard, "size=32k", &script);
        assert_eq!(output.code, 0, "{output:?}");
        assert_eq!(output.stdout.lines().last(), Some("vm"), "{output:?}");
        assert!(!guard.base().exists());
    });
}

#[test]
fn a_read_only_state_directory_is_one_line_and_leaves_nothing() {
    privileged!(guard, {
        let flags = flags(&guard);
        for (command, code) in [("run", 125), ("create", 1)] {
            let output = with_state_on(&guard, "ro", &format!("exec $stockade {command} --id vm {flags}"));
            assert_eq!((output.code, output.stderr.lines().count()), (code, 1), "{output:?}");
            assert!(
                output.stderr.starts_with("stockade: cannot ")
                    && output.stderr.contains(": read-only file system")
            );
            assert!(!guard.base().exists(), "{command}");
        }
        for command in ["ps", "ps --json", "gc --dry-run", "rm --all", "doctor -q > /dev/null"] {
            let output = with_state_on(&guard, "ro", &format!("$stockade {command}"));
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{command}: {}", output.stdout);
        }
    });
}

#[test]
fn without_the_boot_id_no_command_touches_a_jail() {
    privileged!(guard, {
        start(&guard, "vm");
        let flags = flags(&guard);
        let said_of = |file: &str| {
            let fix = "no such file or directory; mount a procfs at /proc, without the option subset=pid\n";
            format!("'/proc/{file}': {fix}")
        };
        let boot_id = said_of("sys/kernel/random/boot_id");
        let run = format!("run --id other {flags}");
        let commands =
            ["ps", "gc", "stop vm", "rm --force vm", "inspect vm", "exec vm -- /bin/true", "start vm", &run];
        for (proc, has_processes) in [("-t proc -o subset=pid proc", true), ("-t tmpfs none", false)] {
            let within = |command: &str| {
                let script =
                    format!("mount -t tmpfs none /run; mount {proc} /proc; exec $stockade {command}");
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", &script]).env("stockade", program("stockade"));
                run_with(command.env("STOCKADE_STATE_DIR", guard.state()))
            };
            for command in commands {
                let output = within(command);
                assert_ne!(output.code, 0, "{proc}: {command}: {output:?}");
                assert!(output.stderr.ends_with(&boot_id), "{proc}: {command}: {output:?}");
                assert_eq!(output.stderr.lines().count(), 1, "{proc}: {command}: {output:?}");
            }
            if !has_processes {
                let output = within("host-setup");
                let said = format!("stockade: cannot inspect {}", said_of("thread-self/ns/mnt"));
                assert_eq!((output.code, output.stderr), (1, said));
            }
        }
        let listed = said(&guard, &["ps"]);
        assert!(listed.contains("running"), "{listed}");
        assert!(!listed.contains("other"), "{listed}");
        said(&guard, &["rm", "--force", "vm"]);
    });
}

/// A command on its own terminal, with stderr in a file.
struct OnTerminal {
    terminal: std::process::Child,
    pid: i32,
    complaints: PathBuf,
    line: String,
}

impl OnTerminal {
    fn new(guard: &Guard, line: &str) -> Self {
        let (pid, complaints) = (guard.directory().join("pid"), guard.directory().join("complaints"));
        let _ = std::fs::remove_file(&pid);
        let inner = format!(
            "echo $$ > {pid}.new; mv {pid}.new {pid}; exec env --default-signal {} {line} 2> {}",
            program("stockade").display(),
            complaints.display(),
            pid = pid.display(),
        );
        let terminal = Command::new("script")
            .args(["-qec", &inner, "/dev/null"])
            .env("STOCKADE_STATE_DIR", guard.state())
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !pid.exists() {
            assert!(Instant::now() < deadline, "{line} does not begin");
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
        Self { terminal, pid, complaints, line: line.to_owned() }
    }

    /// Kills the terminal and waits until the command exits. Returns its stderr.
    fn kill(mut self) -> String {
        self.terminal.kill().unwrap();
        self.terminal.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = Pid::from_raw(self.pid).unwrap();
        // Orphans become children of this test.
        while rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG)
            .is_ok_and(|ended| ended.is_none())
        {
            assert!(Instant::now() < deadline, "{} outlives its terminal", self.line);
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::read_to_string(&self.complaints).unwrap()
    }
}

#[test]
fn a_killed_terminal_stops_its_command_and_leaves_no_jail() {
    privileged!(guard, {
        let ran = OnTerminal::new(&guard, &format!("run --id ran {} -- sleep", flags(&guard)));
        while said(&guard, &["ps", "-q", "--filter", "state=running"]).is_empty() {}
        assert_eq!(ran.kill(), "");
        assert_eq!(stockade(&guard, &["ps", "-q"]).stdout, "");
        start(&guard, "vm");
        for line in ["top", "logs -f vm", "events", "wait vm", "exec vm -- /stockade-probe sleep"] {
            let watching = OnTerminal::new(&guard, line);
            // Until the command has blocked its signals.
            std::thread::sleep(Duration::from_millis(150));
            let complaints = watching.kill();
            assert!(
                !complaints.contains("panicked") && complaints.lines().count() <= 1,
                "{line}: {complaints}"
            );
        }
        assert_eq!(said(&guard, &["ps", "-q", "--filter", "state=running"]), "vm\n");
        let vmm: i32 = String::from(
            said(&guard, &["inspect", "vm"])
                .lines()
                .find_map(|line| line.strip_prefix("VMM        pid "))
                .unwrap(),
        )
        .parse()
        .unwrap();
        kill_process(Pid::from_raw(vmm).unwrap(), Signal::TERM).unwrap();
        assert_eq!(said(&guard, &["wait", "vm"]), "143\n");
        said(&guard, &["rm", "vm"]);
    });
}
