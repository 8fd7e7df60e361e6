//! What subscribers are told of jails that other threads and processes make, run and remove.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stockade::spec::{ExecFile, HostPath, JailSpec};
use stockade::{Event, EventKind, Events, ExitStatus, Jail, Store, Streams};
use testkit::{Guard, privileged, program, run_with};

fn spec(guard: &Guard, id: &str, words: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named(id).parse().unwrap(), vmm, base);
    spec.arguments = words.iter().map(Into::into).collect();
    spec
}

/// Everything that can be told by now.
fn told(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next(Some(Instant::now())).unwrap()).collect()
}

/// The next event. Where none comes the test fails rather than keep others waiting.
fn next(events: &mut Events) -> Event {
    events.next(Some(Instant::now() + Duration::from_mins(1))).unwrap().expect("an event within a minute")
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind.clone()).collect()
}

/// The kinds by id, in the order in which they were told.
fn stories(events: &[Event]) -> BTreeMap<String, Vec<EventKind>> {
    let mut stories: BTreeMap<String, Vec<EventKind>> = BTreeMap::new();
    for event in events {
        let id = event.id.as_ref().map_or("-", |id| id.as_str()).to_owned();
        stories.entry(id).or_default().push(event.kind.clone());
    }
    stories
}

/// The story of a jail that was run to its end; whatever the pid.
fn is_whole(story: &[EventKind], how: ExitStatus) -> bool {
    matches!(story, [EventKind::Created, EventKind::Started { pid }, EventKind::Exited { how: told }, EventKind::Removed]
        if *pid > 0 && *told == how)
}

fn live(store: &Store, spec: &JailSpec) {
    let mut running = store.create(spec).unwrap().launch(Streams::default()).unwrap();
    running.wait().unwrap();
    assert!(running.teardown().unwrap().is_clean());
}

#[test]
fn what_other_processes_do_is_told_as_it_happens() {
    privileged!(guard, {
        let mut events = guard.store().events().unwrap();
        let id = guard.named("jail");
        let stockade = |words: &[&str]| {
            let mut command = Command::new(program("stockade"));
            assert_eq!(
                run_with(command.args(words).env("STOCKADE_STATE_DIR", guard.state())).code,
                0,
                "{words:?}"
            );
        };
        let (probe, base) = (program("stockade-probe"), guard.base());
        let (probe, base) = (probe.to_str().unwrap(), base.to_str().unwrap());
        stockade(&["create", "--id", &id, "--exec-file", probe, "--chroot-base-dir", base]);
        assert_eq!(kinds(&told(&mut events)), [EventKind::Created]);
        stockade(&["start", &id, "--", "sleep"]);
        let started = told(&mut events);
        let [Event { kind: EventKind::Started { pid }, .. }] = started[..] else { panic!("{started:?}") };
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "stockade-probe\n");
        stockade(&["kill", "-s", "TERM", &id]);
        let ended = next(&mut events);
        assert_eq!(ended.kind, EventKind::Exited { how: ExitStatus::Killed(15) });
        assert_eq!(ended.id.unwrap().as_str(), id);
        stockade(&["rm", &id]);
        assert_eq!(kinds(&told(&mut events)), [EventKind::Removed]);
        drop(events);
        assert!(!guard.state().exists(), "the subscriber kept the directory, and takes it along");
    });
}

#[test]
fn a_subscriber_that_did_not_look_is_told_every_story_afterwards() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        for round in 0..20 {
            live(&store, &spec(&guard, &format!("jail{round}"), &["exit=5"]));
            live(&store, &spec(&guard, "same", &["signal=9"]));
        }
        drop(store.create(&spec(&guard, "never-started", &[])).unwrap());
        let mut stories = stories(&told(&mut events));
        assert_eq!(stories.len(), 22);
        let never = stories.remove(&guard.named("never-started")).unwrap();
        assert_eq!(never, [EventKind::Created, EventKind::Removed]);
        let same = stories.remove(&guard.named("same")).unwrap();
        assert_eq!(same.len(), 20 * 4);
        assert!(same.chunks(4).all(|story| is_whole(story, ExitStatus::Killed(9))), "{same:?}");
        for (id, story) in stories {
            assert!(is_whole(&story, ExitStatus::Exited(5)), "{id}: {story:?}");
        }
    });
}

#[test]
fn a_subscriber_that_comes_late_is_told_how_it_is() {
    privileged!(guard, {
        let store = guard.store();
        let prepared = store.create(&spec(&guard, "a-prepared", &[])).unwrap();
        let running =
            store.create(&spec(&guard, "b-running", &["sleep"])).unwrap().launch(Streams::default()).unwrap();
        store.create(&spec(&guard, "c-ended", &["exit=3"])).unwrap().persist().unwrap();
        let id = guard.named("c-ended").parse().unwrap();
        let Jail::Created(left) = store.open(&id).unwrap().unwrap() else { panic!("it stands by itself") };
        let mut ended = left.launch_watched(0).unwrap();
        ended.wait().unwrap();
        let damaged = guard.state().join(guard.named("d-damaged"));
        fs::create_dir(&damaged).unwrap();
        fs::write(damaged.join("receipt.json"), "{").unwrap();

        let file = guard.state().join("e-file");
        fs::write(&file, "").unwrap();

        let mut late = store.events_from_the_start().unwrap();
        let mut from_now = store.events().unwrap();
        assert_eq!(told(&mut from_now), []);
        let heard = told(&mut late);
        // Whoever asks is told the same times, to the millisecond that two clocks are read in.
        std::thread::sleep(Duration::from_millis(50));
        for (once, again) in heard.iter().zip(told(&mut store.events_from_the_start().unwrap())) {
            let is_old = !matches!(once.kind, EventKind::Corrupt { .. });
            assert!(!is_old || once.time_ms.abs_diff(again.time_ms) <= 2, "{once:?} {again:?}");
        }
        fs::remove_file(&file).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(told(&mut from_now), [], "a file is no jail");
        let stories = stories(&heard);
        assert!(!stories.contains_key("e-file"), "{stories:?}");
        let story = |id: &str| &stories[&guard.named(id)][..];
        assert_eq!(story("a-prepared"), [EventKind::Created]);
        assert_eq!(story("b-running"), [EventKind::Created, EventKind::Started { pid: running.pid() }]);
        assert!(
            matches!(
                story("c-ended"),
                [
                    EventKind::Created,
                    EventKind::Started { .. },
                    EventKind::Exited { how: ExitStatus::Exited(3) }
                ]
            ),
            "{stories:?}"
        );
        assert!(
            matches!(story("d-damaged"), [EventKind::Corrupt { problem }] if problem.contains("is damaged"))
        );

        assert!(running.teardown().unwrap().is_clean());
        assert!(ended.teardown().unwrap().is_clean());
        assert!(prepared.teardown().unwrap().is_clean());
        fs::remove_dir_all(&damaged).unwrap();
        fs::remove_file(&file).unwrap();
        let ends = kinds(&told(&mut late));
        assert_eq!(ends, kinds(&told(&mut from_now)), "from here on both are told the same");
        let killed = EventKind::Exited { how: ExitStatus::Killed(9) };
        assert_eq!(
            ends,
            [killed].into_iter().chain(std::iter::repeat_n(EventKind::Removed, 4)).collect::<Vec<_>>()
        );
    });
}

#[test]
fn an_end_that_nobody_has_waited_for_is_told_all_the_same() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        let mut running =
            store.create(&spec(&guard, "zombie", &["exit=7"])).unwrap().launch(Streams::default()).unwrap();
        let [_, _, end] = std::array::from_fn(|_| next(&mut events));
        assert_eq!(end.kind, EventKind::Exited { how: ExitStatus::Exited(7) });
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(7), "it was not taken away from its parent");
        assert!(running.teardown().unwrap().is_clean());
        assert_eq!(kinds(&told(&mut events)), [EventKind::Removed]);
    });
}

#[test]
fn a_jail_whose_maker_dies_is_abandoned_until_it_is_collected() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        // Killed at its clone, when the receipt is written and there is no VMM.
        let mut maker = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "inject=clone3:signal=KILL"])
            .arg(program("stockade"))
            .args(["run", "--id", &guard.named("jail"), "--exec-file"])
            .arg(program("stockade-probe"))
            .arg("--chroot-base-dir")
            .arg(guard.base())
            .env("STOCKADE_STATE_DIR", guard.state())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        maker.wait().unwrap();
        let both = [next(&mut events), next(&mut events)];
        assert_eq!(kinds(&both), [EventKind::Created, EventKind::Abandoned]);
        assert!(store.collect(false).unwrap().is_clean());
        assert_eq!(kinds(&told(&mut events)), [EventKind::Removed]);
    });
}

#[test]
fn a_callback_is_called_until_it_has_enough() {
    privileged!(guard, {
        let store = guard.store();
        // Keeps the directory, so that the other subscriber's presence tells that it has begun.
        let presence = store.events().unwrap();
        let subscribers = || fs::read_dir(guard.state()).unwrap().count();
        std::thread::scope(|scope| {
            let subscriber = scope.spawn(|| {
                let mut seen = 0;
                store.subscribe(|event| {
                    seen += 1;
                    if event.kind == EventKind::Removed {
                        ControlFlow::Break(seen)
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            });
            while subscribers() < 2 {
                std::thread::yield_now();
            }
            // It may be about to begin: whatever it misses of the first, of one of these it is told all.
            while !subscriber.is_finished() {
                live(&store, &spec(&guard, "jail", &[]));
            }
            assert!((1..=4).contains(&subscriber.join().unwrap().unwrap()));
        });
        drop(presence);
    });
}

#[test]
fn what_the_kernel_could_not_keep_is_said_to_be_missed() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        let before = store.create(&spec(&guard, "before", &["sleep"])).unwrap();
        assert_eq!(kinds(&told(&mut events)), [EventKind::Created]);
        let most: u32 =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let names = [guard.state().join("some.file"), guard.state().join("other.file")];
        fs::write(&names[0], "").unwrap();
        for round in 0..=most as usize / 2 {
            fs::rename(&names[round % 2], &names[(round + 1) % 2]).unwrap();
        }
        // All this is lost, but for how it ends.
        let running = before.launch(Streams::default()).unwrap();
        live(&store, &spec(&guard, "lost", &["exit=5"]));
        let events_then = told(&mut events);
        let started = EventKind::Started { pid: running.pid() };
        assert_eq!(kinds(&events_then), [EventKind::Missed, started]);
        assert!(running.teardown().unwrap().is_clean());
        live(&store, &spec(&guard, "after", &["exit=5"]));
        let stories = stories(&told(&mut events));
        assert_eq!(
            stories[&guard.named("before")],
            [EventKind::Exited { how: ExitStatus::Killed(9) }, EventKind::Removed]
        );
        assert!(is_whole(&stories[&guard.named("after")], ExitStatus::Exited(5)), "{stories:?}");
        let name = names.iter().find(|name| name.exists()).unwrap();
        fs::remove_file(name).unwrap();
    });
}

#[test]
fn a_subscriber_that_is_killed_leaves_what_gc_removes() {
    privileged!(guard, {
        let mut subscriber = Command::new(program("stockade"))
            .arg("events")
            .stdout(Stdio::null())
            .env("STOCKADE_STATE_DIR", guard.state())
            .spawn()
            .unwrap();
        let subscribed = || fs::read_dir(guard.state()).is_ok_and(|mut entries| entries.next().is_some());
        while !subscribed() {
            std::thread::yield_now();
        }
        assert!(guard.store().collect(false).unwrap().is_clean());
        live(&guard.store(), &spec(&guard, "jail", &[]));
        assert!(subscribed(), "one that lives is not disturbed");
        subscriber.kill().unwrap();
        subscriber.wait().unwrap();
        assert!(guard.state().exists());
        assert!(guard.store().collect(false).unwrap().is_clean());
        assert!(!guard.state().exists());
    });
}

#[test]
fn five_hundred_jails_that_come_and_go_have_a_consistent_story_each() {
    privileged!(guard, {
        const JAILS: u32 = 500;
        let store = guard.store();
        let mut events = store.events().unwrap();
        let count = AtomicU32::new(0);
        let mut seen = Vec::new();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    loop {
                        let number = count.fetch_add(1, Ordering::Relaxed);
                        if number >= JAILS {
                            return;
                        }
                        let prepared =
                            store.create(&spec(&guard, &format!("jail{number}"), &["exit=5"])).unwrap();
                        let mut running = match number % 3 {
                            0 => prepared.launch_watched(1 << 12).unwrap(),
                            _ => prepared.launch(Streams::default()).unwrap(),
                        };
                        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
                        assert!(running.teardown().unwrap().is_clean());
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    // A receipt is replaced as a whole, so no listing finds half of one.
                    let damaged = store.list().unwrap().into_iter().filter(|jail| jail.problem.is_some());
                    assert_eq!(damaged.collect::<Vec<_>>(), []);
                }
            });
            while seen.iter().filter(|event: &&Event| event.kind == EventKind::Removed).count()
                < JAILS as usize
            {
                seen.push(next(&mut events));
            }
        });
        assert_eq!(told(&mut events), []);
        assert_eq!(store.list().unwrap(), []);
        let stories = stories(&seen);
        assert_eq!(stories.len(), JAILS as usize);
        for (id, story) in stories {
            assert!(is_whole(&story, ExitStatus::Exited(5)), "{id}: {story:?}");
        }
    });
}
