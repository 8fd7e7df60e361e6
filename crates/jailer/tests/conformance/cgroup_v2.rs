//! Section 4, cgroup v2: one hierarchy for all controllers.
//!
//! A host that uses its controllers in cgroup v1 skips these tests. In the virtual machine (`STOCKADE_VM=1`), which has
//! cgroup v2, a skip is a failure.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::fixture::{BUSY, Fixture, Live, conforms, drop_in_or_firecracker, refuses, strace, wait_for};

/// A setting of each controller, with a value that the kernel returns unchanged.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("pids", "pids.max", "64"),
    ("memory", "memory.max", "268435456"),
    ("cpu", "cpu.weight", "50"),
    ("cpuset", "cpuset.cpus", "0"),
    ("hugetlb", "hugetlb.2MB.max", "4194304"),
];

/// The unified hierarchy. Dropping it disables the controllers that the test enabled at its root.
struct Unified {
    mount: PathBuf,
    /// The settings of the hierarchy's controllers.
    settings: Vec<(&'static str, &'static str, &'static str)>,
    enabled: String,
}

impl Unified {
    fn find(test: &str) -> Option<Self> {
        let found = testkit::cgroup_v2_mount().and_then(|mount| {
            let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
            let enabled = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap();
            let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
            let settings: Vec<_> = SETTINGS.into_iter().filter(|(name, ..)| has(name)).collect();
            (!settings.is_empty()).then_some(Self { mount, settings, enabled })
        });
        if found.is_none() {
            let in_vm = std::env::var("STOCKADE_VM").as_deref() == Ok("1");
            assert!(
                !in_vm,
                "{test} needs a unified hierarchy with controllers, which the virtual machine must have"
            );
            testkit::skip(&format!("cgroup_v2::{test}"), "a unified hierarchy with controllers");
        }
        found
    }

    /// The flags for the first `count` settings.
    fn flags(&self, count: usize) -> Vec<String> {
        let mut flags = vec!["--cgroup-version".to_owned(), "2".to_owned()];
        for (_, file, value) in self.settings.iter().take(count) {
            flags.extend(["--cgroup".to_owned(), format!("{file}={value}")]);
        }
        flags
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.mount.join(path.trim_start_matches('/'))).unwrap()
    }

    fn first(&self) -> &str {
        self.settings[0].0
    }
}

impl Drop for Unified {
    fn drop(&mut self) {
        let now = self.read("cgroup.subtree_control");
        for added in
            now.split_whitespace().filter(|name| !self.enabled.split_whitespace().any(|n| n == *name))
        {
            let _ = fs::write(self.mount.join("cgroup.subtree_control"), format!("-{added}"));
        }
    }
}

fn start(fixture: &Fixture<'_>, flags: &[String]) -> Live {
    fixture.start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

fn run(fixture: &Fixture<'_>, flags: &[String]) -> testkit::Output {
    fixture.run(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// The process's cgroup v2.
fn cgroup_of(live: &Live) -> String {
    let text = live.proc("cgroup");
    text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned()
}

/// A test with the unified hierarchy. The hierarchy is dropped after the fixture, when the cgroups are removed.
macro_rules! unified {
    ($test:literal, $unified:ident, $fixture:ident, $body:block) => {
        let Some($unified) = Unified::find($test) else { return };
        conforms!($fixture, $body);
        drop($unified);
    };
}

#[test]
fn the_vmm_is_in_its_cgroup_with_every_setting() {
    unified!("the_vmm_is_in_its_cgroup_with_every_setting", unified, fixture, {
        let live = start(&fixture, &unified.flags(usize::MAX));
        let cgroup = format!("{}/{}", fixture.guard.name(), fixture.id);
        assert_eq!(cgroup_of(&live), cgroup);
        for (_, file, value) in &unified.settings {
            assert_eq!(unified.read(&format!("{cgroup}/{file}")).trim(), *value, "{file}");
        }
    });
}

#[test]
fn a_nested_parent_enables_every_controller() {
    unified!("a_nested_parent_enables_every_controller", unified, fixture, {
        let name = fixture.guard.name();
        let mut flags = unified.flags(usize::MAX);
        flags.extend(["--parent-cgroup".into(), format!("{name}/a/b")]);
        let live = start(&fixture, &flags);
        assert_eq!(cgroup_of(&live), format!("{name}/a/b/{}", fixture.id));
        for above in ["", name, &format!("{name}/a"), &format!("{name}/a/b")] {
            let enabled = unified.read(&format!("{above}/cgroup.subtree_control"));
            for (controller, ..) in &unified.settings {
                assert!(enabled.split_whitespace().any(|known| known == *controller), "{above}: {enabled}");
            }
        }
        let own = unified.read(&format!("{name}/a/b/{}/cgroup.subtree_control", fixture.id));
        assert_eq!(own.trim(), "", "the jail's cgroup enables no controllers for child cgroups");
    });
}

#[test]
fn missing_controllers_are_enabled() {
    unified!("missing_controllers_are_enabled", unified, fixture, {
        let name = fixture.guard.name();
        fs::create_dir(unified.mount.join(name)).unwrap();
        assert_eq!(unified.read(&format!("{name}/cgroup.subtree_control")).trim(), "");
        let _live = start(&fixture, &unified.flags(1));
        assert_eq!(unified.read(&format!("{name}/cgroup.subtree_control")).trim(), unified.first());
    });
}

#[test]
fn without_settings_the_vmm_joins_an_existing_parent() {
    unified!("without_settings_the_vmm_joins_an_existing_parent", unified, fixture, {
        let name = fixture.guard.name();
        fs::create_dir(unified.mount.join(name)).unwrap();
        let live = start(&fixture, &unified.flags(0));
        assert_eq!(cgroup_of(&live), name, "the default parent has the executable's name");
        drop(live);
        fs::create_dir(unified.mount.join(name).join("other")).unwrap();
        fs::remove_dir_all(fixture.root()).unwrap();
        let mut flags = unified.flags(0);
        flags.extend(["--parent-cgroup".into(), format!("{name}/other")]);
        let live = start(&fixture, &flags);
        assert_eq!(cgroup_of(&live), format!("{name}/other"));
        assert!(!unified.mount.join(name).join("other").join(&fixture.id).exists(), "no cgroup is created");
    });
}

#[test]
fn without_settings_no_parent_is_created() {
    unified!("without_settings_no_parent_is_created", unified, fixture, {
        let name = fixture.guard.name();
        let live = start(&fixture, &unified.flags(0));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
        assert_eq!(cgroup_of(&live), own, "the VMM stays in the caller's cgroup");
        assert!(!unified.mount.join(name).exists());
    });
}

#[test]
fn a_parent_with_enabled_controllers_cannot_be_joined() {
    unified!("a_parent_with_enabled_controllers_cannot_be_joined", unified, fixture, {
        let parent = unified.mount.join(fixture.guard.name());
        fs::create_dir(&parent).unwrap();
        // A controller without thread support: with threaded controllers only, the parent would accept the process and
        // become a threaded cgroup.
        let domain = unified.settings.iter().find(|(name, ..)| ["memory", "hugetlb"].contains(name));
        let enable = format!("+{}", domain.unwrap().0);
        fs::write(unified.mount.join("cgroup.subtree_control"), &enable).unwrap();
        fs::write(parent.join("cgroup.subtree_control"), &enable).unwrap();
        let at = parent.display();
        // Callers match on the text of a released jailer, so the drop-in has it too.
        BUSY.refuses(&run(&fixture, &unified.flags(0)), BUSY.in_musl(), |busy| {
            format!(
                "Failed to move process to cgroup ({at}): {busy}.\nHint: If you intended to create a child cgroup \
                 under {at}, pass any --cgroup parameters."
            )
        });
        assert!(!fixture.exec_dir().exists(), "the move happens during the checks");
    });
}

#[test]
fn a_parent_with_processes_cannot_enable_controllers() {
    unified!("a_parent_with_processes_cannot_enable_controllers", unified, fixture, {
        let parent = unified.mount.join(fixture.guard.name());
        fs::create_dir(&parent).unwrap();
        let mut sleeper =
            std::process::Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        fs::write(parent.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        let output = run(&fixture, &unified.flags(1));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let file = parent.join("cgroup.subtree_control").display().to_string();
        BUSY.refuses(&output, BUSY.in_glibc(), |busy| format!("Failed to write to {file}: {busy}"));
        // The parent can enable controllers once it is empty.
        wait_for("an empty parent", || {
            let procs = fs::read_to_string(parent.join("cgroup.procs")).unwrap();
            procs.is_empty().then_some(())
        });
        if drop_in_or_firecracker(true, false) {
            let live = start(&fixture, &unified.flags(1));
            assert_eq!(cgroup_of(&live), format!("{}/{}", fixture.guard.name(), fixture.id));
        }
    });
}

#[test]
fn twenty_concurrent_jails_have_their_own_cgroups() {
    unified!("twenty_concurrent_jails_have_their_own_cgroups", unified, fixture, {
        let flags = unified.flags(usize::MAX);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut children = Vec::new();
        for number in 0..20 {
            fixture.id = format!("jail-{number}");
            children.push(fixture.command(&flags, &["sleep"]).stdin(Stdio::null()).spawn().unwrap());
        }
        for (number, child) in children.iter().enumerate() {
            let pid = i32::try_from(child.id()).unwrap();
            fixture.becomes_vmm(pid);
            let text = crate::fixture::proc(pid, "cgroup");
            let wanted = format!("0::/{}/jail-{number}", fixture.guard.name());
            assert!(text.lines().any(|line| line == wanted), "{text}");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

#[test]
fn an_unavailable_controller_is_refused() {
    unified!("an_unavailable_controller_is_refused", unified, fixture, {
        let mut flags = unified.flags(1);
        flags.extend(["--cgroup".into(), "nosuch.max=1".into()]);
        refuses(&run(&fixture, &flags), "Controller nosuch is unavailable");
        assert!(!unified.mount.join(fixture.guard.name()).exists(), "no cgroup is created");
    });
}

#[test]
fn an_unknown_file_of_a_controller_is_refused() {
    unified!("an_unknown_file_of_a_controller_is_refused", unified, fixture, {
        // The file is opened with O_CREAT, which a cgroup refuses.
        let file = format!("{}.nosuch", unified.first());
        let flags = ["--cgroup-version", "2", "--cgroup", &format!("{file}=1")].map(str::to_owned);
        let at = unified.mount.join(fixture.guard.name()).join(&fixture.id).join(file);
        let text = format!("Failed to write to {}: Permission denied (os error 13)", at.display());
        refuses(&run(&fixture, &flags), &text);
    });
}

#[test]
fn a_refused_value_is_reported_with_its_file() {
    unified!("a_refused_value_is_reported_with_its_file", unified, fixture, {
        let file = unified.settings[0].1;
        let flags = ["--cgroup-version", "2", "--cgroup"].map(str::to_owned).into_iter();
        let flags: Vec<String> = flags.chain([format!("{file}=nonsense")]).collect();
        let at = unified.mount.join(fixture.guard.name()).join(&fixture.id).join(file);
        let text = format!("Failed to write to {}: Invalid argument (os error 22)", at.display());
        refuses(&run(&fixture, &flags), &text);
    });
}

#[test]
fn the_process_moves_and_its_cgroup_is_created_once() {
    unified!("the_process_moves_and_its_cgroup_is_created_once", unified, fixture, {
        let trace = fixture.guard.directory().join("trace");
        let flags = unified.flags(usize::MAX);
        let (_, file, value) = unified.settings[0];
        // At least two settings of one controller.
        let again = format!("{file}={value}");
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--cgroup", &again]);
        let options = ["-qq", "-y", "-o", trace.to_str().unwrap(), "-e", "trace=write,mkdir,mkdirat"];
        let Some(mut command) = strace(
            "cgroup_v2::the_process_moves_and_its_cgroup_is_created_once",
            &options,
            &fixture.command(&flags, &["exit=3"]),
        ) else {
            return;
        };
        assert_eq!(testkit::run_with(&mut command).code, 3);
        let text = fs::read_to_string(trace).unwrap();
        let moves = text.lines().filter(|line| line.starts_with("write(") && line.contains("/cgroup.procs>"));
        assert_eq!(moves.count(), 1, "{text}");
        let own = format!("{}/{}\"", fixture.guard.name(), fixture.id);
        let created = text.lines().filter(|line| {
            line.starts_with("mkdir")
                && line.contains(&own)
                && line.contains("cgroup")
                && line.ends_with("= 0")
        });
        assert_eq!(created.count(), 1, "{text}");
    });
}
