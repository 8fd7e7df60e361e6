//! Files of the kernel: `/proc`, `/sys` and cgroups.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::{Context, Operation, Result};

/// No table of the kernel is longer.
const LONGEST: u64 = 1 << 24;

/// The text of a file of the kernel, or an error that names it.
pub(crate) fn read(path: &str) -> Result<String> {
    read_file(path).context(Operation::Read, path)
}

/// The text of a file of the kernel.
pub(crate) fn read_file(path: impl AsRef<Path>) -> std::io::Result<String> {
    // Large enough for most of what is read here, so that it comes in one call.
    let mut text = String::with_capacity(4096);
    // Through `take`, which asks for no size: files of the kernel have none.
    File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)).map(|_| text)
}
