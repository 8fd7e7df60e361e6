//! Cgroups that exist before the jail, files of cgroup v1, parents, and settings of both versions.
//!
//! The tests use the hierarchies of cgroup v1 by controller. A host without them skips these tests;
//! `tests/cgroup_v2.rs` has those of cgroup v2 alone.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stockade::spec::{CgroupVersion, ExecFile, HostPath, JailSpec};
use stockade::{Error, ErrorKind, Running, Store, Streams};
use testkit::{Guard, privileged, program, skip};

/// The mount point of the hierarchy of a controller in cgroup v1.
fn v1(controller: &str) -> Option<PathBuf> {
    mounts().into_iter().find(|(_, kind, options)| kind == "cgroup" && has(options, controller)).map(|m| m.0)
}

fn has(options: &str, controller: &str) -> bool {
    options.split(',').any(|option| option == controller)
}

/// The mount point, type and options of each mount.
fn mounts() -> Vec<(PathBuf, String, String)> {
    let text = fs::read_to_string("/proc/mounts").unwrap();
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.map(|field| (field[1].into(), field[2].to_owned(), field[3].to_owned())).collect()
}

/// A test with the hierarchies of these controllers in cgroup v1.
macro_rules! cgroup_v1 {
    ($guard:ident, $($mount:ident = $controller:literal),+, $body:block) => {
        let ($(Some($mount),)+) = ($(v1($controller),)+) else {
            return skip(std::any::type_name_of_val(&|| ()), "cgroup v1");
        };
        privileged!($guard, $body);
    };
}

/// A jail with the test's own parent cgroup.
fn spec(guard: &Guard, id: &str, settings: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named(id).parse().unwrap(), vmm, base);
    spec.arguments = vec!["sleep".into()];
    spec.cgroups = settings.iter().map(|setting| setting.parse().unwrap()).collect();
    spec.parent_cgroup = Some(guard.name().parse().unwrap());
    spec
}

/// The jail's cgroup in a hierarchy.
fn own(hierarchy: &Path, guard: &Guard, id: &str) -> PathBuf {
    hierarchy.join(guard.name()).join(guard.named(id))
}

fn read(file: impl AsRef<Path>) -> String {
    let file = file.as_ref();
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim_end().to_owned()
}

/// A running jail, which is torn down even if the test fails.
struct Live(Option<Running>);

impl Live {
    fn pid(&self) -> i32 {
        self.0.as_ref().unwrap().pid()
    }

    fn tear_down(mut self) {
        let report = self.0.take().unwrap().teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.take().map(Running::teardown);
    }
}

fn launch(store: &Store, spec: &JailSpec) -> Live {
    Live(Some(store.create(spec).unwrap().launch(Streams::default()).unwrap()))
}

/// The paths of a process's cgroups by controller; the empty name is that of cgroup v2.
fn cgroup_of(pid: i32, controller: &str) -> String {
    let text = read(format!("/proc/{pid}/cgroup"));
    let lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let mut found = lines.filter(|line| line[1].split(',').any(|name| name == controller));
    found.next().unwrap()[2].to_owned()
}

/// A process in a cgroup that is not the jail's.
struct Foreign(Child);

impl Foreign {
    fn in_cgroup(cgroup: &Path) -> Self {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(child)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_old_value_of_a_left_over_cgroup_is_not_in_force() {
    cgroup_v1!(guard, cpu = "cpu", memory = "memory", {
        let (cpu, memory) = (own(&cpu, &guard, "old"), own(&memory, &guard, "old"));
        for cgroup in [&cpu, &memory] {
            fs::create_dir_all(cgroup.join("below")).unwrap();
        }
        fs::write(cpu.join("cpu.cfs_quota_us"), "5000").unwrap();
        fs::write(memory.join("memory.limit_in_bytes"), "64M").unwrap();
        // A limit of memory and swap below the next limit of memory let every start fail.
        let swap = memory.join("memory.memsw.limit_in_bytes");
        if swap.exists() {
            fs::write(swap, "64M").unwrap();
        }
        let spec = spec(&guard, "old", &["cpu.shares=512", "memory.limit_in_bytes=128M"]);
        let running = launch(&guard.store(), &spec);
        assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "-1");
        assert_eq!(read(cpu.join("cpu.shares")), "512");
        assert_eq!(read(memory.join("memory.limit_in_bytes")), (128 << 20).to_string());
        assert!(!cpu.join("below").exists());
        running.tear_down();
        assert!(!cpu.exists() && !memory.exists());
    });
}

#[test]
fn the_cgroup_of_a_jail_whose_record_is_lost_is_made_anew() {
    cgroup_v1!(guard, cpu = "cpu", {
        let (store, cpu) = (guard.store(), own(&cpu, &guard, "lost"));
        store.create(&spec(&guard, "lost", &["cpu.cfs_quota_us=5000"])).unwrap().persist().unwrap();
        let error = store.create(&spec(&guard, "lost", &["cpu.shares=2"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        // Only the cgroup is left, with the mark of a jail that no longer exists.
        fs::remove_dir_all(guard.state()).unwrap();
        fs::remove_dir_all(guard.base()).unwrap();
        assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "5000");
        let running = launch(&store, &spec(&guard, "lost", &["cpu.shares=512"]));
        assert_eq!(read(cpu.join("cpu.cfs_quota_us")), "-1");
        running.tear_down();
    });
}

#[test]
fn a_created_jails_cgroup_is_not_taken_by_another() {
    cgroup_v1!(guard, cpu = "cpu", {
        let cpu = own(&cpu, &guard, "same");
        let first = guard.store().create(&spec(&guard, "same", &["cpu.shares=512"])).unwrap();
        // The same id and parent, but another state directory and base.
        let other = Store::new(&guard.directory().join("other")).unwrap();
        let mut second = spec(&guard, "same", &["cpu.shares=1024"]);
        second.base = HostPath::future_directory(&guard.directory().join("second")).unwrap();
        let error = other.create(&second).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InTheWay);
        let jail = guard.base().join("stockade-probe").join(guard.named("same"));
        let line = format!(
            "cgroup '{}' of the jail in '{}' exists and was not created by stockade for this jail; remove it or use \
             another id",
            cpu.display(),
            jail.display()
        );
        assert_eq!(error.to_string(), line);
        assert_eq!(read(cpu.join("cpu.shares")), "512");
        assert!(first.teardown().unwrap().is_clean());
        launch(&other, &second).tear_down();
    });
}

#[test]
fn a_foreign_process_in_the_cgroup_is_named() {
    cgroup_v1!(guard, cpu = "cpu", {
        let store = guard.store();
        for below in ["", "deeper/down"] {
            let cgroup = own(&cpu, &guard, "taken").join(below);
            fs::create_dir_all(&cgroup).unwrap();
            let foreign = Foreign::in_cgroup(&cgroup);
            fs::write(cgroup.join("cpu.shares"), "300").unwrap();
            let error = store.create(&spec(&guard, "taken", &["cpu.shares=512"])).unwrap_err();
            let line = format!(
                "cgroup '{}' with process {} in it exists and was not created by stockade for this jail; remove it or \
                 use another id",
                cgroup.display().to_string().trim_end_matches('/'),
                foreign.0.id()
            );
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::InTheWay, line));
            assert_eq!(read(cgroup.join("cpu.shares")), "300");
            assert!(!guard.base().exists() && !guard.state().exists());
        }
    });
}

#[test]
fn only_a_cpuset_inherits_from_its_parent() {
    cgroup_v1!(guard, devices = "devices", memory = "memory", cpuset = "cpuset", cpu = "cpu", {
        // A parent with values that the jail has not asked for.
        let parent = cpu.join(guard.name());
        fs::create_dir(&parent).unwrap();
        fs::write(parent.join("cpu.shares"), "300").unwrap();
        let settings = [
            "devices.deny=a",
            "devices.allow=c 10:232 rwm",
            "devices.allow=c 1:9 r",
            "memory.oom_control=1",
            "cpuset.memory_migrate=1",
            "cpu.shares=512",
        ];
        let running = launch(&guard.store(), &spec(&guard, "files", &settings));
        assert_eq!(
            read(own(&devices, &guard, "files").join("devices.list")),
            "c 10:232 rwm\nc 1:9 r",
            "one write for each setting"
        );
        assert!(
            read(own(&memory, &guard, "files").join("memory.oom_control")).contains("oom_kill_disable 1")
        );
        let cpuset = own(&cpuset, &guard, "files");
        assert_eq!(read(cpuset.join("cpuset.memory_migrate")), "1");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let above = cpuset.parent().unwrap().parent().unwrap().join(file);
            assert_eq!(read(cpuset.join(file)), read(above), "{file}");
        }
        running.tear_down();
    });
}

#[test]
fn an_empty_file_of_the_parent_is_no_obstacle() {
    cgroup_v1!(guard, blkio = "blkio", {
        let Some(device) = fs::read_dir("/sys/block").unwrap().flatten().next() else {
            return skip(std::any::type_name_of_val(&|| ()), "a block device");
        };
        let device = read(device.path().join("dev"));
        let file = "blkio.throttle.read_bps_device";
        let setting = format!("{file}={device} 1048576");
        let running = launch(&guard.store(), &spec(&guard, "disk", &[&setting]));
        assert_eq!(read(own(&blkio, &guard, "disk").join(file)), format!("{device} 1048576"));
        running.tear_down();
    });
}

#[test]
fn a_file_that_the_controller_lacks_is_named() {
    cgroup_v1!(guard, pids = "pids", {
        let error = guard.store().create(&spec(&guard, "file", &["pids.maximum=1"])).unwrap_err();
        let file = own(&pids, &guard, "file").join("pids.maximum");
        let line = format!("cannot write '{}': no such file in this cgroup", file.display());
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, line));
        assert!(!guard.base().exists() && !guard.state().exists() && !pids.join(guard.name()).exists());
    });
}

#[test]
fn the_refused_one_of_two_equal_files_is_named() {
    cgroup_v1!(guard, _pids = "pids", {
        let error = guard.store().create(&spec(&guard, "two", &["pids.max=9", "pids.max=many"])).unwrap_err();
        let Error::CgroupSetting { setting, .. } = &error else { panic!("{error}") };
        assert_eq!(setting.to_string(), "pids.max=many");
    });
}

#[test]
fn a_named_parent_is_joined_wherever_it_exists() {
    cgroup_v1!(guard, pids = "pids", memory = "memory", freezer = "freezer", {
        for hierarchy in [&pids, &memory, &freezer] {
            fs::create_dir(hierarchy.join(guard.name())).unwrap();
        }
        fs::write(pids.join(guard.name()).join("pids.max"), "50").unwrap();
        for (id, version, settings, new_pid_ns) in [
            ("any", None, &[][..], false),
            ("one", Some(CgroupVersion::V1), &[], false),
            ("pidns", None, &[], true),
            // The limits of the parent hold also where the jail has no cgroup of its own.
            ("with", None, &["memory.limit_in_bytes=512M"], false),
        ] {
            let spec = JailSpec { cgroup_version: version, new_pid_ns, ..spec(&guard, id, settings) };
            let running = launch(&guard.store(), &spec);
            assert_eq!(cgroup_of(running.pid(), "pids"), format!("/{}", guard.name()), "{id}");
            assert!(cgroup_of(running.pid(), "memory").contains(guard.name()), "{id}");
            assert!(cgroup_of(running.pid(), "freezer").contains(guard.name()), "{id}");
            assert!(!cgroup_of(running.pid(), "cpu").contains(guard.name()), "{id}: it has no such parent");
            running.tear_down();
            assert!(pids.join(guard.name()).exists(), "the parent outlives the jail");
        }
        assert_eq!(read(pids.join(guard.name()).join("pids.max")), "50");
    });
}

#[test]
fn a_missing_parent_without_settings_is_refused() {
    privileged!(guard, {
        let v1 = mounts().iter().any(|(_, kind, _)| kind == "cgroup").then_some(CgroupVersion::V1);
        let v2 = mounts().iter().any(|(_, kind, _)| kind == "cgroup2").then_some(CgroupVersion::V2);
        for version in [None].into_iter().chain(v1.map(Some)).chain(v2.map(Some)) {
            let spec = JailSpec { cgroup_version: version, ..spec(&guard, "misspelt", &[]) };
            let error = guard.store().create(&spec).unwrap_err();
            let place = version.map_or("any hierarchy".to_owned(), |version| format!("cgroup {version}"));
            let line = format!(
                "there is no cgroup '{}' in {place}; create it, or give the jail a cgroup setting, for which it is \
                 created",
                guard.name()
            );
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, line), "{version:?}");
            assert!(!guard.base().exists() && !guard.state().exists());
        }
    });
}

#[test]
fn a_parent_of_the_other_version_is_not_joined() {
    cgroup_v1!(guard, pids = "pids", {
        fs::create_dir(pids.join(guard.name())).unwrap();
        if !mounts().iter().any(|(_, kind, _)| kind == "cgroup2") {
            return skip(std::any::type_name_of_val(&|| ()), "both cgroup versions");
        }
        let version = Some(CgroupVersion::V2);
        let error = guard.store().create(&JailSpec { cgroup_version: version, ..spec(&guard, "v2", &[]) });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn one_jail_has_settings_of_both_versions() {
    cgroup_v1!(guard, memory = "memory", {
        let unified = mounts().into_iter().find(|(_, kind, _)| kind == "cgroup2").map(|mount| mount.0);
        let huge = |at: &PathBuf| has(&read(at.join("cgroup.controllers")).replace(' ', ","), "hugetlb");
        let Some(unified) = unified.filter(huge) else {
            return skip(std::any::type_name_of_val(&|| ()), "hugetlb in cgroup v2 beside cgroup v1");
        };
        let enabled = read(unified.join("cgroup.subtree_control"));
        let settings = ["memory.limit_in_bytes=512M", "hugetlb.2MB.max=4194304"];
        let running = launch(&guard.store(), &spec(&guard, "both", &settings));
        let path = format!("/{}/{}", guard.name(), guard.named("both"));
        assert_eq!(cgroup_of(running.pid(), ""), path);
        assert!(cgroup_of(running.pid(), "memory").ends_with(&path));
        let (memory, unified_own) = (own(&memory, &guard, "both"), own(&unified, &guard, "both"));
        assert_eq!(read(memory.join("memory.limit_in_bytes")), (512 << 20).to_string());
        assert_eq!(read(unified_own.join("hugetlb.2MB.max")), "4194304");
        running.tear_down();
        assert!(!memory.exists() && !unified_own.exists());
        // A requested version holds for all settings.
        let requested = spec(&guard, "one", &settings);
        let error = guard
            .store()
            .create(&JailSpec { cgroup_version: Some(CgroupVersion::V1), ..requested })
            .unwrap_err();
        assert_eq!(error.to_string(), "this host has no cgroup controller 'hugetlb'");
        // The controller was enabled at the root of the hierarchy.
        testkit::remove_cgroup(guard.name());
        if !has(&enabled.replace(' ', ","), "hugetlb") {
            fs::write(unified.join("cgroup.subtree_control"), "-hugetlb").unwrap();
        }
    });
}
