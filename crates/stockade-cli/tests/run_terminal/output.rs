//! All output of a VMM is shown, also if `run` is stopped or killed.

use super::*;

/// Prints 200 KB in numbered lines of 100 bytes, and then a last line.
const FLOOD: &str = "i=1000; while [ $i -lt 3000 ]; do \
    /busybox printf \"%04d%094d\\n\" $i 0; i=$((i+1)); done; echo floo\"\"ded";

/// Checks that the whole flood is shown, with each line once and in order.
fn is_whole_flood(shown: &str) {
    let zeros = "0".repeat(94);
    let lines: Vec<u32> = shown
        .lines()
        .filter_map(|line| line.trim_end_matches('\r').strip_suffix(&zeros))
        .map(|number| number[number.len().saturating_sub(4)..].parse().unwrap())
        .collect();
    assert_eq!(lines, (1000..3000).collect::<Vec<u32>>());
}

#[test]
fn a_vmm_writes_on_while_run_is_stopped_and_all_of_it_is_shown() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let script =
            format!("echo \"u\"p; /busybox sleep 1; {FLOOD}; read -r line; echo \"go\"\"t:$line:\"; exit 7");
        operator.line(&run(guard, "", &script));
        operator.sees("up\r\n");
        operator.types("\x1a");
        operator.sees("Stopped");
        // `run` is stopped the whole time.
        let shown = operator.sees("flooded\r\n");
        is_whole_flood(&shown);
        operator.line("jobs; echo \"do\"ne");
        let jobs = operator.sees("done\r\n");
        assert!(jobs.contains("Stopped"), "{jobs}");
        operator.line("fg");
        operator.waits_for_echo(false);
        operator.line("typed");
        operator.sees("got:typed:\r\n");
        operator.prompt();
        assert_eq!(operator.code(), 7);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn a_vmm_exit_while_run_is_stopped_removes_the_jail_at_fg() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", "echo \"u\"p; /busybox sleep 1; echo la\"\"st; exit 8"));
        operator.sees("up\r\n");
        operator.types("\x1a");
        operator.sees("Stopped");
        operator.sees("last\r\n");
        operator.line("fg");
        operator.sees("sh -c");
        operator.prompt();
        assert_eq!(operator.code(), 8);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn all_output_is_shown_before_run_exits() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        for input in ["", "</dev/null"] {
            operator.line(&run(guard, input, &format!("{FLOOD}; kill -9 $$")));
            // The echo of the command contains the format too.
            operator.sees("kill -9 $$'");
            let shown = operator.prompt();
            is_whole_flood(&shown);
            let report = shown.split("flooded\r\n").nth(1).unwrap();
            assert!(report.starts_with("stockade: the VMM of jail "), "it stands behind: {report:?}");
            assert!(report.ends_with("killed by signal 9\r\nop> "), "{report:?}");
            assert_eq!(operator.code(), 137);
        }
        operator.leaves();
    });
}

#[test]
fn the_vmms_terminal_has_the_size_of_the_window() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", "while :; do /busybox stty size; /busybox sleep 0.1; done"));
        operator.sees("\r\n30 100\r\n");
        operator.resizes(44, 88);
        operator.sees("\r\n44 88\r\n");
        operator.types("\x1a");
        operator.sees("Stopped");
        operator.resizes(33, 77);
        operator.line("fg");
        operator.sees("\r\n33 77\r\n");
        operator.types("\x03");
        operator.prompt();
        operator.leaves();
    });
}

#[test]
fn processes_left_by_a_vmm_do_not_delay_run() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let before = operator.settings();
        for (script, code) in [
            ("echo \"u\"p; (while :; do /busybox sleep 1; done) & exit 3", 3),
            ("echo \"u\"p; /busybox yes & /busybox yes & exit 4", 4),
        ] {
            operator.line(&run(guard, "", script));
            operator.sees("up\r\n");
            let from = Instant::now();
            operator.prompt();
            assert!(from.elapsed() < Duration::from_secs(10), "{script}: {:?}", from.elapsed());
            assert_eq!(operator.code(), code, "{script}");
            assert_eq!(operator.settings(), before, "{script}");
        }
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn a_vmm_and_its_carrier_outlive_a_killed_run() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", "while :; do echo be\"\"at; /busybox sleep 0.1; done"));
        operator.sees("beat\r\n");
        let (run, vmm) = (run_of_vmm(guard), Pid::from_raw(vmm(guard)).unwrap());
        let children = format!("/proc/{0}/task/{0}/children", run.as_raw_nonzero());
        let children: Vec<i32> = std::fs::read_to_string(children)
            .unwrap()
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect();
        kill_process(run, Signal::KILL).unwrap();
        operator.sees("Killed");
        for _ in 0..3 {
            operator.sees("beat\r\n");
        }
        assert_eq!(stockade(guard, &["gc"]).stdout, "no abandoned jails\n", "it runs on");
        kill_process(vmm, Signal::KILL).unwrap();
        // Orphans become children of this process.
        let deadline = Instant::now() + Duration::from_secs(10);
        for pid in children.into_iter().filter_map(Pid::from_raw) {
            while waitpid(Some(pid), WaitOptions::NOHANG).unwrap().is_none() {
                assert!(Instant::now() < deadline, "{pid:?} is left behind");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert_eq!(stockade(guard, &["gc"]).code, 0);
        nothing_is_left(guard);
        operator.does("stty sane");
        operator.leaves();
    });
}

#[test]
fn a_killed_carrier_is_replaced() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", "while :; do echo be\"\"at; /busybox sleep 0.1; done"));
        operator.sees("beat\r\n");
        let vmm = vmm(guard);
        for _ in 0..3 {
            let carrier = Pid::from_raw(carrier(run_of_vmm(guard), vmm)).unwrap();
            kill_process(carrier, Signal::KILL).unwrap();
            operator.watches(Duration::from_millis(300));
            operator.sees("beat\r\n");
        }
        operator.types("\x03");
        operator.prompt();
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn the_carrier_has_no_capabilities_and_few_file_descriptors() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", READER));
        operator.sees("up\r\n");
        let carrier = carrier(run_of_vmm(guard), vmm(guard));
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{carrier}/{file}")).unwrap();
        let status = of("status");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{status}");
        }
        let stat = of("stat");
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
        assert_eq!(
            (fields[4], fields[5]),
            (carrier.to_string().as_str(), "0"),
            "a session without a terminal"
        );
        let open = |fd: i32| std::fs::read_link(format!("/proc/{carrier}/fd/{fd}")).unwrap();
        assert_eq!([0, 1, 2].map(open), [Path::new("/dev/null"); 3]);
        let all = std::fs::read_dir(format!("/proc/{carrier}/fd")).unwrap().flatten();
        let mut all: Vec<PathBuf> = all.map(|fd| std::fs::read_link(fd.path()).unwrap()).collect();
        all.sort();
        all.dedup();
        let [null, ours, screen] = &all[..] else { panic!("{all:?}") };
        assert_eq!((null.as_path(), ours.as_path()), (Path::new("/dev/null"), Path::new("/dev/ptmx")));
        assert_eq!(rustix::fs::stat(screen).unwrap().st_rdev, operator.device());
        operator.types("\x03");
        operator.prompt();
        nothing_is_left(guard);
        operator.leaves();
    });
}

/// The carrier: the child of a `run` that is not its VMM.
fn carrier(run: Pid, vmm: i32) -> i32 {
    let run = run.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{run}/task/{run}/children")).unwrap();
    let mut pids = children.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.find(|pid| *pid != vmm).expect("a process that shows")
}
