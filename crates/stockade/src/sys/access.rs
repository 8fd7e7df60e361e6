//! Which accesses the kernel grants a user who has no capability and no supplementary group: the jail's uid.

use std::path::Path;

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::spec::{HostPath, Owner};

/// Permission to execute a file or to pass through a directory.
pub(crate) const EXECUTE: u32 = 1;
/// Permission to write.
pub(crate) const WRITE: u32 = 2;
/// Permission to read.
pub(crate) const READ: u32 = 4;

/// The attribute that holds an access control list (`man 5 acl`).
const ACL: &str = "system.posix_acl_access";
/// The first four bytes of the attribute: its version.
const ACL_HEADER: usize = 4;
/// The size of an entry: tag and permissions of two bytes each, then an id of four.
const ACL_ENTRY: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;
const ACL_MASK: u16 = 0x10;

/// The permissions of a file or directory: those of its mode, and its access control list.
pub(crate) struct Permissions {
    uid: u32,
    gid: u32,
    mode: u32,
    /// Tag, permissions and id of each entry.
    list: Vec<(u16, u32, u32)>,
}

impl Permissions {
    /// The permissions of a file of the host with these facts.
    ///
    /// # Errors
    /// Returns the errors of `getxattr`.
    pub(crate) fn new(path: &Path, facts: &Stat) -> Result<Self, Errno> {
        let mut list = vec![0; 1024];
        let mut read = rustix::fs::getxattr(path, ACL, &mut list[..]);
        if read == Err(Errno::RANGE) {
            // The maximum of every attribute.
            list = vec![0; 1 << 16];
            read = rustix::fs::getxattr(path, ACL, &mut list[..]);
        }
        let length = match read {
            Ok(length) => length,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => 0,
            Err(cause) => return Err(cause),
        };
        list.truncate(length);
        Ok(Self { uid: facts.st_uid, gid: facts.st_gid, mode: facts.st_mode, list: entries(&list) })
    }

    /// Whether this user may do any of the accesses in `wanted`.
    pub(crate) fn grant_any(&self, to: Owner, wanted: u32) -> bool {
        self.granted(to) & wanted != 0
    }

    /// Whether this user may do any of the accesses in `wanted`, or is the owner, who can permit it at any time.
    pub(crate) fn owned_or_grant_any(&self, to: Owner, wanted: u32) -> bool {
        self.uid == to.uid || self.grant_any(to, wanted)
    }

    /// The permissions of this user, as in the kernel's `acl_permission_check`.
    fn granted(&self, to: Owner) -> u32 {
        if self.uid == to.uid {
            return self.mode >> 6 & 7;
        }
        let mask = self.list.iter().find(|(tag, ..)| *tag == ACL_MASK).map_or(7, |(_, bits, _)| *bits);
        let named = |tag, id| self.list.iter().find(move |entry| (entry.0, entry.2) == (tag, id));
        if let Some((_, bits, _)) = named(ACL_USER, to.uid) {
            return bits & mask;
        }
        // With a list the group bits of the mode are its mask, and the group's own entry can have fewer.
        let own = (self.gid == to.gid).then_some(self.mode >> 3 & 7);
        let other_group = named(ACL_GROUP, to.gid).map(|(_, bits, _)| *bits);
        match (own, other_group) {
            (None, None) => self.mode & 7,
            (own, other) => (own.unwrap_or(0) | other.unwrap_or(0)) & mask,
        }
    }
}

fn entries(list: &[u8]) -> Vec<(u16, u32, u32)> {
    let entries = list.get(ACL_HEADER..).unwrap_or_default().chunks_exact(ACL_ENTRY);
    entries
        .map(|entry| {
            let short = |at: usize| u16::from_le_bytes([entry[at], entry[at + 1]]);
            let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            (short(0), u32::from(short(2)), id)
        })
        .collect()
}

/// The first directory on the way to `path`, itself included, in which this user can exchange what jails depend on.
/// Missing directories are not considered, since stockade creates them.
///
/// The user must neither own a directory nor be able to write to it. In a directory above `path` with the sticky bit,
/// as `/tmp`, every user may write, because no other can rename or remove the next directory.
///
/// # Errors
/// Returns the error of examining a directory, with its path.
pub(crate) fn unsafe_directory(path: &HostPath, user: Owner) -> Result<Option<HostPath>, (HostPath, Errno)> {
    const STICKY: u32 = 0o1000;
    for directory in path.as_path().ancestors() {
        let failed = |cause| (HostPath::from(directory.to_owned()), cause);
        let facts = match rustix::fs::stat(directory) {
            Err(Errno::NOENT) => continue,
            facts => facts.map_err(failed)?,
        };
        let permissions = Permissions::new(directory, &facts).map_err(failed)?;
        let is_shared =
            facts.st_mode & STICKY != 0 && facts.st_uid != user.uid && directory != path.as_path();
        if !is_shared && permissions.owned_or_grant_any(user, WRITE) {
            return Ok(Some(directory.to_owned().into()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Owner = Owner { uid: 12_345, gid: 12_346 };

    fn granted(uid: u32, gid: u32, mode: u32, list: &[(u16, u32, u32)]) -> u32 {
        Permissions { uid, gid, mode, list: list.to_vec() }.granted(USER)
    }

    #[test]
    fn the_first_matching_class_of_a_mode_decides() {
        assert_eq!(granted(USER.uid, 0, 0o407, &[]), 4);
        assert_eq!(granted(0, USER.gid, 0o717, &[]), 1);
        assert_eq!(granted(0, 0, 0o775, &[]), 5);
    }

    #[test]
    fn an_access_control_list_grants_within_its_mask() {
        let user = (ACL_USER, 7, USER.uid);
        assert_eq!(granted(0, 0, 0o770, &[user]), 7);
        assert_eq!(granted(0, 0, 0o750, &[user, (ACL_MASK, 5, u32::MAX)]), 5);
        assert_eq!(granted(0, 0, 0o750, &[(ACL_USER, 7, 1)]), 0);
        assert_eq!(granted(0, 0, 0o750, &[(ACL_GROUP, 6, USER.gid), (ACL_MASK, 7, u32::MAX)]), 6);
        assert_eq!(granted(0, 0, 0o707, &[(ACL_GROUP, 0, USER.gid)]), 0);
    }

    #[test]
    fn a_list_is_parsed_entry_by_entry() {
        let bytes = [2, 0, 0, 0, 2, 0, 6, 0, 0x39, 0x30, 0, 0, 0x10, 0, 7, 0, 255, 255, 255, 255, 1];
        assert_eq!(entries(&bytes), [(ACL_USER, 6, 12_345), (ACL_MASK, 7, u32::MAX)]);
        assert!(entries(&[]).is_empty());
    }
}
