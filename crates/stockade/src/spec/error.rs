//! Why a specification is refused.

use std::fmt;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::libraries::LibraryError;
use super::{Account, Owner};

/// The problem of a specification, with its wrong part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// One part is wrong, named as the command line names its flag.
    #[error("{name}: {cause}")]
    Argument {
        /// The flag, without its dashes.
        name: &'static str,
        /// The problem of its value.
        cause: Box<SpecError>,
    },
    /// The shared libraries that the executable needs cannot be found.
    #[error(transparent)]
    Libraries(#[from] LibraryError),
    /// An id of no or too many bytes.
    #[error("the id has {0} characters; use 1 to 64")]
    IdLength(usize),
    /// An id with a character that is no letter, digit or dash, and its index.
    #[error("invalid character '{0}' at position {position}; use letters, digits and '-'", position = .1 + 1)]
    IdCharacter(char, usize),
    /// A path that cannot be resolved.
    #[error("{}", cannot("open", .0, &std::io::Error::from(*.1)))]
    NotFound(PathBuf, Errno),
    /// Something else under the path of a network namespace.
    #[error("'{0}' is not a network namespace; remove it, or name another")]
    NotANetns(super::HostPath),
    /// An executable or source that is not a regular file.
    #[error("'{}' is not a regular file; name a file", absolute(.0).display())]
    NotAFile(PathBuf),
    /// An executable that the VMM's user cannot execute as it is.
    #[error(
        "{owner} cannot execute '{}', and --bind-exec does not change its mode; make it executable or drop --bind-exec",
        .0.display(), owner = .1
    )]
    NotForOwner(PathBuf, Owner),
    /// A base that is not a directory.
    #[error("'{}' is not a directory; name a directory", absolute(.0).display())]
    NotADirectory(PathBuf),
    /// A directory on the way to the jails that their uid can change.
    #[error(
        "{owner} can write to '{path}', and so exchange jails; run 'chown root: {path}; chmod go-w {path}', or use \
         --allow-unsafe-base", path = .0.display(), owner = .1
    )]
    UnsafeBase(PathBuf, Owner),
    /// A base so long that the path of a jail's root in it exceeds the kernel's limit: the length, and the limit.
    #[error(
        "the path of the jail's root would have {0} bytes, more than the limit of {1}; use a shorter directory"
    )]
    RootTooLong(usize, usize),
    /// A path that cannot be recorded.
    #[error("'{}' is not UTF-8; rename it", .0.display())]
    NotText(PathBuf),
    /// An executable whose name cannot name a directory and a cgroup.
    #[error("the name of '{}' is not UTF-8; rename it", .0.display())]
    ExecName(PathBuf),
    /// A uid that is neither a number nor a name.
    #[error("'{}' is not a user ID; use 0 to 4294967294, or a name in '/etc/passwd'", .0.escape_debug())]
    Uid(String),
    /// A gid that is neither a number nor a name.
    #[error("'{}' is not a group ID; use 0 to 4294967294, or a name in '/etc/group'", .0.escape_debug())]
    Gid(String),
    /// A name that the file of users or groups does not contain.
    #[error(
        "'{file}' has no {0} '{name}', and stockade looks up names nowhere else; use a numeric {0} ID",
        file = .0.file().display(), name = .1.escape_debug()
    )]
    NoAccount(Account, String),
    /// The file of users or groups cannot be read.
    #[error("cannot read '{file}': {cause}; use a numeric {0} ID", file = .0.file().display(), cause = Reason(*.1))]
    AccountFile(Account, Errno),
    /// A parent cgroup that is empty, is absolute or has dots for components.
    #[error(
        "'{0}' is not a path below the hierarchy; use one such as vms/web, without a leading slash, '.' and '..'"
    )]
    ParentCgroup(String),
    /// A cgroup version that is no number, or names no version.
    #[error("'{0}' is not a cgroup version; use 1 or 2")]
    CgroupVersion(String),
    /// A setting that is not `FILE=VALUE`.
    #[error("'{0}' is not FILE=VALUE; use for example pids.max=64")]
    CgroupFormat(String),
    /// A setting whose file is not one of a cgroup.
    #[error("'{0}' is not a cgroup file; use CONTROLLER.NAME, for example pids.max")]
    CgroupFile(String),
    /// A setting whose file takes a size, and the value that is none.
    #[error(
        "'{0}' takes a size, not '{1}'; use a number of bytes, or one with K, M, G or T such as 512M or 1GiB"
    )]
    CgroupSize(String, String),
    /// A setting whose file only the other version has.
    #[error(
        "'{file}' exists only in cgroup v{theirs}, but this jail uses v{}; use '{instead}'", 3 - .theirs
    )]
    OtherCgroupVersion {
        /// The file.
        file: String,
        /// The version that has it.
        theirs: u8,
        /// The file with the same effect in the other version.
        instead: &'static str,
    },
    /// A limit that is not `NAME=VALUE`.
    #[error("'{0}' is not NAME=VALUE; use for example no-file=1024")]
    LimitFormat(String),
    /// A limit of an unknown kind.
    #[error("'{0}' is not a resource limit; use no-file or fsize")]
    LimitName(String),
    /// A limit that is no number.
    #[error("'{0}' is not a limit: {1}; use a whole number without a unit")]
    LimitValue(String, ParseIntError),
    /// A text that is not a number of bytes.
    #[error("'{0}' is not a size; use a number of bytes, or one with K, M, G or T such as 512M or 1GiB")]
    Size(String),
    /// A network namespace's name that is not one plain component.
    #[error("'{}' cannot name a network namespace; use one path component that does not begin with '.'", .0.escape_debug())]
    NetnsName(String),
    /// An argument of a profile in braces that stands for nothing.
    #[error(
        "'{0}' is not a placeholder; use {{id}}, {{start-time-us}}, {{cpu-time-us}} or {{parent-cpu-time-us}}"
    )]
    Placeholder(String),
    /// A profile that is neither built in nor in the directory of profiles, and those that exist.
    #[error("there is no profile '{0}'; use one of {1}")]
    UnknownProfile(String, String),
    /// A profile's file that cannot be read or understood.
    #[error("{}", of_profile(.0, .1))]
    ProfileFile(PathBuf, String),
    /// A read-only placement whose owner could change that.
    #[error("{0} cannot own a read-only file: uid {uid} is the jail's own and could make it writable; use another owner", uid = .0.uid)]
    ReadOnlyOwner(Owner),
    /// A path that would leave the jail, or that names nothing.
    #[error("'{}' is not a path inside a jail; use one without '..'", .0.to_string_lossy().escape_debug())]
    JailPath(PathBuf),
}

/// The errno of an error of the standard library; EINVAL if the library itself refused.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

/// An errno as the cause in a message, see [`reason`].
pub(crate) struct Reason(pub(crate) Errno);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&reason(&std::io::Error::from(self.0)))
    }
}

/// The message of an operation that failed on a path: the absolute path, the cause, and a fix if there is one.
///
/// # Arguments
/// `verb`: the operation, for example `open`
pub fn cannot(verb: &str, path: &Path, cause: &std::io::Error) -> String {
    if path.as_os_str().is_empty() {
        return "the path is empty; name a file or directory".to_owned();
    }
    let fix = match Errno::from_io_error(cause) {
        Some(Errno::NOENT | Errno::NOTDIR) => "; check the path",
        Some(Errno::ISDIR) => "; name a file",
        _ => "",
    };
    let failed = || format!("cannot {verb} '{}': {}{fix}", absolute(path).display(), reason(cause));
    not_expanded(path).unwrap_or_else(failed)
}

/// The message for a path that begins with `~` or `~USER`, which no shell has expanded; `None` for another path, and if
/// the working directory has a file of that name.
pub fn not_expanded(path: &Path) -> Option<String> {
    let first = Path::new(path.components().next()?.as_os_str());
    let is_tilde =
        first.as_os_str().as_encoded_bytes().starts_with(b"~") && first.symlink_metadata().is_err();
    is_tilde.then(|| {
        format!("'~' in '{}' is not expanded; write the path of the home directory instead", path.display())
    })
}

/// Where a relative path was looked for. Without a working directory, the path as given is all there is.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn of_profile(path: &Path, problem: &str) -> String {
    not_expanded(path).unwrap_or_else(|| format!("profile '{}': {problem}", absolute(path).display()))
}

/// The text of a cause for the end of a message: in lower case, and without the number of an operating system's error.
pub fn reason(cause: &dyn fmt::Display) -> String {
    let text = cause.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_in_lower_case_and_without_its_number() {
        assert_eq!(Reason(Errno::NOENT).to_string(), "no such file or directory");
        assert_eq!(Reason(Errno::IO).to_string(), "input/output error");
    }
}
