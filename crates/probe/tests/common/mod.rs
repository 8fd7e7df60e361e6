//! Running the probe and reading its output.

#![allow(dead_code, clippy::unwrap_used)] // Each test program uses a part of this module.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_stockade-probe");
/// The uid and gid of an unprivileged run.
pub(crate) const NOBODY: u32 = 1234;

/// Runs the probe until it exits.
pub(crate) fn probe(arguments: &[&str]) -> Output {
    Command::new(PROBE).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that must succeed and print only JSON lines.
pub(crate) fn lines_of(command: &mut Command) -> Vec<Value> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    assert_eq!(errors, "", "{command:?}");
    parse(&output.stdout)
}

/// Runs the probe, which must succeed, and reads its lines.
pub(crate) fn lines(arguments: &[&str]) -> Vec<Value> {
    lines_of(Command::new(PROBE).args(arguments))
}

pub(crate) fn parse(stdout: &[u8]) -> Vec<Value> {
    str::from_utf8(stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command that prints one JSON line.
pub(crate) fn line_of(command: &mut Command) -> Value {
    let mut lines = lines_of(command);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// A running probe. Dropping it kills the probe.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_command(Command::new(PROBE).args(arguments))
    }

    pub(crate) fn start_command(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    pub(crate) fn next_line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn status_field(&self, name: &str) -> String {
        status_field(self.child.id(), name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a line of `/proc/PID/status`.
pub(crate) fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
}

/// A field of `/proc/PID/stat` by its number in proc(5), from 3 on.
pub(crate) fn stat_field(pid: i64, number: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    after_name.split(' ').nth(number - 3).unwrap().to_owned()
}

/// A directory in memory with a copy of the probe. Dropping it removes the directory.
pub(crate) struct TestRoot(PathBuf);

impl TestRoot {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = Self(PathBuf::from(format!("/dev/shm/stockade-probe-{}-{number}", std::process::id())));
        fs::create_dir(root.path()).unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another program: if another thread forked while this process had the copy open for writing, its
        // exec would fail with ETXTBSY.
        let copied = Command::new("cp").arg(PROBE).arg(root.probe()).status().unwrap();
        assert!(copied.success());
        root
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn probe(&self) -> PathBuf {
        self.0.join("stockade-probe")
    }

    /// The probe with this directory as its root and without environment.
    pub(crate) fn chroot(&self, user: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command.env_clear().arg(format!("--userspec={user}:{user}")).arg(self.path());
        command.arg("/stockade-probe").args(arguments);
        command
    }
}

impl Drop for TestRoot {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this process is root. If not, reports the test as skipped.
pub(crate) fn is_root(test: &str) -> bool {
    testkit::has(rustix::process::geteuid().is_root(), test, "root")
}
