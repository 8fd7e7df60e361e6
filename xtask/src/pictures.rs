//! The pictures of the terminal in the README, from what the commands print here and now.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use crate::command::{Done, built, cache, cargo, command, root, run};
use crate::setup;

mod terminal;

/// The jails that `top` shows.
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

/// Lines and columns of the terminal that `top` is shown in.
const SIZE: (usize, usize) = (11, 84);

/// Recreates the pictures of terminals in `docs/img`; as root, with tmux.
pub(crate) fn pictures() -> Done {
    setup::tmux()?;
    run(&mut cargo(&["build", "--release", "--bin", "stockade"]))?;
    let stockade = built("release/stockade")?;
    draw("demo", &plain(&stockade, "demo")?)?;
    draw("doctor", &plain(&stockade, "doctor")?)?;
    draw("top", &top(&stockade)?)
}

/// The output of a command below its prompt, without the local part of the kernel's version.
fn plain(stockade: &Path, word: &str) -> Done<String> {
    let printed = said(Command::new(stockade).arg(word))?;
    let lines = printed.lines().map(|line| match line.split_once("Linux ") {
        Some((before, release)) => {
            format!("{before}Linux {}", release.split('-').next().unwrap_or(release))
        }
        None => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    Ok(format!("\x1b[1m$ stockade {word}\x1b[0m\n{}\n", lines.join("\n")))
}

/// The screen of `top`, with jails that do something.
fn top(stockade: &Path) -> Done<String> {
    let work = cache()?.join("pictures");
    fs::create_dir_all(&work).map_err(|e| format!("make {}: {e}", work.display()))?;
    let file = work.join("jails.toml");
    let jails = JAILS.replace("{work}", &work.display().to_string());
    fs::write(&file, jails).map_err(|e| format!("write {}: {e}", file.display()))?;
    let ours = |words: &[&str]| {
        let mut command = Command::new(stockade);
        command.args(words).env("STOCKADE_STATE_DIR", work.join("state"));
        command
    };
    let outcome = said(ours(&["run", "--detach", "--file"]).arg(&file)).and_then(|_| screen(&ours(&["top"])));
    let removed = said(&mut ours(&["rm", "--all", "--force"]));
    let _ = fs::remove_dir_all(&work);
    removed.and(outcome)
}

/// The screen of a command after a few seconds, with its attributes.
fn screen(shown: &Command) -> Done<String> {
    let tmux = |words: &[&str]| {
        let mut tmux = command("tmux", &["-L", "stockade-pictures", "-f", "/dev/null"]);
        tmux.args(words);
        tmux
    };
    let (lines, columns) = (SIZE.0.to_string(), SIZE.1.to_string());
    let mut session = tmux(&["new-session", "-d", "-x", &columns, "-y", &lines]);
    for (name, value) in shown.get_envs() {
        let value = value.unwrap_or_default();
        session.arg("-e").arg(format!("{}={}", name.display(), value.display()));
    }
    session.arg(shown.get_program()).args(shown.get_args());
    said(&mut session)?;
    // Rates take two looks.
    sleep(Duration::from_secs(4));
    let seen = said(&mut tmux(&["capture-pane", "-p", "-e", "-N"]));
    said(&mut tmux(&["kill-server"]))?;
    seen
}

fn draw(name: &str, text: &str) -> Done {
    let path = root().join(format!("docs/img/{name}.svg"));
    fs::create_dir_all(root().join("docs/img")).map_err(|e| format!("make docs/img: {e}"))?;
    fs::write(&path, terminal::svg(&format!("stockade {name}"), text))
        .map_err(|e| format!("write {}: {e}", path.display()))?;
    eprintln!("made {}", path.display());
    Ok(())
}

/// The stdout of a program, if it succeeds.
fn said(command: &mut Command) -> Done<String> {
    let program = command.get_program().display().to_string();
    let Output { status, stdout, stderr } = command.output().map_err(|e| format!("{program}: {e}"))?;
    if !status.success() {
        return Err(format!("{program}: {status}: {}", String::from_utf8_lossy(&stderr)));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
