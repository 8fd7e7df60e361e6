//! Races against a process with the jail's uid that swaps everything in its tree during placement and removal: nothing
//! outside is created, changed, given away or removed.
#![allow(clippy::unwrap_used, missing_docs)]

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

/// Attacks the used paths as fast as possible until the race stops.
fn race(attack: Attack, root: &Path, canaries: &Path, racer: &Racer) {
    // For this thread alone: the test continues as root.
    rustix::thread::set_thread_groups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(OWNER.uid), Gid::from_raw(OWNER.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
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
struct StopOnDrop<'a>(&'a Racer);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
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
        let end_of_race = StopOnDrop(&racer);
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
