//! Adopted jails: the caller's `jailer` creates them.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;
use stockade::spec::{HostPath, JailId, JailPath, Owner};
use stockade::steps::Ramfs;
use stockade::{AdoptSpec, Error, How, Layout, Placement, Sharing, Store};

use crate::errors::Raise;
use crate::handle::{Handle, Leftovers, leftovers};

/// The parts of an adopted jail besides its directory.
#[pyclass(frozen, from_py_object, module = "stockade._stockade")]
#[derive(Clone)]
pub(crate) struct AdoptOptions(stockade::AdoptOptions);

#[pymethods]
impl AdoptOptions {
    /// Creates the options. Invalid cgroup settings are ignored, because the jailer refuses them and creates nothing.
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
        Ok(Self(stockade::AdoptOptions {
            netns,
            ramfs: ramfs.transpose()?,
            cgroups: settings,
            parent_cgroup,
        }))
    }
}

/// A jail that another program creates.
#[pyclass(frozen, module = "stockade._stockade")]
pub(crate) struct Adopted(Handle<stockade::Adopted>);

/// Adopts a jail.
///
/// # Arguments
/// `jail`: the names of the executable and the jail; or the directory of a lone root, relative to the base, and `"."`.
/// With None only the base is created.
#[pyfunction]
pub(crate) fn adopt(
    py: Python<'_>,
    state_dir: PathBuf,
    name: String,
    base: PathBuf,
    jail: Option<(String, String)>,
    options: AdoptOptions,
) -> PyResult<Adopted> {
    let name: JailId = name.parse().of_argument("jailer_id")?;
    py.detach(|| {
        let store = Store::new(&state_dir).of_argument("state_dir")?;
        let base = HostPath::future_directory(&base).of_argument("chroot_base")?;
        let jail = jail.map(|(exec_name, id)| match id.as_str() {
            "." => Layout::lone_root(base.clone(), Path::new(&exec_name)),
            id => Layout::named(base.clone(), &exec_name, id),
        });
        let jail = jail.transpose().of_argument("jailer_id")?;
        let adopted = store.adopt(&AdoptSpec { name, base, jail, options: options.0 }).or_raise()?;
        Ok(Adopted(Handle::new(adopted)))
    })
}

/// Whether a name is a valid jail id.
#[pyfunction]
pub(crate) fn is_jail_id(name: &str) -> bool {
    name.parse::<JailId>().is_ok()
}

#[pymethods]
impl Adopted {
    fn want(&self, py: Python<'_>, options: AdoptOptions) -> PyResult<()> {
        self.0.with(py, |jail| jail.add(&options.0).or_raise())
    }

    fn expect_netns(&self, py: Python<'_>, name: String) -> PyResult<()> {
        let name = name.parse().of_argument("netns")?;
        self.0.with(py, |jail| jail.expect_netns(&name).or_raise())
    }

    fn make_root(&self, py: Python<'_>) -> PyResult<()> {
        self.0.with(py, |jail| jail.make_root().or_raise())
    }

    /// Creates the directories on the way to a path in the jail.
    fn make_parents(&self, py: Python<'_>, path: PathBuf, uid: u32, gid: u32) -> PyResult<()> {
        let path = JailPath::new(path).of_argument("subdir")?;
        self.0.with(py, |jail| jail.make_parents(&path, Owner { uid, gid }).or_raise())
    }

    /// Copies a file.
    fn copy(&self, py: Python<'_>, source: PathBuf, name: PathBuf, uid: u32, gid: u32) -> PyResult<()> {
        let placement = Placement::new(source).named(name).how(How::Copy);
        self.0.with(py, |jail| jail.place(placement, Owner { uid, gid }).of_argument("file_path").map(drop))
    }

    /// Places a file: shares it if it may be shared, otherwise it becomes a hard link if possible.
    ///
    /// # Arguments
    /// `share`: whether every file may be shared, or none; with None those that were created for the jail.
    #[pyo3(signature = (source, name, uid, gid, share))]
    fn place(
        &self,
        py: Python<'_>,
        source: PathBuf,
        name: PathBuf,
        uid: u32,
        gid: u32,
        share: Option<bool>,
    ) -> PyResult<()> {
        let (placement, owner) = (Placement::new(source).named(name), Owner { uid, gid });
        let sharing = match share {
            None => Sharing::OwnDirectory,
            Some(true) => Sharing::Always,
            Some(false) => Sharing::Never,
        };
        self.0.with(py, |jail| {
            if jail.share(placement.clone(), owner, sharing).of_argument("file_path")?.is_some() {
                return Ok(());
            }
            let placed = match jail.place(placement.clone().how(How::Link), owner) {
                // The file has another owner, is on another file system, or is a device.
                Err(Error::Placement(_)) => jail.place(placement, owner),
                placed => placed,
            };
            placed.of_argument("file_path").map(drop)
        })
    }

    /// Leaves the jail to `stockade gc`, which removes it after the end of this process.
    fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.0.consume(py, |jail| {
            // Its lock stays until then.
            std::mem::forget(jail);
            Ok(())
        })
    }

    fn teardown(&self, py: Python<'_>) -> PyResult<Leftovers> {
        self.0.consume(py, |jail| Ok(leftovers(jail.teardown().or_raise()?)))
    }
}
