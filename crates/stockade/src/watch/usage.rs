//! The resource usage of a jail: from its cgroups, and from its processes where the cgroups have no number.

use serde::Serialize;

use crate::spec::HostPath;
use crate::state::Receipt;
use crate::sys::process::{StatLine, text_of};
use crate::sys::procfs::{field, read_file, value_after};
use crate::sys::{ProcessRef, cgroup};

/// The resource usage of a jail since its start, and at this moment. A number that this host does not count is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Processor time, in microseconds.
    pub cpu_us: Option<u64>,
    /// Time that it was throttled by its limit, in microseconds; counted by cgroups only.
    pub throttled_us: Option<u64>,
    /// Memory, in bytes: charged to its cgroup, or resident in its processes.
    pub memory_bytes: Option<u64>,
    /// Bytes read from storage.
    pub read_bytes: Option<u64>,
    /// Bytes written to storage.
    pub written_bytes: Option<u64>,
    /// The number of processes and threads.
    pub tasks: Option<u64>,
}

impl Receipt {
    /// Reads the resource usage of the jail; empty if the jail does not run.
    pub fn usage(&self) -> Usage {
        let alive = |vmm: &ProcessRef| self.is_here() && vmm.is_alive();
        let Some(vmm) = self.vmm().filter(alive) else { return Usage::default() };
        let mut usage = Usage::default();
        let mut processes = vec![vmm.pid];
        for directory in self.cgroups() {
            usage = usage.or(of_cgroup(&directory));
            // The cgroup with the most processes contains all descendants.
            let members = cgroup::processes(&directory).unwrap_or_default();
            if members.len() > processes.len() {
                processes = members;
            }
        }
        if usage.is_complete() { usage } else { usage.or(of_processes(&processes)) }
    }
}

impl Usage {
    /// Completes missing numbers with those of `other`.
    fn or(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.or(other.cpu_us),
            throttled_us: self.throttled_us.or(other.throttled_us),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            read_bytes: self.read_bytes.or(other.read_bytes),
            written_bytes: self.written_bytes.or(other.written_bytes),
            tasks: self.tasks.or(other.tasks),
        }
    }

    /// Whether processes have no number to add.
    fn is_complete(&self) -> bool {
        [self.cpu_us, self.memory_bytes, self.read_bytes, self.written_bytes, self.tasks]
            .iter()
            .all(Option::is_some)
    }
}

/// Reads the numbers of a cgroup, of either version and with any controllers.
fn of_cgroup(directory: &HostPath) -> Usage {
    let read = |name: &str| read_file(directory.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse().ok();
    let stat = read("cpu.stat");
    let stat = |key: &str| value_after(stat.as_deref()?, key);
    let (reads, writes) = match (read("io.stat"), read("blkio.throttle.io_service_bytes")) {
        (Some(io), _) => (Some(sum(&io, "rbytes=")), Some(sum(&io, "wbytes="))),
        (None, Some(io)) => (Some(sum(&io, "Read ")), Some(sum(&io, "Write "))),
        (None, None) => (None, None),
    };
    let nanoseconds = |ns: u64| ns / 1_000;
    Usage {
        cpu_us: stat("usage_usec").or_else(|| number("cpuacct.usage").map(nanoseconds)),
        throttled_us: stat("throttled_usec").or_else(|| stat("throttled_time").map(nanoseconds)),
        memory_bytes: number("memory.current").or_else(|| number("memory.usage_in_bytes")),
        read_bytes: reads,
        written_bytes: writes,
        tasks: number("pids.current"),
    }
}

/// The sum over all devices of the numbers after a label; 0 if no device has one yet.
fn sum(text: &str, label: &str) -> u64 {
    let number = |rest: &str| rest.split(' ').next().and_then(|number| number.trim().parse::<u64>().ok());
    text.lines().filter_map(|line| number(line.split_once(label)?.1)).sum()
}

/// The sum of the numbers of these processes.
fn of_processes(pids: &[i32]) -> Usage {
    let all: Vec<Usage> = pids.iter().filter_map(|pid| of_process(*pid)).collect();
    let sum =
        |of: fn(&Usage) -> Option<u64>| all.iter().map(of).sum::<Option<u64>>().filter(|_| !all.is_empty());
    Usage {
        cpu_us: sum(|usage| usage.cpu_us),
        throttled_us: None,
        memory_bytes: sum(|usage| usage.memory_bytes),
        read_bytes: sum(|usage| usage.read_bytes),
        written_bytes: sum(|usage| usage.written_bytes),
        tasks: sum(|usage| usage.tasks),
    }
}

fn of_process(pid: i32) -> Option<Usage> {
    let stat = StatLine::of(pid)?;
    let number = |at| stat.field(at)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)?;
    let io = text_of(pid, "io").ok();
    let io = |name: &str| field(io.as_deref()?, name).parse().ok();
    Some(Usage {
        cpu_us: Some(ticks * 1_000_000 / rustix::param::clock_ticks_per_second()),
        throttled_us: None,
        memory_bytes: Some(number(24)? * rustix::param::page_size() as u64),
        read_bytes: io("read_bytes"),
        written_bytes: io("write_bytes"),
        tasks: number(20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_added_up_in_both_cgroup_versions() {
        let v2 = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2\n7:0 rbytes=10 wbytes=0\n";
        assert_eq!((sum(v2, "rbytes="), sum(v2, "wbytes=")), (4106, 8192));
        let v1 = "254:0 Read 4096\n254:0 Write 8192\n254:0 Total 12288\nTotal 12288\n";
        assert_eq!((sum(v1, "Read "), sum(v1, "Write ")), (4096, 8192));
        assert_eq!(sum("", "rbytes="), 0);
    }

    #[test]
    fn a_key_is_matched_whole() {
        let text = "usage_usec_other 1\nusage_usec 22\n";
        assert_eq!(value_after(text, "usage_usec"), Some(22));
        assert_eq!(value_after(text, "throttled_usec"), None);
    }

    #[test]
    fn usage_of_this_process_is_not_zero() {
        let usage = of_processes(&[rustix::process::getpid().as_raw_nonzero().get()]);
        assert!(usage.memory_bytes > Some(0) && usage.tasks > Some(0) && usage.cpu_us.is_some());
        assert_eq!(of_processes(&[]), Usage::default());
    }
}
