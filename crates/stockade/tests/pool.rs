//! Pools of jails, and the removal of many jails together.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;
use std::time::Duration;

use stockade::spec::{ExecFile, HostPath, JailSpec, Netns, SpecError};
use stockade::{
    Error, ExitStatus, Jail, JailPool, JailState, Running, Streams, TeardownOptions, teardown_all,
};
use testkit::{Guard, privileged, program};

fn spec(guard: &Guard) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.name().parse().unwrap(), vmm, base);
    spec.new_pid_ns = true;
    spec.netns = Netns::from_argument(&guard.named("net")).unwrap();
    spec.cgroups = vec!["pids.max=16".parse().unwrap()];
    spec.parent_cgroup = Some(guard.name().parse().unwrap());
    spec.arguments = vec!["exit=5".into()];
    spec
}

#[test]
fn a_pool_creates_another_jail_for_each_jail_taken() {
    privileged!(guard, {
        let (store, spec) = (guard.store(), spec(&guard));
        let pool = JailPool::new(&store, &spec, 3).unwrap();
        pool.wait_until_warm().unwrap();
        assert_eq!((pool.warm(), store.ids().unwrap().len()), (3, 3));

        let mut created = pool.take().unwrap();
        let id = created.receipt().id.clone();
        assert!(id.as_str().starts_with(&format!("{}-", spec.id)), "{id}");
        assert!(
            created.receipt().spec.started_us > spec.started_us,
            "the start is requested when it is taken"
        );
        let Netns::Make(name) = &created.receipt().spec.netns else { panic!("it has its own netns") };
        assert!(name.path().as_path().exists() && name.as_str() != guard.named("net"));
        created.place("/etc/passwd").unwrap();
        let mut running = created.launch(Streams::default()).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
        assert!(running.teardown().unwrap().is_clean());

        pool.wait_until_warm().unwrap();
        let ids = store.ids().unwrap();
        assert!(ids.len() == 3 && !ids.contains(&id), "{ids:?}");
        let reports = pool.close();
        assert!(reports.len() == 3 && reports.iter().all(|report| report.as_ref().unwrap().is_clean()));
        assert_eq!(store.ids().unwrap(), []);
    });
}

#[test]
fn a_pool_serves_more_parallel_takers_than_its_size() {
    privileged!(guard, {
        let pool = &JailPool::new(&guard.store(), &spec(&guard), 2).unwrap();
        let ids = std::thread::scope(|scope| {
            let takers = [(); 8].map(|()| scope.spawn(|| pool.take().unwrap()));
            let taken = takers.map(|taker| taker.join().unwrap());
            let mut ids = taken.each_ref().map(|jail| jail.receipt().id.clone()).to_vec();
            ids.sort();
            ids.dedup();
            ids
        });
        assert_eq!(ids.len(), 8, "every taker has its own jail");
    });
}

#[test]
fn a_pool_reports_why_creation_fails_and_tries_again_later() {
    privileged!(guard, {
        let mut spec = spec(&guard);
        spec.cgroups = vec!["pids.max=many".parse().unwrap()];
        let pool = JailPool::new(&guard.store(), &spec, 2).unwrap();
        for _ in 0..2 {
            let refused = pool.wait_until_warm().unwrap_err().to_string();
            assert!(refused.contains("pids.max"), "{refused}");
            let refused = pool.take().unwrap_err().to_string();
            assert!(refused.contains("pids.max"), "{refused}");
        }
        drop(pool);
        assert_eq!(guard.store().ids().unwrap(), []);
    });
}

#[test]
fn a_pool_refuses_an_id_too_long_for_its_suffix() {
    privileged!(guard, {
        let mut spec = spec(&guard);
        spec.id = "x".repeat(60).parse().unwrap();
        let refused = JailPool::new(&guard.store(), &spec, 1).unwrap_err();
        assert!(matches!(refused, Error::Spec(SpecError::IdLength(69))), "{refused}");
    });
}

/// The pool is in another process, which is killed while the pool is full.
#[test]
fn jails_of_a_killed_pool_are_collected() {
    const ROLE: &str = "STOCKADE_TEST_POOL";
    if let Some(directory) = std::env::var_os(ROLE) {
        let directory = std::path::PathBuf::from(directory);
        let name = directory.file_name().unwrap().to_str().unwrap().to_owned();
        let spec = JailSpec::builder(&name, program("stockade-probe"))
            .base(directory.join("base"))
            .netns(format!("{name}-net"))
            .build()
            .unwrap();
        let store = stockade::Store::new(&directory.join("state")).unwrap();
        let pool = JailPool::new(&store, &spec, 2).unwrap();
        pool.wait_until_warm().unwrap();
        // Killed here, so that nothing is undone.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    }
    privileged!(guard, {
        let myself = std::env::current_exe().unwrap();
        let mut again = Command::new(myself);
        again.args(["--exact", "jails_of_a_killed_pool_are_collected"]).env(ROLE, guard.directory());
        let output = again.output().unwrap();
        assert!(!output.status.success());
        let store = guard.store();
        let states: Vec<JailState> = store.list().unwrap().iter().map(|jail| jail.state).collect();
        assert_eq!(states, [JailState::Abandoned, JailState::Abandoned]);
        let collection = store.collect(false).unwrap();
        assert!(collection.is_clean() && collection.jails.len() == 2, "{collection:?}");
    });
}

/// A running jail with one argument for the probe.
fn running(guard: &Guard, number: u32, argument: &str) -> Running {
    let mut spec = spec(guard);
    spec.id = guard.named(&number.to_string()).parse().unwrap();
    spec.netns = Netns::from_argument(&guard.named(&format!("net{number}"))).unwrap();
    spec.arguments = vec![argument.into()];
    guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap()
}

#[test]
fn twenty_jails_removed_together_are_reported_in_order() {
    privileged!(guard, {
        let mut jails = Vec::new();
        for number in 0..20 {
            let mut running = running(&guard, number, if number % 2 == 0 { "sleep" } else { "exit=0" });
            if number % 2 == 1 {
                running.wait().unwrap();
            }
            jails.push(Jail::Running(running));
        }
        let options =
            TeardownOptions { grace: Some(Duration::from_millis(200)), ..TeardownOptions::default() };
        let reports = teardown_all(jails, options);
        for (number, report) in reports.iter().enumerate() {
            let report = report.as_ref().unwrap();
            assert_eq!(report.id.as_str(), guard.named(&number.to_string()));
            assert!(report.is_clean(), "{report:?}");
        }
        assert_eq!((reports.len(), guard.store().ids().unwrap().len()), (20, 0));
    });
}
