//! The dynamic loader's cache, in which `ldconfig` records the file of each library.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) const PATH: &str = "/etc/ld.so.cache";

/// The magic of the format since glibc 2.2. Older systems put the previous format in front of it.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";

const HEADER: usize = 48;
const ENTRY: usize = 24;

/// The content of the cache. As in the dynamic loader, a missing or corrupt cache is empty.
#[derive(Debug, Default)]
pub(super) struct Cache {
    bytes: Vec<u8>,
    count: usize,
}

impl Cache {
    pub(super) fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(Self::parse).unwrap_or_default()
    }

    fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let start = bytes.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        // Offsets count from there.
        bytes.drain(..start);
        let count = usize::try_from(number(&bytes, MAGIC.len())?).ok()?;
        let whole = count.checked_mul(ENTRY)?.checked_add(HEADER)? <= bytes.len();
        whole.then_some(Self { bytes, count })
    }

    /// The files of the library `name`, for any machine, best first. Variants for some processors only are left out.
    pub(super) fn find(&self, name: &OsStr) -> impl Iterator<Item = PathBuf> {
        (0..self.count).filter_map(move |index| {
            // An entry has six fields of 4 bytes: flags, name, path, an unused one, and two for the processors.
            let at = HEADER + index * ENTRY;
            let field = |nth: usize| number(&self.bytes, at + nth * 4);
            let for_all = field(4)? == 0 && field(5)? == 0;
            let path = PathBuf::from(self.text(field(2)?)?);
            (for_all && self.text(field(1)?)? == name && path.is_absolute()).then_some(path)
        })
    }

    fn text(&self, offset: u32) -> Option<&OsStr> {
        let rest = self.bytes.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(OsStr::from_bytes(&rest[..end]))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    field.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache with these entries: name, path, processors.
    fn cache(entries: &[(&str, &str, u64)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(entries.len()).expect("few entries").to_ne_bytes());
        bytes.resize(HEADER, 0);
        let mut strings = Vec::new();
        for (name, path, processors) in entries {
            let first = HEADER + entries.len() * ENTRY;
            let mut offset = |text: &str| {
                let offset = u32::try_from(first + strings.len()).expect("few bytes");
                strings.extend(text.as_bytes());
                strings.push(0);
                offset
            };
            for field in [0x303, offset(name), offset(path), 0] {
                bytes.extend(field.to_ne_bytes());
            }
            bytes.extend(processors.to_ne_bytes());
        }
        bytes.extend(strings);
        bytes
    }

    fn found(bytes: Vec<u8>, name: &str) -> Vec<PathBuf> {
        Cache::parse(bytes).unwrap_or_default().find(OsStr::new(name)).collect()
    }

    const ENTRIES: &[(&str, &str, u64)] = &[
        ("liba.so.1", "/lib/glibc-hwcaps/x86-64-v3/liba.so.1", 1 << 62),
        ("liba.so.1", "/opt/liba.so.1", 0),
        ("liba.so.1", "/usr/lib32/liba.so.1", 0),
        ("liba.so", "/opt/liba.so", 0),
    ];

    #[test]
    fn files_for_all_processors_are_found_by_the_whole_name() {
        let paths = ["/opt/liba.so.1", "/usr/lib32/liba.so.1"].map(PathBuf::from);
        assert_eq!(found(cache(ENTRIES), "liba.so.1"), paths);
        assert_eq!(found(cache(ENTRIES), "libb.so"), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_format_of_older_systems_in_front_is_skipped() {
        let mut bytes = b"ld.so-1.7.0\0\0\0\0\0".to_vec();
        bytes.extend(cache(ENTRIES));
        assert_eq!(found(bytes, "liba.so"), [PathBuf::from("/opt/liba.so")]);
    }

    #[test]
    fn a_truncated_cache_is_read_up_to_its_end() {
        let whole = cache(ENTRIES);
        for length in 0..whole.len() {
            let found = found(whole[..length].to_vec(), "liba.so");
            assert_eq!(found, Vec::<PathBuf>::new(), "its path is the last thing in the file");
        }
    }
}
