//! Exec: another program in a jail with a running VMM, for example to inspect or repair it.
//!
//! An exec process takes the same steps as the VMM, but joins the existing namespaces. The receipt lists the
//! cgroups, the limits and the user. So the limits of the VMM hold for the exec process too, and a teardown
//! kills it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, ResolveFlags};
use rustix::thread::LinkNameSpaceType;
use stockade_syscalls::call::Call;
use stockade_syscalls::descriptors::above_standard;
use stockade_syscalls::execute::Executable;
use stockade_syscalls::namespace::spawn_beside;
use stockade_syscalls::program::Program;
use stockade_syscalls::sealed::sealed_program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use crate::entry::EnterStep;
use crate::error::{Context, Error, Operation, Result};
use crate::jail::exec_process::ExecProcess;
use crate::jail::exec_program::steps_and_calls;
use crate::jail::launch::Streams;
use crate::jail::namespaces::Namespaces;
use crate::spec::{HostPath, JailPath, SpecError};
use crate::state::Receipt;
use crate::sys::open::{open_directory, open_source};
use crate::sys::process::{KILL_TIMEOUT, PidFd};
use crate::sys::release::Outcome;

/// The directories in which a program without a slash in its name is searched. The last is the jail's root,
/// which contains the VMM's executable.
const DIRECTORIES: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", ""];

/// The same directories as the default `PATH` of an exec process.
pub const EXEC_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/";

/// A program to run in a jail beside its VMM.
///
/// ```no_run
/// # fn main() -> stockade::Result<()> {
/// # let (store, id) = (stockade::Store::from_environment()?, "vm-1".parse()?);
/// use stockade::Exec;
///
/// if let Some(vmm) = store.vmm(&id)? {
///     let exec = Exec::with_host_program("/bin/busybox")?.arguments(["ls", "-l", "/"]);
///     let ended = vmm.exec(exec)?.wait()?;
/// #   let _ = ended;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an exec does nothing until it is passed to `exec`"]
pub struct Exec {
    pub(super) name: OsString,
    pub(super) executable: Executable,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<OsString>,
    pub(super) as_root: bool,
    pub(super) streams: Streams,
    pub(super) terminal: Option<OwnedFd>,
}

impl Exec {
    /// A program in the jail.
    ///
    /// # Arguments
    /// `program` is its path there, or a name that is searched in the usual directories and the root.
    ///
    /// # Errors
    /// Returns [`SpecError::JailPath`] if the path leads out of the jail.
    pub fn with_program(program: impl AsRef<Path>) -> Result<Self> {
        let program = program.as_ref();
        let inside = JailPath::new(program)?;
        let is_path = program.as_os_str().as_bytes().contains(&b'/');
        let below = |directory: &&str| {
            let path = Path::new("/").join(directory).join(inside.relative());
            CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
        };
        let paths =
            if is_path { vec![inside.to_c_string()] } else { DIRECTORIES.iter().map(below).collect() };
        Ok(Self::new(program.as_os_str(), Executable::FirstOf(paths)))
    }

    /// A static program of the host. The jail sees a sealed copy of it in memory.
    ///
    /// # Errors
    /// Returns [`SpecError::NotAFile`] if the path is not a regular file, or an error if the file cannot be read.
    pub fn with_host_program(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let copy = sealed_copy(file)?;
        Ok(Self::new(file.file_name().unwrap_or(file.as_os_str()), Executable::Open(copy)))
    }

    fn new(name: &OsStr, executable: Executable) -> Self {
        Self {
            name: name.to_owned(),
            executable,
            arguments: Vec::new(),
            environment: vec![EXEC_PATH.into()],
            as_root: false,
            streams: Streams::default(),
            terminal: None,
        }
    }

    /// Adds arguments of the program, without argv0.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment, which by default contains only `PATH`.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let prefix = format!("{name}=");
        self.environment.retain(|known| !known.as_bytes().starts_with(prefix.as_bytes()));
        let mut variable = OsString::from(prefix);
        variable.push(value);
        self.environment.push(variable);
        self
    }

    /// Runs the program as root instead of the jail's uid. It keeps only the capabilities for files.
    ///
    /// Programs of the jail are hostile. So the exec process gets its own namespace of each kind that the
    /// jail shares with the host, sees the jail's tree without the mounts in it, and cannot create set-uid
    /// files.
    pub fn as_root(mut self, root: bool) -> Self {
        self.as_root = root;
        self
    }

    /// Sets its standard streams; by default the caller's.
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// Sets its controlling terminal.
    ///
    /// Do not pass a terminal of the caller: a process in the jail could insert input into it.
    pub fn terminal(mut self, terminal: OwnedFd) -> Self {
        self.terminal = Some(terminal);
        self
    }
}

/// A sealed copy of a file in memory. The file itself must not be reachable from inside the jail.
fn sealed_copy(file: &Path) -> Result<OwnedFd> {
    // Messages show where a relative path was looked for.
    let file = &std::path::absolute(file).context(Operation::Open, file.display())?;
    let mut source = File::from(open_source(file).context(Operation::Open, file.display())?);
    if !source.metadata().context(Operation::Inspect, file.display())?.is_file() {
        return Err(SpecError::NotAFile(file.to_owned()).into());
    }
    let copy = sealed_program(c"exec", |target| {
        let mut target = File::from(target.try_clone_to_owned()?);
        std::io::copy(&mut source, &mut target).map(drop)
    });
    let copy = copy.context(Operation::Copy, file.display())?;
    above_standard(copy).context(Operation::Copy, file.display())
}

/// The time that a killed exec process in a frozen cgroup has to exit, as it does in cgroup v2.
const FROZEN_KILL_TIMEOUT: Duration = Duration::from_millis(500);

/// Starts an exec process in the jail of this receipt, where `vmm` runs.
pub(crate) fn start(receipt: &Receipt, vmm: &PidFd, exec: Exec) -> Result<ExecProcess> {
    receipt.expect_thawed()?;
    let namespaces = Namespaces::of(vmm)?;
    let as_root = exec.as_root;
    let (steps, calls): (Vec<EnterStep>, Vec<Call>) =
        steps_and_calls(receipt, &namespaces, exec)?.into_iter().unzip();
    let failed = |call: usize, cause| {
        // The executor reports numbers beyond the last call, see `stockade_syscalls::execute`.
        let step = steps.get(call).or(steps.last()).cloned().unwrap_or(EnterStep::WaitForRelease);
        Error::Enter { step: Box::new(step), cause }
    };
    let cgroup = open_initial_cgroup(receipt)?;
    // For the host's processes, their shared memory and their sockets, uid 0 is root even without capabilities.
    let alone = |kind| as_root && !namespaces.has(kind);
    let options = CloneOptions {
        pid_namespace: as_root && !namespaces.pid,
        network_namespace: alone(LinkNameSpaceType::Network),
        ipc_namespace: alone(LinkNameSpaceType::InterProcessCommunication),
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
    };
    let mut program = Program::new(calls);
    let child = if namespaces.pid {
        spawn_beside(vmm.as_fd(), &mut program, options).context(Operation::Spawn, "exec")?
    } else {
        spawn(&mut program, options).context(Operation::Spawn, "exec")?
    };
    let (process, outcome) = PidFd::release(child);
    let error = match outcome {
        // A teardown under way may have searched for processes before this one existed.
        Ok(Outcome::Executed) if !vmm.has_exited() => {
            return Ok(ExecProcess::new(receipt.id.clone(), process));
        }
        Ok(Outcome::Executed) => Error::NotRunning(receipt.id.clone()),
        Ok(Outcome::Failed(failure)) => failed(failure.call, failure.errno),
        Ok(Outcome::Hindered(hindrance)) => Error::hindered(process.pid(), hindrance),
        Err(cause) => Error::Enter { step: Box::new(EnterStep::WaitForRelease), cause },
    };
    // In a frozen cgroup v1 it exits only when that is thawed.
    let patience = if matches!(error, Error::Frozen { .. }) { FROZEN_KILL_TIMEOUT } else { KILL_TIMEOUT };
    process.kill(Some(Instant::now() + patience))?;
    process.reap()?;
    Err(error)
}

/// Opens the cgroup that the VMM was created in, if it was created in one.
fn open_initial_cgroup(receipt: &Receipt) -> Result<Option<OwnedFd>> {
    let cgroup = receipt.enter.iter().find_map(|step| match step {
        EnterStep::Clone { cgroup, .. } => cgroup.as_ref(),
        _ => None,
    });
    let open =
        |at: &HostPath| open_directory(CWD, at.as_path(), ResolveFlags::empty()).context(Operation::Open, at);
    cgroup.map(open).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_searched_and_path_is_taken_as_it_is() {
        let paths = |program: &str| match Exec::with_program(program).expect("inside the jail").executable {
            Executable::FirstOf(paths) => paths,
            Executable::Open(_) => panic!("{program} is the jail's"),
        };
        assert_eq!(paths("bin/sh"), [c"/bin/sh".to_owned()]);
        let found = paths("sh");
        assert_eq!(
            (found.first(), found.last()),
            (Some(&c"/usr/local/sbin/sh".to_owned()), Some(&c"/sh".to_owned()))
        );
        assert!(Exec::with_program("../sh").is_err());
    }

    #[test]
    fn variable_replaces_one_with_the_same_name() {
        let exec =
            Exec::with_program("sh").expect("inside the jail").variable("PATH", "/x").variable("PATHS", "y");
        assert_eq!(exec.environment, ["PATH=/x", "PATHS=y"]);
    }
}
