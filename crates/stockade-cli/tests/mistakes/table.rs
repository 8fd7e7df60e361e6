//! The table of wrong command lines in `table.txt`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;

const TABLE: &str = include_str!("table.txt");

/// Stands for the flags of a valid jail.
const GOOD: &str = "--id vm --exec-file vmm --chroot-base-dir base";
/// Stands for the working directory in messages.
const HERE: &str = "HERE";

/// A row of the table: a command line as a shell takes it, its exit code, and its line on stderr.
struct Row {
    line: &'static str,
    code: i32,
    message: &'static str,
}

fn rows() -> Vec<Row> {
    let mut lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut rows = Vec::new();
    while let Some(line) = lines.next() {
        let line = line.strip_prefix("$ ").unwrap_or_else(|| panic!("no command line: {line}"));
        let (code, message) = lines.next().and_then(|line| line.split_once(' ')).expect("code and message");
        rows.push(Row { line, code: code.parse().expect("an exit code"), message });
    }
    rows
}

/// Runs the row's command line in a directory, with the state directory `state`.
fn run_row(line: &str, directory: &Path) -> Output {
    let words = shlex::split(&line.replace("GOOD", GOOD)).expect("words of a shell");
    let is_variable = |word: &&String| word.starts_with("STOCKADE_");
    let (variables, words): (Vec<_>, Vec<_>) = words.iter().partition(is_variable);
    assert_eq!(words[0], "stockade", "{line}");
    let mut command = Command::new(program("stockade"));
    command.args(&words[1..]).current_dir(directory).env("STOCKADE_STATE_DIR", directory.join("state"));
    // In which no executable of the table is found but this one.
    command.env("PATH", directory.join("path")).env_remove("STOCKADE_PROFILE_DIR");
    for variable in variables {
        let (name, value) = variable.split_once('=').expect("a variable");
        command.env(name, value);
    }
    run_with(&mut command)
}

/// All files below a directory, with their sizes.
fn files(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let facts = entry.metadata().unwrap();
        all.insert(entry.path(), if facts.is_dir() { 0 } else { facts.len() });
        if facts.is_dir() {
            all.extend(files(&entry.path()));
        }
    }
    all
}

/// The files that the table's command lines name.
fn provide(guard: &Guard) {
    let directory = guard.directory();
    for name in ["inner", "path"] {
        fs::create_dir(directory.join(name)).unwrap();
    }
    for name in ["vmm", "path/in-path"] {
        fs::copy(program("stockade-probe"), directory.join(name)).unwrap();
    }
    guard.file("plain", "text");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, directory.join("pipe"), kind, mode, 0).unwrap();
    let jail = "[[jail]]\nid = 'vm'\nexec-file = '../vmm'\nchroot-base-dir = '../base'\n";
    for (name, line) in [
        ("exec-file", "[[jail]]\nid = 'vm'\nexec-file = 'vmm'".to_owned()),
        ("tilde", "[[jail]]\nid = 'vm'\nexec-file = '~/vmm'".to_owned()),
        ("base", "[[jail]]\nid = 'vm'\nexec-file = '../vmm'\nchroot-base-dir = '~jails/base'".to_owned()),
        ("place", format!("{jail}place = ['../vmm', '~/disk.img=disk']")),
        ("disk", format!("{jail}place = [\n  '../vmm',\n  './disk.img=disk',\n]")),
        ("cgroup", format!("{jail}cgroup = ['pids.max']")),
        ("memory", format!("{jail}cgroup = {{ 'memory.max' = 'lots' }}")),
        ("uid", format!("{jail}uid = 'no-such-user'")),
        ("grace", format!("{jail}grace = '5x'")),
        ("float", format!("{jail}uid = 1.5")),
        ("both", format!("{jail}netns = 'a'\nnew-net-ns = true")),
        ("key", format!("{jail}cgrop = []")),
        ("empty", "[[jail]]\nid = 'vm'\nexec-file = ''".to_owned()),
    ] {
        guard.file(&format!("inner/{name}.toml"), &format!("{line}\n"));
    }
}

#[test]
fn every_wrong_command_line_has_its_line_and_exit_code() {
    privileged!(guard, {
        let rows = rows();
        assert!(rows.len() >= 240, "{} rows", rows.len());
        provide(&guard);
        let directory = guard.directory();
        let before = (files(directory), guard.snapshot());
        let mut wrong = Vec::new();
        for Row { line, code, message } in rows {
            let output = run_row(line, directory);
            let message = message.replace(HERE, &directory.display().to_string());
            let expected = (code, "", format!("stockade: {message}\n"));
            let found = (output.code, output.stdout.as_str(), output.stderr.clone());
            if found != expected {
                wrong.push(format!("$ {line}\n  expected {expected:?}\n  found    {found:?}"));
            }
            assert_eq!(files(directory), before.0, "{line} left files behind");
        }
        let after = guard.snapshot();
        let new: Vec<&str> = before.1.added(&after).filter(|what| what.contains("vmm")).collect();
        assert_eq!(new, [""; 0], "left behind");
        assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    });
}

#[test]
fn the_line_that_the_table_varies_works() {
    privileged!(guard, {
        provide(&guard);
        // The id is not unique, so it is not created where another test may have it.
        let output = run_row("stockade plan GOOD", guard.directory());
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    });
}
