//! The actions of the command line.

use crate::attack::{Attacks, PRIVILEGED};
use crate::errno;
use crate::report::{self, Report};
use rustix::process::Resource;
use rustix::time::ClockId;
use serde::Serialize;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use stockade_syscalls::{attempt, guest, inject, state};

const MISUSE: u8 = 2;
/// The size limit for reading a file, in bytes: a device may have no end.
const LONGEST_FILE: u64 = 1 << 20;

/// The continuation after an action.
pub(crate) enum Next {
    /// Run the next action.
    Continue,
    /// Exit with this code.
    Exit(ExitCode),
}

/// The action of one argument.
enum Action<'a> {
    Report,
    Inherited,
    Keys,
    Attack(u64),
    Privileged,
    Guest,
    Hold,
    Args,
    Limits,
    Exit(u8),
    Signal(i32),
    Ignore(i32),
    Sleep,
    SleepMs(u64),
    Spawn(u32),
    Daemon(u32),
    Outcast(u32),
    Bomb,
    Write(&'a Path, &'a [u8]),
    Read(&'a Path),
    Listen(&'a Path),
    Inject(&'a [u8]),
    Clock,
}

impl<'a> Action<'a> {
    fn parse(argument: &'a OsStr) -> Option<Self> {
        let (name, value) = split(argument.as_bytes());
        Some(match (name, value) {
            (b"report", None) => Self::Report,
            (b"inherited", None) => Self::Inherited,
            (b"attack", Some(value)) => Self::Attack(number(value)?),
            (b"privileged", None) => Self::Privileged,
            (b"keys", None) => Self::Keys,
            (b"guest", None) => Self::Guest,
            (b"hold", None) => Self::Hold,
            (b"args", None) => Self::Args,
            (b"limits", None) => Self::Limits,
            (b"sleep", None) => Self::Sleep,
            (b"clock", None) => Self::Clock,
            (b"bomb", None) => Self::Bomb,
            (b"exit", Some(value)) => Self::Exit(number(value)?),
            (b"signal", Some(value)) => Self::Signal(number(value)?),
            (b"ignore", Some(value)) => Self::Ignore(number(value)?),
            (b"sleep-ms", Some(value)) => Self::SleepMs(number(value)?),
            (b"spawn", Some(value)) => Self::Spawn(number(value)?),
            (b"daemon", Some(value)) => Self::Daemon(number(value)?),
            (b"outcast", Some(value)) => Self::Outcast(number(value)?),
            (b"read", Some(value)) => Self::Read(path(value)),
            (b"listen", Some(value)) => Self::Listen(path(value)),
            (b"inject", Some(value)) => Self::Inject(value),
            (b"write", Some(value)) => match split(value) {
                (file, Some(text)) => Self::Write(path(file), text),
                (_, None) => return None,
            },
            _ => return None,
        })
    }
}

/// Splits at the first `=`.
fn split(argument: &[u8]) -> (&[u8], Option<&[u8]>) {
    match argument.iter().position(|byte| *byte == b'=') {
        Some(at) => (&argument[..at], Some(&argument[at + 1..])),
        None => (argument, None),
    }
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    str::from_utf8(value).ok()?.parse().ok()
}

fn path(value: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(value))
}

/// Runs actions, and keeps the sockets that outlive one.
#[derive(Default)]
pub(crate) struct Actions {
    listeners: Vec<UnixListener>,
}

impl Actions {
    /// Runs the action of an argument.
    pub(crate) fn run(&mut self, argument: &OsStr) -> Next {
        let Some(action) = Action::parse(argument) else {
            print_error(&format!("unknown action '{}'", argument.to_string_lossy()));
            return Next::Exit(MISUSE.into());
        };
        match action {
            Action::Exit(code) => return Next::Exit(code.into()),
            Action::Signal(number) => return or_misuse("signal", number, attempt::signal_self(number)),
            Action::Ignore(number) => return or_misuse("ignore", number, attempt::ignore_signal(number)),
            Action::Hold => hold(),
            Action::Sleep => loop {
                rustix::event::pause();
            },
            Action::SleepMs(time) => thread::sleep(Duration::from_millis(time)),
            Action::Report => print(&Report::gather()),
            Action::Inherited => print(&json!({ "inherited": report::inherited() })),
            Action::Attack(seconds) => print(&json!({ "attacks": Attacks::for_seconds(seconds) })),
            Action::Privileged => {
                return Next::Exit(if is_privileged() { PRIVILEGED.into() } else { ExitCode::SUCCESS });
            }
            Action::Keys => print(&json!({ "keys": state::attack_session_keyring() })),
            Action::Guest => print(&json!({ "kvm_guest": run_guest() })),
            Action::Args => print(&json!({ "args": args() })),
            Action::Limits => print(&json!({ "limits": {
                "no-file": limit(Resource::Nofile),
                "fsize": limit(Resource::Fsize),
            }})),
            Action::Spawn(count) => print(&spawn(count, attempt::spawn_paused)),
            Action::Daemon(count) => print(&spawn(count, attempt::spawn_daemon)),
            Action::Outcast(count) => {
                // If this fails, the spawn fails too and reports that.
                let _ = fs::create_dir("/outcast");
                print(&spawn(count, attempt::spawn_outcast));
            }
            Action::Bomb => {
                print(&json!({ "bomb": "lit" }));
                attempt::fork_for_ever()
            }
            Action::Write(file, text) => print(&json!({ "write": ok_or_name(fs::write(file, text)) })),
            Action::Read(file) => print(&match read(file) {
                Ok(text) => json!({ "read": text }),
                Err(error) => json!({ "read_error": errno::name_of(&error) }),
            }),
            Action::Listen(socket) => print(&json!({ "listen": ok_or_name(self.listen(socket)) })),
            Action::Inject(text) => {
                print(&json!({ "inject": streams().map(|fd| ok_or_name(type_at(fd, text))) }));
            }
            Action::Clock => print(&json!({ "monotonic_ns": monotonic_ns() })),
        }
        Next::Continue
    }

    fn listen(&mut self, socket: &Path) -> io::Result<()> {
        self.listeners.push(UnixListener::bind(socket)?);
        Ok(())
    }
}

/// Prints one line. Errors are ignored: later actions may still have an effect.
fn print(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(line) => {
            let mut out = io::stdout().lock();
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
        Err(error) => print_error(&error.to_string()),
    }
}

fn print_error(message: &str) {
    let _ = writeln!(io::stderr(), "stockade-probe: {message}");
}

fn or_misuse(name: &str, number: i32, result: io::Result<()>) -> Next {
    match result {
        Ok(()) => Next::Continue,
        Err(error) => {
            print_error(&format!("{name}={number}: {error}"));
            Next::Exit(MISUSE.into())
        }
    }
}

fn ok_or_name(result: io::Result<()>) -> String {
    result.map_or_else(|error| errno::name_of(&error), |()| "ok".to_owned())
}

/// Whether this process gained an effective uid, gid or capability at its exec.
fn is_privileged() -> bool {
    rustix::process::geteuid() != rustix::process::getuid()
        || rustix::process::getegid() != rustix::process::getgid()
        || rustix::thread::capabilities(None).is_ok_and(|sets| !sets.effective.is_empty())
}

/// Waits for one byte, the end of the input or an error. Reads no more than that byte, which leaves the rest to other
/// readers.
fn hold() {
    let stdin = io::stdin();
    let _ = rustix::io::retry_on_intr(|| rustix::io::read(stdin.as_fd(), &mut [0]));
}

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Injects a line into the stream's terminal, if it is one.
fn type_at(fd: BorrowedFd<'_>, text: &[u8]) -> io::Result<()> {
    text.iter().chain(b"\n").try_for_each(|byte| inject::type_at(fd, *byte))
}

fn run_guest() -> String {
    guest::run(Path::new("/dev/kvm")).map_or_else(|error| error.to_string(), |_| "hlt".to_owned())
}

fn args() -> Vec<String> {
    std::env::args_os().map(|argument: OsString| argument.to_string_lossy().into_owned()).collect()
}

/// The soft and the hard limit; `None` is unlimited.
fn limit(resource: Resource) -> [Option<u64>; 2] {
    let limit = rustix::process::getrlimit(resource);
    [limit.current, limit.maximum]
}

/// Starts up to `count` processes, and reports their pids and an error.
fn spawn(count: u32, start: fn() -> io::Result<i32>) -> serde_json::Value {
    let mut spawned = Vec::new();
    for _ in 0..count {
        match start() {
            Ok(pid) => spawned.push(pid),
            Err(error) => return json!({ "spawned": spawned, "spawn_error": errno::name_of(&error) }),
        }
    }
    json!({ "spawned": spawned })
}

fn read(file: &Path) -> io::Result<String> {
    let mut content = Vec::new();
    File::open(file)?.take(LONGEST_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn monotonic_ns() -> i128 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parses(argument: &str) -> bool {
        Action::parse(OsStr::new(argument)).is_some()
    }

    #[test]
    fn arguments_that_resemble_actions_are_refused() {
        for argument in
            ["", "=", "Report", "report=", "exit", "exit=", "exit=256", "exit=-1", "signal=x", "write=/a"]
        {
            assert!(!parses(argument), "{argument}");
        }
    }

    #[test]
    fn the_text_to_write_begins_after_the_second_equals_sign() {
        let Some(Action::Write(file, text)) = Action::parse(OsStr::new("write=/a=b=c")) else {
            panic!("write=/a=b=c is a write action");
        };
        assert_eq!((file, text), (Path::new("/a"), &b"b=c"[..]));
    }
}
