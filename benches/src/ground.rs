//! Where the benches run: a mount namespace of their own with a tmpfs in it, so that the machine stays clean and
//! no disk is measured.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind};
use stockade::{Store, TemplateMounts};

use crate::Done;

/// What is mounted in the place of `/run`: the skeleton's pin, the names of network namespaces and all jails of
/// the bench lie there and are gone with the mount namespace.
const RUN: &str = "/run";

/// The bench's own directory, its VMM, the images that jails are given, and its store.
pub(crate) struct Ground {
    pub(crate) directory: PathBuf,
    pub(crate) vmm: PathBuf,
    /// A kernel and a root image, which belong to the jails' uid already.
    pub(crate) images: [PathBuf; 2],
    pub(crate) store: Store,
}

/// The size of an image, in bytes; they are linked, so it does not matter.
const IMAGE: usize = 1 << 20;

impl Ground {
    /// Lays it out in this process's mount namespace, which must be its own, with so many mounts more than the host
    /// has, and with or without a skeleton.
    pub(crate) fn lay_out(mounts: u32, skeleton: bool) -> Done<Self> {
        let flags = MountFlags::NOSUID;
        mount("tmpfs", RUN, "tmpfs", flags, c"mode=755")
            .map_err(|e| format!("mount a tmpfs on {RUN}: {e}"))?;
        let directory = Path::new(RUN).join("bench");
        let many = directory.join("many");
        fs::create_dir_all(&many).map_err(|e| format!("make {}: {e}", many.display()))?;
        // Of their own file system: the kernel looks at every mount point on the one that a tree is taken from.
        mount("tmpfs", &many, "tmpfs", flags, c"mode=755")
            .map_err(|e| format!("mount {}: {e}", many.display()))?;
        for number in 0..mounts {
            let at = many.join(number.to_string());
            fs::create_dir(&at).map_err(|e| format!("make {}: {e}", at.display()))?;
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
        if skeleton {
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
