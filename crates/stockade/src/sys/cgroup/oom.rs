//! Processes that the kernel killed because memory ran out, as their cgroup counts them.

use rustix::io::Errno;

use super::{subtree_control, with_all_below};
use crate::spec::{HostPath, Known, reason};
use crate::sys::error::errno;
use crate::sys::procfs::{read_file, value_after};

/// In cgroup v2, the events of a cgroup's memory and of that below it.
pub(crate) const EVENTS_V2: &str = "memory.events";

/// In cgroup v1, the events of a cgroup's memory, without that below it.
pub(crate) const EVENTS_V1: &str = "memory.oom_control";

/// The number of processes in a cgroup and below it that the kernel killed because memory ran out: that of the cgroup's
/// limit, or that of the host. `None` if the cgroup exists and does not count them.
pub(crate) fn oom_kills(cgroup: &HostPath) -> Option<Known<u64>> {
    match count_in(cgroup, EVENTS_V2) {
        Ok(Some(count)) => Some(Known::Fact(count)),
        Ok(None) => v1_kills(cgroup),
        Err(unknown) => Some(Known::unknown(unknown)),
    }
}

fn v1_kills(cgroup: &HostPath) -> Option<Known<u64>> {
    let counted = || -> Result<Option<u64>, String> {
        let Some(own) = count_in(cgroup, EVENTS_V1)? else {
            return match rustix::fs::stat(cgroup.as_path()) {
                Ok(_) => Ok(None),
                Err(Errno::NOENT) if !counted_memory(cgroup) => Ok(None),
                Err(cause) => Err(unreadable(&cgroup.join(EVENTS_V1), cause)),
            };
        };
        // A process may have created cgroups below it.
        let all = with_all_below(cgroup).map_err(|e| e.to_string())?;
        let below = all.iter().skip(1).map(|below| Ok(count_in(below, EVENTS_V1)?.unwrap_or(0)));
        Ok(Some(own + below.sum::<Result<u64, String>>()?))
    };
    match counted() {
        Ok(count) => count.map(Known::Fact),
        Err(unknown) => Some(Known::unknown(unknown)),
    }
}

/// Whether a cgroup that was removed could count the memory of its processes, as those beside it do.
fn counted_memory(removed: &HostPath) -> bool {
    let above = removed.as_path().ancestors().skip(1).find(|above| above.exists());
    above.is_none_or(|above| {
        let above = HostPath::from(above.to_owned());
        let enabled = read_file(subtree_control(&above)).unwrap_or_default();
        above.join(EVENTS_V1).as_path().exists() || enabled.split_whitespace().any(|name| name == "memory")
    })
}

/// The count in a file; `None` if the file does not exist.
fn count_in(cgroup: &HostPath, name: &str) -> Result<Option<u64>, String> {
    let file = cgroup.join(name);
    match read_file(&file) {
        Ok(text) => value_after(&text, "oom_kill")
            .map(Some)
            .ok_or_else(|| format!("'{file}' does not count killed processes")),
        Err(e) if errno(&e) == Errno::NOENT => Ok(None),
        Err(e) => Err(unreadable(&file, errno(&e))),
    }
}

fn unreadable(file: &HostPath, cause: Errno) -> String {
    match cause {
        // ENODEV: it was removed between opening and reading.
        Errno::NOENT | Errno::NODEV => format!("'{file}' was removed with its cgroup"),
        cause => format!("cannot read '{file}': {}", reason(&std::io::Error::from(cause))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_dir_all, write};

    use super::*;

    /// A directory with files like those of a cgroup.
    fn cgroup(name: &str, files: &[(&str, &str)]) -> HostPath {
        let path = std::env::temp_dir().join(format!("stockade-oom-{}-{name}", std::process::id()));
        create_dir(&path).expect("create a directory");
        for (file, text) in files {
            write(path.join(file), text).expect("write a file");
        }
        path.into()
    }

    fn removed(path: &HostPath) {
        remove_dir_all(path.as_path()).expect("remove the directory");
    }

    #[test]
    fn both_versions_count_and_a_cgroup_without_memory_does_not() {
        let v2 = cgroup("v2", &[(EVENTS_V2, "oom 9\noom_kill 2\noom_group_kill 1\n")]);
        assert_eq!(oom_kills(&v2), Some(Known::Fact(2)));
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        let v1 = cgroup("v1", &[(EVENTS_V1, text)]);
        create_dir(v1.join("below").as_path()).expect("create a directory");
        assert_eq!(oom_kills(&v1), Some(Known::Fact(1)));
        write(v1.join("below").join(EVENTS_V1).as_path(), text).expect("write a file");
        assert_eq!(oom_kills(&v1), Some(Known::Fact(2)), "cgroup v1 counts each cgroup for itself");
        let pids = cgroup("pids", &[("pids.max", "64\n")]);
        assert_eq!(oom_kills(&pids), None);
        [v2, v1, pids].iter().for_each(removed);
    }

    #[test]
    fn a_count_that_cannot_be_read_is_unknown() {
        let odd = cgroup("odd", &[(EVENTS_V2, "oom 1\n")]);
        let unknown = |path: &HostPath| match oom_kills(path) {
            Some(Known::Unknown { unknown }) => unknown,
            known => panic!("{known:?}"),
        };
        assert!(unknown(&odd).ends_with("memory.events' does not count killed processes"));
        removed(&odd);
        assert_eq!(oom_kills(&odd), None, "nothing there counts memory");
        let parent = cgroup("parent", &[("cgroup.subtree_control", "pids memory\n")]);
        assert!(unknown(&parent.join("none")).ends_with("memory.oom_control' was removed with its cgroup"));
        removed(&parent);
        let unreadable = cgroup("unreadable", &[]);
        create_dir(unreadable.join(EVENTS_V1).as_path()).expect("create a directory");
        assert!(unknown(&unreadable).starts_with("cannot read "), "{}", unknown(&unreadable));
        removed(&unreadable);
    }
}
