//! Killed at any system call, `stockade run` leaves nothing that `stockade gc` does not find.
#![allow(clippy::unwrap_used, missing_docs)]

mod injection;

use std::process::{Command, Stdio};

use injection::{
    calls, create, flags, leave_a_dead_jail, leftovers, refusable, stockade, traced, wait_for_orphans,
};
use testkit::{Guard, Output, privileged, program, run_with, tell};

/// Kills a command at each of its system calls, after `before`; `after` has to clear everything away.
fn killed_everywhere(guard: &Guard, words: &[String], before: &dyn Fn(), after: &dyn Fn() -> Output) {
    killed_beside(guard, words, before, &wait_for_orphans, after);
}

/// The same; `settle` waits for what the killed command may still have had under way.
fn killed_beside(
    guard: &Guard,
    words: &[String],
    before: &dyn Fn(),
    settle: &dyn Fn(),
    after: &dyn Fn() -> Output,
) {
    before();
    let calls = calls(guard, words);
    settle();
    after();
    let mut killed = 0;
    for (name, number) in &calls {
        before();
        let inject = format!("inject={name}:signal=KILL:when={number}");
        killed += usize::from(traced(guard, &["-e".to_owned(), inject], words).code == 137);
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
        let calls = refusable(&guard, calls(&guard, &words));
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

#[test]
fn a_create_killed_at_any_system_call_is_cleared_away_by_gc_or_rm() {
    privileged!(guard, {
        let id = guard.named("jail");
        // Killed at its very end the jail stands.
        let after = || {
            let gc = stockade(&guard, &["gc"]);
            if guard.state().exists() { stockade(&guard, &["rm", &id]) } else { gc }
        };
        killed_everywhere(&guard, &flags(&guard, "create"), &|| (), &after);
    });
}

#[test]
fn a_detached_run_killed_at_any_system_call_is_cleared_away_by_gc_or_rm() {
    privileged!(guard, {
        let id = guard.named("jail");
        let mut words = flags(&guard, "run");
        words.insert(1, "--detach".to_owned());
        // Killed when it has let the jail go, that stands with its VMM's end.
        let after = || {
            let gc = stockade(&guard, &["gc"]);
            if guard.state().exists() { stockade(&guard, &["rm", &id]) } else { gc }
        };
        killed_everywhere(&guard, &words, &|| (), &after);
    });
}

#[test]
fn a_kill_a_stop_and_a_wait_killed_at_any_system_call_leave_a_jail_that_can_be_removed() {
    privileged!(guard, {
        let id = guard.named("jail");
        let start = |words: &[&str]| {
            create(&guard);
            assert_eq!(stockade(&guard, &[&["start", &id, "--"], words].concat()).code, 0);
        };
        let after = || {
            let rm = stockade(&guard, &["rm", "--force", &id]);
            wait_for_orphans();
            rm
        };
        for (command, vmm) in [("kill", &["sleep"][..]), ("stop", &["sleep"]), ("wait", &["exit=0"])] {
            let words = [command.to_owned(), id.clone()];
            // The VMM may run on, and is not waited for.
            killed_beside(&guard, &words, &|| start(vmm), &|| (), &after);
        }
    });
}
