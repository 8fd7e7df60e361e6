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

/// Undoes the mount table's escapes: blanks, tabs, newlines and backslashes stand there in octal.
pub(crate) fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        let byte = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        text.push(byte.map_or('\\', char::from));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    text + rest
}
