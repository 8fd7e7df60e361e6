//! Jails that the caller has `jailer` make.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use stockade::spec::{HostPath, JailId, JailPath, Owner};
use stockade::step::Ramfs;
use stockade::{AdoptSpec, How, Layout, Store};

use crate::errors::Raise;

/// What an adopted jail has besides its directory.
#[pyclass(frozen, from_py_object, module = "stockade._stockade")]
#[derive(Clone)]
pub(crate) struct Wants(stockade::Wants);

#[pymethods]
impl Wants {
    /// What of the cgroups cannot be understood is left out: the jailer refuses it, and makes none.
    #[new]
    #[pyo3(signature = (*, netns=None, ramfs=None, cgroups=Vec::new(), parent_cgroup=None))]
    fn new(
        netns: Option<String>,
        ramfs: Option<(String, String, u64, u32, u32)>,
        cgroups: Vec<String>,
        parent_cgroup: Option<String>,
    ) -> PyResult<Self> {
        let netns = netns.map(|name| name.parse()).transpose().of_argument("netns")?;
        let ramfs = ramfs.map(|(path, name, size, uid, gid)| {
            let path = JailPath::new(path).of_argument("ramfs_subdir_name")?;
            Ok::<_, PyErr>(Ramfs { path, name, size, owner: Owner { uid, gid } })
        });
        let mut settings: Vec<_> = cgroups.iter().filter_map(|setting| setting.parse().ok()).collect();
        let parent = parent_cgroup.map(|parent| parent.parse());
        if matches!(parent, Some(Err(_))) {
            settings.clear();
        }
        let parent_cgroup = parent.and_then(Result::ok);
        Ok(Self(stockade::Wants { netns, ramfs: ramfs.transpose()?, cgroups: settings, parent_cgroup }))
    }
}

/// A jail that another program makes.
#[pyclass(frozen, module = "stockade._stockade")]
pub(crate) struct Adopted(Mutex<Option<stockade::Adopted>>);

/// Adopts a jail.
///
/// # Arguments
/// `jail` is the executable's name and the jail's; with None nothing but the base is made.
#[pyfunction]
pub(crate) fn adopt(
    py: Python<'_>,
    state_dir: PathBuf,
    name: String,
    base: PathBuf,
    jail: Option<(String, String)>,
    wants: Wants,
) -> PyResult<Adopted> {
    let name: JailId = name.parse().of_argument("jailer_id")?;
    py.detach(|| {
        let store = Store::new(&state_dir).of_argument("state_dir")?;
        let base = HostPath::future_directory(&base).of_argument("chroot_base")?;
        let jail = jail.map(|(exec_name, id)| Layout::named(base.clone(), &exec_name, &id));
        let jail = jail.transpose().of_argument("jailer_id")?;
        let adopted = store.adopt(&AdoptSpec { name, base, jail, wants: wants.0 }).or_raise()?;
        Ok(Adopted(Mutex::new(Some(adopted))))
    })
}

/// Whether a jail may be called so.
#[pyfunction]
pub(crate) fn is_jail_id(name: &str) -> bool {
    name.parse::<JailId>().is_ok()
}

impl Adopted {
    fn lock(&self) -> MutexGuard<'_, Option<stockade::Adopted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the jail, unless it is gone.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        what: impl FnOnce(&mut stockade::Adopted) -> PyResult<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let gone = || pyo3::exceptions::PyRuntimeError::new_err("the jail is gone");
            what(self.lock().as_mut().ok_or_else(gone)?)
        })
    }
}

#[pymethods]
impl Adopted {
    /// The directory of the jail.
    fn jail_dir(&self, py: Python<'_>) -> PyResult<PathBuf> {
        self.with(py, |jail| Ok(jail.receipt().layout.jail_dir().as_path().to_owned()))
    }

    fn want(&self, py: Python<'_>, wants: Wants) -> PyResult<()> {
        self.with(py, |jail| jail.want(&wants.0).or_raise())
    }

    fn expect_netns(&self, py: Python<'_>, name: String) -> PyResult<()> {
        let name = name.parse().of_argument("netns")?;
        self.with(py, |jail| jail.expect_netns(&name).or_raise())
    }

    fn make_root(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |jail| jail.make_root().or_raise())
    }

    fn place(
        &self,
        py: Python<'_>,
        source: PathBuf,
        name: PathBuf,
        copy: bool,
        uid: u32,
        gid: u32,
    ) -> PyResult<String> {
        let how = if copy { How::Copy } else { How::Auto };
        let owner = Owner { uid, gid };
        self.with(py, |jail| Ok(jail.place(&source, Some(&name), how, owner).or_raise()?.to_string()))
    }

    /// Removes the jail; what is left, as pairs of what and why.
    fn teardown(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        py.detach(|| {
            let Some(jail) = self.lock().take() else { return Ok(Vec::new()) };
            let report = jail.teardown().or_raise()?;
            Ok(report.left.into_iter().map(|left| (left.what, left.reason)).collect())
        })
    }
}
