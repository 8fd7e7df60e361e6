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
