//! Every kind of step on the real kernel: applied and undone, undone without being applied, undone twice.
#![allow(clippy::unwrap_used, missing_docs)]

mod details;
mod trees;
mod vmm;

use std::path::{Path, PathBuf};

use stockade::spec::{ExecFile, HostPath, JailId, JailPath, JailSpec, Owner};
use stockade::steps::{
    Bind, CgroupV1, CgroupV2, CpuInfo, DeviceNode, Directory, FileHow, Inode, JailDirectory, NamedNetns,
    PlacedFile, PlacedTree, Ramfs, SharedDirectory, Step, StepContext, UndoOutcome, Vmm,
};
use stockade::{Layout, Nonce, ProcessRef};
use testkit::{Guard, cgroup_v1_mount, cgroup_v2_mount, mounts, privileged};

const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// The specification and context of one test's steps.
struct Ground<'g> {
    guard: &'g Guard,
    spec: JailSpec,
    ctx: StepContext,
}

impl<'g> Ground<'g> {
    fn new(guard: &'g Guard) -> Self {
        let exec_file = ExecFile::new(&guard.file("vmm", "a VMM")).unwrap();
        let id: JailId = guard.named("jail").parse().unwrap();
        let mut spec = JailSpec::new(id, exec_file, HostPath::future_directory(&guard.base()).unwrap());
        spec.owner = OWNER;
        let ctx = StepContext::new(Layout::new(&spec), Some(Nonce::new()));
        Self { guard, spec, ctx }
    }

    /// As [`Self::new`], with the jail's own steps applied.
    fn with_jail(guard: &'g Guard) -> Self {
        let ground = Self::new(guard);
        apply_all(&ground, &ground.jail());
        ground
    }

    fn layout(&self) -> Layout {
        Layout::new(&self.spec)
    }

    /// The steps on which others depend, in order.
    fn jail(&self) -> Vec<Step> {
        let shared = SharedDirectory { path: self.layout().exec_dir() };
        let jail = JailDirectory { path: self.layout().jail_dir(), take_over: false };
        let root = Directory { path: JailPath::root(), owner: OWNER };
        vec![shared.into(), jail.into(), root.into()]
    }

    fn inside(&self, path: &str) -> PathBuf {
        self.layout().root().as_path().join(path)
    }
}

/// A test case of a kind of step.
struct Case {
    /// The steps before it.
    before: Vec<Step>,
    step: Step,
    /// Whether its effect exists.
    exists: Box<dyn Fn() -> bool>,
}

fn apply_all(ground: &Ground<'_>, steps: &[Step]) {
    for step in steps {
        step.apply(&ground.ctx).unwrap_or_else(|e| panic!("apply {step}: {e}"));
    }
}

fn undo_all(ground: &Ground<'_>, steps: &[Step]) {
    for step in steps.iter().rev() {
        let outcome = step.undo(&ground.ctx);
        assert!(!matches!(outcome, UndoOutcome::Left(_)), "undo {step}: {outcome:?}");
    }
}

fn applies_and_undoes(ground: &Ground<'_>, case: &Case) {
    apply_all(ground, &case.before);
    assert!(!(case.exists)(), "{} exists before apply", case.step);
    apply_all(ground, std::slice::from_ref(&case.step));
    assert!((case.exists)(), "{} does not exist after apply", case.step);
    assert_eq!(case.step.undo(&ground.ctx), UndoOutcome::Removed, "{}", case.step);
    assert!(!(case.exists)(), "{} exists after undo", case.step);
    undo_all(ground, &case.before);
}

fn tolerates_undo_without_apply(ground: &Ground<'_>, case: &Case) {
    // Without the steps before it, and with them.
    assert_eq!(case.step.undo(&ground.ctx), UndoOutcome::NeverThere, "{}", case.step);
    apply_all(ground, &case.before);
    assert_eq!(case.step.undo(&ground.ctx), UndoOutcome::NeverThere, "{}", case.step);
    undo_all(ground, &case.before);
}

fn undoes_twice(ground: &Ground<'_>, case: &Case) {
    apply_all(ground, &case.before);
    apply_all(ground, std::slice::from_ref(&case.step));
    assert_eq!(case.step.undo(&ground.ctx), UndoOutcome::Removed, "{}", case.step);
    assert_eq!(case.step.undo(&ground.ctx), UndoOutcome::NeverThere, "{}", case.step);
    undo_all(ground, &case.before);
}

fn survives_serialisation(case: &Case) {
    let text = serde_json::to_string(&case.step).unwrap();
    assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), case.step, "{text}");
}

macro_rules! step {
    ($kind:ident, $case:expr) => {
        mod $kind {
            use super::*;

            #[test]
            fn applies_and_undoes() {
                privileged!(guard, {
                    let ground = Ground::new(&guard);
                    super::applies_and_undoes(&ground, &$case(&ground));
                });
            }

            #[test]
            fn tolerates_undo_without_apply() {
                privileged!(guard, {
                    let ground = Ground::new(&guard);
                    super::tolerates_undo_without_apply(&ground, &$case(&ground));
                });
            }

            #[test]
            fn undoes_twice() {
                privileged!(guard, {
                    let ground = Ground::new(&guard);
                    super::undoes_twice(&ground, &$case(&ground));
                });
            }

            #[test]
            fn survives_serialisation() {
                privileged!(guard, {
                    super::survives_serialisation(&$case(&Ground::new(&guard)));
                });
            }
        }
    };
}

/// A step that creates a path, and depends on the steps in `before`.
fn path_case(before: Vec<Step>, step: impl Into<Step>, path: PathBuf) -> Case {
    Case { before, step: step.into(), exists: Box::new(move || path.symlink_metadata().is_ok()) }
}

step!(shared_directory, |ground: &Ground<'_>| {
    let path = ground.layout().exec_dir();
    path_case(vec![], SharedDirectory { path: path.clone() }, path.as_path().to_owned())
});

step!(jail_directory, |ground: &Ground<'_>| {
    let mut steps = ground.jail();
    let step = steps.remove(1);
    steps.truncate(1);
    path_case(steps, step, ground.layout().jail_dir().as_path().to_owned())
});

step!(directory, |ground: &Ground<'_>| {
    let step = Directory { path: JailPath::new("dev").unwrap(), owner: OWNER };
    path_case(ground.jail(), step, ground.inside("dev"))
});

step!(device_node, |ground: &Ground<'_>| {
    let step = DeviceNode::character(JailPath::new("null").unwrap(), 1, 3, OWNER);
    path_case(ground.jail(), step, ground.inside("null"))
});

step!(copied_file, |ground: &Ground<'_>| {
    let source = HostPath::existing(&ground.guard.file("image", "content")).unwrap();
    let step = PlacedFile {
        source,
        path: JailPath::new("image").unwrap(),
        owner: OWNER,
        how: FileHow::Copy,
        expect_plain: false,
        read_only: false,
    };
    path_case(ground.jail(), step, ground.inside("image"))
});

step!(linked_file, |ground: &Ground<'_>| {
    let file = ground.guard.file("image", "content");
    std::os::unix::fs::chown(&file, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
    let source = HostPath::existing(&file).unwrap();
    let step = PlacedFile {
        source,
        path: JailPath::new("image").unwrap(),
        owner: OWNER,
        how: FileHow::Link,
        expect_plain: false,
        read_only: false,
    };
    path_case(ground.jail(), step, ground.inside("image"))
});

step!(bind, |ground: &Ground<'_>| {
    let file = ground.guard.file("image", "content");
    let step = bind(&file, "drives/image");
    path_case(ground.jail(), step, ground.inside("drives/image"))
});

step!(bound_directory, |ground: &Ground<'_>| {
    let step = bind(&firmware(ground.guard), "firmware");
    path_case(ground.jail(), step, ground.inside("firmware"))
});

fn bind(source: &Path, path: &str) -> Bind {
    use std::os::unix::fs::MetadataExt;
    let facts = std::fs::metadata(source).unwrap();
    let inode = Inode { device: facts.dev(), number: facts.ino(), directory: facts.is_dir() };
    let source = HostPath::existing(source).unwrap();
    Bind { source, inode, path: JailPath::new(path).unwrap(), read_only: true }
}

step!(placed_tree, |ground: &Ground<'_>| {
    let step = placed_tree(&firmware(ground.guard), "usr/share/firmware");
    path_case(ground.jail(), step, ground.inside("usr/share/firmware"))
});

/// A directory as VMMs need it: files, directories, and symbolic links between them.
fn firmware(guard: &Guard) -> PathBuf {
    let top = guard.directory().join("firmware");
    std::fs::create_dir_all(top.join("roms/old")).unwrap();
    std::fs::write(top.join("bios.bin"), "bios").unwrap();
    std::fs::write(top.join("roms/old/net.rom"), "rom").unwrap();
    std::os::unix::fs::symlink("roms/old/net.rom", top.join("net.rom")).unwrap();
    std::os::unix::fs::symlink("../bios.bin", top.join("roms/bios.bin")).unwrap();
    top
}

fn placed_tree(source: &Path, path: &str) -> PlacedTree {
    let source = HostPath::directory(source).unwrap();
    PlacedTree { source, path: JailPath::new(path).unwrap(), owner: OWNER, read_only: false }
}

step!(ramfs, |ground: &Ground<'_>| {
    let at = ground.inside("ramfs");
    let step = Ramfs {
        path: JailPath::new("ramfs").unwrap(),
        name: ground.guard.named("ramfs"),
        size: 1 << 20,
        owner: OWNER,
    };
    let exists = move || mounts().iter().any(|mount| mount.point == at && mount.fs_type == "ramfs");
    Case { before: ground.jail(), step: step.into(), exists: Box::new(exists) }
});

step!(cpu_info, |ground: &Ground<'_>| {
    let source = HostPath::from(cpu(ground.guard, &["size"]));
    let step = CpuInfo { source, target: JailPath::new("sys/cpu0").unwrap(), owner: OWNER };
    path_case(ground.jail(), step, ground.inside("sys/cpu0"))
});

/// A processor's directory, with these files for each of two caches.
fn cpu(guard: &Guard, files: &[&str]) -> PathBuf {
    let cpu = guard.directory().join("cpu0");
    for cache in ["index0", "index1"] {
        std::fs::create_dir_all(cpu.join("cache").join(cache)).unwrap();
        for file in files {
            std::fs::write(cpu.join("cache").join(cache).join(file), format!("{cache} {file}\nmore\n"))
                .unwrap();
        }
    }
    std::fs::create_dir_all(cpu.join("regs/identification")).unwrap();
    std::fs::write(cpu.join("regs/identification/midr_el1"), "0x00000000410fd0c0\n").unwrap();
    cpu
}

step!(named_netns, |ground: &Ground<'_>| {
    let name = ground.guard.named("net");
    let step = NamedNetns { name: name.parse().unwrap() };
    path_case(vec![], step, Path::new("/run/netns").join(name))
});

step!(cgroup_v1, |ground: &Ground<'_>| {
    let step = cgroup_v1(ground.guard, &["pids.max=64"]);
    let directory = step.directory().as_path().to_owned();
    path_case(vec![], step, directory)
});

step!(cgroup_v2, |ground: &Ground<'_>| {
    // Without controllers: on a host that uses cgroup v1 they are not available here. The virtual machine with cgroup
    // v2 alone has its own tests.
    let unified = unified_mount();
    let path = Path::new(ground.guard.name()).join("jail");
    let step = CgroupV2 { hierarchy: unified, path, controllers: vec![], settings: vec![], exclusive: true };
    let directory = step.directory().as_path().to_owned();
    path_case(vec![], step, directory)
});

fn unified_mount() -> HostPath {
    cgroup_v2_mount().expect("cgroup v2 is mounted").into()
}

fn cgroup_v1(guard: &Guard, settings: &[&str]) -> CgroupV1 {
    let controller = settings[0].split('.').next().unwrap();
    CgroupV1 {
        hierarchy: cgroup_v1_mount(controller).expect("the hierarchy is mounted").into(),
        path: Path::new(guard.name()).join("jail"),
        settings: settings.iter().map(|setting| setting.parse().unwrap()).collect(),
        exclusive: true,
    }
}
