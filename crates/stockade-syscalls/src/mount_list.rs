//! The mounts of the caller's mount namespace, as the caller can reach them, without `/proc`.
//!
//! `listmount` and `statmount` came with Linux 6.8. Their structures are written by hand here: C libraries
//! and header packages that know them are newer than the machines this has to build on.

use std::ffi::c_long;
use std::io;

/// `__NR_statmount`; the two numbers are the same on every architecture that Rust's std runs on with KVM.
const STATMOUNT: c_long = 457;
/// `__NR_listmount`.
const LISTMOUNT: c_long = 458;

/// `LSMT_ROOT`: list from the root of the caller.
const FROM_ROOT: u64 = u64::MAX;

/// `STATMOUNT_MNT_POINT`.
const WANT_POINT: u64 = 0x10;
/// `STATMOUNT_FS_TYPE`.
const WANT_TYPE: u64 = 0x20;
/// `STATMOUNT_SB_SOURCE`, since Linux 6.13; an older kernel leaves it out of the answer's mask.
const WANT_SOURCE: u64 = 0x200;

/// Where `struct statmount` has `mask`, the set of what was answered.
const MASK_AT: usize = 8;
/// Where `struct statmount` has `fs_type`; this and the next two are offsets into the strings.
const TYPE_AT: usize = 36;
/// Where `struct statmount` has `mnt_point`.
const POINT_AT: usize = 108;
/// Where `struct statmount` has `sb_source`.
const SOURCE_AT: usize = 124;
/// The size of `struct statmount`; its strings follow.
const STRINGS_AT: usize = 512;

/// How many mounts are asked for at a time.
const LIST_CHUNK: usize = 128;
/// No path of a mount is longer than a page, three strings fit into this; beyond it something is wrong.
const LARGEST_ANSWER: usize = 1 << 20;

/// `struct mnt_id_req` as of Linux 6.8 (`MNT_ID_REQ_SIZE_VER0`).
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    /// For `statmount` the mask of wishes, for `listmount` the last mount already seen.
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
    /// Where it is mounted, seen from the caller's root.
    pub point: Vec<u8>,
    /// The type of its file system.
    pub fs_type: Vec<u8>,
    /// What is mounted, such as a device; `None` where the kernel does not tell (before Linux 6.13).
    pub source: Option<Vec<u8>>,
}

/// Lists the mounts at and below the caller's root, in the order the kernel has them.
///
/// A root that is not itself a mount point, such as that of a plain `chroot`, is not in the list.
///
/// # Errors
/// `ENOSYS` before Linux 6.8, `EPERM` where the root is out of reach, or what else the kernel answers.
pub fn mounts() -> io::Result<Vec<Mount>> {
    let mut found = Vec::new();
    for mount in identities()? {
        match describe(mount) {
            Ok(mount) => found.push(mount),
            // It was unmounted since it was listed.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn identities() -> io::Result<Vec<u64>> {
    let mut all = Vec::new();
    loop {
        let request = Request::new(FROM_ROOT, all.last().copied().unwrap_or(0));
        let mut chunk = [0_u64; LIST_CHUNK];
        // SAFETY: the request is a whole `mnt_id_req` of the size it states; the kernel writes at most
        // LIST_CHUNK identities of 8 bytes to `chunk`, which has room for as many. Both outlive the call.
        let count =
            unsafe { libc::syscall(LISTMOUNT, &raw const request, chunk.as_mut_ptr(), LIST_CHUNK, 0) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        all.extend_from_slice(&chunk[..count.min(LIST_CHUNK)]);
        if count < LIST_CHUNK {
            return Ok(all);
        }
    }
}

fn describe(mount: u64) -> io::Result<Mount> {
    let request = Request::new(mount, WANT_POINT | WANT_TYPE | WANT_SOURCE);
    let mut answer = vec![0_u8; 4096];
    loop {
        // SAFETY: the request is a whole `mnt_id_req` of the size it states; the kernel writes at most as
        // many bytes as it is told `answer` has. Both outlive the call.
        let done =
            unsafe { libc::syscall(STATMOUNT, &raw const request, answer.as_mut_ptr(), answer.len(), 0) };
        if done == 0 {
            return parse(&answer);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOVERFLOW) || answer.len() >= LARGEST_ANSWER {
            return Err(error);
        }
        let larger = answer.len() * 2;
        answer = vec![0; larger];
    }
}

fn parse(answer: &[u8]) -> io::Result<Mount> {
    let cut = || io::Error::from(io::ErrorKind::InvalidData);
    let mask = number::<8>(answer, MASK_AT).map(u64::from_ne_bytes).ok_or_else(cut)?;
    let string = |wanted: u64, at: usize| (mask & wanted != 0).then(|| text(answer, at)).flatten();
    Ok(Mount {
        point: string(WANT_POINT, POINT_AT).ok_or_else(cut)?,
        fs_type: string(WANT_TYPE, TYPE_AT).ok_or_else(cut)?,
        source: string(WANT_SOURCE, SOURCE_AT),
    })
}

fn number<const SIZE: usize>(answer: &[u8], at: usize) -> Option<[u8; SIZE]> {
    answer.get(at..at + SIZE)?.try_into().ok()
}

fn text(answer: &[u8], at: usize) -> Option<Vec<u8>> {
    let offset = usize::try_from(u32::from_ne_bytes(number::<4>(answer, at)?)).ok()?;
    let rest = answer.get(STRINGS_AT.checked_add(offset)?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(rest[..end].to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(mask: u64, strings: &[u8]) -> Vec<u8> {
        let mut answer = vec![0_u8; STRINGS_AT];
        answer[MASK_AT..MASK_AT + 8].copy_from_slice(&mask.to_ne_bytes());
        answer[TYPE_AT..TYPE_AT + 4].copy_from_slice(&5_u32.to_ne_bytes());
        answer[SOURCE_AT..SOURCE_AT + 4].copy_from_slice(&11_u32.to_ne_bytes());
        answer.extend_from_slice(strings);
        answer
    }

    #[test]
    fn an_answer_is_read_at_the_kernels_offsets() {
        let whole = answer(WANT_POINT | WANT_TYPE | WANT_SOURCE, b"/run\0tmpfs\0none\0");
        let mount = parse(&whole).unwrap();
        let expected =
            Mount { point: b"/run".to_vec(), fs_type: b"tmpfs".to_vec(), source: Some(b"none".to_vec()) };
        assert_eq!(mount, expected);
    }

    #[test]
    fn a_source_the_kernel_left_out_is_not_made_up() {
        let without = answer(WANT_POINT | WANT_TYPE, b"/run\0tmpfs\0none\0");
        assert_eq!(parse(&without).unwrap().source, None);
    }

    #[test]
    fn a_cut_answer_is_an_error() {
        let whole = answer(WANT_POINT | WANT_TYPE, b"/run\0tmpfs\0");
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_err(), "cut after {length} bytes");
        }
    }

    fn points_in_mountinfo() -> Vec<String> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
    }

    #[test]
    fn the_list_agrees_with_mountinfo() {
        let before = points_in_mountinfo();
        let Ok(listed) = mounts() else {
            return testkit::skip(
                "mount_list::tests::the_list_agrees_with_mountinfo",
                "listmount of Linux 6.8",
            );
        };
        let after = points_in_mountinfo();
        let listed: Vec<String> =
            listed.iter().map(|mount| String::from_utf8_lossy(&mount.point).into_owned()).collect();
        // Others may mount and unmount meanwhile: what was there before and after was there in between, and
        // what was there in between was there before or after.
        for point in before.iter().filter(|point| after.contains(point)) {
            assert!(listed.contains(point), "{point} is missing in {listed:?}");
        }
        let unknown = listed.iter().filter(|point| !before.contains(point) && !after.contains(point));
        assert_eq!(unknown.count(), 0, "{listed:?} has more than {before:?}");
        assert!(listed.contains(&"/proc".to_owned()), "{listed:?}");
    }
}
