//! An operator at a terminal: a shell with job control, typed keys and shown text.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::{Guard, program};

/// The time limit for shown text.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shell's prompt.
const PROMPT: &str = "op> ";

/// A shell on its own terminal. There `$stockade` is the command under test, with the test's state directory.
pub struct Operator {
    shell: Child,
    /// The person's side of the terminal.
    hands: File,
    /// The shell's side of the terminal.
    terminal: OwnedFd,
    /// The shown text that no call has returned yet.
    shown: String,
}

impl Operator {
    /// Starts bash without line editing, and waits for its first prompt.
    ///
    /// # Panics
    /// Panics without a terminal or bash.
    pub fn new(guard: &Guard) -> Self {
        Self::with(guard, &["bash", "--norc", "--noprofile", "--noediting"])
    }

    /// Starts bash with line editing, which changes the terminal's modes.
    ///
    /// # Panics
    /// Panics without a terminal or bash.
    pub fn editing(guard: &Guard) -> Self {
        Self::with(guard, &["bash", "--norc", "--noprofile"])
    }

    /// Starts dash, which never changes the terminal's modes.
    ///
    /// # Panics
    /// Panics without a terminal or dash.
    pub fn plain(guard: &Guard) -> Self {
        Self::with(guard, &["dash"])
    }

    fn with(guard: &Guard, arguments: &[&str]) -> Self {
        let open = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let hands = openpt(open).expect("create a terminal");
        unlockpt(&hands).expect("unlock the terminal");
        rustix::io::ioctl_fionbio(&hands, true).expect("make the terminal non-blocking");
        let terminal = ioctl_tiocgptpeer(&hands, open).expect("open the terminal");
        tcsetwinsize(&terminal, size(30, 100)).expect("resize the terminal");
        let stream = || Stdio::from(terminal.try_clone().expect("duplicate a file descriptor"));
        // Tests in the background ignore SIGINT, and the shell's jobs would inherit that.
        let mut shell = Command::new("env");
        shell.args(["--default-signal", "setsid", "--ctty"]).args(arguments);
        shell.arg("-i").env("PS1", PROMPT).env("TERM", "dumb").env("STOCKADE_STATE_DIR", guard.state());
        shell.env_remove("HISTFILE").env("stockade", program("stockade"));
        let shell = shell.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("start a shell");
        let mut operator = Self { shell, hands: hands.into(), terminal, shown: String::new() };
        operator.prompt();
        operator
    }

    /// Types keys for up to two seconds, and returns the number of accepted bytes.
    ///
    /// # Panics
    /// Panics if the terminal fails.
    pub fn types(&mut self, keys: &str) -> usize {
        let (mut typed, deadline) = (0, Instant::now() + Duration::from_secs(2));
        while typed < keys.len() && Instant::now() < deadline {
            match self.hands.write(&keys.as_bytes()[typed..]) {
                Ok(taken) => typed += taken,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.look(Duration::from_millis(20));
                }
                Err(e) => panic!("write to the terminal: {e}"),
            }
        }
        typed
    }

    /// Types a line.
    pub fn line(&mut self, line: &str) {
        self.types(line);
        self.types("\r");
    }

    /// Waits until a text is shown, and returns and consumes everything up to its end.
    ///
    /// # Panics
    /// Panics after the time limit.
    pub fn sees(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(wanted) {
                let rest = self.shown.split_off(at + wanted.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            assert!(Instant::now() < deadline, "{wanted:?} is not shown: {:?}", tail(&self.shown));
            self.look(Duration::from_millis(50));
        }
    }

    /// Waits for the shell's prompt, and returns the text before it.
    ///
    /// # Panics
    /// Panics after the time limit.
    pub fn prompt(&mut self) -> String {
        self.sees(PROMPT)
    }

    /// Types a line, waits for the next prompt, and returns the text before it.
    ///
    /// # Panics
    /// Panics after the time limit.
    pub fn does(&mut self, line: &str) -> String {
        self.line(line);
        self.prompt()
    }

    /// The exit code of the shell's last command.
    ///
    /// # Panics
    /// Panics if the shell does not print it.
    pub fn code(&mut self) -> i32 {
        self.line("echo \"co\"de=$?.");
        self.sees("code=");
        let code = self.sees(".");
        self.prompt();
        code.trim_end_matches('.').parse().expect("an exit code")
    }

    /// The terminal's current modes.
    ///
    /// # Panics
    /// Panics if the terminal fails.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).expect("read the terminal's modes")
    }

    /// The terminal's current modes as comparable text.
    pub fn settings(&self) -> String {
        format!("{:?}", self.modes())
    }

    /// Waits until the terminal's echo is on or off.
    ///
    /// # Panics
    /// Panics after the time limit.
    pub fn waits_for_echo(&mut self, echo: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.modes().local_modes.contains(LocalModes::ECHO) != echo {
            assert!(Instant::now() < deadline, "the terminal's echo does not become {echo}");
            self.look(Duration::from_millis(10));
        }
    }

    /// The terminal's device number.
    ///
    /// # Panics
    /// Panics if the terminal fails.
    pub fn device(&self) -> u64 {
        rustix::fs::fstat(&self.terminal).expect("query the terminal").st_rdev
    }

    /// Resizes the terminal.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn resizes(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.terminal, size(rows, columns)).expect("resize the terminal");
    }

    /// Reads shown text for this time.
    pub fn watches(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.look(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// The shown text that no call has returned yet.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Reads pending text, or waits for some up to this time.
    fn look(&mut self, time: Duration) {
        let timeout = Timespec::try_from(time).expect("a short time");
        let _ = poll(&mut [PollFd::new(&self.hands, PollFlags::IN)], Some(&timeout));
        let mut buffer = [0; 8192];
        if let Ok(length) = self.hands.read(&mut buffer) {
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    /// Exits the shell, which must have no jobs.
    ///
    /// # Panics
    /// Panics after the time limit.
    pub fn leaves(mut self) {
        self.line("exit");
        let deadline = Instant::now() + PATIENCE;
        while self.shell.try_wait().expect("wait for the shell").is_none() {
            assert!(Instant::now() < deadline, "the shell does not exit: {:?}", tail(&self.shown));
            self.look(Duration::from_millis(10));
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // After a failed test the shell still runs. It forwards SIGHUP to its jobs.
        if let Some(pid) = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::HUP);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.shell.try_wait(), Ok(None)) && Instant::now() < deadline {
            self.look(Duration::from_millis(10));
        }
        let _ = self.shell.kill().and_then(|()| self.shell.wait());
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The end of a long text.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(2000);
    &text[text.floor_char_boundary(from)..]
}
