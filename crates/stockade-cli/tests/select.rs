//! Which jails a command is about: those that are named, those that meet conditions, or all.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use testkit::{Guard, privileged, program, said, stockade};

/// Makes a jail of the probe with this id, and starts its VMM unless there are no words for it.
fn jail(guard: &Guard, id: &str, flags: &[&str], vmm: &[&str]) {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base, "--no-closure"];
    said(guard, &[&fixed[..], flags].concat());
    if !vmm.is_empty() {
        said(guard, &[&["start", id, "--"], vmm].concat());
    }
}

/// Four jails: one made, two that run, one that has ended with exit code 3.
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
fn ps_prints_the_ids_of_those_that_meet_every_condition() {
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
            let words = filters.iter().flat_map(|filter| ["--filter", filter]);
            let words: Vec<&str> = ["ps", "-q"].into_iter().chain(words).collect();
            assert_eq!(lines(&said(&guard, &words)), ids, "{filters:?}");
        }
        let listed: Value =
            serde_json::from_str(&said(&guard, &["ps", "--json", "--filter", "uid=4321"])).unwrap();
        // Talk kept back leaves the list as it is.
        let quiet = said(&guard, &["-q", "ps", "--json", "--filter", "uid=4321"]);
        assert_eq!(serde_json::from_str::<Value>(&quiet).unwrap().as_array().unwrap().len(), 2);
        assert_eq!((&listed[0]["id"], &listed[1]["vmm"]), (&"sel-made".into(), &"stockade-probe".into()));
        said(&guard, &["rm", "--force", "--all"]);
        assert_eq!(said(&guard, &["ps", "-q"]), "");
    });
}

#[test]
fn rm_all_leaves_those_that_run_and_says_so() {
    privileged!(guard, {
        four(&guard);
        let left = stockade(&guard, &["rm", "--all"]);
        assert_eq!((left.code, lines(&left.stdout)), (1, vec!["sel-made", "sel-over"]));
        let told = lines(&left.stderr);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("stockade: jail sel-run-1 is running as pid "), "{told:?}");
        assert!(told[1].ends_with("; stop it first or use --force"), "{told:?}");
        // Those that run are stopped, those that do not are none of its business.
        assert_eq!(said(&guard, &["stop", "--filter", "uid=4321"]), "sel-run-2\n");
        said(&guard, &["kill", "--all"]);
        // As they end, and the one that was killed may take its time.
        let ends = said(&guard, &["wait", "--all"]);
        let mut ends = lines(&ends);
        ends.sort_unstable();
        assert_eq!(ends, ["sel-run-1 137", "sel-run-2 143"]);
        let report: Value = serde_json::from_str(&said(&guard, &["rm", "--all", "--json"])).unwrap();
        assert_eq!(report["jails"].as_array().unwrap().len(), 2);
        assert_eq!(report["problems"], serde_json::json!([]));
        // Nothing to do is no failure.
        assert_eq!(said(&guard, &["rm", "--all"]), "");
        assert_eq!(said(&guard, &["stop", "--all"]), "");
    });
}

#[test]
fn what_cannot_be_removed_is_in_the_report_and_on_stderr() {
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
fn one_that_is_none_does_not_keep_the_others_from_their_signal() {
    privileged!(guard, {
        jail(&guard, "sel-a", &[], &["sleep"]);
        jail(&guard, "sel-b", &[], &["sleep"]);
        let killed = stockade(&guard, &["kill", "-s", "TERM", "sel-a", "sel-none", "sel-b"]);
        let none = "stockade: no jail 'sel-none'; list the jails with `stockade ps`\n";
        assert_eq!((killed.code, killed.stderr.as_str()), (1, none));
        assert_eq!(said(&guard, &["wait", "sel-a", "sel-b"]), "143\n143\n");
        let late = stockade(&guard, &["kill", "sel-a"]);
        assert_eq!((late.code, late.stderr.as_str()), (1, "stockade: jail sel-a does not run\n"));
        assert_eq!(lines(&said(&guard, &["rm", "sel-a", "sel-b"])), ["sel-a", "sel-b"]);
    });
}

#[test]
fn the_beginning_of_an_id_is_enough_for_a_command_that_only_looks() {
    privileged!(guard, {
        four(&guard);
        // The whole id counts as that, though another begins so.
        jail(&guard, "sel-run", &[], &[]);
        let id = |words: &[&str]| -> Value {
            serde_json::from_str::<Value>(&said(&guard, words)).unwrap()["id"].clone()
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
fn a_command_that_changes_a_jail_takes_its_whole_id() {
    privileged!(guard, {
        jail(&guard, "sel-run", &[], &["sleep"]);
        let line =
            "stockade: no jail 'sel-r'; commands that change a jail need its full id, such as sel-run\n";
        for words in [
            &["kill", "sel-r"][..],
            &["stop", "sel-r"],
            &["rm", "-f", "sel-r"],
            &["start", "sel-r"],
            &["place", "sel-r", "/etc/passwd"],
            &["unplace", "sel-r", "/passwd"],
        ] {
            let refused = stockade(&guard, words);
            assert_eq!((refused.code, refused.stderr.as_str()), (1, line), "{words:?}");
        }
        assert_eq!(said(&guard, &["ps", "-q", "--filter", "state=running"]), "sel-run\n");
        said(&guard, &["rm", "-f", "sel-run"]);
    });
}

#[test]
fn a_command_without_a_jail_says_how_to_choose() {
    for command in ["kill", "stop", "rm", "wait", "inspect", "audit"] {
        let refused = testkit::run("stockade", &[command]);
        let line = "stockade: the following required arguments were not provided: <ID>...; \
                    name jails, or select them with --filter or --all\n";
        assert_eq!((refused.code, refused.stderr.as_str()), (1, line), "{command}");
        let both = testkit::run("stockade", &[command, "--all", "vm-1"]);
        let line = "stockade: the argument '--all' cannot be used with '[ID]...'\n";
        assert_eq!((both.code, both.stderr.as_str()), (1, line), "{command}");
    }
    let pattern = testkit::run("stockade", &["rm", "vm-*"]);
    let line = "stockade: invalid value 'vm-*' for '[ID]...': Invalid instance ID: Invalid char (*) at position 3; \
                use --filter 'id=vm-*' for a pattern\n";
    assert_eq!((pattern.code, pattern.stderr.as_str()), (1, line));
    let wrong = testkit::run("stockade", &["ps", "--filter", "name=x"]);
    let line = "stockade: invalid value 'name=x' for '--filter <KEY=VALUE>': unknown key 'name'; \
                use one of the keys state, id, vmm, base, uid, older, younger\n";
    assert_eq!((wrong.code, wrong.stderr.as_str()), (1, line));
}

#[test]
fn several_jails_are_started_and_one_that_cannot_be_does_not_keep_the_others() {
    privileged!(guard, {
        for id in ["sel-a", "sel-b", "sel-c"] {
            let (base, probe) =
                (guard.base().display().to_string(), program("stockade-probe").display().to_string());
            let words = ["create", "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base];
            said(&guard, &[&words[..], &["--", "sleep"]].concat());
        }
        let started = stockade(&guard, &["start", "sel-a", "sel-none", "sel-b"]);
        assert_eq!(started.stderr, "stockade: no jail 'sel-none'; list the jails with `stockade ps`\n");
        let pids: Value = serde_json::from_str(&said(&guard, &["ps", "--json"])).unwrap();
        let told = format!("sel-a {}\nsel-b {}\n", pids[0]["pid"], pids[1]["pid"]);
        assert_eq!((started.code, started.stdout), (1, told));
        // Of all, those that can be.
        let rest = said(&guard, &["start", "--all", "--", "exit=4"]);
        assert!(rest.starts_with("sel-c ") && rest.lines().count() == 1, "{rest}");
        assert_eq!(said(&guard, &["wait", "sel-c"]), "4\n");
        said(&guard, &["rm", "--force", "--all"]);
    });
}
