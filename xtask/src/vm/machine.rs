//! The machine itself: QEMU, its console, and its end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::command::{Done, cache};

/// How long the whole run may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// How much of the console is worth showing.
const LAST_LINES: usize = 40;

/// QEMU without any device but serial ports. It dies with this program, however that ends.
fn qemu(kernel: &Path, image: &Path, append: &str) -> Command {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-M", "q35", "-m", "1024", "-smp", "2"]);
    qemu.args(["-nodefaults", "-nic", "none", "-vga", "none", "-display", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    // No version 1 at all, and a panic ends the machine at once.
    let append = format!("console=ttyS0 quiet panic=-1 cgroup_no_v1=all {append}");
    qemu.args(["-append", &append]);
    qemu
}

/// Boots, hands each line of the second serial port to `read`, and sees the machine's end.
///
/// The first port is the console. It goes to a file, whose end is shown if the machine did not end well.
pub(crate) fn run(kernel: &Path, image: &Path, read: impl FnMut(&str)) -> Done {
    let console = cache()?.join("console.log");
    let mut qemu = qemu(kernel, image, "");
    qemu.arg("-serial").arg(format!("file:{}", console.display())).args(["-serial", "stdio"]);
    let mut child =
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("run QEMU: {e}"))?;
    let outcome = listen(&mut child, read);
    if outcome.is_err() {
        let text = std::fs::read(&console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        println!("\n---- console ----\n{}", last.join("\n"));
    }
    outcome
}

fn listen(child: &mut Child, mut read: impl FnMut(&str)) -> Done {
    let started = Instant::now();
    let stdout = child.stdout.take().ok_or("QEMU has no output")?;
    let (to, lines) = channel();
    // Its end is QEMU's: the pipe closes.
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let _ = to.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
        }
    });
    let timed_out = loop {
        match lines.recv_timeout(PATIENCE.saturating_sub(started.elapsed())) {
            Ok(line) => read(&line),
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if timed_out {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| format!("wait for QEMU: {e}"))?;
    let _ = reader.join();
    if timed_out {
        return Err(format!("the machine was not done after {} s", PATIENCE.as_secs()));
    }
    eprintln!("the machine ran for {:.1} s", started.elapsed().as_secs_f64());
    if status.success() { Ok(()) } else { Err(format!("QEMU: {status}")) }
}

/// Boots with a shell on this terminal.
pub(crate) fn shell(kernel: &Path, image: &Path) -> Done {
    // The kernel hands what it does not know to init, as environment.
    let mut qemu = qemu(kernel, image, "STOCKADE_SHELL=1");
    let status = qemu.args(["-serial", "mon:stdio"]).status().map_err(|e| format!("run QEMU: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("QEMU: {status}")) }
}
