//! Files of the kernel: `/proc`, `/sys` and cgroups.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{Context, Operation, Result};

/// The id of this boot.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The minor numbers of devices.
pub(crate) const MISC: &str = "/proc/misc";

/// The mount namespace of this thread.
pub(crate) const OWN_MOUNTS: &str = "/proc/thread-self/ns/mnt";

/// More bytes than any table of the kernel has.
const LONGEST: u64 = 1 << 24;

/// Reads a file of the kernel; an error names the file.
pub(crate) fn read(path: &str) -> Result<String> {
    read_file(path).context(Operation::Read, path)
}

/// Reads a file of the kernel.
pub(crate) fn read_file(path: impl AsRef<Path>) -> std::io::Result<String> {
    // Large enough to read most of these files with one call.
    let mut text = String::with_capacity(4096);
    // Through `take`, which does not query the size: files of the kernel have none.
    File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)).map(|_| text)
}

/// The path of a file that the kernel has for each process. `process` is a pid, or `self`.
pub(crate) fn process_file(process: impl Display, file: &str) -> String {
    format!("/proc/{process}/{file}")
}

/// The path of a process's namespace of this kind. `process` is a pid, or `self`.
pub(crate) fn namespace_file(process: impl Display, kind: &str) -> String {
    format!("/proc/{process}/ns/{kind}")
}
