//! Modes of everything that stockade creates, which do not depend on the launcher's umask.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stockade::spec::{ExecFile, HostPath, JailSpec, Netns, Owner};
use stockade::steps::{Ramfs, Step};
use stockade::{
    AdoptOptions, AdoptSpec, Created, How, Layout, Placement, RUNTIME_DIRECTORY, Running, TemplateMounts,
};
use testkit::{Guard, privileged, program, set_mode};

const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// The mode of everything that is created in the life of a jail. `NAME` is the test's, `NONCE` the receipt's.
const MODES: &[(&str, u32)] = &[
    // The way to the jail, owned by root.
    ("base", 0o755),
    ("base/vmm", 0o755),
    ("base/vmm/NAME-jail", 0o755),
    ("base/vmm/NAME-jail/.stockade-NONCE", 0),
    // The jail, owned by its uid.
    ("base/vmm/NAME-jail/root", 0o700),
    ("base/vmm/NAME-jail/root/dev", 0o700),
    ("base/vmm/NAME-jail/root/dev/kvm", 0o600),
    ("base/vmm/NAME-jail/root/dev/net", 0o700),
    ("base/vmm/NAME-jail/root/dev/net/tun", 0o600),
    ("base/vmm/NAME-jail/root/dev/urandom", 0o600),
    ("base/vmm/NAME-jail/root/ramfs", 0o700),
    ("base/vmm/NAME-jail/root/run", 0o700),
    ("base/vmm/NAME-jail/root/vmm", 0o755),
    ("base/vmm/NAME-jail/root/vmm.pid", 0o644),
    // Placements: with the source's mode, read-only for the jail's group, or the mount point of a bind.
    ("base/vmm/NAME-jail/root/a", 0o700),
    ("base/vmm/NAME-jail/root/a/file", 0o666),
    ("base/vmm/NAME-jail/root/file-ro", 0o440),
    ("base/vmm/NAME-jail/root/later", 0o666),
    ("base/vmm/NAME-jail/root/null", 0o600),
    ("base/vmm/NAME-jail/root/zero", 0o600),
    ("base/vmm/NAME-jail/root/tree", 0o777),
    ("base/vmm/NAME-jail/root/tree/file", 0o640),
    ("base/vmm/NAME-jail/root/tree/directory", 0o711),
    ("base/vmm/NAME-jail/root/tree-ro", 0o550),
    ("base/vmm/NAME-jail/root/tree-ro/file", 0o440),
    ("base/vmm/NAME-jail/root/tree-ro/directory", 0o550),
    ("base/vmm/NAME-jail/root/bind", 0),
    ("base/vmm/NAME-jail/root/bind-tree", 0),
    // A jail that another program creates, and whose root that program closes itself.
    ("base/adopted", 0o755),
    ("base/adopted/NAME-adopted", 0o755),
    ("base/adopted/NAME-adopted/.stockade-NONCE", 0),
    ("base/adopted/NAME-adopted/root", 0o755),
    ("base/adopted/NAME-adopted/root/file", 0o666),
    ("base/adopted/NAME-adopted/root/ramfs", 0o700),
    // The state directory.
    ("state", 0o755),
    ("state/.events-NONCE", 0o700),
    ("state/NAME-adopted", 0o700),
    ("state/NAME-adopted/receipt.json", 0o600),
    ("state/NAME-jail", 0o700),
    ("state/NAME-jail/ended", 0o600),
    ("state/NAME-jail/log", 0o600),
    ("state/NAME-jail/lost", 0o600),
    ("state/NAME-jail/receipt.json", 0o600),
    // Directories that jails share.
    ("/run/netns", 0o755),
    ("/run/stockade", 0o700),
    ("/run/stockade/empty", 0o555),
    ("cgroup", 0o755),
    ("parent cgroup", 0o755),
];

/// Modes by name.
type Found = BTreeMap<String, u32>;

#[test]
fn modes_are_the_documented_ones_with_every_umask() {
    const UMASK: &str = "STOCKADE_TEST_UMASK";
    const TEST: &str = "modes_are_the_documented_ones_with_every_umask";
    if std::env::var_os(UMASK).is_some() {
        // The runtime directory and that of network namespaces are created here.
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", "/run", "tmpfs", flags, Some(c"mode=755")).unwrap();
        privileged!(guard, { print_modes(&life(&guard), &guard) });
        return;
    }
    if !rustix::process::geteuid().is_root() {
        privileged!(_guard, {});
        return;
    }
    let wanted: Found = MODES.iter().map(|(name, mode)| ((*name).to_owned(), *mode)).collect();
    for umask in ["000", "022", "077", "777"] {
        // Another process, since the umask belongs to the whole process, in a mount namespace that it takes with it.
        let script = format!("umask {umask}; exec unshare --mount --propagation private \"$0\" \"$@\"");
        let mut alone = Command::new("sh");
        alone.args(["-c", &script]).arg(std::env::current_exe().unwrap()).args([
            "--exact",
            TEST,
            "--nocapture",
        ]);
        let output = testkit::run_with(alone.env(UMASK, umask));
        assert_eq!(output.code, 0, "umask {umask}: {}\n{}", output.stdout, output.stderr);
        let mut found = Found::new();
        for line in output.stdout.lines().filter_map(|line| line.strip_prefix("mode ")) {
            let (mode, name) = line.split_once(' ').unwrap();
            found.insert(name.to_owned(), u32::from_str_radix(mode, 8).unwrap());
        }
        // Only kernels with userfaultfd have the node.
        let userfaultfd = found.remove("base/vmm/NAME-jail/root/dev/userfaultfd").unwrap_or(0o600);
        assert_eq!(userfaultfd, 0o600);
        let differing = |one: &Found, other: &Found| {
            let alone = one.iter().filter(|(name, mode)| other.get(*name) != Some(*mode));
            alone.map(|(name, mode)| format!("{name} {mode:o}")).collect::<Vec<_>>()
        };
        let (is, should_be) = (differing(&found, &wanted), differing(&wanted, &found));
        assert!(is.is_empty() && should_be.is_empty(), "umask {umask}: is {is:#?}, should be {should_be:#?}");
    }
}

fn print_modes(found: &Found, guard: &Guard) {
    for (name, mode) in found {
        println!("mode {mode:o} {}", name.replace(guard.name(), "NAME"));
    }
}

/// Runs a jail with everything, and returns the modes.
fn life(guard: &Guard) -> Found {
    let mut found = Found::new();
    TemplateMounts::make().unwrap();
    let _events = guard.store().events().unwrap();
    let sources = Sources::make(guard);
    let mut created = guard.store().create(&spec(guard)).unwrap();
    sources.place(&mut created);
    let mut running = created.launch_monitored(1 << 16).unwrap();
    running.place(Placement::new(&sources.file).named("later").how(How::Copy)).unwrap();
    running.place(Placement::new("/dev/zero")).unwrap();
    let adopted = adopted(guard, &sources);
    wait_for_log(guard);
    read_modes(guard, &guard.base(), &mut found);
    read_cgroup_modes(guard, &running, &mut found);
    for shared in ["/run/netns", RUNTIME_DIRECTORY, "/run/stockade/empty"] {
        found.insert(shared.to_owned(), mode(Path::new(shared)));
    }
    running.signal(Signal::KILL).unwrap();
    running.wait().unwrap();
    read_modes(guard, &guard.state(), &mut found);
    assert!(running.teardown().unwrap().is_clean());
    assert!(adopted.teardown().unwrap().is_clean());
    assert!(TemplateMounts::remove().unwrap());
    found
}

fn spec(guard: &Guard) -> JailSpec {
    let vmm = guard.directory().join("vmm");
    fs::copy(program("stockade-probe"), &vmm).unwrap();
    set_mode(&vmm, 0o755);
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let mut spec = JailSpec::new(guard.named("jail").parse().unwrap(), ExecFile::new(&vmm).unwrap(), base);
    spec.owner = OWNER;
    spec.netns = Netns::Make(guard.named("net").parse().unwrap());
    spec.ramfs = Some(1 << 20);
    spec.cgroups = vec!["pids.max=64".parse().unwrap()];
    spec.parent_cgroup = Some(guard.name().parse().unwrap());
    spec.arguments = ["args", "sleep"].map(Into::into).into();
    spec
}

/// Sources of placements, with more mode bits than a usual umask leaves.
struct Sources {
    file: std::path::PathBuf,
    tree: std::path::PathBuf,
}

impl Sources {
    fn make(guard: &Guard) -> Self {
        let (file, tree) = (guard.file("file", "content"), guard.directory().join("tree"));
        set_mode(&file, 0o666);
        fs::create_dir(&tree).unwrap();
        fs::create_dir(tree.join("directory")).unwrap();
        fs::write(tree.join("file"), "content").unwrap();
        for (path, mode) in [("", 0o777), ("directory", 0o711), ("file", 0o640)] {
            set_mode(&tree.join(path), mode);
        }
        Self { file, tree }
    }

    fn place(&self, created: &mut Created) {
        let copy = |source: &Path, name: &str| Placement::new(source).named(name).how(How::Copy);
        let bind = |source: &Path, name: &str| Placement::new(source).named(name).how(How::Bind);
        for placement in [
            copy(&self.file, "a/file"),
            copy(&self.file, "file-ro").read_only(),
            copy(&self.tree, "tree"),
            copy(&self.tree, "tree-ro").read_only(),
            bind(&self.file, "bind"),
            bind(&self.tree, "bind-tree"),
            Placement::new("/dev/null"),
        ] {
            created.place(placement).unwrap();
        }
    }
}

/// An adopted jail with a root and a file in it.
fn adopted(guard: &Guard, sources: &Sources) -> stockade::Adopted {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let jail = Layout::named(base.clone(), "adopted", &guard.named("adopted")).unwrap();
    let ramfs = Ramfs {
        path: stockade::spec::JailPath::new("ramfs").unwrap(),
        name: format!("ramfs-{}", guard.name()),
        size: 1 << 20,
        owner: OWNER,
    };
    let wants = AdoptOptions { ramfs: Some(ramfs), ..AdoptOptions::default() };
    let spec =
        AdoptSpec { name: guard.named("adopted").parse().unwrap(), base, jail: Some(jail), options: wants };
    let mut adopted = guard.store().adopt(&spec).unwrap();
    adopted.make_root().unwrap();
    adopted.place(Placement::new(&sources.file).how(How::Copy), OWNER).unwrap();
    adopted
}

fn wait_for_log(guard: &Guard) {
    let log = guard.state().join(guard.named("jail")).join("log");
    let end = Instant::now() + Duration::from_secs(20);
    while fs::metadata(&log).map_or(0, |log| log.len()) == 0 {
        assert!(Instant::now() < end, "the VMM has written nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The modes of everything in a directory of the test, by relative path, with nonces replaced.
fn read_modes(guard: &Guard, path: &Path, found: &mut Found) {
    let facts = path.symlink_metadata().unwrap();
    let name = path.strip_prefix(guard.directory()).unwrap().to_str().unwrap();
    let mark = |name: &str| {
        let (before, nonce) = name.rsplit_once('-')?;
        let random = nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
        random.then(|| format!("{before}-NONCE"))
    };
    found.insert(mark(name).unwrap_or_else(|| name.to_owned()), facts.mode() & 0o7777);
    if facts.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            read_modes(guard, &entry.unwrap().path(), found);
        }
    }
}

fn read_cgroup_modes(guard: &Guard, running: &Running, found: &mut Found) {
    let cgroups: Vec<HostPath> = running
        .receipt()
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::CgroupV1(cgroup) => Some(cgroup.directory()),
            Step::CgroupV2(cgroup) => Some(cgroup.directory()),
            _ => None,
        })
        .collect();
    assert!(!cgroups.is_empty());
    for cgroup in cgroups {
        let seen = found.entry("cgroup".to_owned()).or_default();
        *seen |= mode(cgroup.as_path());
        let parent = cgroup.as_path().parent().unwrap();
        if parent.ends_with(guard.name()) {
            found.insert("parent cgroup".to_owned(), mode(parent));
        }
    }
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}
