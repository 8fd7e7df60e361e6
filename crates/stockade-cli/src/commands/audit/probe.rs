//! The look from inside: this program runs in the jail as the probe.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;
use stockade::spec::JailId;
use stockade::spec::reason;
use stockade::{Error, Exec, Store, Streams, VmmHandle};
use stockade_syscalls::descriptors::null;
use stockade_syscalls::poll::wait_until;

use crate::terminal::output::Failure;

/// The longest wait for the probe: it shares its cgroup with a VMM that may use all of the cgroup's limits.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest report. A process that writes more is not the probe.
const LONGEST: u64 = 4 << 20;

/// The probe's report; an inner error is the reason why the probe could not look.
pub(super) fn run(store: &Store, id: &JailId) -> Result<Result<Value, String>, Failure> {
    let vmm = store.vmm(id)?.ok_or_else(|| Error::NotRunning(id.clone()))?;
    match report(&vmm) {
        Err(Error::NotRunning(id)) => Err(Error::NotRunning(id).into()),
        // The jail may be at its limit of processes or of memory, which proves nothing about its confinement.
        Err(cause) => Ok(Err(format!("the probe cannot run in the jail: {cause}"))),
        Ok(report) => {
            Ok(report.map_err(|cause| format!("cannot read the probe's report: {}", reason(&cause))))
        }
    }
}

fn report(vmm: &VmmHandle) -> Result<Result<Value, std::io::Error>, Error> {
    let (report, stdout, stdin, stderr) = match streams() {
        Ok(streams) => streams,
        Err(cause) => return Ok(Err(cause)),
    };
    let streams = Streams { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
    let exec = Exec::with_host_program("/proc/self/exe")?.arguments(["probe", "report"]).streams(streams);
    let probe = vmm.exec(exec)?;
    let text = read_report(report, Instant::now() + PATIENCE);
    // The report is complete. A process that still runs has no more output.
    probe.kill()?;
    Ok(text.and_then(|text| Ok(serde_json::from_slice(&text)?)))
}

/// The two ends of the pipe for the report, and the null device twice.
fn streams() -> std::io::Result<(OwnedFd, OwnedFd, OwnedFd, OwnedFd)> {
    let (report, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((report, stdout, null()?, null()?))
}

/// Reads to the end of the pipe, at most until the deadline.
fn read_report(report: OwnedFd, deadline: Instant) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut report = File::from(report).take(LONGEST);
    loop {
        if !wait_until(&mut [PollFd::new(report.get_ref(), PollFlags::IN)], Some(deadline))? {
            return Err(Errno::TIMEDOUT.into());
        }
        let mut part = [0; 8192];
        match report.read(&mut part)? {
            0 => return Ok(text),
            length => text.extend_from_slice(&part[..length]),
        }
    }
}
