//! The conversation with the probe in the jail, which answers in lines of JSON.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};
use stockade::spec::reason;
use stockade_syscalls::namespace::{KINDS, namespace_file};
use stockade_syscalls::poll::wait_until;

use crate::terminal::output::Failure;

/// The demo's ends of the probe's standard streams.
pub(crate) struct Conversation {
    to_probe: OwnedFd,
    from_probe: OwnedFd,
    deadline: Instant,
    unread: Vec<u8>,
}

/// The answers of the probe.
pub(crate) struct ProbeReport {
    pub(crate) probe: Value,
    pub(crate) kvm_guest: String,
    /// Whether the placed file has the same content inside and outside.
    pub(crate) placed_is_whole: bool,
}

impl ProbeReport {
    pub(crate) fn escapes_held(&self) -> bool {
        let escapes = self.probe["escapes"].as_array();
        escapes.is_some_and(|all| !all.is_empty() && all.iter().all(|one| one["held"] == true))
    }
}

impl Conversation {
    /// A conversation over these pipes, for at most `patience`.
    pub(crate) fn new(to_probe: OwnedFd, from_probe: OwnedFd, patience: Duration) -> Self {
        Self { to_probe, from_probe, deadline: Instant::now() + patience, unread: Vec::new() }
    }

    /// Reads all answers of the probe. While the probe waits, its namespaces are read from outside: it has no
    /// /proc to read them itself.
    pub(crate) fn read_report(mut self, pid: i32, source: &Path) -> Result<ProbeReport, Failure> {
        let mut probe = self.line()?;
        probe["namespaces"] = namespaces(pid);
        rustix::io::write(&self.to_probe, b"\n")
            .map_err(|e| Failure::new(format!("cannot write to the probe: {}", reason(&e))))?;
        let inside = self.line()?;
        let outside = std::fs::read_to_string(source).unwrap_or_default();
        let guest = self.line()?;
        let kvm_guest = guest["kvm_guest"].as_str().unwrap_or("the probe did not report it").to_owned();
        Ok(ProbeReport { probe, kvm_guest, placed_is_whole: inside["read"] == outside.as_str() })
    }

    fn line(&mut self) -> Result<Value, Failure> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map_err(|e| Failure::new(format!("the probe's answer is not JSON: {e}")));
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), Failure> {
        let mut waiting = [PollFd::new(&self.from_probe, PollFlags::IN)];
        match wait_until(&mut waiting, Some(self.deadline)) {
            Ok(true) => (),
            Ok(false) => return Err(Failure::new("the probe does not answer")),
            Err(e) => return Err(Failure::new(format!("cannot wait for the probe: {}", reason(&e)))),
        }
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.from_probe, &mut buffer) {
            Ok(0) => Err(Failure::new("the probe exited before its answer")),
            Ok(length) => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(e) => Err(Failure::new(format!("cannot read from the probe: {}", reason(&e)))),
        }
    }
}

/// Each namespace of a process, and whether it is the host's.
fn namespaces(pid: i32) -> Value {
    let inode = |whose: &str, kind: &str| {
        std::fs::metadata(namespace_file(whose, kind)).map(|facts| facts.ino()).ok()
    };
    let mut kinds = BTreeMap::new();
    for kind in KINDS {
        let (of_probe, of_host) = (inode(&pid.to_string(), kind), inode("self", kind));
        kinds.insert(kind, json!({ "inode": of_probe, "own": of_probe.is_some() && of_probe != of_host }));
    }
    json!(kinds)
}
