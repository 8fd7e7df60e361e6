//! Visits: a further program in a jail whose VMM runs, to look around or to mend something.
//!
//! A visitor takes the VMM's way into the jail, except that it joins the namespaces that are there: the list on
//! the receipt tells in which cgroups, with which limits and as whom. So what holds the VMM holds the visitor
//! too, and what ends the jail ends it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::LinkNameSpaceType;
use stockade_syscalls::call::Call;
use stockade_syscalls::execute::{Executable, ExecuteWith};
use stockade_syscalls::namespace::spawn_beside;
use stockade_syscalls::program::Program;
use stockade_syscalls::sealed::sealed_program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use crate::entry::program::{calls_of, own};
use crate::entry::{EnterStep, InExec};
use crate::error::{Context, Error, Operation, Result};
use crate::jail::exec_process::ExecProcess;
use crate::jail::launch::Streams;
use crate::plan::reset_all;
use crate::spec::{HostPath, JailPath, SpecError};
use crate::state::Receipt;
use crate::sys::jail_root::open_directory;
use crate::sys::process::PidFd;
use stockade_syscalls::descriptors::{above_standard, copy_above_standard};

/// Where a program is looked for whose name has no slash. The last is the jail's root, where its VMM is.
const FOLDERS: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", ""];

/// The same, as the visitor's environment has it unless it is given another.
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
#[must_use = "a visit takes place when it is passed on"]
pub struct Exec {
    name: OsString,
    executable: Executable,
    arguments: Vec<OsString>,
    environment: Vec<OsString>,
    as_root: bool,
    streams: Streams,
    terminal: Option<OwnedFd>,
}

impl Exec {
    /// A program that is in the jail: its path there, or a name to be looked for in the usual folders and the root.
    ///
    /// # Errors
    /// [`SpecError::JailPath`] for a path that leads out of the jail.
    pub fn with_program(program: impl AsRef<Path>) -> Result<Self> {
        let program = program.as_ref();
        let inside = JailPath::new(program)?;
        let has_folder = program.as_os_str().as_bytes().contains(&b'/');
        let below = |folder: &&str| {
            let path = Path::new("/").join(folder).join(inside.relative());
            CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
        };
        let paths = if has_folder { vec![inside.to_c_string()] } else { FOLDERS.iter().map(below).collect() };
        Ok(Self::new(program.as_os_str(), Executable::FirstOf(paths)))
    }

    /// A static program of the host, of which the jail gets to see a sealed copy in memory.
    ///
    /// # Errors
    /// What the kernel says of reading it.
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

    /// The program's arguments, argv0 not among them.
    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment, which has a PATH and nothing else of itself.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let beginning = format!("{name}=");
        self.environment.retain(|known| !known.as_bytes().starts_with(beginning.as_bytes()));
        let mut variable = OsString::from(beginning);
        variable.push(value);
        self.environment.push(variable);
        self
    }

    /// Stays root instead of becoming the jail's uid. Of root's capabilities it keeps those over files.
    ///
    /// Programs of the jail are hostile. So it gets an own namespace of each kind that the jail shares with the host, sees
    /// the jail's tree without the mounts in it, and can make no set-uid file.
    pub fn as_root(mut self, root: bool) -> Self {
        self.as_root = root;
        self
    }

    /// Its standard streams; the caller's own unless given.
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// Its controlling terminal, which ought to be none that the caller has: whoever is in the jail could type
    /// there.
    pub fn terminal(mut self, terminal: OwnedFd) -> Self {
        self.terminal = Some(terminal);
        self
    }
}

/// A copy of a file in memory, which nobody can change any more. The file itself is not to be reached from inside
/// a jail.
fn sealed_copy(file: &Path) -> Result<OwnedFd> {
    let mut source = File::open(file).context(Operation::Open, file.display())?;
    if !source.metadata().context(Operation::Inspect, file.display())?.is_file() {
        return Err(SpecError::NotAFile(file.to_owned()).into());
    }
    let copy = sealed_program(c"visitor", |target| {
        let mut target = File::from(target.try_clone_to_owned()?);
        std::io::copy(&mut source, &mut target).map(drop)
    });
    let copy = copy.context(Operation::Copy, file.display())?;
    above_standard(copy).context(Operation::Copy, file.display())
}

/// Brings a visitor into the jail of this receipt, where `vmm` runs.
pub(crate) fn start(receipt: &Receipt, vmm: &PidFd, exec: Exec) -> Result<ExecProcess> {
    let there = Namespaces::of(vmm)?;
    let as_root = exec.as_root;
    let way = way(receipt, &there, exec)?;
    let (steps, calls): (Vec<EnterStep>, Vec<Call>) = way.into_iter().unzip();
    let failed = |call: usize, cause| {
        // Beyond the last call it is the executor that reports, see `stockade_syscalls::execute`.
        let step = steps.get(call).or(steps.last()).cloned().unwrap_or(EnterStep::WaitForRelease);
        Error::Enter { step: Box::new(step), cause }
    };
    let born_in = receipt.enter.iter().find_map(born_in);
    let cgroup = born_in
        .map(|at| open_directory(CWD, at.as_path(), ResolveFlags::empty()).context(Operation::Open, at));
    let cgroup = cgroup.transpose()?;
    // Uid 0 is root to the host's processes, to what they share and to their sockets, even without capabilities.
    let alone = |kind| as_root && !there.has(kind);
    let birth = CloneOptions {
        pid_namespace: as_root && !there.pid,
        network_namespace: alone(LinkNameSpaceType::Network),
        ipc_namespace: alone(LinkNameSpaceType::InterProcessCommunication),
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
    };
    let mut program = Program::new(calls);
    let child = if there.pid {
        spawn_beside(vmm.as_fd(), &mut program, birth).context(Operation::Spawn, "the visitor")
    } else {
        spawn(&mut program, birth).context(Operation::Spawn, "the visitor")
    };
    let child = child?;
    let pid = child.pid.as_raw_nonzero().get();
    let (pidfd, outcome) = child.release_and_wait();
    let visitor = ExecProcess::new(PidFd::new(pidfd, pid));
    let failed = match outcome {
        // A teardown that is under way may have looked for visitors before this one was there.
        Ok(None) if !vmm.has_exited() => return Ok(visitor),
        Ok(None) => Error::NotRunning(receipt.id.clone()),
        Ok(Some(failure)) => failed(failure.call, failure.errno),
        Err(cause) => Error::Enter { step: Box::new(EnterStep::WaitForRelease), cause },
    };
    visitor.signal(Signal::KILL)?;
    visitor.wait()?;
    Err(failed)
}

/// The cgroup that the VMM was born in.
fn born_in(step: &EnterStep) -> Option<&HostPath> {
    match step {
        EnterStep::Clone { cgroup, .. } => cgroup.as_ref(),
        _ => None,
    }
}

/// The VMM's way, with the visitor's own turns.
///
/// A visitor sheds what it inherits in any case: the receipt may be of a version that shed less.
fn way(receipt: &Receipt, there: &Namespaces, exec: Exec) -> Result<Vec<(EnterStep, Call)>> {
    let ctx = receipt.step_context();
    let root = ctx.tree()?;
    let mut way = Vec::new();
    let Streams { stdin, stdout, stderr } = exec.streams;
    way.push((EnterStep::TakeStreams, Call::Redirect(own([stdin, stdout, stderr])?)));
    way.extend(calls_of(&reset_all(), root)?);
    if !exec.as_root {
        way.extend(calls_of(&EnterStep::EmptyBoundingSet, root)?);
    }
    let mut terminal = exec.terminal;
    for step in &receipt.enter {
        if step.in_exec() == InExec::Repeat {
            way.extend(calls_of(&of_user(step, exec.as_root), root)?);
        }
        match step {
            EnterStep::NewSession => {
                if let Some(terminal) = terminal.take() {
                    let terminal = above_standard(terminal).context(Operation::Open, "a terminal")?;
                    way.push((EnterStep::TakeTerminal, Call::TakeTerminal(terminal)));
                }
            }
            // The last step of the way to the root.
            EnterStep::ChangeToRoot => {
                way.extend(there.join()?);
                for step in arrive(exec.as_root) {
                    way.extend(calls_of(step, root)?);
                }
            }
            _ => (),
        }
    }
    for step in give_up(exec.as_root) {
        way.extend(calls_of(step, root)?);
    }
    let step = EnterStep::ExecuteProgram {
        program: exec.name.to_string_lossy().into_owned(),
        of_host: matches!(exec.executable, Executable::Open(_)),
    };
    let arguments = std::iter::once(&exec.name).chain(&exec.arguments);
    // It would limit the copy of the program too, so the executor sets it once that is there.
    let file_size = receipt.enter.iter().find_map(|step| match step {
        EnterStep::LimitFileSize { bytes } => Some(*bytes),
        _ => None,
    });
    let execute = ExecuteWith::new(exec.executable, texts(arguments)?, texts(&exec.environment)?, file_size);
    way.push((step, Call::ExecuteWith(execute.context(Operation::Spawn, exec.name.display())?)));
    Ok(way)
}

/// The step with the user and group of the exec process. Root is root in every respect: the launcher may have another
/// group, or real uid.
fn of_user(step: &EnterStep, as_root: bool) -> EnterStep {
    match step {
        EnterStep::SetGid { .. } if as_root => EnterStep::SetGid { gid: 0 },
        EnterStep::SetUid { .. } if as_root => EnterStep::SetUid { uid: 0 },
        step => step.clone(),
    }
}

/// How a visitor makes itself safe in the jail's mount namespace.
///
/// One that stays root sees the jail's tree and none of the mounts in it: files of a procfs, and of a directory of the
/// host that is bound in the jail, obey uid 0 whatever capabilities it has.
fn arrive(as_root: bool) -> &'static [EnterStep] {
    if as_root {
        &[
            EnterStep::MakeRootNosuid,
            EnterStep::UnshareMounts,
            EnterStep::CloneTreeAlone,
            EnterStep::AttachTree,
            EnterStep::EnterTree,
            EnterStep::ChangeRoot,
        ]
    } else {
        &[EnterStep::MakeRootNosuid]
    }
}

/// The privileges that a visitor gives up before it executes its program.
fn give_up(as_root: bool) -> &'static [EnterStep] {
    if as_root {
        // Programs of the jail run with power over files there. Where the host's files are bound into the jail, a
        // set-uid file would give that power to the host's users.
        &[
            EnterStep::BecomeUndumpable,
            EnterStep::KeepFileCapabilities,
            EnterStep::NoNewPrivileges,
            EnterStep::ConfineRoot,
        ]
    } else {
        &[EnterStep::BecomeUndumpable, EnterStep::ClearCapabilities, EnterStep::NoNewPrivileges]
    }
}

fn texts<'t>(words: impl IntoIterator<Item = &'t OsString>) -> Result<Vec<CString>> {
    let text = |word: &OsString| {
        CString::new(word.as_bytes()).map_err(|_| Errno::INVAL).context(Operation::Spawn, word.display())
    };
    words.into_iter().map(text).collect()
}

/// The namespaces of the VMM's that are not the caller's, open: what was compared is what is joined, whatever the VMM
/// does meanwhile.
struct Namespaces {
    mounts: OwnedFd,
    pid: bool,
    others: Vec<(LinkNameSpaceType, OwnedFd)>,
}

impl Namespaces {
    /// All that can be joined besides those of mounts and pids.
    const OTHERS: [(&str, LinkNameSpaceType); 5] = [
        ("cgroup", LinkNameSpaceType::ControlGroup),
        ("ipc", LinkNameSpaceType::InterProcessCommunication),
        ("net", LinkNameSpaceType::Network),
        ("time", LinkNameSpaceType::Time),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ];

    fn of(vmm: &PidFd) -> Result<Self> {
        let open = |whose: &str, kind: &str| -> Result<OwnedFd> {
            let at = format!("/proc/{whose}/ns/{kind}");
            let opened = rustix::fs::open(&at, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            opened.and_then(above_standard).context(Operation::Open, at)
        };
        let identity = |namespace: &OwnedFd| -> Result<(u64, u64)> {
            let facts = rustix::fs::fstat(namespace).context(Operation::Inspect, "a namespace")?;
            Ok((facts.st_dev, facts.st_ino))
        };
        let foreign = |kind: &str| -> Result<Option<OwnedFd>> {
            let (theirs, ours) = (open(&vmm.pid().to_string(), kind)?, open("self", kind)?);
            Ok((identity(&theirs)? != identity(&ours)?).then_some(theirs))
        };
        let mut others = Vec::new();
        for (kind, which) in Self::OTHERS {
            others.extend(foreign(kind)?.map(|namespace| (which, namespace)));
        }
        let pid = foreign("pid")?.is_some();
        // Last: it shows whether the VMM was there all the time.
        Ok(Self { mounts: vmm.mount_namespace()?, pid, others })
    }

    fn has(&self, kind: LinkNameSpaceType) -> bool {
        self.others.iter().any(|(other, _)| *other == kind)
    }

    fn join(&self) -> Result<Vec<(EnterStep, Call)>> {
        let copy = |fd: &OwnedFd| copy_above_standard(fd).context(Operation::Open, "a namespace");
        let mut calls = Vec::new();
        for (kind, namespace) in &self.others {
            calls.push((EnterStep::JoinNamespaces, Call::JoinNamespace(copy(namespace)?, *kind)));
        }
        calls.push((EnterStep::JoinMounts, Call::JoinMounts(copy(&self.mounts)?)));
        Ok(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_folders_and_a_path_is_taken_as_it_is() {
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
    fn a_variable_takes_the_place_of_its_namesake() {
        let exec =
            Exec::with_program("sh").expect("inside the jail").variable("PATH", "/x").variable("PATHS", "y");
        assert_eq!(exec.environment, ["PATH=/x", "PATHS=y"]);
    }
}
