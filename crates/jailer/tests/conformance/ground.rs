//! Where one test's jails are made, and what is left of them removed: the jailer leaves both to its caller.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use serde_json::Value;
use testkit::{Guard, Output, program};

pub(crate) const UID: u32 = 12_345;
pub(crate) const GID: u32 = 12_346;

/// Longer than anything here takes, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// The jailer under test.
pub(crate) fn jailer() -> PathBuf {
    std::env::var_os("JAILER_UNDER_TEST").map_or_else(|| program("jailer"), PathBuf::from)
}

/// What is expected of the drop-in and of the original, where they differ on purpose.
pub(crate) fn ours_or_original<T>(ours: T, original: T) -> T {
    static OURS: OnceLock<bool> = OnceLock::new();
    // Help texts are each program's own.
    let is_ours = *OURS.get_or_init(|| run(&["--help"]).stdout.contains("Executable to run in the jail."));
    if is_ours { ours } else { original }
}

/// Runs the jailer with nothing but these words.
pub(crate) fn run<S: AsRef<OsStr>>(words: &[S]) -> Output {
    testkit::run_with(Command::new(jailer()).args(words))
}

/// That the jailer has refused: exit code 1, nothing on stdout, this message on stderr. The original adds a
/// line with the error once more.
pub(crate) fn refuses(output: &Output, message: &str) {
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    let said = output.stderr.strip_prefix(message).and_then(|rest| rest.strip_prefix('\n'));
    let rest = said.unwrap_or_else(|| panic!("said {:?}\n not {message:?}", output.stderr));
    let wanted = ours_or_original(rest.is_empty(), rest.starts_with("Error: "));
    assert!(wanted, "and then {rest:?}");
}

/// Asks again and again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Where one test's jails are.
pub(crate) struct Ground<'g> {
    pub(crate) guard: &'g Guard,
    pub(crate) base: PathBuf,
    /// The VMM: it has the test's own name, which is thereby that of the default parent cgroup.
    pub(crate) exec: PathBuf,
    pub(crate) id: String,
}

impl<'g> Ground<'g> {
    pub(crate) fn new(guard: &'g Guard) -> Self {
        let (base, exec) = (guard.base(), guard.directory().join(guard.name()));
        fs::create_dir(&base).unwrap();
        let probe = program("stockade-probe");
        if fs::hard_link(&probe, &exec).is_err() {
            fs::copy(&probe, &exec).unwrap();
        }
        Self { guard, base, exec, id: "jail-1".to_owned() }
    }

    /// A VMM of another kind: a script whose interpreter is not in the jail.
    pub(crate) fn with_script(guard: &'g Guard) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let ground = Self::new(guard);
        fs::remove_file(&ground.exec).unwrap();
        fs::write(&ground.exec, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&ground.exec, fs::Permissions::from_mode(0o755)).unwrap();
        ground
    }

    /// The executable's directory in the base.
    pub(crate) fn exec_dir(&self) -> PathBuf {
        self.base.join(self.guard.name())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.exec_dir().join(&self.id).join("root")
    }

    /// A path in the jail, seen from the host.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// The executable's copy in the jail.
    pub(crate) fn copy(&self) -> PathBuf {
        self.inside(self.guard.name())
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.inside(&format!("{}.pid", self.guard.name()))
    }

    /// The words that every jail of this test begins with.
    pub(crate) fn words(&self, flags: &[&str], vmm: &[&str]) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--id".into(), self.id.clone().into()];
        words.extend(["--exec-file".into(), self.exec.clone().into_os_string()]);
        words.extend(["--uid".into(), UID.to_string().into(), "--gid".into(), GID.to_string().into()]);
        words.extend(["--chroot-base-dir".into(), self.base.clone().into_os_string()]);
        words.extend(flags.iter().map(OsString::from));
        words.push("--".into());
        words.extend(vmm.iter().map(OsString::from));
        words
    }

    pub(crate) fn command(&self, flags: &[&str], vmm: &[&str]) -> Command {
        let mut command = Command::new(jailer());
        command.args(self.words(flags, vmm));
        command
    }

    /// Runs a jail to its end.
    pub(crate) fn run(&self, flags: &[&str], vmm: &[&str]) -> Output {
        testkit::run_with(&mut self.command(flags, vmm))
    }

    /// Runs a jail that must end well; what its VMM said, line by line.
    pub(crate) fn said(&self, flags: &[&str], vmm: &[&str]) -> Vec<Value> {
        said(&self.run(flags, vmm))
    }

    /// What the VMM of a jail with these flags reports.
    pub(crate) fn report(&self, flags: &[&str]) -> Value {
        self.said(flags, &["report"]).remove(0)
    }

    /// Starts a jail whose VMM lives on, and waits until it is that. For jails whose VMM is the jailer's own
    /// process.
    pub(crate) fn start(&self, flags: &[&str]) -> Live {
        Live::new(self.command(flags, &["sleep"]), &self.in_jail())
    }

    /// The executable as its argument 0 names it.
    pub(crate) fn in_jail(&self) -> String {
        format!("/{}", self.guard.name())
    }

    /// The pid that the jail's pid file tells.
    pub(crate) fn told_pid(&self) -> i32 {
        fs::read_to_string(self.pid_file()).unwrap().parse().unwrap()
    }

    /// Waits until the process has become the VMM.
    pub(crate) fn becomes_vmm(&self, pid: i32) {
        becomes(pid, &self.in_jail());
    }
}

fn becomes(pid: i32, name: &str) {
    wait_for("the VMM", || {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        line.starts_with(format!("{name}\0").as_bytes()).then_some(())
    });
}

/// What a VMM that ended well said, line by line.
pub(crate) fn said(output: &Output) -> Vec<Value> {
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Drop for Ground<'_> {
    fn drop(&mut self) {
        for pid in processes_below(&self.base) {
            kill(pid);
        }
        for mount in cgroup_mounts() {
            remove_cgroups(&mount.join(self.guard.name()));
        }
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// A jail's VMM, killed when this goes.
pub(crate) struct Live(Child);

impl Live {
    fn new(mut command: Command, name: &str) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let live = Self(child);
        becomes(live.pid(), name);
        live
    }

    pub(crate) fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    /// The text of a file in the process's directory in `/proc`.
    pub(crate) fn proc(&self, file: &str) -> String {
        proc(self.pid(), file)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn proc(pid: i32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}

/// The fields of a line in a process's status, such as `NStgid`.
pub(crate) fn status(pid: i32, field: &str) -> Vec<String> {
    let text = proc(pid, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).unwrap().to_owned();
    line.split_whitespace().map(str::to_owned).collect()
}

/// The session of a process.
pub(crate) fn session(pid: i32) -> i32 {
    let stat = proc(pid, "stat");
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap()
}

/// Kills a process and waits until it is gone; orphans of jails come to this process.
pub(crate) fn kill(pid: i32) {
    let raw = Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(raw, Signal::KILL);
    wait_for("the end of a process", || {
        let _ = rustix::process::waitid(WaitId::Pid(raw), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}

/// The processes whose root is below a directory.
pub(crate) fn processes_below(directory: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let jails = fs::read_dir(directory).into_iter().flatten().flatten();
    let jails = jails.flat_map(|exec| fs::read_dir(exec.path()).into_iter().flatten().flatten());
    let roots: Vec<_> = jails.filter_map(|jail| rustix::fs::stat(jail.path().join("root")).ok()).collect();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(theirs) = rustix::fs::stat(entry.path().join("root")) else { continue };
        if roots.iter().any(|root| (root.st_dev, root.st_ino) == (theirs.st_dev, theirs.st_ino)) {
            found.push(pid);
        }
    }
    found
}

pub(crate) fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter(|fields| fields[2].starts_with("cgroup")).map(|fields| fields[1].into()).collect()
}

/// Removes a cgroup with those below it, once their processes are gone.
pub(crate) fn remove_cgroups(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&below.path());
        }
    }
    if cgroup.exists() {
        // In version 1 a process leaves a moment after its end was told.
        wait_for("an empty cgroup", || {
            fs::remove_dir(cgroup).is_ok().then_some(()).or_else(|| (!cgroup.exists()).then_some(()))
        });
    }
}

/// Runs a jailer as the leader of a session, as a terminal's or a service manager's child is.
pub(crate) fn as_session_leader(command: &Command) -> Command {
    let mut leader = Command::new("setsid");
    leader.arg(command.get_program()).args(command.get_args());
    // Forked first, so that `setsid` needs no fork of its own and the pid is the jailer's.
    leader.process_group(0);
    leader
}

/// The jailer under `strace` with these words; `None`, with the test's name told, where there is none: the
/// virtual machine's tests are on their own.
pub(crate) fn strace(test: &str, trace: &[&str], command: &Command) -> Option<Command> {
    if std::env::var_os("STOCKADE_VM").is_some() {
        testkit::skip(test, "strace");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(trace).arg("--").arg(command.get_program()).args(command.get_args());
    Some(strace)
}

/// Bytes that are no UTF-8.
pub(crate) fn no_text() -> OsString {
    OsStr::from_bytes(b"\xff\xfe").to_owned()
}

/// A privileged test with its ground: `conforms!(ground, { … })`.
macro_rules! conforms {
    ($ground:ident, $body:block) => {
        conforms!($ground = crate::ground::Ground::new, $body);
    };
    ($ground:ident = $new:expr, $body:block) => {
        testkit::privileged!(guard, {
            #[allow(unused_mut)]
            let mut $ground = $new(&guard);
            $body
        });
    };
}
pub(crate) use conforms;

/// A test that needs no root. Privileged ones look for processes that they left, so it waits for its turn
/// among them, where there can be any.
macro_rules! alone {
    ($body:block) => {
        if rustix::process::geteuid().is_root() {
            testkit::privileged!(_guard, $body);
        } else {
            $body
        }
    };
}
pub(crate) use alone;
