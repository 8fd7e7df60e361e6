//! VMM profiles: selected by name, by file, or by the executable.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Guard, Output, privileged, program, run_with};

fn stockade(guard: &Guard, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("stockade"));
    run_with(
        command
            .args(arguments)
            .env("STOCKADE_STATE_DIR", guard.state())
            .env("STOCKADE_PROFILE_DIR", profiles(guard)),
    )
}

fn profiles(guard: &Guard) -> String {
    guard.directory().join("profiles").display().to_string()
}

/// Adds a profile to the directory, which is created with the first one.
fn add(guard: &Guard, name: &str, text: &str) -> String {
    std::fs::create_dir_all(profiles(guard)).unwrap();
    let path = format!("{}/{name}.toml", profiles(guard));
    std::fs::write(&path, text).unwrap();
    path
}

/// Flags of a jail for the probe.
fn flags(guard: &Guard, command: &str, id: &str) -> Vec<String> {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    [command, "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base].map(str::to_owned).to_vec()
}

fn with<'a>(flags: &'a [String], further: &[&'a str]) -> Vec<&'a str> {
    flags.iter().map(String::as_str).chain(further.iter().copied()).collect()
}

#[test]
fn a_profile_in_a_file_gives_arguments_a_socket_and_files() {
    privileged!(guard, {
        let firmware = guard.file("firmware.bin", "some firmware");
        let text = format!(
            "executables = ['stockade-pro*']\narguments = ['read=/fw/firmware.bin', 'listen=/run/vmm.sock']\n\
             [socket]\npath = '/run/vmm.sock'\n[[place]]\nsource = {firmware:?}\nname = '/fw/firmware.bin'\n\
             [[place]]\nsource = '/no/such/{name}'\n",
            name = guard.name(),
        );
        add(&guard, "probe", &text);
        let id = guard.named("jail");
        let made = stockade(&guard, &with(&flags(&guard, "create", &id), &[]));
        assert_eq!((made.code, made.stderr.as_str()), (0, ""));
        let started = stockade(&guard, &["start", &id, "--ready", "--", "sleep"]);
        assert_eq!((started.code, started.stderr.as_str()), (0, ""));
        let logged = stockade(&guard, &["logs", &id]).stdout;
        assert!(logged.contains("some firmware"), "{logged}");
        assert_eq!(stockade(&guard, &["rm", "--force", &id]).code, 0);
    });
}

#[test]
fn a_placeholder_has_the_value_of_its_jail() {
    privileged!(guard, {
        let path = add(&guard, "named", "arguments = ['read=/etc/nothing', '{id}']");
        let id = guard.named("jail");
        let planned =
            stockade(&guard, &with(&flags(&guard, "plan", &id), &["--profile", &path, "--", "last"]));
        assert_eq!(planned.code, 0, "{}", planned.stderr);
        let wanted = format!("/stockade-probe read=/etc/nothing {id} last");
        assert!(planned.stdout.contains(&wanted), "{}", planned.stdout);
    });
}

#[test]
fn an_unusable_profile_is_one_line() {
    privileged!(guard, {
        let bad = add(&guard, "bad", "executables = []\n\nargument = []\n");
        let id = guard.named("jail");
        let refused = |profile: &str, line: &str| {
            let output = stockade(&guard, &with(&flags(&guard, "run", &id), &["--profile", profile]));
            assert_eq!((output.code, output.stdout.as_str()), (125, ""));
            assert!(output.stderr.starts_with(&format!("stockade: --profile: {line}")), "{}", output.stderr);
            assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        };
        refused(&bad, &format!("profile '{bad}': line 3: unknown field `argument`"));
        let here = std::env::current_dir().unwrap();
        let missing = format!("profile '{}/no/such.toml': no such file or directory", here.display());
        refused("./no/such.toml", &missing);
        std::fs::remove_file(&bad).unwrap();
        refused("qmeu", "there is no profile 'qmeu'; use one of firecracker, qemu, cloud-hypervisor, plain");
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn a_required_file_that_is_missing_leaves_nothing() {
    privileged!(guard, {
        let path = add(&guard, "needy", "[[place]]\nsource = '/no/such/firmware'\nrequired = true\n");
        let output =
            stockade(&guard, &with(&flags(&guard, "run", &guard.named("jail")), &["--profile", &path]));
        assert_eq!((output.code, output.stdout.as_str()), (125, ""));
        assert!(output.stderr.contains("/no/such/firmware"), "{}", output.stderr);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn ready_needs_a_socket_if_the_profile_has_none() {
    privileged!(guard, {
        let id = guard.named("jail");
        assert_eq!(stockade(&guard, &with(&flags(&guard, "create", &id), &[])).code, 0);
        let output = stockade(&guard, &["start", &id, "--ready"]);
        let line = "stockade: --ready: the profile 'plain' of 'stockade-probe' has no socket; create the jail with another, \
                    as in --profile firecracker, or name the socket, as in --ready=run/vmm.sock\n";
        assert_eq!((output.code, output.stderr.as_str()), (1, line));
        assert_eq!(stockade(&guard, &["rm", &id]).code, 0, "it still stands");
    });
}

#[test]
fn a_profile_places_pipes_and_shares_logs() {
    privileged!(guard, {
        let (log, pipe) = (guard.file("vmm.log", ""), guard.directory().join("pipe"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        std::os::unix::fs::chown(&pipe, Some(1234), Some(1234)).unwrap();
        let text = format!(
            "executables = ['stockade-pro*']\narguments = ['write=/logs/vmm.log=from the VMM', 'report']\n\
             [[place]]\nsource = {log:?}\nname = '/logs/vmm.log'\nhow = 'share'\n\
             [[place]]\nsource = {pipe:?}\nname = '/run/pipe'\n"
        );
        let file = add(&guard, "probe", &text);
        let id = guard.named("jail");
        let planned = stockade(&guard, &with(&flags(&guard, "plan", &id), &[]));
        let lines = ["file /logs/vmm.log, a hard link shared with", "file /run/pipe, a hard link to"];
        assert!(lines.iter().all(|line| planned.stdout.contains(line)), "{planned:?}");
        let ran = stockade(&guard, &with(&flags(&guard, "run", &id), &[]));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "from the VMM");
        add(&guard, "probe", &text.replace("'share'", "'move'"));
        let refused = stockade(&guard, &with(&flags(&guard, "plan", &id), &[]));
        assert!(refused.code == 1 && refused.stderr.contains("unknown variant"), "{refused:?}");
        assert!(refused.stderr.contains(&file), "{refused:?}");
    });
}

#[test]
fn the_profiles_are_listed_and_printed() {
    privileged!(guard, {
        add(&guard, "mine", "executables = ['a', 'b-*']\n");
        let table = stockade(&guard, &["profiles"]).stdout;
        assert_eq!(table.lines().nth(1), Some("mine              a b-*"), "{table}");
        let printed = stockade(&guard, &["profiles", "firecracker"]).stdout;
        let copy = add(&guard, "copy", &printed);
        assert_eq!(
            stockade(&guard, &["profiles", &copy]).stdout,
            printed,
            "what is printed can be read again"
        );
        assert!(stockade(&guard, &["profiles", "--json"]).stdout.starts_with("[\n"));
    });
}
