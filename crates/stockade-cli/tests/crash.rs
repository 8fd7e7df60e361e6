//! `gc` or `rm` removes everything that a command leaves when it is killed at any system call.
#![allow(clippy::unwrap_used, missing_docs)]

mod injection;

use std::process::{Command, Stdio};

use injection::{calls, create, flags, leave_a_dead_jail, leftovers, refusable, traced, wait_for_orphans};
use testkit::{Guard, Output, privileged, program, run_with, stockade, tell};

/// Kills a command at each of its system calls. `before` runs before it, and `after` has to remove everything.
fn killed_everywhere(guard: &Guard, arguments: &[String], before: &dyn Fn(), after: &dyn Fn() -> Output) {
    killed_beside(guard, arguments, before, &wait_for_orphans, after);
}

/// Like [`killed_everywhere`]. `settle` waits for processes that the killed command had started.
fn killed_beside(
    guard: &Guard,
    arguments: &[String],
    before: &dyn Fn(),
    settle: &dyn Fn(),
    after: &dyn Fn() -> Output,
) {
    before();
    let calls = calls(guard, arguments);
    settle();
    after();
    let mut killed = 0;
    for (name, number) in &calls {
        before();
        let inject = format!("inject={name}:signal=KILL:when={number}");
        killed += usize::from(traced(guard, &["-e".to_owned(), inject], arguments).code == 137);
        settle();
        let cleared = after();
        assert_eq!(
            (cleared.code, cleared.stderr.as_str()),
            (0, ""),
            "killed at {name} number {number}: {cleared:?}"
        );
        let left = leftovers(guard);
        assert!(left.is_empty(), "killed at {name} number {number}: left {left:?}; said: {}", cleared.stdout);
    }
    tell(&format!("{} killed at {killed} of {} system calls", arguments[0], calls.len()));
    // Calls that depend on timing, such as polls, may not occur again.
    assert!(killed * 10 >= calls.len() * 9, "only {killed} of {} runs were killed", calls.len());
}

#[test]
fn gc_removes_state_of_a_run_killed_at_any_syscall() {
    privileged!(guard, {
        killed_everywhere(&guard, &flags(&guard, "run"), &|| (), &|| stockade(&guard, &["gc"]));
    });
}

#[test]
fn gc_finishes_a_gc_killed_at_any_syscall() {
    privileged!(guard, {
        let before = || leave_a_dead_jail(&guard);
        killed_everywhere(&guard, &["gc".to_owned()], &before, &|| stockade(&guard, &["gc"]));
    });
}

#[test]
fn gc_or_rm_finishes_an_rm_killed_at_any_syscall() {
    privileged!(guard, {
        let id = guard.named("jail");
        let create = || create(&guard);
        // If rm is killed early, the jail is whole and gc skips it; later gc removes it.
        let after = || {
            let gc = stockade(&guard, &["gc"]);
            if guard.state().exists() { stockade(&guard, &["rm", &id]) } else { gc }
        };
        killed_everywhere(&guard, &["rm".to_owned(), id.clone()], &create, &after);
    });
}

#[test]
fn two_gc_at_once_share_the_work() {
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
fn gc_removes_state_of_a_run_with_failed_syscalls() {
    privileged!(guard, {
        let arguments = flags(&guard, "run");
        let calls = refusable(&guard, calls(&guard, &arguments));
        let mut tried = 0;
        for error in ["EIO", "EMFILE"] {
            for (name, number) in &calls {
                let inject = format!("inject={name}:error={error}:when={number}");
                let mut command = Command::new("strace");
                command
                    .args(["-qq", "-o", "/dev/null", "-e", &inject])
                    .arg(program("stockade"))
                    .args(&arguments);
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

/// Files for three methods of placement; see [`unharmed`] for their state afterwards.
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

/// Removes the placements that exist, places the files again, and removes the jail.
fn place_again_and_remove(guard: &Guard, id: &str, sources: &[String]) -> Output {
    for path in ["a/share", "a/bound", "copy"] {
        let output = stockade(guard, &["unplace", id, path]);
        let never_there = format!(
            "stockade: '/{path}' was not placed into the jail; list the placed paths with `stockade inspect`\n"
        );
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
fn a_jail_is_whole_after_a_place_killed_at_any_syscall() {
    privileged!(guard, {
        let (id, sources) = (guard.named("jail"), sources(&guard));
        let arguments = [vec!["place".to_owned(), id.clone()], sources.clone()].concat();
        let after = || {
            // The VMM starts with or without the files.
            assert_eq!(stockade(&guard, &["start", &id, "--", "exit=0"]).code, 0);
            let ended = stockade(&guard, &["wait", &id]);
            assert_eq!((ended.code, ended.stdout.as_str()), (0, "0\n"));
            stockade(&guard, &["rm", &id])
        };
        killed_everywhere(&guard, &arguments, &|| create(&guard), &after);
        unharmed(&guard);
        killed_everywhere(&guard, &arguments, &|| create(&guard), &|| {
            place_again_and_remove(&guard, &id, &sources)
        });
    });
}

#[test]
fn an_unplace_killed_at_any_syscall_can_be_repeated() {
    privileged!(guard, {
        let (id, sources) = (guard.named("jail"), sources(&guard));
        let arguments = ["unplace", &id, "a/share", "a/bound", "copy"].map(str::to_owned);
        let before = || {
            create(&guard);
            let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
            assert_eq!(stockade(&guard, &[&["place", &id], &sources[..]].concat()).code, 0);
        };
        killed_everywhere(&guard, &arguments, &before, &|| place_again_and_remove(&guard, &id, &sources));
    });
}

#[test]
fn a_place_in_a_running_jail_killed_anywhere_can_be_repeated() {
    privileged!(guard, {
        let (id, sources) = (guard.named("jail"), sources(&guard));
        let arguments = [vec!["place".to_owned(), id.clone()], sources.clone()].concat();
        let before = || {
            create(&guard);
            assert_eq!(stockade(&guard, &["start", &id, "--", "sleep"]).code, 0);
        };
        before();
        let calls = calls(&guard, &arguments);
        assert_eq!(place_again_and_remove(&guard, &id, &sources).code, 0);
        // Only from the jail's lock on does it matter whether the VMM runs.
        let opened = calls.iter().position(|(name, _)| name == "flock").unwrap();
        for (name, number) in &calls[opened..] {
            before();
            let inject = format!("inject={name}:signal=KILL:when={number}");
            traced(&guard, &["-e".to_owned(), inject], &arguments);
            let removed = place_again_and_remove(&guard, &id, &sources);
            assert_eq!((removed.code, removed.stderr.as_str()), (0, ""), "killed at {name} number {number}");
            let left = leftovers(&guard);
            assert!(left.is_empty(), "killed at {name} number {number}: left {left:?}");
        }
    });
}

#[test]
fn rm_removes_a_jail_of_a_start_killed_at_any_syscall() {
    privileged!(guard, {
        let id = guard.named("jail");
        let create = || create(&guard);
        killed_everywhere(&guard, &["start".to_owned(), id.clone()], &create, &|| {
            stockade(&guard, &["rm", &id])
        });
    });
}

#[test]
fn gc_or_rm_removes_a_create_killed_at_any_syscall() {
    privileged!(guard, {
        let id = guard.named("jail");
        // If create is killed at its very end, the jail persists.
        let after = || {
            let gc = stockade(&guard, &["gc"]);
            if guard.state().exists() { stockade(&guard, &["rm", &id]) } else { gc }
        };
        killed_everywhere(&guard, &flags(&guard, "create"), &|| (), &after);
    });
}

#[test]
fn gc_or_rm_removes_a_detached_run_killed_at_any_syscall() {
    privileged!(guard, {
        let id = guard.named("jail");
        let mut arguments = flags(&guard, "run");
        arguments.insert(1, "--detach".to_owned());
        // If run is killed after it detached the jail, the jail persists as exited.
        let after = || {
            let gc = stockade(&guard, &["gc"]);
            if guard.state().exists() { stockade(&guard, &["rm", &id]) } else { gc }
        };
        killed_everywhere(&guard, &arguments, &|| (), &after);
    });
}

#[test]
fn rm_removes_a_jail_of_a_killed_kill_stop_or_wait() {
    privileged!(guard, {
        let id = guard.named("jail");
        let start = |arguments: &[&str]| {
            create(&guard);
            assert_eq!(stockade(&guard, &[&["start", &id, "--"], arguments].concat()).code, 0);
        };
        let after = || {
            let rm = stockade(&guard, &["rm", "--force", &id]);
            wait_for_orphans();
            rm
        };
        for (command, vmm) in [("kill", &["sleep"][..]), ("stop", &["sleep"]), ("wait", &["exit=0"])] {
            let arguments = [command.to_owned(), id.clone()];
            // The VMM may run on, so it is not waited for before `rm`.
            killed_beside(&guard, &arguments, &|| start(vmm), &|| (), &after);
        }
    });
}
