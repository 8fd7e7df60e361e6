//! Launchers from which a test starts commands.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Guard, Output, program};

/// The time after which a command is regarded as hanging.
const PATIENCE: Duration = Duration::from_mins(1);

/// The arguments in front of a command, which put the process that starts it into some state.
#[derive(Clone, Debug, Default)]
pub struct Launcher(Vec<String>);

impl Launcher {
    /// The test itself.
    pub fn plain() -> Self {
        Self::default()
    }

    /// A mount namespace of its own, prepared by a line of shell.
    pub fn mounts(shell: &str) -> Self {
        let shell = format!("{{ {shell}; }} && exec \"$@\"");
        Self(["unshare", "--mount", "sh", "-c", &shell, "sh"].map(str::to_owned).to_vec())
    }

    /// A process in an odd state: see the program `odd-launcher`.
    pub fn odd(oddities: &[&str]) -> Self {
        let launcher = program("odd-launcher").display().to_string();
        let words = oddities.iter().chain(&["--"]).map(|word| (*word).to_owned());
        Self([launcher].into_iter().chain(words).collect())
    }

    /// Another launcher, started from this one.
    #[must_use]
    pub fn then(self, inner: Self) -> Self {
        Self([self.0, inner.0].concat())
    }

    /// A program of this workspace, started from this launcher with the test's state directory.
    ///
    /// # Panics
    /// Panics if the program is missing.
    pub fn command(&self, guard: &Guard, name: &str, arguments: &[&str]) -> Command {
        let path = program(name).display().to_string();
        let mut words = self.0.iter().chain([&path]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).args(arguments).env("STOCKADE_STATE_DIR", guard.state());
        command
    }

    /// Runs a program of this workspace. Its output is in files, which a jail that it leaves running may hold open.
    ///
    /// # Panics
    /// Panics if it does not end within a minute. It is killed then.
    pub fn run(&self, guard: &Guard, name: &str, arguments: &[&str]) -> Output {
        let files = ["stdout", "stderr"].map(|stream| guard.directory().join(stream));
        let [stdout, stderr] =
            files.each_ref().map(|file| File::create(file).expect("create a file for the output"));
        let mut command = self.command(guard, name, arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().expect("start a command");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for a command") {
                break status;
            }
            let pid = Pid::from_child(&child);
            if is_stopped_without_work(pid) {
                let _ = kill_process(pid, Signal::CONT);
            }
            if Instant::now() > deadline {
                let below = children_of(pid).into_iter().filter_map(Pid::from_raw);
                for pid in below.chain([pid]) {
                    let _ = kill_process(pid, Signal::KILL);
                }
                let _ = child.wait();
                panic!("{name} {arguments:?} from {:?} does not end: {}", self.0, text(&files[1]));
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        let [stdout, stderr] = files.map(|file| text(&file));
        Output { code, stdout, stderr }
    }
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
}

/// Whether a process is stopped, and every child of it has exited.
fn is_stopped_without_work(pid: Pid) -> bool {
    let state_of = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    state_of(pid.as_raw_pid()) == Some('T')
        && children_of(pid).into_iter().all(|child| state_of(child) == Some('Z'))
}

fn children_of(pid: Pid) -> Vec<i32> {
    let pid = pid.as_raw_pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
