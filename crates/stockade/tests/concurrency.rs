//! Many jails of one process's threads, which share no state.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::{ExecFile, HostPath, JailSpec};
use stockade::{Error, ExitStatus, Jail, Streams};
use testkit::{Guard, privileged, program, run_with, with_everything};

/// The life of a jail. Every third one persists, is opened again, and runs with a monitor.
fn live(guard: &Guard, number: u32) {
    let store = guard.store();
    let spec = with_everything(guard, number);
    let mut created = store.create(&spec).unwrap();
    created.place("/etc/passwd").unwrap();
    let report = if number.is_multiple_of(3) {
        created.persist().unwrap();
        let Some(Jail::Created(created)) = store.open(&spec.id).unwrap() else { panic!("it persists") };
        drop(created.launch_monitored(1 << 12).unwrap());
        let mut ends = store.ends(std::slice::from_ref(&spec.id)).unwrap();
        assert_eq!(ends.next(None).unwrap(), Some((spec.id.clone(), ExitStatus::Exited(5))));
        let Some(Jail::Exited(stopped) | Jail::Abandoned(stopped)) = store.open(&spec.id).unwrap() else {
            panic!("its VMM has exited")
        };
        stopped.teardown()
    } else {
        let mut running = created.launch(Streams::default()).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
        running.teardown()
    };
    let report = report.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// The state that threads of a process share: file descriptors, working directory, umask, signals.
fn shared_state() -> (Vec<String>, Vec<String>) {
    let mut descriptors: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| {
            std::fs::read_link(entry.unwrap().path())
                .map_or_else(|e| e.to_string(), |to| to.display().to_string())
        })
        .collect();
    descriptors.sort();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kept = ["Umask:", "SigBlk:", "SigIgn:", "SigCgt:", "Uid:", "Gid:", "Groups:", "CapEff:", "NSpid:"];
    let mut shared: Vec<String> = status
        .lines()
        .filter(|line| kept.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    for name in
        ["self/cwd", "self/root", "thread-self/ns/net", "thread-self/ns/mnt", "self/ns/pid_for_children"]
    {
        shared.push(std::fs::read_link(format!("/proc/{name}")).unwrap().display().to_string());
    }
    shared.extend(std::env::vars().map(|(name, value)| format!("{name}={value}")));
    (descriptors, shared)
}

#[test]
fn two_hundred_jails_of_sixteen_threads_leave_nothing() {
    privileged!(guard, {
        let before = shared_state();
        let next = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let namespaces = || {
                        ["net", "mnt"]
                            .map(|kind| std::fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap())
                    };
                    let own = namespaces();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= 200 {
                            return;
                        }
                        live(&guard, number);
                        assert_eq!(namespaces(), own, "the thread's namespaces are unchanged");
                    }
                });
            }
        });
        assert_eq!(shared_state(), before);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn one_of_eight_threads_gets_the_same_id() {
    privileged!(guard, {
        for _ in 0..20 {
            let all = Barrier::new(8);
            let results: Vec<_> = std::thread::scope(|scope| {
                let try_one = || {
                    let (store, spec) = (guard.store(), with_everything(&guard, 1));
                    all.wait();
                    let result = store.create(&spec);
                    // No thread drops the jail before all have tried.
                    all.wait();
                    result.map(drop)
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(try_one)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
            for refused in results.into_iter().filter_map(Result::err) {
                assert!(
                    matches!(refused, Error::Locked { pid, .. } if pid.unsigned_abs() == std::process::id()),
                    "{refused}"
                );
            }
        }
    });
}

#[test]
fn an_id_in_use_is_refused_with_the_pid_of_its_process() {
    privileged!(guard, {
        let spec = with_everything(&guard, 1);
        let run = || {
            let mut run = Command::new(program("stockade"));
            run.args(["run", "--id", spec.id.as_str(), "--exec-file"]).arg(program("stockade-probe"));
            run.arg("--chroot-base-dir").arg(guard.base()).arg("--state-dir").arg(guard.state());
            run_with(run.args(["--", "exit=6"]))
        };
        let created = guard.store().create(&spec).unwrap();
        let refused = run();
        let line = format!(
            "stockade: jail '{}' is locked by pid {}; try again when that has finished\n",
            spec.id,
            std::process::id()
        );
        assert_eq!((refused.code, refused.stderr), (125, line));
        assert!(created.teardown().unwrap().is_clean());
        assert_eq!(run().code, 6);
    });
}

#[test]
fn a_change_of_the_working_directory_has_no_effect() {
    privileged!(guard, {
        let (probe, home) = (program("stockade-probe"), std::env::current_dir().unwrap());
        std::os::unix::fs::symlink(&probe, guard.directory().join("vmm")).unwrap();
        std::env::set_current_dir(guard.directory()).unwrap();
        // Relative paths are resolved when they are given.
        let base = HostPath::future_directory(Path::new("base")).unwrap();
        let vmm = ExecFile::new(Path::new("vmm")).unwrap();
        let store = stockade::Store::new(Path::new("state")).unwrap();
        let mut spec = JailSpec::new(guard.named("cwd").parse().unwrap(), vmm, base);
        spec.arguments = vec!["exit=5".into()];
        std::env::set_current_dir("/").unwrap();
        let created = store.create(&spec);
        let elsewhere = guard.directory().join("removed");
        std::fs::create_dir(&elsewhere).unwrap();
        std::env::set_current_dir(&elsewhere).unwrap();
        // A removed working directory has no effect either.
        std::fs::remove_dir(&elsewhere).unwrap();
        let mut running = created.unwrap().launch(Streams::default()).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
        assert!(running.teardown().unwrap().is_clean());
        std::env::set_current_dir(home).unwrap();
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}
