//! Idle threads, for a host with as many tasks as many microVMs have.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::{Done, text};

/// Additional tasks. Dropping it ends them.
pub(crate) struct Tasks(Option<Child>);

impl Tasks {
    /// Starts the tasks, and waits until all exist.
    pub(crate) fn start(many: u32) -> Done<Self> {
        if many == 0 {
            return Ok(Self(None));
        }
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.args(["tasks", &many.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(text)?;
        let output = child.stdout.take();
        let tasks = Self(Some(child));
        let mut line = String::new();
        BufReader::new(output.ok_or("no pipe")?).read_line(&mut line).map_err(text)?;
        if line.trim() == "ready" { Ok(tasks) } else { Err(format!("{many} tasks could not be started")) }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // The child exits at the end of its input.
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

/// Runs in the child, which has the threads.
pub(crate) fn run(many: u32) -> Done {
    for _ in 0..many {
        let idle = || loop {
            std::thread::park();
        };
        std::thread::Builder::new().stack_size(16 << 10).spawn(idle).map_err(text)?;
    }
    println!("ready");
    std::io::stdout().flush().map_err(text)?;
    std::io::stdin().read_line(&mut String::new()).map(drop).map_err(text)
}
