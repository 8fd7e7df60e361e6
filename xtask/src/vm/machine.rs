//! The virtual machine: QEMU, its console and its exit.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::command::{Done, cache};

/// The time limit of a run. Measured: 96 to 293 seconds, the latter on a busy machine.
const PATIENCE: Duration = Duration::from_mins(10);

/// The number of the console's last lines to show.
const LAST_LINES: usize = 60;

/// QEMU with serial ports and no other device. The kernel kills it when this program exits.
fn qemu(kernel: &Path, image: &Path, append: &str) -> Command {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", "-m", "1024", "-smp", "2"]);
    qemu.args(["-nodefaults", "-nic", "none", "-vga", "none", "-display", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // Without cgroup v1; a panic ends the machine at once.
    let append = format!("console=ttyS0 quiet panic=-1 cgroup_no_v1=all {append}");
    qemu.args(["-append", &append]);
    qemu
}

/// Boots, passes each line of the second serial port to `read`, and waits for the machine's end.
///
/// The first port is the console, which is written to a file. `append` is added to the kernel's command line.
pub(crate) fn run(kernel: &Path, image: &Path, append: &str, read: impl FnMut(&str)) -> Done {
    let mut qemu = qemu(kernel, image, append);
    qemu.arg("-serial").arg(format!("file:{}", console()?.display())).args(["-serial", "stdio"]);
    let mut child =
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("run QEMU: {e}"))?;
    listen(&mut child, PATIENCE, read)
}

/// The last lines of the console.
pub(crate) fn end_of_console() -> Done<String> {
    let text = std::fs::read(console()?).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
}

fn console() -> Done<PathBuf> {
    Ok(cache()?.join("console.log"))
}

/// Passes each line of the child's output to `read` until the child exits, or kills it after the time limit.
fn listen(child: &mut Child, patience: Duration, mut read: impl FnMut(&str)) -> Done {
    let started = Instant::now();
    let stdout = child.stdout.take().ok_or("QEMU has no output")?;
    let (to, lines) = channel();
    // Ends with QEMU, which closes the pipe.
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let _ = to.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
        }
    });
    let timed_out = loop {
        match lines.recv_timeout(patience.saturating_sub(started.elapsed())) {
            Ok(line) => read(&line),
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if timed_out {
        child.kill().map_err(|e| format!("kill QEMU: {e}"))?;
    }
    let status = child.wait().map_err(|e| format!("wait for QEMU: {e}"))?;
    let _ = reader.join();
    if timed_out {
        return Err(format!("the machine timed out after {patience:?}"));
    }
    eprintln!("the machine ran for {:.1} s", started.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("QEMU: {status}")) }
}

/// Boots with a shell on this terminal.
pub(crate) fn shell(kernel: &Path, image: &Path) -> Done {
    // The kernel passes unknown parameters to init as environment.
    let mut qemu = qemu(kernel, image, "STOCKADE_SHELL=1");
    let status = qemu.args(["-serial", "mon:stdio"]).status().map_err(|e| format!("run QEMU: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("QEMU: {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen_to(script: &str, patience: Duration) -> (Done, Vec<String>, Child) {
        let mut shell = Command::new("sh");
        let mut child = shell.args(["-c", script]).stdout(Stdio::piped()).spawn().expect("start a shell");
        let mut lines = Vec::new();
        let outcome = listen(&mut child, patience, |line| lines.push(line.to_owned()));
        (outcome, lines, child)
    }

    #[test]
    fn lines_are_read_without_carriage_returns() {
        let (outcome, lines, _) = listen_to("printf 'one\\r\\ntwo\\n'", PATIENCE);
        assert_eq!((outcome, lines), (Ok(()), vec!["one".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn a_machine_that_fails_is_an_error() {
        let (outcome, _, _) = listen_to("exit 3", PATIENCE);
        assert_eq!(outcome, Err("QEMU: exit status: 3".to_owned()));
    }

    #[test]
    fn a_machine_that_hangs_is_killed_and_its_lines_are_kept() {
        let started = Instant::now();
        let (outcome, lines, mut child) = listen_to("echo one; exec sleep 1000", Duration::from_millis(500));
        assert_eq!(outcome, Err("the machine timed out after 500ms".to_owned()));
        assert_eq!(lines, ["one"]);
        assert!(started.elapsed() < PATIENCE);
        assert!(child.try_wait().is_ok_and(|status| status.is_some()), "the child has exited");
    }
}
