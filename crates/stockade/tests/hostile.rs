//! Races against a process with the jail's uid that swaps everything in its tree during placement and removal: nothing
//! outside is created, changed, given away or removed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid};
use stockade::spec::{ExecFile, HostPath, JailPath, JailSpec, Owner};
use stockade::{Created, How, Placement, Streams};
use testkit::{Guard, mount_lines_with, privileged, program, tell};

const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// The duration of each race; all races run in parallel.
const RACE: Duration = Duration::from_secs(10);

/// The least number of rounds of each race.
const LEAST_ROUNDS: usize = 20;

/// The longest duration of a race with fewer rounds.
const LONGEST_RACE: Duration = Duration::from_mins(1);

/// The racer's pause after it has cleaned up.
const HEAD_START: Duration = Duration::from_millis(1);

/// The longest wait for the racer after a refusal.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The least number of successful placements in a hundred, against each attack. Measured are 62 and more, on idle and on
/// busy processors. If all were refused, nothing would have been attacked.
const LEAST_PLACED: usize = 30;

fn create(guard: &Guard, attack: Attack) -> Created {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named(attack.name()).parse().unwrap(), vmm, base);
    spec.owner = OWNER;
    guard.store().create(&spec).unwrap()
}

/// Files of every kind that must stay as they are, and a description of all of them.
struct Canaries {
    directory: PathBuf,
    image: PathBuf,
    tree: PathBuf,
    before: Vec<String>,
}

impl Canaries {
    fn new(guard: &Guard) -> Self {
        let directory = guard.directory().join("canaries");
        std::fs::create_dir_all(directory.join("directory/deeper")).unwrap();
        std::fs::write(directory.join("file"), "precious").unwrap();
        std::fs::write(directory.join("directory/deeper/file"), "precious").unwrap();
        symlink("file", directory.join("link")).unwrap();
        let null = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, directory.join("node"), kind, rustix::fs::Mode::RUSR, null)
            .unwrap();
        let image = guard.file("image", &"image ".repeat(1_000));
        let tree = guard.directory().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for name in ["one", "two", "three"] {
            std::fs::write(tree.join(name), name).unwrap();
        }
        // A file of the jail's owner, which it may hard-link.
        std::fs::write(directory.join("own"), "precious").unwrap();
        std::os::unix::fs::chown(directory.join("own"), Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let before = Self::describe(&directory);
        Self { directory, image, tree, before }
    }

    fn describe(directory: &Path) -> Vec<String> {
        let mut seen = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let facts = entry.path().symlink_metadata().unwrap();
            let content = if facts.is_file() { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
            let kind = facts.file_type();
            let path = entry.path();
            seen.push(format!(
                "{} {kind:?} {:o} {}:{} {} {} {content:?}",
                path.display(),
                facts.mode(),
                facts.uid(),
                facts.gid(),
                facts.nlink(),
                facts.rdev()
            ));
            if facts.is_dir() {
                seen.extend(Self::describe(&path));
            }
        }
        seen.sort();
        seen
    }

    fn unharmed(&self) {
        assert_eq!(Self::describe(&self.directory), self.before);
    }
}

/// An attack of the jail's uid on a path that stockade uses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Attack {
    /// Rename it away and back.
    Rename,
    /// Replace it by a symbolic link to a directory outside: by its path, by `..`, through `/proc`, and to the tree
    /// itself.
    Link,
    /// Replace it by a hard link to a file outside.
    HardLink,
    /// Replace it by a directory of the jail's uid.
    Directory,
    /// All of these, one after the other.
    All,
}

const ATTACKS: [Attack; 5] = [Attack::Rename, Attack::Link, Attack::HardLink, Attack::Directory, Attack::All];

impl Attack {
    fn name(self) -> &'static str {
        match self {
            Self::Rename => "rename",
            Self::Link => "link",
            Self::HardLink => "hardlink",
            Self::Directory => "directory",
            Self::All => "all",
        }
    }

    /// Makes attack `number` on one path. An attempt that fails may succeed in another round.
    fn attack(self, path: &Path, canaries: &Path, number: u64) {
        let targets = [
            canaries,
            "../../../canaries".as_ref(),
            "/proc/self/root/etc".as_ref(),
            "/".as_ref(),
            ".".as_ref(),
        ];
        let target = targets[usize::try_from(number).unwrap() % targets.len()];
        match self {
            Self::Rename => (),
            Self::Link => drop(symlink(target, path)),
            Self::HardLink => {
                let _ = std::fs::hard_link(canaries.join("file"), path);
                let _ = std::fs::hard_link(canaries.join("own"), path);
            }
            Self::Directory => {
                let _ = std::fs::create_dir(path);
                let _ = std::fs::write(path.join("own"), "own");
            }
            Self::All => {
                for each in &ATTACKS[..4] {
                    each.attack(path, canaries, number);
                    let _ = std::fs::remove_dir_all(path);
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }
}

/// The state of a racer, which both sides share.
#[derive(Default)]
struct Racer {
    swaps: AtomicU64,
    /// A placement was refused, and the racer has not cleaned up since.
    refused: AtomicBool,
    stop: AtomicBool,
}

impl Racer {
    /// Waits after a refusal until the racer has cleaned up. Without that one swap could refuse any number of
    /// placements: one in which the scheduler interrupts the racer, or one that leaves a directory in the way.
    fn waits_for_clean_up(&self) {
        self.refused.store(true, Ordering::Relaxed);
        let end = Instant::now() + LONGEST_WAIT;
        while self.refused.load(Ordering::Relaxed) && Instant::now() < end {
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Removes the remains of swaps and placements after a refusal, and lets the next placement begin. A file of root is
    /// only renamed.
    fn clean_up(&self, root: &Path) {
        let number = self.swaps.load(Ordering::Relaxed);
        let away = (0..7).map(|each| format!("away-{each}"));
        for (each, name) in ["a".to_owned(), "image".to_owned()].into_iter().chain(away).enumerate() {
            let left = root.join(format!("left-{number}-{each}"));
            if std::fs::rename(root.join(name), &left).is_ok() {
                let _ = std::fs::remove_dir_all(&left);
                let _ = std::fs::remove_file(&left);
            }
        }
        self.refused.store(false, Ordering::Relaxed);
        std::thread::sleep(HEAD_START);
    }
}

/// Takes the jail's uid, for this thread alone: the test continues as root.
fn become_jail() {
    rustix::thread::set_thread_groups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(OWNER.uid), Gid::from_raw(OWNER.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
}

/// Attacks the used paths as fast as possible until the race stops.
fn race(attack: Attack, root: &Path, canaries: &Path, racer: &Racer) {
    become_jail();
    while !racer.stop.load(Ordering::Relaxed) {
        if racer.refused.load(Ordering::Relaxed) {
            racer.clean_up(root);
        }
        for name in ["a", "a/b", "a/b/image", "dev", "run", "image", "a/b/tree"] {
            let path = root.join(name);
            let swaps = racer.swaps.load(Ordering::Relaxed);
            let away = root.join(format!("away-{}", swaps % 7));
            let _ = std::fs::rename(&path, &away);
            attack.attack(&path, canaries, swaps);
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::rename(&away, &path);
            racer.swaps.store(swaps + 1, Ordering::Relaxed);
        }
    }
}

/// Ends the race, also after a failure of the test.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The counts of a race.
struct Counts {
    swaps: u64,
    rounds: usize,
    tried: usize,
    /// The successful placements among the tried ones.
    placed: usize,
}

/// Repeats `work` while the racer runs: for [`RACE`], and longer if processors are too busy for [`LEAST_ROUNDS`]. `work`
/// waits for the racer after each refusal, and returns the numbers of tried and of successful placements.
fn against_a_racer(
    guard: &Guard,
    canaries: &Canaries,
    attack: Attack,
    mut work: impl FnMut(&Racer) -> (usize, usize),
) -> Counts {
    let root = guard.base().join("stockade-probe").join(guard.named(attack.name())).join("root");
    let racer = Racer::default();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| race(attack, &root, &canaries.directory, &racer));
        let end_of_race = StopOnDrop(&racer.stop);
        let begin = Instant::now();
        let mut counts = Counts { swaps: 0, rounds: 0, tried: 0, placed: 0 };
        while begin.elapsed() < RACE || (counts.rounds < LEAST_ROUNDS && begin.elapsed() < LONGEST_RACE) {
            let (tried, placed) = work(&racer);
            counts.rounds += 1;
            counts.tried += tried;
            counts.placed += placed;
        }
        drop(end_of_race);
        thread.join().unwrap();
        Counts { swaps: racer.swaps.load(Ordering::Relaxed), ..counts }
    })
}

/// Makes placements at the racer's paths: files, a node and binds. Returns their number, and the names of the
/// successful ones.
fn place(created: &mut Created, canaries: &Canaries, racer: &Racer) -> (usize, Vec<&'static str>) {
    let mut placed = Vec::new();
    let placements = [
        (canaries.image.as_path(), "a/b/image", How::Copy),
        (canaries.image.as_path(), "image", How::Auto),
        (canaries.tree.as_path(), "a/b/tree", How::Copy),
        (Path::new("/dev/null"), "a/b/null", How::Node),
        (canaries.directory.as_path(), "a/b/held", How::Bind),
        (canaries.image.as_path(), "a/b/bound", How::Bind),
    ];
    for (source, name, how) in placements {
        // A refusal is allowed. An effect outside the jail is not, which the canaries show.
        if created.place(Placement::new(source).named(name).how(how)).is_ok() {
            placed.push(name);
        } else {
            racer.waits_for_clean_up();
        }
    }
    (placements.len(), placed)
}

/// Lives of jails against each attack. All attacks run in parallel, each on its own jail.
#[test]
fn placing_and_removing_have_no_outside_effect_in_a_race() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        let live = |attack: Attack| {
            let counts = against_a_racer(&guard, &canaries, attack, |racer| {
                let mut created = create(&guard, attack);
                let (tried, placed) = place(&mut created, &canaries, racer);
                let report = created.teardown().unwrap();
                assert!(report.is_clean(), "{report:?}");
                (tried, placed.len())
            });
            (attack, counts)
        };
        against_all(live, "lives of a jail");
        canaries.unharmed();
    });
}

#[test]
fn placing_into_one_jail_has_no_outside_effect_in_a_race() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        let live = |attack: Attack| {
            let mut created = create(&guard, attack);
            let counts = against_a_racer(&guard, &canaries, attack, |racer| {
                let (tried, placed) = place(&mut created, &canaries, racer);
                for name in &placed {
                    let _ = created.unplace(&JailPath::new(name).unwrap());
                }
                (tried, placed.len())
            });
            let report = created.teardown().unwrap();
            assert!(report.is_clean(), "{report:?}");
            (attack, counts)
        };
        against_all(live, "rounds of placements");
        canaries.unharmed();
    });
}

#[test]
fn binding_into_a_running_jail_has_no_outside_effect_in_a_race() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        let live = |attack: Attack| {
            let mut created = create(&guard, attack);
            created.set_arguments(vec!["sleep".into()]);
            let mut running = created.launch(Streams::default()).unwrap();
            let counts = against_a_racer(&guard, &canaries, attack, |racer| {
                let binds = [(&canaries.directory, "a/b/tree"), (&canaries.image, "a/b/image")];
                let mut placed = 0;
                for (source, name) in binds {
                    let bind = Placement::new(source).named(name).how(How::Bind);
                    if running.place(bind).is_ok() {
                        placed += 1;
                    } else {
                        racer.waits_for_clean_up();
                    }
                    let _ = running.unplace(&JailPath::new(name).unwrap());
                }
                (binds.len(), placed)
            });
            assert_eq!(mount_lines_with(guard.name()), [""; 0]);
            let report = running.teardown().unwrap();
            assert!(report.is_clean(), "{report:?}");
            (attack, counts)
        };
        against_all(live, "rounds of binds");
        canaries.unharmed();
    });
}

/// Something that the jail's uid puts under a name in its tree.
#[derive(Clone, Copy, Debug)]
enum Bait {
    File,
    Directory,
    HardLink,
    Link,
}

impl Bait {
    const ALL: [Self; 4] = [Self::File, Self::Directory, Self::HardLink, Self::Link];

    /// Puts it at `path`. Another process may remove it at once.
    fn put(self, path: &Path, own: &Path) {
        match self {
            Self::File => drop(std::fs::write(path, "bait")),
            Self::Directory => {
                let _ = std::fs::create_dir(path);
                let _ = std::fs::write(path.join("one"), "bait");
            }
            Self::HardLink => drop(std::fs::hard_link(own, path)),
            Self::Link => drop(symlink("own", path)),
        }
    }
}

/// Replaces each temporary name of stockade by a bait until `stop` is set. Returns the number of swaps.
///
/// With `back`, the bait is exchanged for the replaced file again, so that this file gets the placement's name.
fn swap_temporaries(directory: &Path, back: bool, stop: &AtomicBool) -> u64 {
    become_jail();
    let own = directory.join("own");
    std::fs::write(&own, "bait").unwrap();
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let is_temporary = entry.file_name().to_string_lossy().starts_with(".stockade-");
            let away = directory.join(format!("away-{swaps}"));
            if !is_temporary || std::fs::rename(&path, &away).is_err() {
                continue;
            }
            Bait::ALL[usize::try_from(swaps).unwrap() % 4].put(&path, &own);
            swaps += 1;
            if back {
                // Long enough for the process that attaches a bind.
                std::thread::sleep(Duration::from_millis(swaps % 4));
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, &path, rustix::fs::CWD, &away, flags);
            }
        }
    }
    swaps
}

/// The placements that are checked under attack, with the text that the placed file, or the file `one` in the placed
/// directory, begins with.
fn checked_placements(guard: &Guard) -> Vec<(Placement, &'static str, &'static str)> {
    let image = guard.file("checked", &"image ".repeat(500_000));
    let linked = guard.file("linked", "linked");
    std::os::unix::fs::chown(&linked, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
    let tree = guard.directory().join("checked-tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("one"), "tree").unwrap();
    let named = |source: &Path, name: &str, how| Placement::new(source).named(name).how(how);
    vec![
        (named(&image, "a/copy", How::Copy), "a/copy", "image "),
        (named(&linked, "a/link", How::Link), "a/link", "linked"),
        (named(&tree, "a/tree", How::Copy), "a/tree/one", "tree"),
        (named(&image, "a/file-bind", How::Bind), "a/file-bind", "image "),
        (named(&tree, "a/bind", How::Bind), "a/bind/one", "tree"),
    ]
}

/// A successful placement is the placed file, whatever the jail's uid does to temporary names.
#[test]
fn a_swapped_temporary_name_is_never_the_placement() {
    privileged!(guard, {
        let mut created = create(&guard, Attack::All);
        created.set_arguments(vec!["sleep".into()]);
        let placements = checked_placements(&guard);
        created.place(Placement::new("/etc/passwd").named("a/first")).unwrap();
        let mut running = created.launch(Streams::default()).unwrap();
        // As the VMM sees it.
        let root = PathBuf::from(format!("/proc/{}/root", running.pid()));
        let table = format!("/proc/{}/mountinfo", running.pid());
        let mounts = std::fs::read_to_string(&table).unwrap().lines().count();
        let (mut placed, mut refused, mut swaps) = (0, 0, 0);
        // Reported after the end of the VMM, which a failed test would leave.
        let (mut wrong, mut causes) = (Vec::new(), BTreeSet::new());
        for back in [false, true] {
            let stop = AtomicBool::new(false);
            let directory = running.receipt().root().as_path().join("a");
            std::thread::scope(|scope| {
                let racer = scope.spawn(|| swap_temporaries(&directory, back, &stop));
                let end_of_race = StopOnDrop(&stop);
                let end = Instant::now() + RACE / 2;
                while Instant::now() < end {
                    for (placement, name, text) in &placements {
                        if let Err(error) = running.place(placement.clone()) {
                            refused += 1;
                            causes.insert(error.to_string());
                            continue;
                        }
                        placed += 1;
                        let mut begin = vec![0; text.len()];
                        let read = std::fs::File::open(root.join(name))
                            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut begin));
                        if read.is_err() || begin != text.as_bytes() {
                            wrong.push(format!("{name}: {read:?} {:?}", String::from_utf8_lossy(&begin)));
                        }
                        if let Err(error) = running.unplace(&placement_path(name)) {
                            wrong.push(error.to_string());
                        }
                    }
                }
                drop(end_of_race);
                swaps += racer.join().unwrap();
            });
        }
        tell(&format!("{swaps} swaps, {placed} placed, {refused} refused: {causes:#?}"));
        let table = std::fs::read_to_string(&table).unwrap();
        let report = running.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(swaps > 20 && placed > 20, "the race was none: {swaps} swaps, {placed} placed");
        assert_eq!(table.lines().count(), mounts, "a refused bind stays in the jail: {table}");
        assert!(wrong.is_empty(), "{} placements are not what was placed: {wrong:#?}", wrong.len());
    });
}

fn placement_path(name: &str) -> JailPath {
    JailPath::new(name.strip_suffix("/one").unwrap_or(name)).unwrap()
}

/// A directory under the jail's own name, which its uid knows, prevents no placement.
#[test]
fn a_name_created_before_prevents_no_placement() {
    privileged!(guard, {
        let mut created = create(&guard, Attack::All);
        created.place(Placement::new("/etc/passwd").named("a/first")).unwrap();
        let root = created.root().as_path().to_owned();
        let marker = std::fs::read_dir(root.parent().unwrap()).unwrap().flatten();
        let marker = marker.map(|entry| entry.file_name()).find(|name| name != "root").unwrap();
        let taken = root.join("a").join(&marker);
        std::fs::create_dir_all(taken.join("full")).unwrap();
        std::os::unix::fs::chown(&taken, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        for (placement, name, _) in checked_placements(&guard) {
            created.place(placement).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        std::fs::write(root.join("a/null"), "in the way").unwrap();
        created.place(Placement::new("/dev/null").named("a/null")).unwrap();
        assert!(created.teardown().unwrap().is_clean());
    });
}

/// Runs all races in parallel, and prints their counts.
fn against_all(live: impl Fn(Attack) -> (Attack, Counts) + Sync, what: &str) {
    let counts: Vec<_> = std::thread::scope(|scope| {
        let races: Vec<_> = ATTACKS.iter().map(|attack| scope.spawn(|| live(*attack))).collect();
        races.into_iter().map(|race| race.join().unwrap()).collect()
    });
    for (attack, Counts { swaps, rounds, tried, placed }) in counts {
        let all =
            format!("{}: {swaps} swaps against {rounds} {what}: placed {placed} of {tried}", attack.name());
        tell(&all);
        assert!(swaps > 200 && rounds >= LEAST_ROUNDS, "the race was none: {all}");
        assert!(placed >= tried * LEAST_PLACED / 100, "too many were refused: {all}");
    }
}
