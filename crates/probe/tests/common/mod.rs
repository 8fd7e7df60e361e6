//! Running the probe and reading what it prints.

#![allow(dead_code, clippy::unwrap_used)] // Each test program uses its part.

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

/// Runs the probe to its end.
pub(crate) fn probe(words: &[&str]) -> Output {
    Command::new(PROBE).args(words).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command that prints nothing but JSON lines, and reads them.
pub(crate) fn lines_of(command: &mut Command) -> Vec<Value> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {complaints}", output.status);
    assert_eq!(complaints, "", "{command:?}");
    parse(&output.stdout)
}

/// Runs the probe, which must succeed, and reads the lines it prints.
pub(crate) fn lines(words: &[&str]) -> Vec<Value> {
    lines_of(Command::new(PROBE).args(words))
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

/// A probe that runs while the test looks at it. It is killed with the value.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(words: &[&str]) -> Self {
        Self::start_command(Command::new(PROBE).args(words))
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

/// A line of `/proc/PID/status`, without its name.
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

/// A directory in memory with a copy of the probe, removed with the value.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = Self(PathBuf::from(format!("/dev/shm/stockade-probe-{}-{number}", std::process::id())));
        fs::create_dir(place.path()).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another program: a thread that starts a process while this one had the copy open for
        // writing would make it busy.
        let copied = Command::new("cp").arg(PROBE).arg(place.probe()).status().unwrap();
        assert!(copied.success());
        place
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn probe(&self) -> PathBuf {
        self.0.join("stockade-probe")
    }

    /// The probe with this place for its root, without environment.
    pub(crate) fn chroot(&self, user: u32, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command.env_clear().arg(format!("--userspec={user}:{user}")).arg(self.path());
        command.arg("/stockade-probe").args(words);
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this process is root. If not, the test is reported as skipped.
pub(crate) fn is_root(test: &str) -> bool {
    testkit::has(rustix::process::geteuid().is_root(), test, "root")
}
