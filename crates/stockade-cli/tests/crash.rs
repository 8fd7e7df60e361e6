//! Killed at any system call, `stockade run` leaves nothing that `stockade gc` does not find.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use testkit::{Guard, Output, privileged, program, run_with, tell};

/// A command under strace with further options.
fn traced(guard: &Guard, options: &[String], words: &[String]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-qq", "-o"]).arg(guard.directory().join("trace")).args(options).arg(program("stockade"));
    command.args(words).env("STOCKADE_STATE_DIR", guard.state());
    run_with(command.stderr(Stdio::null()))
}

/// Flags of a jail with everything that a jail can have.
fn flags(guard: &Guard, command: &str) -> Vec<String> {
    let (probe, base) = (program("stockade-probe").display().to_string(), guard.base().display().to_string());
    let (id, net) = (guard.named("jail"), guard.named("net"));
    let words = [
        command,
        "--id",
        &id,
        "--exec-file",
        &probe,
        "--chroot-base-dir",
        &base,
        "--netns",
        &net,
        "--ramfs",
        "1M",
        "--place",
        "/etc/passwd",
        "--cgroup",
        "pids.max=9",
        "--parent-cgroup",
        guard.name(),
        "--",
        "exit=0",
    ];
    words.map(str::to_owned).to_vec()
}

/// Every system call of such a command, each with its number among those of its name.
fn calls(guard: &Guard, words: &[String]) -> Vec<(String, usize)> {
    assert_eq!(traced(guard, &[], words).code, 0, "is strace installed?");
    let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
    let mut counts = BTreeMap::new();
    let names = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
    let plain = |name: &String| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    names
        .filter(plain)
        .map(|name| {
            let count = counts.entry(name.clone()).or_insert(0);
            *count += 1;
            (name, *count)
        })
        .collect()
}

fn stockade(guard: &Guard, words: &[&str]) -> Output {
    run_with(Command::new(program("stockade")).args(words).env("STOCKADE_STATE_DIR", guard.state()))
}

/// Waits for everything that the killed run had started: orphans come to this process.
fn wait_for_orphans() {
    while !matches!(waitid(WaitId::All, WaitIdOptions::EXITED), Err(Errno::CHILD)) {}
}

fn leftovers(guard: &Guard) -> Vec<&'static str> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let unnamed = std::fs::read_dir(guard.directory()).unwrap().flatten();
    let unnamed =
        unnamed.filter(|entry| entry.file_name().to_string_lossy().starts_with(".stockade")).count();
    let checks = [
        ("the base", there(&guard.base())),
        ("the state directory", there(&guard.state())),
        ("a directory without a name", unnamed > 0),
        ("the network namespace", there(&Path::new("/run/netns").join(guard.named("net")))),
        ("a mount", mounts.contains(guard.name())),
        ("the cgroup", there(&Path::new("/sys/fs/cgroup/pids").join(guard.name()).join(guard.named("jail")))),
    ];
    checks.into_iter().filter(|(_, left)| *left).map(|(what, _)| what).collect()
}

/// Kills a command at each of its system calls, after `before`; `after` has to clear everything away.
fn killed_everywhere(guard: &Guard, words: &[String], before: &dyn Fn(), after: &dyn Fn() -> Output) {
    before();
    let calls = calls(guard, words);
    wait_for_orphans();
    after();
    let mut killed = 0;
    for (name, number) in &calls {
        before();
        let inject = format!("inject={name}:signal=KILL:when={number}");
        killed += usize::from(traced(guard, &["-e".to_owned(), inject], words).code == 137);
        wait_for_orphans();
        let cleared = after();
        assert_eq!(
            (cleared.code, cleared.stderr.as_str()),
            (0, ""),
            "killed at {name} number {number}: {cleared:?}"
        );
        let left = leftovers(guard);
        assert!(left.is_empty(), "killed at {name} number {number}: left {left:?}; said: {}", cleared.stdout);
    }
    tell(&format!("{} killed at {killed} of {} system calls", words[0], calls.len()));
    // Calls that the timing decides about, such as polls, may not come up again.
    assert!(killed * 10 >= calls.len() * 9, "only {killed} of {} runs were killed", calls.len());
}

#[test]
fn a_run_killed_at_any_system_call_is_cleared_away_by_gc() {
    privileged!(guard, {
        killed_everywhere(&guard, &flags(&guard, "run"), &|| (), &|| stockade(&guard, &["gc"]));
    });
}

/// A jail that stands by itself.
fn create(guard: &Guard) {
    let words = flags(guard, "create");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(stockade(guard, &words).code, 0);
}

/// A jail whose VMM ended while nobody was there to remove it.
fn leave_a_dead_jail(guard: &Guard) {
    let mut words = flags(guard, "run");
    words.insert(1, "--daemonize".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(stockade(guard, &words).code, 0);
    wait_for_orphans();
}

#[test]
fn a_gc_killed_at_any_system_call_is_finished_by_the_next() {
    privileged!(guard, {
        let before = || leave_a_dead_jail(&guard);
        killed_everywhere(&guard, &["gc".to_owned()], &before, &|| stockade(&guard, &["gc"]));
    });
}

#[test]
fn an_rm_killed_at_any_system_call_is_finished_by_gc_or_another() {
    privileged!(guard, {
        let id = guard.named("jail");
        let create = || create(&guard);
        // Killed early the jail is whole, and not for gc to take; after that it is gc's.
        let after = || {
            let gc = stockade(&guard, &["gc"]);
            if guard.state().exists() { stockade(&guard, &["rm", &id]) } else { gc }
        };
        killed_everywhere(&guard, &["rm".to_owned(), id.clone()], &create, &after);
    });
}

#[test]
fn two_collections_at_once_share_the_work() {
    privileged!(guard, {
        for _ in 0..20 {
            leave_a_dead_jail(&guard);
            let spawn = || {
                let mut gc = Command::new(program("stockade"));
                gc.arg("gc").env("STOCKADE_STATE_DIR", guard.state()).stdout(Stdio::null()).spawn().unwrap()
            };
            for mut gc in [spawn(), spawn()] {
                assert_eq!(gc.wait().unwrap().code(), Some(0));
            }
            assert_eq!(leftovers(&guard), Vec::<&str>::new());
        }
    });
}

#[test]
fn a_run_whose_system_calls_fail_leaves_nothing_that_gc_does_not_find() {
    privileged!(guard, {
        let words = flags(&guard, "run");
        let calls = calls(&guard, &words);
        // Rust's runtime before main, its allocator and its hash tables end the process when they are refused
        // something; and some calls the kernel cannot refuse.
        let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
        let before_main = trace.lines().take_while(|line| !line.contains("SIGCHLD")).count();
        let runtime =
            ["brk", "mmap", "munmap", "mprotect", "mremap", "sigaltstack", "exit_group", "getrandom"];
        // One that is refused is not made here, while a real close always closes.
        let infallible = ["geteuid", "getpid", "gettid", "clock_gettime", "close"];
        let calls = calls
            .iter()
            .skip(before_main)
            .filter(|(name, _)| !runtime.iter().chain(&infallible).any(|passed_over| passed_over == name));
        let calls: Vec<_> = calls.collect();
        let mut tried = 0;
        for error in ["EIO", "EMFILE"] {
            for (name, number) in &calls {
                let inject = format!("inject={name}:error={error}:when={number}");
                let mut command = Command::new("strace");
                command.args(["-qq", "-o", "/dev/null", "-e", &inject]).arg(program("stockade")).args(&words);
                let output = run_with(command.env("STOCKADE_STATE_DIR", guard.state()));
                tried += 1;
                let at = format!("{error} at {name} number {number}: {output:?}");
                assert!(!output.stderr.contains("panicked"), "{at}");
                wait_for_orphans();
                let gc = stockade(&guard, &["gc"]);
                assert_eq!((gc.code, gc.stderr.as_str()), (0, ""), "{at}");
                let left = leftovers(&guard);
                assert!(left.is_empty(), "{at}: left {left:?}");
            }
        }
        tell(&format!("made {tried} system calls fail"));
    });
}

/// Files to be placed in three ways, and what must stay as it is of them.
fn sources(guard: &Guard) -> Vec<String> {
    let share = guard.directory().join("share");
    std::fs::create_dir(&share).unwrap();
    std::fs::write(share.join("file"), "precious").unwrap();
    let file = guard.file("image", "precious").display().to_string();
    vec![format!("{}=a/share:bind", share.display()), format!("{file}=a/bound:bind"), format!("{file}=copy")]
}

fn unharmed(guard: &Guard) {
    for file in ["share/file", "image"] {
        assert_eq!(std::fs::read_to_string(guard.directory().join(file)).unwrap(), "precious");
    }
}

/// Takes out whatever of it is there, places it again, and removes the jail.
fn place_again_and_remove(guard: &Guard, id: &str, sources: &[String]) -> Output {
    for path in ["a/share", "a/bound", "copy"] {
        let output = stockade(guard, &["unplace", id, path]);
        let never_there = format!("stockade: /{path} was not placed into the jail\n");
        assert!(output.code == 0 || output.stderr == never_there, "{output:?}");
    }
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    let again = stockade(guard, &[&["place", id], &sources[..]].concat());
    assert_eq!((again.code, again.stderr.as_str()), (0, ""), "{again:?}");
    let removed = stockade(guard, &["rm", "--force", id]);
    unharmed(guard);
    removed
}

#[test]
fn a_place_killed_at_any_system_call_leaves_a_jail_that_is_whole() {
    privileged!(guard, {
        let (id, sources) = (guard.named("jail"), sources(&guard));
        let words = [vec!["place".to_owned(), id.clone()], sources.clone()].concat();
        let after = || {
            // With or without the files, the VMM runs.
            assert_eq!(stockade(&guard, &["start", &id, "--", "exit=0"]).code, 0);
            let ended = stockade(&guard, &["wait", &id]);
            assert_eq!((ended.code, ended.stdout.as_str()), (0, "0\n"));
            stockade(&guard, &["rm", &id])
        };
        killed_everywhere(&guard, &words, &|| create(&guard), &after);
        unharmed(&guard);
        killed_everywhere(&guard, &words, &|| create(&guard), &|| {
            place_again_and_remove(&guard, &id, &sources)
        });
    });
}

#[test]
fn an_unplace_killed_at_any_system_call_can_be_repeated() {
    privileged!(guard, {
        let (id, sources) = (guard.named("jail"), sources(&guard));
        let words = ["unplace", &id, "a/share", "a/bound", "copy"].map(str::to_owned);
        let before = || {
            create(&guard);
            let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
            assert_eq!(stockade(&guard, &[&["place", &id], &sources[..]].concat()).code, 0);
        };
        killed_everywhere(&guard, &words, &before, &|| place_again_and_remove(&guard, &id, &sources));
    });
}

#[test]
fn a_place_into_a_running_jail_killed_at_any_system_call_can_be_repeated() {
    privileged!(guard, {
        let (id, sources) = (guard.named("jail"), sources(&guard));
        let words = [vec!["place".to_owned(), id.clone()], sources.clone()].concat();
        let before = || {
            create(&guard);
            assert_eq!(stockade(&guard, &["start", &id, "--", "sleep"]).code, 0);
        };
        before();
        let calls = calls(&guard, &words);
        assert_eq!(place_again_and_remove(&guard, &id, &sources).code, 0);
        // Before the jail is opened it does not matter whether its VMM runs.
        let opened = calls.iter().position(|(name, _)| name == "flock").unwrap();
        for (name, number) in &calls[opened..] {
            before();
            let inject = format!("inject={name}:signal=KILL:when={number}");
            traced(&guard, &["-e".to_owned(), inject], &words);
            let removed = place_again_and_remove(&guard, &id, &sources);
            assert_eq!((removed.code, removed.stderr.as_str()), (0, ""), "killed at {name} number {number}");
            let left = leftovers(&guard);
            assert!(left.is_empty(), "killed at {name} number {number}: left {left:?}");
        }
    });
}

#[test]
fn a_start_killed_at_any_system_call_leaves_a_jail_that_can_be_removed() {
    privileged!(guard, {
        let id = guard.named("jail");
        let create = || create(&guard);
        killed_everywhere(&guard, &["start".to_owned(), id.clone()], &create, &|| {
            stockade(&guard, &["rm", &id])
        });
    });
}
