//! The selection of jails: by id, by condition, or all.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use testkit::{Guard, privileged, program, said, stockade};

/// Creates a jail with the probe, and starts its VMM if it has arguments.
fn jail(guard: &Guard, id: &str, flags: &[&str], vmm: &[&str]) {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base, "--no-closure"];
    said(guard, &[&fixed[..], flags].concat());
    if !vmm.is_empty() {
        said(guard, &[&["start", id, "--"], vmm].concat());
    }
}

/// Creates four jails: one created, two running, one exited with code 3.
fn four(guard: &Guard) {
    jail(guard, "sel-made", &["--uid", "4321"], &[]);
    jail(guard, "sel-run-1", &[], &["sleep"]);
    jail(guard, "sel-run-2", &["--uid", "4321"], &["sleep"]);
    jail(guard, "sel-over", &[], &["exit=3"]);
    assert_eq!(said(guard, &["wait", "sel-over"]), "3\n");
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn ps_prints_the_jails_that_match_every_filter() {
    privileged!(guard, {
        four(&guard);
        let base = format!("base={}", guard.base().display());
        for (filters, ids) in [
            (vec![], vec!["sel-made", "sel-over", "sel-run-1", "sel-run-2"]),
            (vec!["state=running"], vec!["sel-run-1", "sel-run-2"]),
            (vec!["state=exited,created"], vec!["sel-made", "sel-over"]),
            (vec!["state=running", "uid=4321"], vec!["sel-run-2"]),
            (vec!["id=sel-run-?", "id=*1"], vec!["sel-run-1"]),
            (vec!["vmm=stockade-pr*", "state=created"], vec!["sel-made"]),
            (vec!["vmm=firecracker"], vec![]),
            (vec![&base, "younger=1h"], vec!["sel-made", "sel-over", "sel-run-1", "sel-run-2"]),
            (vec!["base=/srv/elsewhere"], vec![]),
            (vec!["older=1h"], vec![]),
        ] {
            let arguments = filters.iter().flat_map(|filter| ["--filter", filter]);
            let arguments: Vec<&str> = ["ps", "-q"].into_iter().chain(arguments).collect();
            assert_eq!(lines(&said(&guard, &arguments)), ids, "{filters:?}");
        }
        let listed: Value =
            serde_json::from_str(&said(&guard, &["ps", "--json", "--filter", "uid=4321"])).unwrap();
        // `--quiet` does not change the list.
        let quiet = said(&guard, &["-q", "ps", "--json", "--filter", "uid=4321"]);
        assert_eq!(serde_json::from_str::<Value>(&quiet).unwrap().as_array().unwrap().len(), 2);
        assert_eq!((&listed[0]["id"], &listed[1]["vmm"]), (&"sel-made".into(), &"stockade-probe".into()));
        said(&guard, &["rm", "--force", "--all"]);
        assert_eq!(said(&guard, &["ps", "-q"]), "");
    });
}

#[test]
fn rm_all_skips_running_jails_and_reports_them() {
    privileged!(guard, {
        four(&guard);
        let left = stockade(&guard, &["rm", "--all"]);
        assert_eq!((left.code, lines(&left.stdout)), (1, vec!["sel-made", "sel-over"]));
        let reported = lines(&left.stderr);
        assert_eq!(reported.len(), 2, "{reported:?}");
        assert!(reported[0].starts_with("stockade: jail 'sel-run-1' is running as pid "), "{reported:?}");
        assert!(reported[1].ends_with("; stop it first or use --force"), "{reported:?}");
        // `stop` with a filter skips jails without a running VMM.
        assert_eq!(said(&guard, &["stop", "--filter", "uid=4321"]), "sel-run-2\n");
        said(&guard, &["kill", "--all"]);
        // In the order of their exits: the killed VMM may exit later.
        let ends = said(&guard, &["wait", "--all"]);
        let mut ends = lines(&ends);
        ends.sort_unstable();
        assert_eq!(ends, ["sel-run-1 137", "sel-run-2 143"]);
        let report: Value = serde_json::from_str(&said(&guard, &["rm", "--all", "--json"])).unwrap();
        assert_eq!(report["jails"].as_array().unwrap().len(), 2);
        assert_eq!(report["problems"], serde_json::json!([]));
        // An empty selection is no failure.
        assert_eq!(said(&guard, &["rm", "--all"]), "");
        assert_eq!(said(&guard, &["stop", "--all"]), "");
    });
}

#[test]
fn jails_that_are_not_removed_are_in_json_and_on_stderr() {
    privileged!(guard, {
        jail(&guard, "sel-run", &[], &["sleep"]);
        let refused = stockade(&guard, &["rm", "--json", "sel-run", "sel-none"]);
        assert_eq!((refused.code, refused.stderr.lines().count()), (1, 2), "{}", refused.stderr);
        let report: Value = serde_json::from_str(&refused.stdout).unwrap();
        assert_eq!(report["jails"], serde_json::json!([]));
        let reasons: Vec<&str> =
            report["problems"].as_array().unwrap().iter().map(|p| p["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons.len(), 2);
        for reason in reasons {
            assert!(refused.stderr.contains(reason), "{reason}");
        }
        said(&guard, &["rm", "-f", "sel-run"]);
    });
}

#[test]
fn kill_signals_the_other_jails_despite_an_unknown_id() {
    privileged!(guard, {
        jail(&guard, "sel-a", &[], &["sleep"]);
        jail(&guard, "sel-b", &[], &["sleep"]);
        let killed = stockade(&guard, &["kill", "-s", "TERM", "sel-a", "sel-none", "sel-b"]);
        let none = "stockade: no jail 'sel-none'; list the jails with `stockade ps`\n";
        assert_eq!((killed.code, killed.stderr.as_str()), (1, none));
        assert_eq!(said(&guard, &["wait", "sel-a", "sel-b"]), "143\n143\n");
        let late = stockade(&guard, &["kill", "sel-a"]);
        assert_eq!(
            (late.code, late.stderr.as_str()),
            (1, "stockade: jail 'sel-a' is not running; see its state with `stockade ps`\n")
        );
        assert_eq!(lines(&said(&guard, &["rm", "sel-a", "sel-b"])), ["sel-a", "sel-b"]);
    });
}

#[test]
fn commands_that_change_nothing_accept_a_unique_id_prefix() {
    privileged!(guard, {
        four(&guard);
        // A whole id matches exactly, even if it is a prefix of another.
        jail(&guard, "sel-run", &[], &[]);
        let id = |arguments: &[&str]| -> Value {
            serde_json::from_str::<Value>(&said(&guard, arguments)).unwrap()["id"].clone()
        };
        assert_eq!(id(&["inspect", "--json", "sel-o"]), "sel-over");
        jail(&guard, "sel-seen", &[], &["sleep"]);
        let seen = stockade(&guard, &["exec", "sel-s", "--", "/stockade-probe", "exit=5"]);
        assert_eq!((seen.code, seen.stderr.as_str()), (5, ""));
        assert_eq!(id(&["inspect", "--json", "sel-run"]), "sel-run");
        let waited = stockade(&guard, &["wait", "sel-ov"]);
        let taken = "stockade: using jail sel-over for prefix 'sel-ov'\n";
        assert_eq!((waited.code, waited.stdout.as_str(), waited.stderr.as_str()), (0, "3\n", taken));
        let rows: Value = serde_json::from_str(&said(&guard, &["top", "--json", "sel-m"])).unwrap();
        assert_eq!((&rows[0]["id"], rows.as_array().unwrap().len()), (&"sel-made".into(), 1));
        let several: Value =
            serde_json::from_str(&said(&guard, &["inspect", "--json", "sel-o", "sel-m"])).unwrap();
        assert_eq!((&several[0]["id"], &several[1]["id"]), (&"sel-over".into(), &"sel-made".into()));
        let audit = stockade(&guard, &["audit", "--json", "sel-run-1"]);
        assert_eq!(serde_json::from_str::<Value>(&audit.stdout).unwrap()["id"], "sel-run-1");
        for command in ["inspect", "logs", "wait", "audit", "top"] {
            let unclear = stockade(&guard, &[command, "sel-run-"]);
            let line =
                "stockade: 'sel-run-' matches several jails: sel-run-1, sel-run-2; use a longer prefix\n";
            assert_eq!((unclear.code, unclear.stderr.as_str()), (1, line), "{command}");
        }
        said(&guard, &["rm", "--force", "--all"]);
    });
}

#[test]
fn commands_that_change_a_jail_take_its_whole_id() {
    privileged!(guard, {
        jail(&guard, "sel-run", &[], &["sleep"]);
        let line =
            "stockade: no jail 'sel-r'; commands that change a jail need its full id, such as sel-run\n";
        for arguments in [
            &["kill", "sel-r"][..],
            &["stop", "sel-r"],
            &["rm", "-f", "sel-r"],
            &["start", "sel-r"],
            &["place", "sel-r", "/etc/passwd"],
            &["unplace", "sel-r", "/passwd"],
        ] {
            let refused = stockade(&guard, arguments);
            assert_eq!((refused.code, refused.stderr.as_str()), (1, line), "{arguments:?}");
        }
        assert_eq!(said(&guard, &["ps", "-q", "--filter", "state=running"]), "sel-run\n");
        said(&guard, &["rm", "-f", "sel-run"]);
    });
}

#[test]
fn a_command_without_a_jail_names_the_selecting_flags() {
    for command in ["kill", "stop", "rm", "wait", "inspect", "audit"] {
        let refused = testkit::run("stockade", &[command]);
        let line = "stockade: the following required arguments were not provided: <ID>...; \
                    name jails, or select them with --filter or --all\n";
        assert_eq!((refused.code, refused.stderr.as_str()), (1, line), "{command}");
        let both = testkit::run("stockade", &[command, "--all", "vm-1"]);
        let line = "stockade: the argument '--all' cannot be used with '[ID]...'; remove one of them\n";
        assert_eq!((both.code, both.stderr.as_str()), (1, line), "{command}");
    }
    let pattern = testkit::run("stockade", &["rm", "vm-*"]);
    let line = "stockade: invalid value 'vm-*' for '[ID]...': invalid character '*' at position 4; use letters, digits and '-'; \
                use --filter 'id=vm-*' for a pattern\n";
    assert_eq!((pattern.code, pattern.stderr.as_str()), (1, line));
    let wrong = testkit::run("stockade", &["ps", "--filter", "name=x"]);
    let line = "stockade: invalid value 'name=x' for '--filter <KEY=VALUE>': unknown key 'name'; \
                use one of the keys state, id, vmm, base, uid, older, younger\n";
    assert_eq!((wrong.code, wrong.stderr.as_str()), (1, line));
}

#[test]
fn start_starts_the_other_jails_despite_an_unknown_id() {
    privileged!(guard, {
        for id in ["sel-a", "sel-b", "sel-c"] {
            let (base, probe) =
                (guard.base().display().to_string(), program("stockade-probe").display().to_string());
            let arguments = ["create", "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base];
            said(&guard, &[&arguments[..], &["--", "sleep"]].concat());
        }
        let started = stockade(&guard, &["start", "sel-a", "sel-none", "sel-b"]);
        assert_eq!(started.stderr, "stockade: no jail 'sel-none'; list the jails with `stockade ps`\n");
        let pids: Value = serde_json::from_str(&said(&guard, &["ps", "--json"])).unwrap();
        let reported = format!("sel-a {}\nsel-b {}\n", pids[0]["pid"], pids[1]["pid"]);
        assert_eq!((started.code, started.stdout), (1, reported));
        // `--all` selects only jails that can be started.
        let rest = said(&guard, &["start", "--all", "--", "exit=4"]);
        assert!(rest.starts_with("sel-c ") && rest.lines().count() == 1, "{rest}");
        assert_eq!(said(&guard, &["wait", "sel-c"]), "4\n");
        said(&guard, &["rm", "--force", "--all"]);
    });
}
