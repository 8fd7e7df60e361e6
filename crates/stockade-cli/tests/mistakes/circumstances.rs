//! Faults of the caller, the host or the VMM.

use super::*;

#[test]
fn a_vmm_that_cannot_be_executed_is_named_with_the_reason() {
    privileged!(guard, {
        let script: PathBuf = guard.file("script", "#!/no/such/interpreter\n");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let line = Line::good(&guard).with("--exec-file", script.display().to_string());
        let said = format!(
            "--exec-file: '{}' is a script for '/no/such/interpreter'; jail that program and place the script as a \
             file",
            script.display()
        );
        refused(&guard, &line, &said);
        let mut arguments = line.arguments("run");
        arguments.push("--no-closure".into());
        let output = run("stockade", &arguments);
        let said = "stockade: cannot execute in the jail: /script: its interpreter '/no/such/interpreter' is not in the \
                    jail; place it with its shared libraries, or use a static executable\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
        nothing_created(&guard);
        let plain = guard.file("plain", "no program");
        let line = Line::good(&guard).with("--exec-file", plain.display().to_string());
        let said = "cannot execute in the jail: /plain: permission denied; make it executable, and mount its \
                    filesystem without noexec";
        refused(&guard, &line, said);
    });
}

#[test]
fn commands_that_need_root_are_refused_without_it() {
    privileged!(guard, {
        use std::os::unix::process::CommandExt;
        let (works, looks) = ("for namespaces, device nodes and file owners", "to read the receipts");
        let alone = |arguments: &[&str]| arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (command, what) in [
            (Line::good(&guard).arguments("run"), works),
            (alone(&["gc"]), works),
            (alone(&["demo"]), works),
            (alone(&["ps"]), looks),
            (alone(&["logs", "vm"]), looks),
        ] {
            let stockade = program("stockade");
            // The build directory may be inaccessible to other users, so the program is copied.
            let copy = guard.directory().join("stockade");
            std::fs::copy(&stockade, &copy).unwrap();
            let line = Line::good(&guard).with("--exec-file", "/bin/true").arguments("run");
            let arguments = if command[0] == "run" { line } else { command.clone() };
            let output = run_with(Command::new(&copy).args(&arguments).uid(65_534).gid(65_534));
            let said =
                format!("stockade: `{}` needs root {what}, but runs as uid 65534; use sudo\n", command[0]);
            let code = if command[0] == "run" { 125 } else { 1 };
            assert_eq!((output.code, output.stderr), (code, said));
            nothing_created(&guard);
        }
    });
}

#[test]
fn an_id_in_use_is_refused_with_the_fix() {
    privileged!(guard, {
        let line = Line::good(&guard);
        let id = guard.named("jail");
        let made = run("stockade", &line.arguments("create"));
        assert_eq!((made.code, made.stderr.as_str()), (0, ""));
        let exists = format!("stockade: jail '{id}' exists; remove it or use another id\n");
        assert_eq!((line.run().code, line.run().stderr), (125, exists));
        let pid = said(&guard, &["start", &id, "--", "sleep"]);
        let runs = format!(
            "stockade: jail '{id}' is running as pid {}; stop it first or use another id\n",
            pid.trim()
        );
        assert_eq!((line.run().code, line.run().stderr), (125, runs));
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_vmm_that_exits_at_once_is_reported_with_its_last_lines() {
    privileged!(guard, {
        let id = guard.named("jail");
        assert_eq!(run("stockade", &Line::good(&guard).arguments("create")).code, 0);
        let died = stockade(&guard, &["start", &id, "--ready=run/api.sock", "--", "non\x1b[2J\nsense"]);
        let said_last = format!(
            "stockade: the VMM of jail '{id}' exited before it was ready: exit code 2: stockade-probe: unknown action \
             'non\\u{{1b}}[2J | sense'\n"
        );
        assert_eq!((died.code, died.stdout.as_str(), died.stderr), (1, "", said_last));
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_host_without_kvm_is_a_warning_for_vmms_that_need_it() {
    privileged!(guard, {
        let vmm = guard.directory().join("firecracker");
        std::fs::copy(program("stockade-probe"), &vmm).unwrap();
        let line = Line::good(&guard).with("--exec-file", vmm.display().to_string());
        let arguments: Vec<String> = line.arguments("run").iter().map(|word| format!("'{word}'")).collect();
        let command = format!("{} {} -- exit=3", program("stockade").display(), arguments.join(" "));
        // A /dev with only the devices that the command itself needs.
        let script = format!(
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec {command}"
        );
        let output = run_with(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        let said = "stockade: this host has no '/dev/kvm', so 'firecracker' cannot run a guest; run `stockade doctor` \
                    for details\n";
        assert_eq!((output.code, output.stderr.as_str()), (3, said));
        nothing_created(&guard);
    });
}
