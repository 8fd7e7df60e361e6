//! A jail that waits for its VMM.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use stockade::spec::{JailBuilder, JailSpec};
use stockade::{Store, Streams};

use crate::errors::Raise;
use crate::handle::{Handle, Left, left};
use crate::running::Running;

/// A jail that waits for its VMM. It is removed with this object.
#[pyclass(frozen, module = "stockade._stockade")]
pub(crate) struct Created {
    jail: Handle<stockade::Created>,
    store: Store,
}

/// Makes a jail.
#[pyfunction]
#[pyo3(signature = (
    state_dir, id, exec_file, *, chroot_base, uid, gid, closure, bind_executable, new_netns, new_pid_ns,
    netns=None, cgroups=Vec::new(), cgroup_version=None, parent_cgroup=None, resource_limits=Vec::new(), ramfs=None,
    profile=None, arguments=Vec::new(),
))]
// As many as a jail has properties.
#[expect(clippy::too_many_arguments, clippy::fn_params_excessive_bools)]
pub(crate) fn create(
    py: Python<'_>,
    state_dir: PathBuf,
    id: String,
    exec_file: PathBuf,
    chroot_base: PathBuf,
    uid: u32,
    gid: u32,
    closure: bool,
    bind_executable: bool,
    new_netns: bool,
    new_pid_ns: bool,
    netns: Option<String>,
    cgroups: Vec<String>,
    cgroup_version: Option<u32>,
    parent_cgroup: Option<String>,
    resource_limits: Vec<String>,
    ramfs: Option<u64>,
    profile: Option<String>,
    arguments: Vec<OsString>,
) -> PyResult<Created> {
    let mut builder = JailSpec::builder(id, exec_file)
        .base(chroot_base)
        .uid(uid)
        .gid(gid)
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
    builder = ramfs.into_iter().fold(builder, JailBuilder::ramfs);
    builder = profile.into_iter().fold(builder, JailBuilder::profile);
    py.detach(|| {
        let store = Store::new(&state_dir).of_argument("state_dir")?;
        let spec = builder.build().or_raise()?;
        let jail = Handle::new(store.create(&spec).or_raise()?);
        Ok(Created { jail, store })
    })
}

/// A copy of one of the caller's descriptors, by its number.
fn copy_of(number: i32) -> PyResult<OwnedFd> {
    let copied = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|myself| pidfd_getfd(&myself, number, PidfdGetfdFlags::empty()));
    copied
        .map_err(|cause| PyOSError::new_err((cause.raw_os_error(), format!("descriptor {number}: {cause}"))))
}

#[pymethods]
impl Created {
    fn root(&self, py: Python<'_>) -> PyResult<PathBuf> {
        self.jail.with(py, |jail| Ok(jail.root().as_path().to_owned()))
    }

    fn steps(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.jail.steps(py)
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

    /// Starts the VMM as a child of this process, with its standard streams or the caller's.
    fn launch(
        &self,
        py: Python<'_>,
        stdin: Option<i32>,
        stdout: Option<i32>,
        stderr: Option<i32>,
    ) -> PyResult<Running> {
        let stream = |number: Option<i32>| number.map(copy_of).transpose();
        let streams = Streams { stdin: stream(stdin)?, stdout: stream(stdout)?, stderr: stream(stderr)? };
        self.jail.consume(py, |jail| Ok(Running::new(jail.launch(streams).or_raise()?, self.store.clone())))
    }

    /// Starts the VMM as a child of a monitor, which keeps its log.
    fn launch_watched(&self, py: Python<'_>, log_bytes: u64) -> PyResult<Running> {
        self.jail.consume(py, |jail| {
            Ok(Running::new(jail.launch_watched(log_bytes).or_raise()?, self.store.clone()))
        })
    }

    /// Leaves the jail standing by itself.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.jail.consume(py, |jail| jail.persist().or_raise())
    }

    fn teardown(&self, py: Python<'_>) -> PyResult<Left> {
        self.jail.consume(py, |jail| Ok(left(jail.teardown().or_raise()?)))
    }
}
