//! The directory and the clean-up of a test's jails: the jailer leaves both to its caller.

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

/// A script for [`Fixture::run_in_mount_namespace`]: an empty directory in place of `/proc`.
pub(crate) const NO_PROC: &str = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";

/// Longer than any wait takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The jailer under test.
pub(crate) fn jailer() -> PathBuf {
    std::env::var_os("JAILER_UNDER_TEST").map_or_else(|| program("jailer"), PathBuf::from)
}

/// The expected value of a deliberate difference, for the program under test.
pub(crate) fn drop_in_or_firecracker<T>(drop_in: T, firecracker: T) -> T {
    static IS_DROP_IN: OnceLock<bool> = OnceLock::new();
    // Each program has its own help texts.
    let is_drop_in =
        *IS_DROP_IN.get_or_init(|| run(&["--help"]).stdout.contains("Executable to run in the jail."));
    if is_drop_in { drop_in } else { firecracker }
}

/// Runs the jailer with these arguments only.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    testkit::run_with(Command::new(jailer()).args(arguments))
}

/// Asserts a refusal: exit code 1, nothing on stdout, this message on stderr. Firecracker's jailer adds a line that
/// repeats the error.
pub(crate) fn refuses(output: &Output, message: &str) {
    refuses_with(output, &[message.to_owned()]);
}

/// Asserts the failure to execute a file whose interpreter is not in the jail. The drop-in names that.
pub(crate) fn finds_no_interpreter(output: &Output, interpreter: &str) {
    let text = "Failed to exec into Firecracker: No such file or directory (os error 2)";
    let hint = format!("{text}\nHint: Its {interpreter} is not in the jail, use a static executable.");
    refuses(output, &drop_in_or_firecracker(hint, text.to_owned()));
}

/// Asserts a refusal with one of these messages.
fn refuses_with(output: &Output, messages: &[String]) {
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    let rest_of = |message: &String| output.stderr.strip_prefix(message.as_str())?.strip_prefix('\n');
    let rest = messages.iter().find_map(rest_of);
    let rest = rest.unwrap_or_else(|| panic!("printed {:?}\n    not {messages:?}", output.stderr));
    let is_expected = drop_in_or_firecracker(rest.is_empty(), rest.starts_with("Error: "));
    assert!(is_expected, "followed by {rest:?}");
}

/// An error of the operating system, in the texts of two C libraries. The drop-in has one of the two texts. Firecracker's
/// jailer has that of the C library with which it was built: musl if it was released by the project.
pub(crate) struct OsError {
    glibc: &'static str,
    musl: &'static str,
    errno: i32,
}

pub(crate) const BUSY: OsError =
    OsError { glibc: "Device or resource busy", musl: "Resource busy", errno: 16 };
pub(crate) const LOOP: OsError =
    OsError { glibc: "Too many levels of symbolic links", musl: "Symbolic link loop", errno: 40 };

impl OsError {
    /// The text of the drop-in, unless it keeps that of a released jailer.
    pub(crate) fn in_glibc(&self) -> String {
        format!("{} (os error {})", self.glibc, self.errno)
    }

    pub(crate) fn in_musl(&self) -> String {
        format!("{} (os error {})", self.musl, self.errno)
    }

    /// Asserts a refusal with this error, of which the drop-in has the text `of_drop_in`. `message` has the error's text
    /// as its argument.
    pub(crate) fn refuses(&self, output: &Output, of_drop_in: String, message: impl Fn(&str) -> String) {
        let texts = drop_in_or_firecracker(vec![of_drop_in], vec![self.in_glibc(), self.in_musl()]);
        refuses_with(output, &texts.iter().map(|text| message(text)).collect::<Vec<_>>());
    }
}

/// Asserts the refusal of an argument that is not UTF-8. Firecracker's jailer panics: a release build aborts, a
/// debug build exits with 101.
pub(crate) fn panicked(output: &Output) {
    assert!([134, 101].contains(&output.code), "{output:?}");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
}

/// Calls `query` until it returns a value.
pub(crate) fn wait_for<T>(what: &str, mut query: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = query() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The directories of one test's jails.
pub(crate) struct Fixture<'g> {
    pub(crate) guard: &'g Guard,
    pub(crate) base: PathBuf,
    /// The VMM. It has the test's name, which is also that of the default parent cgroup.
    pub(crate) exec: PathBuf,
    pub(crate) id: String,
}

impl<'g> Fixture<'g> {
    pub(crate) fn new(guard: &'g Guard) -> Self {
        let (base, exec) = (guard.base(), guard.directory().join(guard.name()));
        fs::create_dir(&base).unwrap();
        let probe = program("stockade-probe");
        if fs::hard_link(&probe, &exec).is_err() {
            fs::copy(&probe, &exec).unwrap();
        }
        Self { guard, base, exec, id: "jail-1".to_owned() }
    }

    /// The interpreter of [`Self::with_script`], as a message names it.
    pub(crate) const INTERPRETER: &'static str = "interpreter '/no/such/interpreter'";

    /// A fixture whose VMM is a script with an interpreter that is not in the jail.
    pub(crate) fn with_script(guard: &'g Guard) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let fixture = Self::new(guard);
        fs::remove_file(&fixture.exec).unwrap();
        fs::write(&fixture.exec, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&fixture.exec, fs::Permissions::from_mode(0o755)).unwrap();
        fixture
    }

    /// The executable's directory below the base.
    pub(crate) fn exec_dir(&self) -> PathBuf {
        self.base.join(self.guard.name())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.exec_dir().join(&self.id).join("root")
    }

    /// The host's path of a path in the jail.
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

    /// The arguments of a jail with these flags.
    pub(crate) fn arguments(&self, flags: &[&str], vmm: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--id".into(), self.id.clone().into()];
        arguments.extend(["--exec-file".into(), self.exec.clone().into_os_string()]);
        arguments.extend(["--uid".into(), UID.to_string().into(), "--gid".into(), GID.to_string().into()]);
        arguments.extend(["--chroot-base-dir".into(), self.base.clone().into_os_string()]);
        arguments.extend(flags.iter().map(OsString::from));
        arguments.push("--".into());
        arguments.extend(vmm.iter().map(OsString::from));
        arguments
    }

    pub(crate) fn command(&self, flags: &[&str], vmm: &[&str]) -> Command {
        let mut command = Command::new(jailer());
        command.args(self.arguments(flags, vmm));
        command
    }

    /// Runs a jail until its VMM exits.
    pub(crate) fn run(&self, flags: &[&str], vmm: &[&str]) -> Output {
        testkit::run_with(&mut self.command(flags, vmm))
    }

    /// Runs a jail that must succeed, and returns the lines of its VMM's output.
    pub(crate) fn json_lines(&self, flags: &[&str], vmm: &[&str]) -> Vec<Value> {
        json_lines(&self.run(flags, vmm))
    }

    /// Runs a jail with these flags, and returns its VMM's report.
    pub(crate) fn report(&self, flags: &[&str]) -> Value {
        self.json_lines(flags, &["report"]).remove(0)
    }

    /// Starts a jail whose VMM keeps running, and waits for the VMM's exec. For jails whose VMM is the jailer's own
    /// process.
    pub(crate) fn start(&self, flags: &[&str]) -> Live {
        Live::new(self.command(flags, &["sleep"]), &self.in_jail())
    }

    /// The executable's path in the jail, which is also its argument 0.
    pub(crate) fn in_jail(&self) -> String {
        format!("/{}", self.guard.name())
    }

    /// The pid in the jail's pid file, after the exit of a start in the background. Firecracker's jailer may write the
    /// file some time after that exit, the drop-in has written it.
    pub(crate) fn written_pid(&self) -> i32 {
        let written = || fs::read_to_string(self.pid_file()).ok()?.parse().ok();
        if drop_in_or_firecracker(true, false) {
            return written().expect("the pid file exists at the exit of the drop-in");
        }
        wait_for("the pid file", written)
    }

    /// Waits for the end of a start in the background whose VMM cannot be executed. Firecracker's jailer works on after
    /// its exit with 0.
    pub(crate) fn fails_in_the_background(&self) {
        kill(self.written_pid());
    }

    /// The jailer, started by a shell with this script in a mount namespace of its own. The script ends with
    /// `exec "$0" "$@"`.
    pub(crate) fn run_in_mount_namespace(&self, script: &str, flags: &[&str], vmm: &[&str]) -> Output {
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", script]).arg(jailer()).args(self.arguments(flags, vmm));
        testkit::run_with(&mut shell)
    }

    /// Waits until the process has executed the VMM.
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

/// The lines of the output of a VMM that succeeded.
pub(crate) fn json_lines(output: &Output) -> Vec<Value> {
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Drop for Fixture<'_> {
    fn drop(&mut self) {
        for pid in processes_below(&self.base) {
            kill(pid);
        }
        for mount in testkit::cgroup_mounts() {
            remove_cgroups(&mount.point.join(self.guard.name()));
        }
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// A jail's VMM. Dropping it kills the VMM.
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

    /// Reads a file in the process's directory in `/proc`.
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

/// The values of a line in a process's status, such as `NStgid`.
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

/// Kills a process and waits for its end. This process is the reaper of orphans from jails.
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

/// Removes a cgroup and its descendants once their processes have exited.
pub(crate) fn remove_cgroups(cgroup: &Path) {
    for below in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&below.path());
        }
    }
    if cgroup.exists() {
        // In cgroup v1 a process leaves its cgroup a moment after its exit was reported.
        wait_for("an empty cgroup", || {
            fs::remove_dir(cgroup).is_ok().then_some(()).or_else(|| (!cgroup.exists()).then_some(()))
        });
    }
}

/// Wraps a command so that it leads a session, as under a terminal or a service manager.
pub(crate) fn as_session_leader(command: &Command) -> Command {
    let mut leader = Command::new("setsid");
    leader.arg(command.get_program()).args(command.get_args());
    // `setsid` forks if it leads a process group: then the jailer is its child, and `setsid` exits at once.
    leader.process_group(0);
    leader
}

/// The command under `strace` with these options. In the virtual machine, which has no `strace`, returns `None` and
/// reports the test as skipped.
pub(crate) fn strace(test: &str, trace: &[&str], command: &Command) -> Option<Command> {
    if std::env::var_os("STOCKADE_VM").is_some() {
        testkit::skip(test, "strace");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(trace).arg("--").arg(command.get_program()).args(command.get_args());
    Some(strace)
}

/// An argument that is not UTF-8.
pub(crate) fn no_text() -> OsString {
    OsStr::from_bytes(b"\xff\xfe").to_owned()
}

/// A privileged test with a fixture: `conforms!(fixture, { … })`.
macro_rules! conforms {
    ($fixture:ident, $body:block) => {
        conforms!($fixture = crate::fixture::Fixture::new, $body);
    };
    ($fixture:ident = $new:expr, $body:block) => {
        testkit::privileged!(guard, {
            #[allow(unused_mut)]
            let mut $fixture = $new(&guard);
            $body
        });
    };
}
pub(crate) use conforms;

/// A test that does not need root. Privileged tests look for leftover processes, so as root this test runs under their
/// lock.
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
