//! The mounts that a process sees: the only parser of mount tables.
//!
//! A whole table is one file, `/proc/PID/mountinfo`. For a single mount, `statmount` and `listmount` (Linux 6.8) take
//! one call regardless of the number of mounts, and need no `/proc`. This module defines their structures by hand:
//! the C libraries and headers of supported build machines are too old for them.

use std::ffi::{OsStr, OsString, c_long};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

/// The mount table of this process.
pub const OWN_TABLE: &str = "/proc/self/mountinfo";

/// `__NR_statmount`; both numbers are the same on every architecture with KVM and Rust's std.
const STATMOUNT: c_long = 457;
/// `__NR_listmount`.
const LISTMOUNT: c_long = 458;

/// `LSMT_ROOT`: the list starts at the caller's root.
const FROM_ROOT: u64 = u64::MAX;

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): the number of a mount for `statmount`, which is never reused.
const UNIQUE_ID: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// `STATMOUNT_MNT_BASIC`.
const WANT_BASIC: u64 = 0x2;
/// `STATMOUNT_MNT_POINT`.
const WANT_POINT: u64 = 0x10;
/// `STATMOUNT_FS_TYPE`.
const WANT_TYPE: u64 = 0x20;
/// `STATMOUNT_SB_SOURCE`, since Linux 6.13; an older kernel leaves it out of the returned mask.
const WANT_SOURCE: u64 = 0x200;

/// Offset of `mask` in `struct statmount`, the set of returned fields.
const MASK_AT: usize = 8;
/// Offset of `fs_type`; this, `mnt_point` and `sb_source` are offsets into the strings.
const TYPE_AT: usize = 36;
/// Offset of `mnt_id_old`, the number in `mountinfo`.
const ID_AT: usize = 56;
/// Offset of `mnt_parent_id_old`.
const PARENT_AT: usize = 60;
/// Offset of `mnt_attr`.
const ATTRIBUTES_AT: usize = 64;
/// Offset of `mnt_propagation`.
const PROPAGATION_AT: usize = 72;
/// Offset of `mnt_point`.
const POINT_AT: usize = 108;
/// Offset of `sb_source`.
const SOURCE_AT: usize = 124;
/// The size of `struct statmount`; its strings follow.
const STRINGS_AT: usize = 512;

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;
/// `MS_SHARED`.
const SHARED: u64 = 1 << 20;

/// The number of mounts in one call.
const LIST_CHUNK: usize = 128;
/// The path of a mount is at most a page long, so three strings fit into this. A larger answer is an error.
const LARGEST_ANSWER: usize = 1 << 20;

/// `struct mnt_id_req` as of Linux 6.8 (`MNT_ID_REQ_SIZE_VER0`).
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    /// For `statmount` the mask of the wanted fields, for `listmount` the last mount of the call before.
    parameter: u64,
}

const _: () = assert!(size_of::<Request>() == 24);

impl Request {
    const fn new(mount: u64, parameter: u64) -> Self {
        Self { size: 24, spare: 0, mount, parameter }
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its number in `mountinfo`, which the kernel may reuse.
    pub id: u64,
    /// The number of its parent mount.
    pub parent: u64,
    /// Its mount point, below the root of the table's process.
    pub point: PathBuf,
    /// The type of its file system.
    pub fs_type: String,
    /// The mounted object, a device for example. `None` if the kernel does not report it (`statmount` before Linux
    /// 6.13).
    pub source: Option<OsString>,
    /// Whether the mount itself is read-only.
    pub read_only: bool,
    /// Whether mounts in it propagate to its peers.
    pub shared: bool,
    /// The options of its file system; of a cgroup v1 hierarchy the controllers. Empty from `statmount`.
    pub fs_options: Vec<String>,
}

/// The mounts of this process, in the order of creation: from `mountinfo`, or by `listmount` without `/proc`.
///
/// A root that is no mount point, such as that of a plain `chroot`, is not in the table.
///
/// # Errors
/// Returns the error of `listmount` if both ways fail: ENOSYS before Linux 6.8, EPERM for an unreachable root. Returns
/// `InvalidData` for an invalid line.
pub fn own() -> io::Result<Vec<Mount>> {
    match std::fs::read(OWN_TABLE) {
        Ok(table) => parse(&table),
        Err(_) => listed(),
    }
}

/// The mounts of a process by its `mountinfo` file, [`OWN_TABLE`] or `/proc/PID/mountinfo`.
///
/// # Errors
/// Returns the error of reading the file, and `InvalidData` for an invalid line.
pub fn read(file: impl AsRef<Path>) -> io::Result<Vec<Mount>> {
    parse(&std::fs::read(file)?)
}

/// The number in `mountinfo` of the mount that an open file is on, and whether the file is its root.
///
/// # Errors
/// Returns the errors of `statx`.
pub fn id_of(file: BorrowedFd<'_>) -> Result<(u64, bool), Errno> {
    let facts =
        rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    Ok((facts.stx_mnt_id, facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
}

/// The mount that an open file is on; `None` if it is not in this process's table.
///
/// # Errors
/// Returns the errors of `statx`, and of [`read`] on kernels without `statmount`.
pub fn mount_of(file: BorrowedFd<'_>) -> io::Result<Option<Mount>> {
    if let Some(Ok(mount)) = unique_id(file).map(describe)
        && mount.source.is_some()
    {
        return Ok(Some(mount));
    }
    let (id, _) = id_of(file)?;
    Ok(read(OWN_TABLE)?.into_iter().find(|mount| mount.id == id))
}

/// Whether the mount that an open file is on has child mounts.
///
/// # Errors
/// Returns the errors of `statx`, and of [`read`] on kernels without `listmount`.
pub fn has_children(file: BorrowedFd<'_>) -> io::Result<bool> {
    if let Some(Ok(children)) = unique_id(file).map(|id| list(id, 0, &mut [0; 1])) {
        return Ok(children > 0);
    }
    let (id, _) = id_of(file)?;
    Ok(read(OWN_TABLE)?.iter().any(|mount| mount.parent == id && mount.id != id))
}

fn unique_id(file: BorrowedFd<'_>) -> Option<u64> {
    let facts = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, UNIQUE_ID).ok()?;
    (facts.stx_mask & UNIQUE_ID.bits() != 0).then_some(facts.stx_mnt_id)
}

/// The mounts at and below the caller's root.
fn listed() -> io::Result<Vec<Mount>> {
    let mut found = Vec::new();
    for mount in identities()? {
        match describe(mount) {
            Ok(mount) => found.push(mount),
            // ENOENT: unmounted since it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn identities() -> io::Result<Vec<u64>> {
    let mut all = Vec::new();
    loop {
        let mut chunk = [0_u64; LIST_CHUNK];
        let count = list(FROM_ROOT, all.last().copied().unwrap_or(0), &mut chunk)?;
        all.extend_from_slice(&chunk[..count]);
        if count < LIST_CHUNK {
            return Ok(all);
        }
    }
}

/// Lists the mounts below `mount` after `last`, and returns their number.
fn list(mount: u64, last: u64, found: &mut [u64]) -> io::Result<usize> {
    let request = Request::new(mount, last);
    // SAFETY: the request is a whole `mnt_id_req` of the size it states; the kernel writes at most `found.len()`
    // identities of 8 bytes to `found`. Both outlive the call.
    let count = unsafe { libc::syscall(LISTMOUNT, &raw const request, found.as_mut_ptr(), found.len(), 0) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    Ok(count.min(found.len()))
}

fn describe(mount: u64) -> io::Result<Mount> {
    let request = Request::new(mount, WANT_BASIC | WANT_POINT | WANT_TYPE | WANT_SOURCE);
    let mut answer = vec![0_u8; 4096];
    loop {
        // SAFETY: the request is a whole `mnt_id_req` of the size it states; the kernel writes at most
        // `answer.len()` bytes to `answer`. Both outlive the call.
        let done =
            unsafe { libc::syscall(STATMOUNT, &raw const request, answer.as_mut_ptr(), answer.len(), 0) };
        if done == 0 {
            return parse_answer(&answer);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOVERFLOW) || answer.len() >= LARGEST_ANSWER {
            return Err(error);
        }
        let larger = answer.len() * 2;
        answer = vec![0; larger];
    }
}

fn parse_answer(answer: &[u8]) -> io::Result<Mount> {
    let cut = || io::Error::from(io::ErrorKind::InvalidData);
    let long = |at: usize| bytes::<8>(answer, at).map(u64::from_ne_bytes).ok_or_else(cut);
    let int = |at: usize| bytes::<4>(answer, at).map(u32::from_ne_bytes).ok_or_else(cut);
    let mask = long(MASK_AT)?;
    let string = |wanted: u64, at: usize| (mask & wanted != 0).then(|| string(answer, at)).flatten();
    if mask & WANT_BASIC == 0 {
        return Err(cut());
    }
    Ok(Mount {
        id: int(ID_AT)?.into(),
        parent: int(PARENT_AT)?.into(),
        point: OsString::from_vec(string(WANT_POINT, POINT_AT).ok_or_else(cut)?).into(),
        fs_type: String::from_utf8_lossy(&string(WANT_TYPE, TYPE_AT).ok_or_else(cut)?).into_owned(),
        source: string(WANT_SOURCE, SOURCE_AT).map(OsString::from_vec),
        read_only: long(ATTRIBUTES_AT)? & READ_ONLY != 0,
        shared: long(PROPAGATION_AT)? & SHARED != 0,
        fs_options: Vec::new(),
    })
}

fn bytes<const SIZE: usize>(answer: &[u8], at: usize) -> Option<[u8; SIZE]> {
    answer.get(at..at + SIZE)?.try_into().ok()
}

fn string(answer: &[u8], at: usize) -> Option<Vec<u8>> {
    let offset = usize::try_from(u32::from_ne_bytes(bytes::<4>(answer, at)?)).ok()?;
    let rest = answer.get(STRINGS_AT.checked_add(offset)?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(rest[..end].to_vec())
}

/// Parses the text of a `mountinfo` file.
fn parse(table: &[u8]) -> io::Result<Vec<Mount>> {
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let invalid = |line: &[u8]| {
        let text = format!("no mount: '{}'", String::from_utf8_lossy(line));
        io::Error::new(io::ErrorKind::InvalidData, text)
    };
    lines.map(|line| parse_line(line).ok_or_else(|| invalid(line))).collect()
}

/// Parses a line: `ID PARENT DEVICE ROOT POINT OPTIONS [TAGS…] - TYPE SOURCE FS_OPTIONS`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let number = |field: &[u8]| str::from_utf8(field).ok()?.parse().ok();
    let mut fields = line.split(|byte| *byte == b' ');
    let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
    let point = unescape(fields.nth(2)?);
    let read_only = fields.next()?.split(|byte| *byte == b',').any(|option| option == b"ro");
    let mut shared = false;
    // A lone dash ends the tags.
    loop {
        match fields.next()? {
            b"-" => break,
            tag => shared |= tag.starts_with(b"shared:"),
        }
    }
    let fs_type = text(fields.next()?);
    let source = Some(unescape(fields.next()?));
    let fs_options = fields.next().unwrap_or_default().split(|byte| *byte == b',').map(text).collect();
    Some(Mount { id, parent, point: point.into(), fs_type, source, read_only, shared, fs_options })
}

/// Decodes the escapes of `mountinfo`: a backslash and three octal digits for blank, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| {
            str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
        });
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsStr::from_bytes(&plain).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn answer(mask: u64, strings: &[u8]) -> Vec<u8> {
        let mut answer = vec![0_u8; STRINGS_AT];
        answer[MASK_AT..MASK_AT + 8].copy_from_slice(&mask.to_ne_bytes());
        answer[ID_AT..ID_AT + 4].copy_from_slice(&30_u32.to_ne_bytes());
        answer[PARENT_AT..PARENT_AT + 4].copy_from_slice(&24_u32.to_ne_bytes());
        answer[ATTRIBUTES_AT..ATTRIBUTES_AT + 8].copy_from_slice(&READ_ONLY.to_ne_bytes());
        answer[PROPAGATION_AT..PROPAGATION_AT + 8].copy_from_slice(&SHARED.to_ne_bytes());
        answer[TYPE_AT..TYPE_AT + 4].copy_from_slice(&5_u32.to_ne_bytes());
        answer[SOURCE_AT..SOURCE_AT + 4].copy_from_slice(&11_u32.to_ne_bytes());
        answer.extend_from_slice(strings);
        answer
    }

    const ALL: u64 = WANT_BASIC | WANT_POINT | WANT_TYPE | WANT_SOURCE;

    #[test]
    fn statmount_is_parsed_at_the_kernels_offsets() {
        let whole = answer(ALL, b"/run\0tmpfs\0none\0");
        let expected = Mount {
            id: 30,
            parent: 24,
            point: "/run".into(),
            fs_type: "tmpfs".into(),
            source: Some("none".into()),
            read_only: true,
            shared: true,
            fs_options: Vec::new(),
        };
        assert_eq!(parse_answer(&whole).unwrap(), expected);
    }

    #[test]
    fn statmount_without_a_source_gives_none() {
        let without = answer(ALL & !WANT_SOURCE, b"/run\0tmpfs\0none\0");
        assert_eq!(parse_answer(&without).unwrap().source, None);
    }

    #[test]
    fn statmount_cut_short_is_an_error() {
        let whole = answer(ALL & !WANT_SOURCE, b"/run\0tmpfs\0");
        for length in 0..whole.len() {
            assert!(parse_answer(&whole[..length]).is_err(), "cut after {length} bytes");
        }
    }

    #[test]
    fn mountinfo_is_parsed_with_and_without_tags() {
        let text = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/ro\\134ot rw,errors=continue\n\
                     37 36 0:23 /sub /\xff ro,nosuid - cgroup none rw,cpu,cpuacct\n";
        let [first, second] = &parse(text).unwrap()[..] else { panic!("two mounts") };
        assert_eq!((first.id, first.parent), (36, 35));
        assert_eq!((first.point.to_str(), first.fs_type.as_str()), (Some("/mnt 2"), "ext3"));
        assert_eq!(first.source.as_deref(), Some(OsStr::new("/dev/ro\\ot")));
        assert_eq!((first.read_only, first.shared), (false, true));
        assert_eq!(second.point.as_os_str().as_bytes(), b"/\xff");
        assert_eq!((second.read_only, second.shared), (true, false));
        assert_eq!(second.fs_options, ["rw", "cpu", "cpuacct"]);
    }

    #[test]
    fn an_invalid_line_of_mountinfo_is_an_error() {
        for line in
            ["36 35 98:0 /\n", "24 1 0:22 / / rw,relatime shared:1\n", "x 1 0:22 / / rw - tmpfs t rw\n"]
        {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn listmount_agrees_with_mountinfo() {
        let points = || -> Vec<PathBuf> { own().unwrap().into_iter().map(|mount| mount.point).collect() };
        let before = points();
        let Ok(listed) = listed() else {
            return testkit::skip(std::any::type_name_of_val(&|| ()), "listmount of Linux 6.8");
        };
        let after = points();
        let listed: Vec<PathBuf> = listed.into_iter().map(|mount| mount.point).collect();
        // Other processes may mount and unmount concurrently. A mount in both tables must be in the list; a mount in
        // the list must be in one of the tables.
        for point in before.iter().filter(|point| after.contains(point)) {
            assert!(listed.contains(point), "{} is missing in {listed:?}", point.display());
        }
        let unknown = listed.iter().filter(|point| !before.contains(point) && !after.contains(point));
        assert_eq!(unknown.count(), 0, "{listed:?} has more than {before:?}");
        assert!(listed.contains(&"/proc".into()), "{listed:?}");
    }

    #[test]
    fn statmount_agrees_with_mountinfo() {
        let proc = std::fs::File::open("/proc").unwrap();
        let mut asked = mount_of(proc.as_fd()).unwrap().unwrap();
        let (id, is_root) = id_of(proc.as_fd()).unwrap();
        let read = own().unwrap().into_iter().find(|mount| mount.id == id).unwrap();
        asked.fs_options.clone_from(&read.fs_options);
        assert_eq!((asked, is_root), (read, true));
        assert!(has_children(std::fs::File::open("/").unwrap().as_fd()).unwrap(), "/proc is in it");
    }
}
