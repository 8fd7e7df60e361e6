//! Events of jails that other threads and processes create, run and remove.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use stockade::spec::JailSpec;
use stockade::{Event, EventKind, Events, ExitStatus, Jail, Store, Streams};
use testkit::{privileged, probe_spec, program, run_with};

/// All pending events.
fn pending(events: &mut Events) -> Vec<Event> {
    std::iter::from_fn(|| events.next(Some(Instant::now())).unwrap()).collect()
}

/// The next event. Without one within a minute the test fails, so that other tests do not wait for it.
fn next(events: &mut Events) -> Event {
    events.next(Some(Instant::now() + Duration::from_mins(1))).unwrap().expect("an event within a minute")
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    events.iter().map(|event| event.kind.clone()).collect()
}

/// The kinds of events by id, in order.
fn by_jail(events: &[Event]) -> BTreeMap<String, Vec<EventKind>> {
    let mut by_jail: BTreeMap<String, Vec<EventKind>> = BTreeMap::new();
    for event in events {
        let id = event.id.as_ref().map_or("-", |id| id.as_str()).to_owned();
        by_jail.entry(id).or_default().push(event.kind.clone());
    }
    by_jail
}

/// Whether these are the events of a complete life, with any pid.
fn is_complete(life: &[EventKind], how: ExitStatus) -> bool {
    matches!(life, [EventKind::Created, EventKind::Started { pid }, EventKind::Exited { how: status }, EventKind::Removed]
        if *pid > 0 && *status == how)
}

fn live(store: &Store, spec: &JailSpec) {
    let mut running = store.create(spec).unwrap().launch(Streams::default()).unwrap();
    running.wait().unwrap();
    assert!(running.teardown().unwrap().is_clean());
}

#[test]
fn actions_of_other_processes_are_reported_at_once() {
    privileged!(guard, {
        let mut events = guard.store().events().unwrap();
        let id = guard.named("jail");
        let stockade = |arguments: &[&str]| {
            let mut command = Command::new(program("stockade"));
            assert_eq!(
                run_with(command.args(arguments).env("STOCKADE_STATE_DIR", guard.state())).code,
                0,
                "{arguments:?}"
            );
        };
        let (probe, base) = (program("stockade-probe"), guard.base());
        let (probe, base) = (probe.to_str().unwrap(), base.to_str().unwrap());
        stockade(&["create", "--id", &id, "--exec-file", probe, "--chroot-base-dir", base]);
        assert_eq!(kinds(&pending(&mut events)), [EventKind::Created]);
        stockade(&["start", &id, "--", "sleep"]);
        let started = pending(&mut events);
        let [Event { kind: EventKind::Started { pid }, .. }] = started[..] else { panic!("{started:?}") };
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "stockade-probe\n");
        stockade(&["kill", "-s", "TERM", &id]);
        let exited = next(&mut events);
        assert_eq!(exited.kind, EventKind::Exited { how: ExitStatus::Killed(15) });
        assert_eq!(exited.id.unwrap().as_str(), id);
        stockade(&["rm", &id]);
        assert_eq!(kinds(&pending(&mut events)), [EventKind::Removed]);
        drop(events);
        assert!(!guard.state().exists(), "the subscriber kept the directory, and removes it");
    });
}

#[test]
fn an_idle_subscriber_gets_all_events_later() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        for round in 0..20 {
            live(&store, &probe_spec(&guard, &format!("jail{round}"), &["exit=5"]));
            live(&store, &probe_spec(&guard, "same", &["signal=9"]));
        }
        drop(store.create(&probe_spec(&guard, "never-started", &[])).unwrap());
        let mut lives = by_jail(&pending(&mut events));
        assert_eq!(lives.len(), 22);
        let never = lives.remove(&guard.named("never-started")).unwrap();
        assert_eq!(never, [EventKind::Created, EventKind::Removed]);
        let same = lives.remove(&guard.named("same")).unwrap();
        assert_eq!(same.len(), 20 * 4);
        assert!(same.chunks(4).all(|life| is_complete(life, ExitStatus::Killed(9))), "{same:?}");
        for (id, life) in lives {
            assert!(is_complete(&life, ExitStatus::Exited(5)), "{id}: {life:?}");
        }
    });
}

#[test]
fn a_late_subscriber_gets_the_current_states() {
    privileged!(guard, {
        let store = guard.store();
        let created = store.create(&probe_spec(&guard, "a-created", &[])).unwrap();
        let running = store
            .create(&probe_spec(&guard, "b-running", &["sleep"]))
            .unwrap()
            .launch(Streams::default())
            .unwrap();
        store.create(&probe_spec(&guard, "c-exited", &["exit=3"])).unwrap().persist().unwrap();
        let id = guard.named("c-exited").parse().unwrap();
        let Jail::Created(persistent) = store.open(&id).unwrap().unwrap() else { panic!("it persists") };
        let mut exited = persistent.launch_monitored(0).unwrap();
        exited.wait().unwrap();
        let corrupt = guard.state().join(guard.named("d-corrupt"));
        fs::create_dir(&corrupt).unwrap();
        fs::write(corrupt.join("receipt.json"), "{").unwrap();

        let file = guard.state().join("e-file");
        fs::write(&file, "").unwrap();

        let mut late = store.events_from_the_start().unwrap();
        let mut from_now = store.events().unwrap();
        assert_eq!(pending(&mut from_now), []);
        let events = pending(&mut late);
        // Every subscriber gets the same times, except for the milliseconds between reading two clocks.
        std::thread::sleep(Duration::from_millis(50));
        for (once, again) in events.iter().zip(pending(&mut store.events_from_the_start().unwrap())) {
            let is_old = !matches!(once.kind, EventKind::Corrupt { .. });
            assert!(!is_old || once.time_ms.abs_diff(again.time_ms) <= 2, "{once:?} {again:?}");
        }
        fs::remove_file(&file).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(pending(&mut from_now), [], "a file is no jail");
        let lives = by_jail(&events);
        assert!(!lives.contains_key("e-file"), "{lives:?}");
        let life = |id: &str| &lives[&guard.named(id)][..];
        assert_eq!(life("a-created"), [EventKind::Created]);
        assert_eq!(life("b-running"), [EventKind::Created, EventKind::Started { pid: running.pid() }]);
        assert!(
            matches!(
                life("c-exited"),
                [
                    EventKind::Created,
                    EventKind::Started { .. },
                    EventKind::Exited { how: ExitStatus::Exited(3) }
                ]
            ),
            "{lives:?}"
        );
        assert!(
            matches!(life("d-corrupt"), [EventKind::Corrupt { problem }] if problem.contains("is corrupt"))
        );

        assert!(running.teardown().unwrap().is_clean());
        assert!(exited.teardown().unwrap().is_clean());
        assert!(created.teardown().unwrap().is_clean());
        fs::remove_dir_all(&corrupt).unwrap();
        fs::remove_file(&file).unwrap();
        let ends = kinds(&pending(&mut late));
        assert_eq!(ends, kinds(&pending(&mut from_now)), "from now on both get the same events");
        let killed = EventKind::Exited { how: ExitStatus::Killed(9) };
        assert_eq!(
            ends,
            [killed].into_iter().chain(std::iter::repeat_n(EventKind::Removed, 4)).collect::<Vec<_>>()
        );
    });
}

#[test]
fn the_exit_of_an_unreaped_vmm_is_reported() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        let mut running = store
            .create(&probe_spec(&guard, "zombie", &["exit=7"]))
            .unwrap()
            .launch(Streams::default())
            .unwrap();
        let [_, _, end] = std::array::from_fn(|_| next(&mut events));
        assert_eq!(end.kind, EventKind::Exited { how: ExitStatus::Exited(7) });
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(7), "the status remains for its parent");
        assert!(running.teardown().unwrap().is_clean());
        assert_eq!(kinds(&pending(&mut events)), [EventKind::Removed]);
    });
}

#[test]
fn a_jail_with_a_dead_owning_process_is_abandoned() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        // Killed at its clone: the receipt is on disk, and there is no VMM.
        let mut owning_process = Command::new("strace")
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
        owning_process.wait().unwrap();
        let both = [next(&mut events), next(&mut events)];
        assert_eq!(kinds(&both), [EventKind::Created, EventKind::Abandoned]);
        assert!(store.collect(false).unwrap().is_clean());
        assert_eq!(kinds(&pending(&mut events)), [EventKind::Removed]);
    });
}

#[test]
fn a_callback_is_called_until_it_breaks() {
    privileged!(guard, {
        let store = guard.store();
        // Keeps the directory, in which the second subscriber lock shows that the other subscriber has begun.
        let keeps_directory = store.events().unwrap();
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
            // It may just be beginning. It may miss events of the first jails, but not of all.
            while !subscriber.is_finished() {
                live(&store, &probe_spec(&guard, "jail", &[]));
            }
            assert!((1..=4).contains(&subscriber.join().unwrap().unwrap()));
        });
        drop(keeps_directory);
    });
}

#[test]
fn an_overflow_of_the_kernels_queue_is_reported_as_missed() {
    privileged!(guard, {
        let store = guard.store();
        let mut events = store.events().unwrap();
        let before = store.create(&probe_spec(&guard, "before", &["sleep"])).unwrap();
        assert_eq!(kinds(&pending(&mut events)), [EventKind::Created]);
        let most: u32 =
            fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let names = [guard.state().join("some.file"), guard.state().join("other.file")];
        fs::write(&names[0], "").unwrap();
        for round in 0..=most as usize / 2 {
            fs::rename(&names[round % 2], &names[(round + 1) % 2]).unwrap();
        }
        // All events are lost. The subscriber gets the states at the end.
        let running = before.launch(Streams::default()).unwrap();
        live(&store, &probe_spec(&guard, "lost", &["exit=5"]));
        let events_then = pending(&mut events);
        let started = EventKind::Started { pid: running.pid() };
        assert_eq!(kinds(&events_then), [EventKind::Missed, started]);
        assert!(running.teardown().unwrap().is_clean());
        live(&store, &probe_spec(&guard, "after", &["exit=5"]));
        let lives = by_jail(&pending(&mut events));
        assert_eq!(
            lives[&guard.named("before")],
            [EventKind::Exited { how: ExitStatus::Killed(9) }, EventKind::Removed]
        );
        assert!(is_complete(&lives[&guard.named("after")], ExitStatus::Exited(5)), "{lives:?}");
        let name = names.iter().find(|name| name.exists()).unwrap();
        fs::remove_file(name).unwrap();
    });
}

#[test]
fn gc_removes_the_lock_of_a_killed_subscriber() {
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
        live(&guard.store(), &probe_spec(&guard, "jail", &[]));
        assert!(subscribed(), "a live subscriber is not disturbed");
        subscriber.kill().unwrap();
        subscriber.wait().unwrap();
        assert!(guard.state().exists());
        assert!(guard.store().collect(false).unwrap().is_clean());
        assert!(!guard.state().exists());
    });
}

#[test]
fn events_of_five_hundred_short_jails_are_consistent() {
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
                        let created =
                            store.create(&probe_spec(&guard, &format!("jail{number}"), &["exit=5"])).unwrap();
                        let mut running = match number % 3 {
                            0 => created.launch_monitored(1 << 12).unwrap(),
                            _ => created.launch(Streams::default()).unwrap(),
                        };
                        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
                        assert!(running.teardown().unwrap().is_clean());
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..200 {
                    // A receipt is replaced as a whole, so no listing finds half of one.
                    let corrupt = store.list().unwrap().into_iter().filter(|jail| jail.problem.is_some());
                    assert_eq!(corrupt.collect::<Vec<_>>(), []);
                }
            });
            while seen.iter().filter(|event: &&Event| event.kind == EventKind::Removed).count()
                < JAILS as usize
            {
                seen.push(next(&mut events));
            }
        });
        assert_eq!(pending(&mut events), []);
        assert_eq!(store.list().unwrap(), []);
        let lives = by_jail(&seen);
        assert_eq!(lives.len(), JAILS as usize);
        for (id, life) in lives {
            assert!(is_complete(&life, ExitStatus::Exited(5)), "{id}: {life:?}");
        }
    });
}
