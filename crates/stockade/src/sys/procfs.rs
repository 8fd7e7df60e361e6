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
    File::open(path).and_then(read_open)
}

/// Reads an open file of the kernel.
///
/// A process can give itself a name that is not UTF-8, which must not make it invisible.
pub(crate) fn read_open(file: File) -> std::io::Result<String> {
    // Large enough to read most of these files with one call.
    let mut bytes = Vec::with_capacity(4096);
    // Through `take`, which does not query the size: files of the kernel have none.
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// The first line of a text, without its newline.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The value of a field in a text of lines `NAME: VALUE`, as in `/proc/PID/status`; empty if there is none.
pub(crate) fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    rest.unwrap_or_default().trim()
}

/// The number after a key and a blank at the beginning of a line, as in the files of a cgroup.
pub(crate) fn value_after(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The path of a file that the kernel has for each process. `process` is a pid, or `self`.
pub(crate) fn process_file(process: impl Display, file: &str) -> String {
    format!("/proc/{process}/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "UidX:\t3\nUid:\t1\t2\n";
        assert_eq!(field(text, "Uid"), "1\t2");
        assert_eq!(field(text, "Gid"), "");
    }

    #[test]
    fn the_first_line_has_no_newline() {
        assert_eq!(first_line("a b\nc\n"), "a b");
        assert_eq!(first_line(""), "");
    }
}
