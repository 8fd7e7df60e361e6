//! The file descriptors of a VMM, and the limits on their use.

use super::*;

#[test]
fn a_vmm_has_no_descriptor_of_the_operators_terminal() {
    with_busybox(|guard| {
        let file = guard.file("file", "");
        let file = file.display();
        let mut operator = Operator::new(guard);
        let elsewhere = [
            "",
            "</dev/null",
            &format!("</dev/null >{file}"),
            &format!(">{file} 2>&1"),
            &format!("2>{file}"),
        ];
        for streams in elsewhere {
            let flags = format!("--uid 4321 {streams}");
            operator.line(&run(guard, &flags, "while :; do /busybox sleep 1; done"));
            let vmm = executed(guard);
            let devices = (0..3).map(|fd| rustix::fs::stat(format!("/proc/{vmm}/fd/{fd}")).unwrap().st_rdev);
            let devices: Vec<u64> = devices.collect();
            assert!(!devices.contains(&operator.device()), "{streams}: {devices:?}");
            let open = std::fs::read_dir(format!("/proc/{vmm}/fd")).unwrap().count();
            assert_eq!(open, 3, "{streams}: and it has no other");
            // Its terminal does not control its session, so a hang-up does not kill it.
            let stat = std::fs::read_to_string(format!("/proc/{vmm}/stat")).unwrap();
            assert_eq!(stat[stat.rfind(')').unwrap()..].split(' ').nth(5), Some("0"), "{stat}");
            let to = |fd: i32| std::fs::read_link(format!("/proc/{vmm}/fd/{fd}")).unwrap();
            let is_terminal = |fd: i32| to(fd).starts_with("/dev/pts");
            assert_eq!(is_terminal(0), !streams.contains('<'), "{streams}");
            assert_eq!(is_terminal(1), !streams.starts_with('>') && !streams.contains(" >"), "{streams}");
            assert_eq!(is_terminal(2), !streams.contains("2>"), "{streams}");
            operator.types("\x03");
            operator.prompt();
            assert_eq!(operator.code(), 143, "{streams}");
        }
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn several_vmms_have_no_descriptor_of_the_operators_terminal() {
    with_busybox(|guard| {
        let text = format!(
            "[[jail]]\nid = '{}'\ncount = 2\nexec-file = '{BUSYBOX}'\nchroot-base-dir = '{}'\n\
             arguments = ['sh', '-c', 'echo up; while :; do /busybox sleep 1; done']\n",
            guard.named("{index}"),
            guard.base().display()
        );
        let file = guard.file("jails.toml", &text);
        let mut operator = Operator::new(guard);
        operator.line(&format!("$stockade run -f {}", file.display()));
        operator.sees(" | up\r\n");
        operator.sees(" | up\r\n");
        let jails: serde_json::Value =
            serde_json::from_str(&stockade(guard, &["ps", "--json"]).stdout).unwrap();
        for jail in jails.as_array().unwrap() {
            for fd in 0..3 {
                let stat = rustix::fs::stat(format!("/proc/{}/fd/{fd}", jail["pid"])).unwrap();
                assert_ne!(stat.st_rdev, operator.device(), "{jail}");
            }
        }
        operator.types("\x03");
        operator.prompt();
        assert_eq!(operator.code(), 143);
        nothing_is_left(guard);
        operator.leaves();
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn the_vmm_cannot_set_the_operators_terminal() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let before = operator.settings();
        let script =
            "for fd in 0 1 2; do /busybox stty -echo -icanon -isig <&$fd; done; echo se\"\"t; read x";
        operator.line(&format!("{} &", run(guard, "", script)));
        operator.sees("set\r\n");
        assert_eq!(operator.settings(), before, "its echo is as it was");
        operator.does("kill %1; wait");
        operator.does("");
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn the_vmm_cannot_type_at_the_operators_terminal() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        operator.line(&format!("{} &", probe(guard, "", "inject=injec$((6*7))ted sleep")));
        operator.sees("{\"inject\":[");
        operator.watches(Duration::from_millis(300));
        operator.line("echo do\"\"ne");
        let shown = operator.sees("done\r\n");
        assert!(!shown.contains("injec42ted"), "the shell has read what the VMM typed: {shown:?}");
        operator.does("kill %1; wait");
        operator.does("");
        nothing_is_left(guard);
        operator.leaves();
    });
}

#[test]
fn run_without_a_terminal_starts_no_further_process() {
    with_busybox(|guard| {
        let mut operator = Operator::new(guard);
        let script = "/busybox sleep 1; /busybox cat; exit 5";
        operator.line(&format!("echo piped | {} 2>&1 | cat", run(guard, "", script)));
        while stockade(guard, &["ps", "-q", "--filter", "state=running"]).stdout.is_empty() {}
        let run = run_of_vmm(guard).as_raw_nonzero();
        let children = std::fs::read_to_string(format!("/proc/{run}/task/{run}/children")).unwrap();
        assert_eq!(children.trim(), vmm(guard).to_string());
        assert_eq!(std::fs::read_dir(format!("/proc/{run}/task")).unwrap().count(), 1);
        operator.prompt();
        nothing_is_left(guard);
        operator.leaves();
    });
}
