//! Section 4, version 2: one hierarchy for all controllers.
//!
//! A host that gives its controllers to version 1 has none left for these tests, which say so; in the virtual
//! machine (`STOCKADE_VM=1`), which exists for them, that is a failure.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::ground::{Ground, Live, conforms, ours_or_original, refuses, strace, wait_for};

/// What can be set of each controller, by a value that the kernel gives back as it is.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("pids", "pids.max", "64"),
    ("memory", "memory.max", "268435456"),
    ("cpu", "cpu.weight", "50"),
    ("cpuset", "cpuset.cpus", "0"),
    ("hugetlb", "hugetlb.2MB.max", "4194304"),
];

/// The unified hierarchy; what tests enable at its top is disabled again when this goes.
struct Unified {
    mount: PathBuf,
    /// The controllers it has that can be set here.
    settings: Vec<(&'static str, &'static str, &'static str)>,
    enabled: String,
}

impl Unified {
    fn find(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mount =
            mount.filter(|fields| fields[2] == "cgroup2").map(|fields| PathBuf::from(fields[1])).next();
        let found = mount.and_then(|mount| {
            let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
            let enabled = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap();
            let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
            let settings: Vec<_> = SETTINGS.into_iter().filter(|(name, ..)| has(name)).collect();
            (!settings.is_empty()).then_some(Self { mount, settings, enabled })
        });
        if found.is_none() {
            let in_vm = std::env::var("STOCKADE_VM").as_deref() == Ok("1");
            assert!(!in_vm, "{test} needs a unified hierarchy with controllers, and the machine is for that");
            testkit::skip(&format!("cgroup_v2::{test}"), "a unified hierarchy with controllers");
        }
        found
    }

    /// The flags that ask for the first setting, or for as many as there are.
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

fn start(ground: &Ground<'_>, flags: &[String]) -> Live {
    ground.start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

fn run(ground: &Ground<'_>, flags: &[String]) -> testkit::Output {
    ground.run(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// The process's cgroup of version 2.
fn cgroup_of(live: &Live) -> String {
    let text = live.proc("cgroup");
    text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned()
}

/// A test with the unified hierarchy: given before the ground, it goes after it, when the cgroups are gone.
macro_rules! unified {
    ($test:literal, $unified:ident, $ground:ident, $body:block) => {
        let Some($unified) = Unified::find($test) else { return };
        conforms!($ground, $body);
        drop($unified);
    };
}

#[test]
fn the_vmm_is_in_its_cgroup_with_every_setting() {
    unified!("the_vmm_is_in_its_cgroup_with_every_setting", unified, ground, {
        let live = start(&ground, &unified.flags(usize::MAX));
        let cgroup = format!("{}/{}", ground.guard.name(), ground.id);
        assert_eq!(cgroup_of(&live), cgroup);
        for (_, file, value) in &unified.settings {
            assert_eq!(unified.read(&format!("{cgroup}/{file}")).trim(), *value, "{file}");
        }
    });
}

#[test]
fn a_nested_parent_hands_every_controller_down() {
    unified!("a_nested_parent_hands_every_controller_down", unified, ground, {
        let name = ground.guard.name();
        let mut flags = unified.flags(usize::MAX);
        flags.extend(["--parent-cgroup".into(), format!("{name}/a/b")]);
        let live = start(&ground, &flags);
        assert_eq!(cgroup_of(&live), format!("{name}/a/b/{}", ground.id));
        for above in ["", name, &format!("{name}/a"), &format!("{name}/a/b")] {
            let enabled = unified.read(&format!("{above}/cgroup.subtree_control"));
            for (controller, ..) in &unified.settings {
                assert!(enabled.split_whitespace().any(|known| known == *controller), "{above}: {enabled}");
            }
        }
        let own = unified.read(&format!("{name}/a/b/{}/cgroup.subtree_control", ground.id));
        assert_eq!(own.trim(), "", "the jail's own cgroup hands nothing down");
    });
}

#[test]
fn controllers_not_yet_enabled_are_enabled() {
    unified!("controllers_not_yet_enabled_are_enabled", unified, ground, {
        let name = ground.guard.name();
        fs::create_dir(unified.mount.join(name)).unwrap();
        assert_eq!(unified.read(&format!("{name}/cgroup.subtree_control")).trim(), "");
        let _live = start(&ground, &unified.flags(1));
        assert_eq!(unified.read(&format!("{name}/cgroup.subtree_control")).trim(), unified.first());
    });
}

#[test]
fn an_existing_parent_is_moved_into_where_nothing_is_set() {
    unified!("an_existing_parent_is_moved_into_where_nothing_is_set", unified, ground, {
        let name = ground.guard.name();
        fs::create_dir(unified.mount.join(name)).unwrap();
        let live = start(&ground, &unified.flags(0));
        assert_eq!(cgroup_of(&live), name, "by default the executable's name");
        drop(live);
        fs::create_dir(unified.mount.join(name).join("other")).unwrap();
        fs::remove_dir_all(ground.root()).unwrap();
        let mut flags = unified.flags(0);
        flags.extend(["--parent-cgroup".into(), format!("{name}/other")]);
        let live = start(&ground, &flags);
        assert_eq!(cgroup_of(&live), format!("{name}/other"));
        assert!(!unified.mount.join(name).join("other").join(&ground.id).exists(), "and nothing is made");
    });
}

#[test]
fn an_absent_parent_is_not_made_where_nothing_is_set() {
    unified!("an_absent_parent_is_not_made_where_nothing_is_set", unified, ground, {
        let name = ground.guard.name();
        let live = start(&ground, &unified.flags(0));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap().to_owned();
        assert_eq!(cgroup_of(&live), own, "it stays in the caller's");
        assert!(!unified.mount.join(name).exists());
    });
}

#[test]
fn a_parent_that_hands_controllers_down_cannot_be_moved_into() {
    unified!("a_parent_that_hands_controllers_down_cannot_be_moved_into", unified, ground, {
        let parent = unified.mount.join(ground.guard.name());
        fs::create_dir(&parent).unwrap();
        // One that cannot tell the threads of a process apart: with the others alone the parent would take
        // the process, and be threaded.
        let domain = unified.settings.iter().find(|(name, ..)| ["memory", "hugetlb"].contains(name));
        let enable = format!("+{}", domain.unwrap().0);
        fs::write(unified.mount.join("cgroup.subtree_control"), &enable).unwrap();
        fs::write(parent.join("cgroup.subtree_control"), &enable).unwrap();
        let at = parent.display();
        refuses(
            &run(&ground, &unified.flags(0)),
            &format!(
                "Failed to move process to cgroup ({at}): Resource busy (os error 16).\nHint: If you intended to \
                 create a child cgroup under {at}, pass any --cgroup parameters."
            ),
        );
        assert!(!ground.exec_dir().exists(), "that happens while the command line is checked");
    });
}

#[test]
fn a_parent_with_processes_in_it_cannot_hand_controllers_down() {
    unified!("a_parent_with_processes_in_it_cannot_hand_controllers_down", unified, ground, {
        let parent = unified.mount.join(ground.guard.name());
        fs::create_dir(&parent).unwrap();
        let mut sleeper =
            std::process::Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        fs::write(parent.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
        let output = run(&ground, &unified.flags(1));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let busy = ours_or_original("Device or resource busy", "Resource busy");
        let file = parent.join("cgroup.subtree_control");
        refuses(&output, &format!("Failed to write to {}: {busy} (os error 16)", file.display()));
        // Once they are gone it can.
        wait_for("an empty parent", || {
            let procs = fs::read_to_string(parent.join("cgroup.procs")).unwrap();
            procs.is_empty().then_some(())
        });
        if ours_or_original(true, false) {
            let live = start(&ground, &unified.flags(1));
            assert_eq!(cgroup_of(&live), format!("{}/{}", ground.guard.name(), ground.id));
        }
    });
}

#[test]
fn twenty_jails_at_once_are_each_in_their_own() {
    unified!("twenty_jails_at_once_are_each_in_their_own", unified, ground, {
        let flags = unified.flags(usize::MAX);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut children = Vec::new();
        for number in 0..20 {
            ground.id = format!("jail-{number}");
            children.push(ground.command(&flags, &["sleep"]).stdin(Stdio::null()).spawn().unwrap());
        }
        for (number, child) in children.iter().enumerate() {
            let pid = i32::try_from(child.id()).unwrap();
            ground.becomes_vmm(pid);
            let text = crate::ground::proc(pid, "cgroup");
            let wanted = format!("0::/{}/jail-{number}", ground.guard.name());
            assert!(text.lines().any(|line| line == wanted), "{text}");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
}

#[test]
fn a_controller_that_the_hierarchy_has_not_is_refused() {
    unified!("a_controller_that_the_hierarchy_has_not_is_refused", unified, ground, {
        let mut flags = unified.flags(1);
        flags.extend(["--cgroup".into(), "nosuch.max=1".into()]);
        refuses(&run(&ground, &flags), "Controller nosuch is unavailable");
        assert!(!unified.mount.join(ground.guard.name()).exists(), "nothing is made for it");
    });
}

#[test]
fn a_value_that_the_kernel_refuses_is_told_with_its_file() {
    unified!("a_value_that_the_kernel_refuses_is_told_with_its_file", unified, ground, {
        let file = unified.settings[0].1;
        let flags = ["--cgroup-version", "2", "--cgroup"].map(str::to_owned).into_iter();
        let flags: Vec<String> = flags.chain([format!("{file}=nonsense")]).collect();
        let at = unified.mount.join(ground.guard.name()).join(&ground.id).join(file);
        let text = format!("Failed to write to {}: Invalid argument (os error 22)", at.display());
        refuses(&run(&ground, &flags), &text);
    });
}

#[test]
fn the_process_is_moved_and_the_cgroup_made_once() {
    unified!("the_process_is_moved_and_the_cgroup_made_once", unified, ground, {
        let trace = ground.guard.directory().join("trace");
        let flags = unified.flags(usize::MAX);
        let (_, file, value) = unified.settings[0];
        // Two settings of one controller at least.
        let again = format!("{file}={value}");
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--cgroup", &again]);
        let options = ["-qq", "-y", "-o", trace.to_str().unwrap(), "-e", "trace=write,mkdir,mkdirat"];
        let Some(mut command) = strace(
            "cgroup_v2::the_process_is_moved_and_the_cgroup_made_once",
            &options,
            &ground.command(&flags, &["exit=3"]),
        ) else {
            return;
        };
        assert_eq!(testkit::run_with(&mut command).code, 3);
        let text = fs::read_to_string(trace).unwrap();
        let moves = text.lines().filter(|line| line.starts_with("write(") && line.contains("/cgroup.procs>"));
        assert_eq!(moves.count(), 1, "{text}");
        let own = format!("{}/{}\"", ground.guard.name(), ground.id);
        let made = text.lines().filter(|line| {
            line.starts_with("mkdir")
                && line.contains(&own)
                && line.contains("cgroup")
                && line.ends_with("= 0")
        });
        assert_eq!(made.count(), 1, "{text}");
    });
}
