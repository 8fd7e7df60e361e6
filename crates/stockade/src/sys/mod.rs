//! Kernel objects: processes, cgroups, mounts, file trees. Knows no jail, no receipt and no step.

pub(crate) mod dir_lock;
pub(crate) mod error;
pub(crate) mod owned_dir;
pub(crate) mod procfs;
