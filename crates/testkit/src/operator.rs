//! An operator at a terminal: a shell with job control, what is typed there and what is shown.

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

/// How long anything may take to be shown.
const PATIENCE: Duration = Duration::from_secs(20);

/// The shell's prompt.
const PROMPT: &str = "op> ";

/// A shell on a terminal of its own. `stockade` is the command under test there, with the test's state directory.
pub struct Operator {
    shell: Child,
    /// The terminal's side that a person has.
    hands: File,
    /// The side that the shell has.
    terminal: OwnedFd,
    /// The text that was shown and not waited for yet.
    shown: String,
}

impl Operator {
    /// A shell at its first prompt.
    ///
    /// # Panics
    /// If there is no terminal or no bash.
    pub fn new(guard: &Guard) -> Self {
        Self::with(guard, &["bash", "--norc", "--noprofile", "--noediting"])
    }

    /// The same with a shell that edits lines itself, and sets the terminal for that.
    ///
    /// # Panics
    /// If there is no terminal or no bash.
    pub fn editing(guard: &Guard) -> Self {
        Self::with(guard, &["bash", "--norc", "--noprofile"])
    }

    /// The same with a shell that never sets the terminal, dash.
    ///
    /// # Panics
    /// If there is no terminal or no dash.
    pub fn plain(guard: &Guard) -> Self {
        Self::with(guard, &["dash"])
    }

    fn with(guard: &Guard, words: &[&str]) -> Self {
        let open = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let hands = openpt(open).expect("make a terminal");
        unlockpt(&hands).expect("unlock the terminal");
        rustix::io::ioctl_fionbio(&hands, true).expect("have the terminal never block the test");
        let terminal = ioctl_tiocgptpeer(&hands, open).expect("open the terminal");
        tcsetwinsize(&terminal, size(30, 100)).expect("size the terminal");
        let stream = || Stdio::from(terminal.try_clone().expect("copy a descriptor"));
        // Tests that run in the background ignore Ctrl-C, and so would all that is run there.
        let mut shell = Command::new("env");
        shell.args(["--default-signal", "setsid", "--ctty"]).args(words);
        shell.arg("-i").env("PS1", PROMPT).env("TERM", "dumb").env("STOCKADE_STATE_DIR", guard.state());
        shell.env_remove("HISTFILE").env("stockade", program("stockade"));
        let shell = shell.stdin(stream()).stdout(stream()).stderr(stream()).spawn().expect("start a shell");
        let mut operator = Self { shell, hands: hands.into(), terminal, shown: String::new() };
        operator.prompt();
        operator
    }

    /// Types, as far as the terminal takes it within a moment; returns the number of bytes.
    ///
    /// # Panics
    /// If the terminal fails.
    pub fn types(&mut self, keys: &str) -> usize {
        let (mut typed, deadline) = (0, Instant::now() + Duration::from_secs(2));
        while typed < keys.len() && Instant::now() < deadline {
            match self.hands.write(&keys.as_bytes()[typed..]) {
                Ok(taken) => typed += taken,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.look(Duration::from_millis(20));
                }
                Err(e) => panic!("the terminal takes no keys: {e}"),
            }
        }
        typed
    }

    /// Types a line.
    pub fn line(&mut self, line: &str) {
        self.types(line);
        self.types("\r");
    }

    /// Waits until a text is shown; everything up to its end is returned, and not found again.
    ///
    /// # Panics
    /// If it does not come.
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

    /// Waits for the shell's prompt; what was shown before it is returned.
    ///
    /// # Panics
    /// If it does not come.
    pub fn prompt(&mut self) -> String {
        self.sees(PROMPT)
    }

    /// Has the shell do something, and waits for the next prompt; what was shown meanwhile is returned.
    ///
    /// # Panics
    /// If the prompt does not come.
    pub fn does(&mut self, line: &str) -> String {
        self.line(line);
        self.prompt()
    }

    /// The exit code of what the shell has run last.
    ///
    /// # Panics
    /// If the shell does not print it.
    pub fn code(&mut self) -> i32 {
        self.line("echo \"co\"de=$?.");
        self.sees("code=");
        let code = self.sees(".");
        self.prompt();
        code.trim_end_matches('.').parse().expect("an exit code")
    }

    /// How the terminal is set now.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).expect("ask the terminal")
    }

    /// The same in words that can be compared.
    pub fn settings(&self) -> String {
        format!("{:?}", self.modes())
    }

    /// Waits until keys are handed on and shown by no one but who gets them, or by the terminal again.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn waits_for_echo(&mut self, echo: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.modes().local_modes.contains(LocalModes::ECHO) != echo {
            assert!(Instant::now() < deadline, "the terminal's echo stays as it is");
            self.look(Duration::from_millis(10));
        }
    }

    /// The number of the terminal's device.
    ///
    /// # Panics
    /// If it has none.
    pub fn device(&self) -> u64 {
        rustix::fs::fstat(&self.terminal).expect("look at the terminal").st_rdev
    }

    /// Makes the terminal larger or smaller.
    ///
    /// # Panics
    /// If that fails.
    pub fn resizes(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.terminal, size(rows, columns)).expect("size the terminal");
    }

    /// Reads what is shown, for as long as this.
    pub fn watches(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.look(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// The text that was shown since it was last waited for.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Reads what there is, or comes within this time.
    fn look(&mut self, time: Duration) {
        let timeout = Timespec::try_from(time).expect("a short time");
        let _ = poll(&mut [PollFd::new(&self.hands, PollFlags::IN)], Some(&timeout));
        let mut buffer = [0; 8192];
        if let Ok(length) = self.hands.read(&mut buffer) {
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }

    /// Has the shell end, which must have no jobs.
    ///
    /// # Panics
    /// If it does not.
    pub fn leaves(mut self) {
        self.line("exit");
        let deadline = Instant::now() + PATIENCE;
        while self.shell.try_wait().expect("wait for the shell").is_none() {
            assert!(Instant::now() < deadline, "the shell does not end: {:?}", tail(&self.shown));
            self.look(Duration::from_millis(10));
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Only one of a test that fails still has its shell. It hands a hang-up on to its jobs.
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
