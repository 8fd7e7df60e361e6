//! The keyboard, and the modes of the operator's terminal.

use super::*;

/// Types lines and checks that only the shell reads them.
fn the_shell_has_the_keyboard(operator: &mut Operator) {
    for number in 100..120 {
        operator.line(&format!("echo \"shell\"{number}"));
        let shown = operator.sees(&format!("shell{number}\r\n"));
        assert!(!shown.contains("got:"), "the VMM has read what was typed: {shown:?}");
        operator.prompt();
    }
    operator.watches(Duration::from_millis(100));
    assert!(!operator.shown().contains("got:"), "the VMM has read what was typed: {:?}", operator.shown());
}

#[test]
fn the_keyboard_is_the_shells_after_ctrl_z_the_vmms_after_fg() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", READER));
        for round in 0..3 {
            if round == 0 {
                operator.sees("up\r\n");
            } else {
                operator.line("fg");
                operator.waits_for_echo(false);
            }
            operator.line(&format!("typed {round}"));
            operator.sees(&format!("got:typed {round}:\r\n"));
            operator.types("\x1a");
            operator.sees("Stopped");
            operator.prompt();
            operator.waits_for_echo(true);
            the_shell_has_the_keyboard(&mut operator);
            assert!(Path::new(&format!("/proc/{}", vmm(guard))).exists(), "the VMM runs on");
        }
        operator.line("fg");
        operator.waits_for_echo(false);
        operator.types("\x03");
        operator.prompt();
        assert_eq!(operator.code(), 143);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn the_keyboard_is_the_shells_while_run_is_in_the_background() {
    with_busybox(|guard| {
        for editing in [false, true] {
            let mut operator = if editing { Operator::editing(guard) } else { Operator::new(guard) };
            operator.line(&format!("{} &", run(guard, "", READER)));
            operator.sees("up\r\n");
            the_shell_has_the_keyboard(&mut operator);
            operator.line("jobs; echo \"do\"ne");
            let jobs = operator.sees("done\r\n");
            assert!(jobs.contains("Running"), "it is not stopped: {jobs}");
            operator.line("fg");
            operator.sees("sh -c");
            operator.waits_for_echo(false);
            operator.line("typed");
            operator.sees("got:typed:\r\n");
            // Stopped, then continued in the background.
            operator.types("\x1a");
            operator.sees("Stopped");
            operator.prompt();
            operator.does("bg");
            the_shell_has_the_keyboard(&mut operator);
            operator.line("fg");
            operator.sees("sh -c");
            operator.waits_for_echo(false);
            operator.types("\x03");
            operator.prompt();
            assert_eq!(operator.code(), 143);
            nothing_is_left(guard);
            operator.leaves();
        }
    });
}

#[test]
fn the_stop_key_ends_a_vmm_that_takes_every_key() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let script = "/busybox stty raw -echo; echo \"u\"p; while :; do /busybox head -c 1 | /busybox od -An -tx1; done";
        operator.line(&run(guard, "", script));
        operator.sees("up");
        operator.types("\x03");
        operator.sees("Ctrl-] three times within a second to stop it\r\n");
        operator.sees(" 03");
        // Ctrl-C is a byte, and so are two presses of the stop key.
        for (keys, byte) in [("\x1d\x1d", " 1d"), ("a", " 61")] {
            operator.types(keys);
            operator.sees(byte);
        }
        operator.types("\x1d\x1d\x1d");
        operator.sees("repeat to kill it");
        operator.prompt();
        assert_eq!(operator.code(), 143);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn signal_keys_reach_a_vmm_that_wants_them_as_bytes() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let script = "/busybox stty raw -echo; echo \"u\"p; for i in 1 2 3 4; do \
                      /busybox head -c 1 | /busybox od -An -tx1; done; /busybox stty sane; \
                      echo sa\"\"ne; while :; do /busybox sleep 1; done";
        operator.line(&run(guard, "", script));
        operator.sees("up");
        // Each of them may be the first key: `run` reads the VMM's modes when it arrives.
        for (key, byte) in [("\x1a", "1a"), ("\x03", "03"), ("\x1c", "1c"), ("\r", "0d")] {
            operator.types(key);
            operator.sees(&format!(" {byte}"));
        }
        operator.sees("sane");
        operator.types("\x1a");
        operator.sees("Stopped");
        operator.line("fg");
        operator.waits_for_echo(false);
        operator.types("\x03");
        operator.sees("repeat to kill it");
        operator.prompt();
        assert_eq!(operator.code(), 143);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn ctrl_c_asks_the_vmm_to_exit_and_a_second_one_kills_it() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        for key in ["\x03", "\x1c"] {
            let script = "trap \"\" TERM; echo \"u\"p; while :; do /busybox sleep 1; done";
            operator.line(&run(guard, "--grace 600", script));
            operator.sees("up\r\n");
            operator.types(key);
            operator.sees("repeat to kill it\r\n");
            operator.types(key);
            operator.prompt();
            assert_eq!(operator.code(), 137);
        }
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn the_operators_terminal_is_restored_however_run_exits() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let before = operator.settings();
        for (flags, end) in [("", "exit 3"), ("", "kill -9 $$"), ("--new-pid-ns", "exit 0")] {
            let script = format!("/busybox stty raw -echo; echo \"u\"p; read -r x; {end}");
            operator.line(&run(guard, flags, &script));
            operator.sees("up");
            operator.waits_for_echo(false);
            operator.types("\n");
            operator.prompt();
            assert_eq!(operator.settings(), before, "{end}");
        }
        // This one fails before its VMM starts.
        operator.does(&run(guard, "--cgroup no.such=1", "exit 0"));
        assert_eq!(operator.settings(), before);
        operator.line(&run(guard, "", READER));
        operator.sees("up\r\n");
        operator.waits_for_echo(false);
        assert!(operator.modes().local_modes.contains(LocalModes::ISIG));
        kill_process(run_of_vmm(guard), Signal::TERM).unwrap();
        operator.prompt();
        assert_eq!(operator.settings(), before);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn a_vmm_that_floods_or_never_reads_is_stopped_by_ctrl_c() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&run(guard, "", "/busybox yes flooded"));
        operator.sees("flooded\r\nflooded\r\n");
        operator.types("\x03");
        operator.prompt();
        assert_eq!(operator.code(), 143);
        operator.line(&run(guard, "", "echo \"u\"p; while :; do /busybox sleep 1; done"));
        operator.sees("up\r\n");
        // More bytes than the buffers of all terminals hold.
        let lines = format!("{}\r", "x".repeat(79)).repeat(2000);
        operator.types(&lines);
        operator.watches(Duration::from_secs(2));
        assert_eq!(operator.types("\x03"), 1, "the terminal has room for the key");
        operator.sees("repeat to kill it\r\n");
        operator.prompt();
        assert_eq!(operator.code(), 143);
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn ctrl_z_stops_run_while_a_vmm_gets_ready() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&probe(guard, "--ready=/ready.socket", "sleep-ms=3000 listen=/ready.socket sleep"));
        while stockade(guard, &["ps", "-q", "--filter", "state=running"]).stdout.is_empty() {}
        operator.types("\x1a");
        operator.sees("Stopped");
        operator.prompt();
        the_shell_has_the_keyboard(&mut operator);
        operator.line("fg");
        operator.sees("{\"listen\":\"ok\"}");
        operator.waits_for_echo(false);
        operator.types("\x03");
        operator.prompt();
        // `run` may not have noticed yet that the VMM is ready.
        assert!([125, 143].contains(&operator.code()));
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn a_vmm_that_closes_its_terminal_restores_the_operators() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let before = operator.settings();
        operator.line(&run(
            guard,
            "",
            "echo \"u\"p; /busybox sleep 1; exec <&- >&- 2>&-; /busybox sleep 3; exit 6",
        ));
        operator.sees("up");
        operator.waits_for_echo(false);
        operator.waits_for_echo(true);
        assert_eq!(operator.settings(), before);
        operator.types("\x1a");
        operator.sees("Stopped");
        operator.prompt();
        operator.line("fg");
        operator.sees("sh -c");
        operator.prompt();
        assert_eq!(operator.code(), 6);
        nothing_is_left(guard);
        operator.leaves();
    });
}

/// The number of times that a process has waited.
fn waits(pid: Pid) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    waits.unwrap().trim().parse().unwrap()
}

#[test]
fn run_wakes_up_rarely_in_background_and_never_in_foreground() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&format!("{} &", run(guard, "", READER)));
        operator.sees("up\r\n");
        // Unread keys do not wake it up either.
        operator.line("/bin/sleep 3");
        operator.types("no-such-word\r");
        let run = run_of_vmm(guard);
        std::thread::sleep(Duration::from_millis(300));
        let before = waits(run);
        std::thread::sleep(Duration::from_secs(2));
        let many = waits(run) - before;
        assert!((5..=15).contains(&many), "in the background: {many}");
        operator.sees("not found");
        operator.prompt();
        operator.line("fg");
        operator.sees("sh -c");
        operator.waits_for_echo(false);
        std::thread::sleep(Duration::from_millis(300));
        let before = waits(run);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(waits(run) - before, 0, "in the foreground");
        operator.types("\x03");
        operator.prompt();
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn ctrl_z_restores_the_terminal_for_a_shell_that_does_not() {
    with_busybox(|guard| {
        let mut operator = Operator::plain(guard);
        let before = operator.settings();
        operator.line(&run(guard, "", READER));
        operator.sees("up\r\n");
        for _ in 0..3 {
            operator.waits_for_echo(false);
            operator.types("\x1a");
            operator.sees("Stopped");
            operator.prompt();
            assert_eq!(operator.settings(), before);
            the_shell_has_the_keyboard(&mut operator);
            operator.line("fg");
            operator.sees("sh -c");
        }
        operator.waits_for_echo(false);
        operator.types("\x03");
        operator.prompt();
        assert_eq!(operator.settings(), before);
        nothing_is_left(guard);
        operator.leaves();
    });
}
