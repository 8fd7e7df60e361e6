//! The README's pictures of terminals, drawn from the commands' output on this host.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use crate::command::{Done, built, cache, cargo, command, root, run};
use crate::setup;

mod terminal;

/// The jail file of the jails that `top` shows.
const JAILS: &str = r#"
[defaults]
exec-file = "/usr/bin/busybox"
chroot-base-dir = "{work}/base"
new-net-ns = true

[[jail]]
id = "web-{index}"
count = 3
uid = "2000{index}"
arguments = ["sh", "-c", "while :; do i=0; while [ $i -lt {index}500 ]; do i=$((i+1)); done; busybox usleep 20000; done"]

[[jail]]
id = "store"
uid = 20010
arguments = ["sh", "-c", "while :; do busybox dd if=/dev/urandom of=/data bs=64k count=16 2>/dev/null; busybox usleep 200000; done"]

[[jail]]
id = "idle"
uid = 20011
new-pid-ns = true
arguments = ["sleep", "1000"]
"#;

/// The lines and columns of the terminal of `top`.
const SIZE: (usize, usize) = (11, 84);

/// Draws `docs/img/*.svg`. Needs root; installs tmux.
pub(crate) fn pictures() -> Done {
    setup::tmux()?;
    run(&mut cargo(&["build", "--release", "--bin", "stockade"]))?;
    let stockade = built("release/stockade")?;
    draw("demo", &plain(&stockade, "demo")?)?;
    draw("doctor", &plain(&stockade, "doctor")?)?;
    draw("top", &top(&stockade)?)
}

/// The output of a subcommand, below its prompt. The local part of the kernel's version is removed.
fn plain(stockade: &Path, subcommand: &str) -> Done<String> {
    let printed = stdout_of(Command::new(stockade).arg(subcommand))?;
    let lines = printed.lines().map(|line| match line.split_once("Linux ") {
        Some((before, release)) => {
            format!("{before}Linux {}", release.split('-').next().unwrap_or(release))
        }
        None => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    Ok(format!("\x1b[1m$ stockade {subcommand}\x1b[0m\n{}\n", lines.join("\n")))
}

/// The screen of `top` with busy jails.
fn top(stockade: &Path) -> Done<String> {
    let work = cache()?.join("pictures");
    fs::create_dir_all(&work).map_err(|e| format!("create {}: {e}", work.display()))?;
    let file = work.join("jails.toml");
    let jails = JAILS.replace("{work}", &work.display().to_string());
    fs::write(&file, jails).map_err(|e| format!("write {}: {e}", file.display()))?;
    let stockade = |arguments: &[&str]| {
        let mut command = Command::new(stockade);
        command.args(arguments).env("STOCKADE_STATE_DIR", work.join("state"));
        command
    };
    let outcome = stdout_of(stockade(&["run", "--detach", "--file"]).arg(&file))
        .and_then(|_| screen(&stockade(&["top"])));
    let removed = stdout_of(&mut stockade(&["rm", "--all", "--force"]));
    let _ = fs::remove_dir_all(&work);
    removed.and(outcome)
}

/// The screen of a command after a few seconds, with text attributes.
fn screen(shown: &Command) -> Done<String> {
    let tmux = |arguments: &[&str]| {
        let mut tmux = command("tmux", &["-L", "stockade-pictures", "-f", "/dev/null"]);
        tmux.args(arguments);
        tmux
    };
    let (lines, columns) = (SIZE.0.to_string(), SIZE.1.to_string());
    let mut session = tmux(&["new-session", "-d", "-x", &columns, "-y", &lines]);
    for (name, value) in shown.get_envs() {
        let value = value.unwrap_or_default();
        session.arg("-e").arg(format!("{}={}", name.display(), value.display()));
    }
    session.arg(shown.get_program()).args(shown.get_args());
    stdout_of(&mut session)?;
    // `top` needs two samples to show rates.
    sleep(Duration::from_secs(4));
    let seen = stdout_of(&mut tmux(&["capture-pane", "-p", "-e", "-N"]));
    stdout_of(&mut tmux(&["kill-server"]))?;
    seen
}

fn draw(name: &str, text: &str) -> Done {
    let path = root().join(format!("docs/img/{name}.svg"));
    fs::create_dir_all(root().join("docs/img")).map_err(|e| format!("create docs/img: {e}"))?;
    fs::write(&path, terminal::svg(&format!("stockade {name}"), text))
        .map_err(|e| format!("write {}: {e}", path.display()))?;
    eprintln!("created {}", path.display());
    Ok(())
}

/// The stdout of a command that must succeed.
fn stdout_of(command: &mut Command) -> Done<String> {
    let program = command.get_program().display().to_string();
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{program}: {e}"))?;
    if !status.success() {
        return Err(format!("{program}: {status}: {}", String::from_utf8_lossy(&stderr)));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
