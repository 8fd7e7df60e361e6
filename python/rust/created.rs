//! A created jail, whose VMM was not started.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use stockade::spec::{JailBuilder, JailSpec, parse_size};
use stockade::{Store, Streams};

use crate::errors::Raise;
use crate::handle::{Handle, Leftovers, leftovers};
use crate::running::Running;

/// A created jail, whose VMM was not started. Dropping this object removes the jail.
#[pyclass(frozen, module = "stockade._stockade")]
pub(crate) struct Created {
    jail: Handle<stockade::Created>,
    store: Store,
}

/// Creates a jail.
#[pyfunction]
#[pyo3(signature = (
    state_dir, id, exec_file, *, chroot_base, uid, gid, allow_unsafe_base, closure, bind_executable, new_netns, new_pid_ns,
    netns=None, cgroups=Vec::new(), cgroup_version=None, parent_cgroup=None, resource_limits=Vec::new(), ramfs=None,
    profile=None, arguments=Vec::new(),
))]
// One for each property of a jail.
#[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
pub(crate) fn create(
    py: Python<'_>,
    state_dir: PathBuf,
    id: String,
    exec_file: PathBuf,
    chroot_base: PathBuf,
    uid: String,
    gid: String,
    allow_unsafe_base: bool,
    closure: bool,
    bind_executable: bool,
    new_netns: bool,
    new_pid_ns: bool,
    netns: Option<String>,
    cgroups: Vec<String>,
    cgroup_version: Option<u32>,
    parent_cgroup: Option<String>,
    resource_limits: Vec<String>,
    ramfs: Option<String>,
    profile: Option<String>,
    arguments: Vec<OsString>,
) -> PyResult<Created> {
    let mut builder = JailSpec::builder(id, exec_file)
        .base(chroot_base)
        .uid(uid)
        .gid(gid)
        .allow_unsafe_base(allow_unsafe_base)
        .libraries(closure)
        .bind_executable(bind_executable)
        .new_pid_ns(new_pid_ns)
        .arguments(arguments);
    builder = cgroups.into_iter().fold(builder, JailBuilder::cgroup);
    builder = resource_limits.into_iter().fold(builder, JailBuilder::resource_limit);
    builder = if new_netns { builder.new_netns() } else { builder };
    builder = netns.into_iter().fold(builder, JailBuilder::netns);
    builder = cgroup_version.into_iter().fold(builder, JailBuilder::cgroup_version);
    builder = parent_cgroup.into_iter().fold(builder, JailBuilder::parent_cgroup);
    let ramfs = ramfs.map(|text| parse_size(&text)).transpose().of_argument("ramfs")?;
    builder = ramfs.into_iter().fold(builder, JailBuilder::ramfs);
    builder = profile.into_iter().fold(builder, JailBuilder::profile);
    py.detach(|| {
        let store = Store::new(&state_dir).of_argument("state_dir")?;
        let spec = builder.build().or_raise()?;
        let jail = Handle::new(store.create(&spec).or_raise()?);
        Ok(Created { jail, store })
    })
}

/// Duplicates a file descriptor of the caller.
fn duplicate(number: i32) -> PyResult<OwnedFd> {
    let copied = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|process| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()));
    copied.map_err(|cause| {
        PyOSError::new_err((cause.raw_os_error(), format!("file descriptor {number}: {cause}")))
    })
}

#[pymethods]
impl Created {
    fn root(&self, py: Python<'_>) -> PyResult<PathBuf> {
        self.jail.with(py, |jail| Ok(jail.root().as_path().to_owned()))
    }

    fn steps(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.jail.steps(py)
    }

    /// What a person should know about the creation, one line each.
    fn notes(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.jail.with(py, |jail| Ok(jail.notes().iter().map(ToString::to_string).collect()))
    }

    #[pyo3(signature = (source, name, how, read_only))]
    fn place(
        &self,
        py: Python<'_>,
        source: PathBuf,
        name: Option<PathBuf>,
        how: &str,
        read_only: bool,
    ) -> PyResult<(String, String)> {
        self.jail.place(py, source, name, how, read_only)
    }

    fn unplace(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.jail.unplace(py, path)
    }

    fn set_arguments(&self, py: Python<'_>, arguments: Vec<OsString>) -> PyResult<()> {
        self.jail.with(py, |jail| {
            jail.set_arguments(arguments);
            Ok(())
        })
    }

    /// Starts the VMM as a child of this process, with these standard streams; None means this process's own.
    fn launch(
        &self,
        py: Python<'_>,
        stdin: Option<i32>,
        stdout: Option<i32>,
        stderr: Option<i32>,
    ) -> PyResult<Running> {
        let stream = |number: Option<i32>| number.map(duplicate).transpose();
        let streams = Streams { stdin: stream(stdin)?, stdout: stream(stdout)?, stderr: stream(stderr)? };
        self.jail.consume(py, |jail| Ok(Running::new(jail.launch(streams).or_raise()?, self.store.clone())))
    }

    /// Starts the VMM as a child of a monitor, which keeps its log.
    ///
    /// # Arguments
    /// `log_bytes`: the maximum size of the log in bytes.
    fn launch_monitored(&self, py: Python<'_>, log_bytes: u64) -> PyResult<Running> {
        self.jail.consume(py, |jail| {
            Ok(Running::new(jail.launch_monitored(log_bytes).or_raise()?, self.store.clone()))
        })
    }

    /// Makes the jail persist: it is no longer removed with this object.
    fn persist(&self, py: Python<'_>) -> PyResult<()> {
        self.jail.consume(py, |jail| jail.persist().or_raise())
    }

    fn teardown(&self, py: Python<'_>) -> PyResult<Leftovers> {
        self.jail.consume(py, |jail| Ok(leftovers(jail.teardown().or_raise()?)))
    }
}
