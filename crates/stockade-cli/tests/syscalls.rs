//! The number of system calls in each phase of a jail's life.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{privileged, program, run_with, tell};

/// The phases of `stockade run` in order: the call that begins the next one, and the limit of system calls.
/// The limits are slightly above the measured numbers, because kernels and hosts differ.
const PHASES: [(&str, &str, usize); 4] = [
    ("begin, look at the host, plan", "receipt.json.new", 172),
    ("create", "clone3(", 80),
    ("launch and wait", "waitid(", 45),
    ("tear down", "exit_group(", 120),
];

/// Limit of system calls of the VMM's process until it executes: 64 reset signals, 42 empty the capability bounding set
/// one by one, and 30 reset other inherited attributes, half of them resource limits.
const MOST_IN_CHILD: usize = 170;

#[test]
fn each_phase_of_a_run_stays_below_its_limit_of_syscalls() {
    privileged!(guard, {
        let trace = guard.directory().join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace).arg(program("stockade"));
        command.args(["run", "--new-pid-ns", "--id", guard.name(), "--exec-file"]);
        command.arg(program("stockade-probe")).arg("--chroot-base-dir").arg(guard.base());
        command.arg("--state-dir").arg(guard.state()).args(["--", "exit=3"]);
        assert_eq!(run_with(&mut command).code, 3, "is strace installed?");
        let text = std::fs::read_to_string(&trace).unwrap();
        let calls: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(' ').map(|(pid, call)| (pid, call.trim_start())))
            // The second part of an interrupted call, and signals.
            .filter(|(_, call)| !call.starts_with(['<', '-', '+']))
            // A build with debug assertions checks each file descriptor before it closes it.
            .filter(|(_, call)| !(cfg!(debug_assertions) && call.contains(", F_GETFD)")))
            .collect();
        let own = calls[0].0;
        let mut rest = calls.iter().filter(|(pid, _)| *pid == own).map(|(_, call)| *call);
        for (phase, ends, most) in PHASES {
            let many = 1 + rest.by_ref().take_while(|call| !call.contains(ends)).count();
            tell(&format!("system calls to {phase}: {many} (at most {most})"));
            assert!(many > 10 && many <= most, "{phase}: {many}\n{text}");
        }
        let child = calls.iter().filter(|(pid, _)| *pid != own).map(|(_, call)| *call);
        let many = child.take_while(|call| !call.starts_with("execve(")).count();
        tell(&format!("system calls of the VMM's process before its exec: {many} (at most {MOST_IN_CHILD})"));
        assert!(many > 10 && many <= MOST_IN_CHILD, "{many}\n{text}");
    });
}
