//! The host before and after a test.

use std::any::Any;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use stockade::Store;
use stockade::snapshot::Snapshot;

use crate::programs::RUNNING;

/// One test at a time in this process…
static ALONE: Mutex<()> = Mutex::new(());

/// A test that needs root, from its beginning to the comparison at its end.
pub struct Guard {
    name: String,
    directory: PathBuf,
    before: Snapshot,
    _here: MutexGuard<'static, ()>,
    /// … and on this machine.
    _machine: File,
}

impl Guard {
    /// Waits for its turn and looks at the host; `None` if this is not root and the test has to be skipped.
    ///
    /// # Panics
    /// If `CI=true` and this is not root, or the host cannot be looked at.
    pub fn new(test: &str) -> Option<Self> {
        let test = test.trim_end_matches("::{{closure}}");
        if !rustix::process::geteuid().is_root() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{test} needs root, and CI has to run every test"
            );
            skip(test, "root");
            return None;
        }
        let here = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let machine =
            File::create(std::env::temp_dir().join("stockade-tests.lock")).expect("make the tests' lock");
        rustix::fs::flock(&machine, FlockOperation::LockExclusive).expect("lock the machine for this test");
        // Orphans of the jails come to this process, where they are found.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
        let name = unique_name();
        // On a disk, not on a tmpfs: those are often mounted without devices.
        let directory = PathBuf::from("/var/tmp").join(&name);
        let before = Snapshot::take(&[&directory]).expect("look at the host before the test");
        std::fs::create_dir(&directory).expect("make the test's directory");
        Some(Self { name, directory, before, _here: here, _machine: machine })
    }

    /// A name that no other test uses, fit for an id, a namespace or a cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// That name with something behind it.
    pub fn named(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// The test's own directory, removed at its end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The base for the test's jails, which does not exist yet.
    pub fn base(&self) -> PathBuf {
        self.directory.join("base")
    }

    /// The state directory for the test's jails, which does not exist yet.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The store in that state directory.
    ///
    /// # Panics
    /// Never: the path is free.
    pub fn store(&self) -> Store {
        Store::new(&self.state()).expect("a free path for the state directory")
    }

    /// A file with this content in the test's directory.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, content).expect("write a file for the test");
        path
    }

    /// Looks at the host now, this test's base and state among it.
    ///
    /// # Panics
    /// If the host cannot be looked at.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&[&self.base(), &self.state()]).expect("look at the host during the test")
    }

    /// Ends the test: fails it if it leaked, or as it failed itself.
    ///
    /// # Panics
    /// If the test panicked, or something is left.
    pub fn finish(self, outcome: Result<(), Box<dyn Any + Send>>) {
        let mut leaks: Vec<String> = self.leftover_files();
        leaks.extend(living_child());
        remove_cgroup(&self.name);
        let _ = std::fs::remove_dir_all(&self.directory);
        let after = Snapshot::take(&[&self.directory]).expect("look at the host after the test");
        leaks.extend(self.before.added(&after).filter(|what| self.is_leak(what)).map(str::to_owned));
        leaks.extend(
            self.before.removed(&after).filter(|what| self.is_leak(what)).map(|what| format!("lost: {what}")),
        );
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(leaks.is_empty(), "the test leaked: {leaks:#?}");
    }

    /// What is left in the base and the state directory: both go with their last jail.
    fn leftover_files(&self) -> Vec<String> {
        let nothing = Snapshot::take(&[]).expect("look at the host after the test");
        let (base, state) = (self.base(), self.state());
        let now = Snapshot::take(&[&base, &state]).expect("look at the host after the test");
        nothing.added(&now).filter(|what| what.starts_with("file ")).map(str::to_owned).collect()
    }

    fn is_leak(&self, what: &str) -> bool {
        // The host's own cgroups come and go; this test's have its name.
        let own_cgroup = !what.starts_with("cgroup ") || what.contains(&self.name);
        // Made shared with the first namespace after boot, as `ip netns` does, and left so.
        own_cgroup && !what.starts_with("mount /run/netns (")
    }
}

/// A base that one test made for others to find would be a leak: tests that need theirs to exist make it in
/// their own directory and remove it.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("stk{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether what a test needs is there. If not, the test's name and its need are told.
///
/// # Panics
/// If it is not there, and `CI=true`.
pub fn has(is_there: bool, test: &str, needs: &str) -> bool {
    let test = test.trim_end_matches("::{{closure}}");
    if !is_there {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{test} needs {needs}, and CI has to run every test"
        );
        skip(test, needs);
    }
    is_there
}

/// Tells what a test wants to be known even if it passes: the harness shows only the failed ones' `eprintln`.
///
/// Whether anybody reads it is not the test's concern.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Reports that a test was skipped, and what it needs: on stderr, and in the file that `cargo xtask test` prints at its
/// end. The name begins with that of the test binary.
pub fn skip(test: &str, needs: &str) {
    let binary = test_binary();
    let test = test.trim_end_matches("::{{closure}}");
    let test = test.strip_prefix(&format!("{binary}::")).unwrap_or(test);
    let test = format!("{binary}::{test}");
    tell(&format!("skipped: {test} needs {needs}"));
    if let Some(file) = std::env::var_os("STOCKADE_SKIPPED") {
        let file = File::options().append(true).create(true).open(file);
        // In one write: tests of other threads append to it too.
        let line = format!("{test} (needs {needs})\n");
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// The name of this test binary without the hash that cargo appends.
fn test_binary() -> String {
    let binary = std::env::current_exe().unwrap_or_default();
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').map_or(&*name, |(name, _)| name).to_owned()
}

/// Reaps what has ended; what still lives is a leak.
fn living_child() -> Option<String> {
    let _nobody_runs_one = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
    loop {
        match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) => (),
            Ok(None) => return Some("a living process".to_owned()),
            Err(Errno::CHILD) => return None,
            Err(e) => return Some(format!("unknown processes: {e}")),
        }
    }
}

/// Removes a parent cgroup from every hierarchy: it outlives its jails on purpose, but not the test. One with a
/// process in it stays.
pub fn remove_cgroup(name: &str) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some("cgroup" | "cgroup2")) = (fields.next(), fields.next()) {
            remove_bottom_up(&Path::new(point).join(name));
        }
    }
}

/// What has a process in it stays, and is a leak.
fn remove_bottom_up(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        remove_bottom_up(&entry.path());
    }
    let _ = std::fs::remove_dir(cgroup);
}
