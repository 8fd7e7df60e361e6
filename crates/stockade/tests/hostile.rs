//! A process with the jail's uid swaps everything in its tree while files are placed and the jail is removed:
//! nothing outside is created, changed, given away or removed.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid};
use stockade::spec::{ExecFile, HostPath, JailPath, JailSpec, Owner};
use stockade::{How, Placement, Prepared, Streams};
use testkit::{Guard, privileged, program, tell};

const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

/// How long each of the races goes on.
const RACE: Duration = Duration::from_secs(4);

fn prepare(guard: &Guard) -> Prepared {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(&program("stockade-probe")).unwrap();
    let mut spec = JailSpec::new(guard.named("jail").parse().unwrap(), vmm, base);
    spec.owner = OWNER;
    guard.store().prepare(&spec).unwrap()
}

/// Files of every kind that must stay as they are, and a description of all of them.
struct Canaries {
    directory: PathBuf,
    image: PathBuf,
    before: Vec<String>,
}

impl Canaries {
    fn new(guard: &Guard) -> Self {
        let directory = guard.directory().join("canaries");
        std::fs::create_dir_all(directory.join("folder/deeper")).unwrap();
        std::fs::write(directory.join("file"), "precious").unwrap();
        std::fs::write(directory.join("folder/deeper/file"), "precious").unwrap();
        symlink("file", directory.join("link")).unwrap();
        let null = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, directory.join("node"), kind, rustix::fs::Mode::RUSR, null)
            .unwrap();
        let image = guard.file("image", &"image ".repeat(1_000));
        let before = Self::describe(&directory);
        Self { directory, image, before }
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

/// Swaps what is at the places that are worked on, as fast as it can, until told to stop; how often.
fn race(root: &Path, canaries: &Path, stop: &AtomicBool) -> u64 {
    // Of this thread alone: the test goes on as root.
    rustix::thread::set_thread_groups(&[]).unwrap();
    let (uid, gid) = (Uid::from_raw(OWNER.uid), Gid::from_raw(OWNER.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    let targets = [
        canaries.to_owned(),
        "../../../canaries".into(),
        "/proc/self/root/etc".into(),
        "/".into(),
        ".".into(),
    ];
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        for name in ["a", "a/b", "a/b/image", "dev", "run", "image", "a/b/folder"] {
            let path = root.join(name);
            let away = root.join(format!("away-{}", swaps % 7));
            // Whatever of these fails now works in another round.
            let _ = std::fs::rename(&path, &away);
            let target = &targets[usize::try_from(swaps).unwrap() % targets.len()];
            let _ = symlink(target, &path);
            swaps += 1;
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::hard_link(canaries.join("file"), &path);
            let _ = std::fs::remove_file(&path);
            let _ = std::fs::create_dir(&path);
            let _ = std::fs::write(path.join("own"), "own");
            let _ = std::fs::remove_dir_all(&path);
            let _ = std::fs::rename(&away, &path);
        }
    }
    swaps
}

/// Ends the race, also if the test fails meanwhile.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` again and again while the racer is at it.
fn against_a_racer(guard: &Guard, canaries: &Canaries, work: impl Fn()) -> (u64, u64) {
    let root = guard.base().join("stockade-probe").join(guard.named("jail")).join("root");
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    let swaps = std::thread::scope(|scope| {
        let racer = scope.spawn(|| race(&root, &canaries.directory, &stop));
        let end_of_race = StopOnDrop(&stop);
        let end = Instant::now() + RACE;
        while Instant::now() < end {
            work();
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        drop(end_of_race);
        racer.join().unwrap()
    });
    (swaps, rounds.into_inner())
}

#[test]
fn placing_and_removing_against_whoever_swaps_the_tree() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        // Jails are made and removed all the time; what is placed goes to places that are being swapped.
        let (swaps, rounds) = against_a_racer(&guard, &canaries, || {
            let mut prepared = prepare(&guard);
            for (source, name, how) in [
                (canaries.image.as_path(), "a/b/image", How::Copy),
                (canaries.image.as_path(), "image", How::Auto),
                (Path::new("/dev/null"), "a/b/null", How::Node),
                (canaries.directory.as_path(), "a/b/folder", How::Bind),
                (canaries.image.as_path(), "a/b/bound", How::Bind),
            ] {
                // To be refused is all right; to be led astray is not.
                let _ = prepared.place(Placement::new(source).named(name).how(how));
            }
            let report = prepared.teardown().unwrap();
            assert!(report.is_clean(), "{report:?}");
        });
        tell(&format!("{swaps} swaps against {rounds} lives of a jail"));
        canaries.unharmed();
        assert!(swaps > 1_000 && rounds > 20, "the race was none: {swaps} swaps, {rounds} lives");
    });
}

#[test]
fn placing_into_one_jail_against_whoever_swaps_the_tree() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        let prepared = std::cell::RefCell::new(prepare(&guard));
        let (swaps, rounds) = against_a_racer(&guard, &canaries, || {
            let mut prepared = prepared.borrow_mut();
            let _ = prepared.place(Placement::new(&canaries.image).named("a/b/image").how(How::Copy));
            let _ = prepared.place(Placement::new("/dev/null").named("a/b/image").how(How::Node));
            let _ = prepared.place(Placement::new(&canaries.image).named("a/b/image").read_only());
            let _ = prepared.unplace(&JailPath::new("a/b/image").unwrap());
        });
        tell(&format!("{swaps} swaps against {rounds} pairs of placements"));
        canaries.unharmed();
        assert!(swaps > 1_000 && rounds > 20, "the race was none: {swaps} swaps, {rounds} rounds");
        let report = prepared.into_inner().teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        canaries.unharmed();
    });
}

#[test]
fn binding_into_a_running_jail_against_whoever_swaps_the_tree() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        let mut prepared = prepare(&guard);
        prepared.set_arguments(vec!["sleep".into()]);
        let running = std::cell::RefCell::new(prepared.launch(Streams::default()).unwrap());
        let bound = std::cell::Cell::new(0);
        let (swaps, rounds) = against_a_racer(&guard, &canaries, || {
            let mut running = running.borrow_mut();
            for (source, name) in [(&canaries.directory, "a/b/folder"), (&canaries.image, "a/b/image")] {
                let bind = Placement::new(source).named(name).how(How::Bind);
                bound.set(bound.get() + u32::from(running.place(bind).is_ok()));
                let _ = running.unplace(&JailPath::new(name).unwrap());
            }
        });
        tell(&format!("{swaps} swaps against {} binds in {rounds} rounds", bound.get()));
        canaries.unharmed();
        assert!(swaps > 1_000 && bound.get() > 20, "the race was none: {swaps} swaps, {} binds", bound.get());
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(guard.name()));
        let report = running.into_inner().teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        canaries.unharmed();
    });
}
