//! Interactions of parts: two state directories, adopted jails after a boot, a removed template namespace.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use stockade::spec::{ExecFile, HostPath, JailPath, JailSpec, Owner};
use stockade::steps::Ramfs;
use stockade::{AdoptOptions, AdoptSpec, Jail, Layout, Store, Streams, TemplateMounts};
use testkit::{Guard, privileged, program, run_with};

fn spec(guard: &Guard, id: &str, base: &str) -> JailSpec {
    let base = HostPath::future_directory(&guard.directory().join(base)).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named(id).parse().unwrap(), vmm, base);
    spec.arguments = vec!["sleep".into()];
    spec
}

fn adopt_spec(guard: &Guard, id: &str) -> AdoptSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let jail = Some(Layout::named(base.clone(), "vmm", &guard.named(id)).unwrap());
    AdoptSpec { name: guard.named(id).parse().unwrap(), base, jail, options: AdoptOptions::default() }
}

#[test]
fn two_state_directories_may_have_a_jail_with_the_same_id() {
    privileged!(guard, {
        let other = Store::new(&guard.directory().join("other")).unwrap();
        let (one, two) = (spec(&guard, "same", "base"), spec(&guard, "same", "second"));
        let first = guard.store().create(&one).unwrap().launch(Streams::default()).unwrap();
        other.create(&two).unwrap().persist().unwrap();
        let Some(Jail::Created(second)) = other.open(&two.id).unwrap() else { panic!("it persists") };
        let second = second.launch(Streams::default()).unwrap();
        assert!(second.teardown().unwrap().is_clean());
        assert!(Path::new("/proc").join(first.pid().to_string()).join("root").exists());
        assert!(first.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_namespace_created_after_a_boot_is_not_an_adopted_jails() {
    privileged!(guard, {
        let name = guard.named("net");
        let mut adopted = guard.store().adopt(&adopt_spec(&guard, "old")).unwrap();
        adopted.expect_netns(&name.parse().unwrap()).unwrap();
        adopted.make_root().unwrap();
        // The state after a reboot: the receipt on disk, and no process with its lock.
        let receipt = guard.state().join(guard.named("old")).join("receipt.json");
        let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&receipt).unwrap()).unwrap();
        drop(adopted);
        text["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        fs::create_dir_all(receipt.parent().unwrap()).unwrap();
        fs::write(&receipt, text.to_string()).unwrap();
        assert_eq!(run_with(Command::new("ip").args(["netns", "add", &name])).code, 0);
        let collection = guard.store().collect(false).unwrap();
        let remains = Path::new("/run/netns").join(&name).exists();
        run_with(Command::new("ip").args(["netns", "del", &name]));
        fs::remove_dir_all(guard.state())
            .or_else(|e| if guard.state().exists() { Err(e) } else { Ok(()) })
            .unwrap();
        assert!(collection.is_clean(), "{collection:?}");
        assert!(remains, "another program created it after the boot");
    });
}

#[test]
fn a_refused_request_leaves_an_adopted_root_to_its_owner() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&adopt_spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let root = adopted.receipt().root();
        std::os::unix::fs::chown(&root, Some(12_345), Some(12_346)).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let path = JailPath::new("file/ramfs").unwrap();
        let owner = Owner { uid: 12_345, gid: 12_346 };
        let ramfs = Ramfs { path, name: guard.named("ramfs"), size: 1 << 20, owner };
        assert!(adopted.add(&AdoptOptions { ramfs: Some(ramfs), ..AdoptOptions::default() }).is_err());
        let facts = fs::metadata(&root).unwrap();
        assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o777), (12_345, 12_346, 0o755));
        assert!(adopted.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_created_jail_starts_after_removal_of_template_mounts() {
    privileged!(guard, {
        TemplateMounts::make().unwrap();
        let created = guard.store().create(&spec(&guard, "kept", "base")).unwrap();
        TemplateMounts::remove().unwrap();
        let running = created.launch(Streams::default());
        TemplateMounts::make().unwrap();
        assert!(running.unwrap().teardown().unwrap().is_clean());
    });
}

#[test]
fn inspect_shows_future_paths_of_an_adopted_jail() {
    privileged!(guard, {
        let mut spec = adopt_spec(&guard, "seen");
        spec.options.cgroups = vec!["pids.max=20".parse().unwrap()];
        spec.options.parent_cgroup = Some(guard.name().parse().unwrap());
        let mut adopted = guard.store().adopt(&spec).unwrap();
        adopted.expect_netns(&guard.named("net").parse().unwrap()).unwrap();
        let paths = guard.store().inspect(&spec.name).unwrap().unwrap().paths;
        assert_eq!(paths.netns.unwrap().as_path(), Path::new("/run/netns").join(guard.named("net")));
        let below = Path::new(guard.name()).join(guard.named("seen"));
        assert!(!paths.cgroups.is_empty() && paths.cgroups.iter().all(|at| at.as_path().ends_with(&below)));
        assert!(adopted.teardown().unwrap().is_clean());
    });
}
