//! The environment of the benches: a mount namespace with a tmpfs, so that the machine stays clean and no disk is
//! measured.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind};
use stockade::{Store, TemplateMounts};

use crate::Done;

/// The mount point of the tmpfs. It holds the pin of the template namespace, the names of network namespaces and the
/// bench's jails. The kernel removes it with the mount namespace.
const RUN: &str = "/run";

/// The files of the benches.
pub(crate) struct Setup {
    pub(crate) directory: PathBuf,
    pub(crate) vmm: PathBuf,
    /// A kernel and a root image, which the jails' uid owns.
    pub(crate) images: [PathBuf; 2],
    pub(crate) store: Store,
}

/// The size of an image, in bytes. It has no effect on times, because jails get hard links.
const IMAGE: usize = 1 << 20;

impl Setup {
    /// Creates the environment in this process's mount namespace, which no other process may share.
    ///
    /// # Arguments
    /// * `mounts`: the number of additional mounts.
    /// * `has_template`: whether to create a template namespace.
    pub(crate) fn create(mounts: u32, has_template: bool) -> Done<Self> {
        let flags = MountFlags::NOSUID;
        mount("tmpfs", RUN, "tmpfs", flags, c"mode=755")
            .map_err(|e| format!("mount a tmpfs on {RUN}: {e}"))?;
        let directory = Path::new(RUN).join("bench");
        let many = directory.join("many");
        fs::create_dir_all(&many).map_err(|e| format!("create {}: {e}", many.display()))?;
        // On a file system of their own: `open_tree` examines every mount point on the file system of its tree.
        mount("tmpfs", &many, "tmpfs", flags, c"mode=755")
            .map_err(|e| format!("mount {}: {e}", many.display()))?;
        for number in 0..mounts {
            let at = many.join(number.to_string());
            fs::create_dir(&at).map_err(|e| format!("create {}: {e}", at.display()))?;
            mount_bind(&at, &at).map_err(|e| format!("mount {}: {e}", at.display()))?;
        }
        let own = std::env::current_exe().map_err(|e| format!("find the bench's own file: {e}"))?;
        let vmm = directory.join("vmm");
        fs::copy(own.with_file_name("bench-vmm"), &vmm).map_err(|e| format!("copy the VMM: {e}"))?;
        let images = ["vmlinux", "rootfs.img"].map(|name| directory.join(name));
        for image in &images {
            fs::write(image, vec![1; IMAGE]).map_err(|e| format!("write {}: {e}", image.display()))?;
            std::os::unix::fs::chown(image, Some(1234), Some(1234)).map_err(|e| e.to_string())?;
        }
        if has_template {
            TemplateMounts::make().map_err(|e| e.to_string())?;
        }
        let store = Store::new(&directory.join("state")).map_err(|e| e.to_string())?;
        Ok(Self { directory, vmm, images, store })
    }

    /// The base of the bench's jails.
    pub(crate) fn base(&self) -> PathBuf {
        self.directory.join("base")
    }
}
