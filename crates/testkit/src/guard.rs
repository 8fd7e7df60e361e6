//! Compares the host before and after a test.

use std::any::Any;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use stockade::Store;
use stockade::snapshot::Snapshot;

use crate::mounts::cgroup_mounts;
use crate::programs::RUNNING;

/// Privileged tests run one at a time in this process.
static ALONE: Mutex<()> = Mutex::new(());

/// A running privileged test, with a snapshot of the host from its start.
pub struct Guard {
    name: String,
    directory: PathBuf,
    before: Snapshot,
    _here: MutexGuard<'static, ()>,
    /// The lock for one privileged test at a time on this machine.
    _machine: File,
}

impl Guard {
    /// Waits for the locks and takes a snapshot of the host; `None` if the test is skipped because this is not root.
    ///
    /// # Panics
    /// Panics if the process is not root and `CI=true`, or if the snapshot fails.
    pub fn new(test: &str) -> Option<Self> {
        let test = test.trim_end_matches("::{{closure}}");
        if !rustix::process::geteuid().is_root() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{test} needs root, and CI must run every test"
            );
            skip(test, "root");
            return None;
        }
        let here = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let machine =
            File::create(std::env::temp_dir().join("stockade-tests.lock")).expect("create the tests' lock");
        rustix::fs::flock(&machine, FlockOperation::LockExclusive).expect("lock the machine for this test");
        // This process becomes the parent of orphans from jails, and so finds them.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("become a subreaper");
        let name = unique_name();
        // On a disk: a tmpfs is often mounted nodev.
        let directory = PathBuf::from("/var/tmp").join(&name);
        let before = Snapshot::take(&[&directory]).expect("take a snapshot before the test");
        std::fs::create_dir(&directory).expect("create the test's directory");
        // Whatever the umask: a base in it that others can change would be refused.
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("set its mode");
        Some(Self { name, directory, before, _here: here, _machine: machine })
    }

    /// A unique name, valid for an id, a namespace and a cgroup.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The unique name with a suffix.
    pub fn named(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// The test's own directory, which is removed at its end.
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
    /// Never: the path is valid.
    pub fn store(&self) -> Store {
        Store::new(&self.state()).expect("a valid path for the state directory")
    }

    /// Creates a file with this content and mode 644 in the test's directory.
    ///
    /// # Panics
    /// Panics if the file cannot be written.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, content).expect("write a file for the test");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set its mode");
        path
    }

    /// Takes a snapshot of the host with this test's base and state directory.
    ///
    /// # Panics
    /// Panics if the snapshot fails.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(&[&self.base(), &self.state()]).expect("take a snapshot during the test")
    }

    /// Finishes the test: continues its panic, and fails it if it leaked.
    ///
    /// # Panics
    /// Panics if the test panicked or leaked.
    pub fn finish(self, outcome: Result<(), Box<dyn Any + Send>>) {
        let mut leaks: Vec<String> = self.leftover_files();
        leaks.extend(living_child());
        remove_cgroup(&self.name);
        let _ = std::fs::remove_dir_all(&self.directory);
        let after = Snapshot::take(&[&self.directory]).expect("take a snapshot after the test");
        leaks.extend(self.before.added(&after).filter(|what| self.is_leak(what)).map(str::to_owned));
        leaks.extend(
            self.before.removed(&after).filter(|what| self.is_leak(what)).map(|what| format!("lost: {what}")),
        );
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(leaks.is_empty(), "the test leaked: {leaks:#?}");
    }

    /// The files in the base and the state directory, which must be removed with their last jail.
    fn leftover_files(&self) -> Vec<String> {
        let nothing = Snapshot::take(&[]).expect("take a snapshot after the test");
        let (base, state) = (self.base(), self.state());
        let now = Snapshot::take(&[&base, &state]).expect("take a snapshot after the test");
        nothing.added(&now).filter(|what| what.starts_with("file ")).map(str::to_owned).collect()
    }

    fn is_leak(&self, what: &str) -> bool {
        // Other cgroups of the host may change; those of this test contain its name.
        let own_cgroup = !what.starts_with("cgroup ") || what.contains(&self.name);
        // The first named network namespace after boot creates this shared mount, as `ip netns` does; it stays.
        own_cgroup && !what.starts_with("mount /run/netns (")
    }
}

pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("stk{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Returns `is_there`. If it is false, reports the test as skipped.
///
/// # Panics
/// Panics if `is_there` is false and `CI=true`.
pub fn has(is_there: bool, test: &str, needs: &str) -> bool {
    let test = test.trim_end_matches("::{{closure}}");
    if !is_there {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{test} needs {needs}, and CI must run every test"
        );
        skip(test, needs);
    }
    is_there
}

/// Returns `found`, a hierarchy of cgroups or something in it. If it is `None`, reports the test as skipped, also with
/// `CI=true`: the boot of a host decides which versions of cgroups it has, and no package adds one.
pub fn booted_with<T>(found: Option<T>, test: &str, needs: &str) -> Option<T> {
    if found.is_none() {
        skip(test, needs);
    }
    found
}

/// Prints a line to stderr even if the test passes: the harness hides the `eprintln` of passing tests.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Reports a skipped test and its need on stderr, and in the file that `cargo xtask test` summarises. The reported
/// name begins with that of the test binary.
pub fn skip(test: &str, needs: &str) {
    let binary = test_binary();
    let test = test.trim_end_matches("::{{closure}}");
    let test = test.strip_prefix(&format!("{binary}::")).unwrap_or(test);
    let test = format!("{binary}::{test}");
    tell(&format!("skipped: {test} needs {needs}"));
    if let Some(file) = std::env::var_os("STOCKADE_SKIPPED") {
        let file = File::options().append(true).create(true).open(file);
        // In one write: other threads append to the file too.
        let line = format!("{test} (needs {needs})\n");
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// The name of this test binary without cargo's hash.
fn test_binary() -> String {
    let binary = std::env::current_exe().unwrap_or_default();
    let name = binary.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once('-').map_or(&*name, |(name, _)| name).to_owned()
}

/// Reaps exited children. A running child is a leak.
fn living_child() -> Option<String> {
    let _no_program_runs = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
    loop {
        match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) => (),
            Ok(None) => return Some("a living process".to_owned()),
            Err(Errno::CHILD) => return None,
            Err(e) => return Some(format!("unknown processes: {e}")),
        }
    }
}

/// Removes a parent cgroup from every hierarchy. By design it outlives its jails. A cgroup with a process stays, and
/// is a leak.
///
/// # Panics
/// Panics if the mount table cannot be read.
pub fn remove_cgroup(name: &str) {
    for mount in cgroup_mounts() {
        remove_bottom_up(&mount.point.join(name));
    }
}

fn remove_bottom_up(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        remove_bottom_up(&entry.path());
    }
    let _ = std::fs::remove_dir(cgroup);
}
