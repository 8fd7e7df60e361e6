//! Kernel objects: processes, cgroups, mounts, file trees. Knows no jail, no receipt and no step.

pub(crate) mod access;
pub(crate) mod cache;
pub(crate) mod cgroup;
pub(crate) mod copy;
pub(crate) mod dir_lock;
pub(crate) mod directory_names;
pub(crate) mod error;
pub(crate) mod file_id;
pub(crate) mod flock;
pub(crate) mod inotify;
pub(crate) mod jail_root;
pub(crate) mod mark;
pub(crate) mod modes;
pub(crate) mod mounts;
pub(crate) mod netns_users;
pub(crate) mod obstacle;
pub(crate) mod open;
pub(crate) mod own_name;
pub(crate) mod owned_dir;
pub(crate) mod process;
pub(crate) mod procfs;
pub(crate) mod release;
pub(crate) mod remove_tree;
pub(crate) mod rooted;
pub(crate) mod stuck;
pub(crate) mod unheeded;
pub(crate) mod user_namespace;

pub use copy::{OnProgress, Progress};
pub use process::ProcessRef;
