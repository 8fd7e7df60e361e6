//! `inspect` shows all information about a jail.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::{Value, json};
use testkit::{Guard, command, privileged, program, run_with, said, stockade};

fn inspect(guard: &Guard, id: &str) -> Value {
    serde_json::from_str(&said(guard, &["inspect", id, "--json"])).unwrap()
}

/// The rows with this name.
fn rows<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.strip_prefix(&format!("{name:10} "))).collect()
}

#[test]
fn a_jail_is_shown_from_creation_to_exit() {
    privileged!(guard, {
        let (id, net) = (guard.named("vm"), guard.named("net"));
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        let flags = [
            "create",
            "--id",
            &id,
            "--exec-file",
            &probe,
            "--chroot-base-dir",
            &base,
            "--netns",
            &net,
            "--new-pid-ns",
        ];
        said(&guard, &[&flags[..], &["--uid", "12345", "--", "clock", "a b"]].concat());
        let made = inspect(&guard, &id);
        assert_eq!(
            (&made["id"], &made["state"], &made["vmm"]),
            (&json!(id), &json!("created"), &Value::Null)
        );
        assert_eq!(made["spec"]["arguments"], json!(["clock", "a b"]));
        assert_eq!(made["spec"]["owner"]["uid"], 12345);
        let netns = format!("/run/netns/{net}");
        assert_eq!(made["paths"]["netns"], json!(netns));
        assert!(made["steps"].as_array().unwrap().contains(&json!(format!("network namespace {net}"))));

        let arguments =
            ["start", &id, "--ready=run/api.sock", "--", "clock", "listen=/run/api.sock", "sleep"];
        let pid: i32 = said(&guard, &arguments).trim().parse().unwrap();
        let runs = inspect(&guard, &id);
        assert_eq!(
            (&runs["state"], &runs["vmm"]),
            (&json!("running"), &json!({ "pid": pid, "alive": true }))
        );
        assert_eq!(runs["monitor"]["alive"], true);
        let root = format!("{base}/stockade-probe/{id}/root");
        let log = guard.state().join(&id).join("log").display().to_string();
        let paths = json!({
            "receipt": guard.state().join(&id).join("receipt.json"),
            "logs": [log],
            "root": root,
            "pid_file": format!("{root}/stockade-probe.pid"),
            "sockets": [format!("{root}/run/api.sock")],
            "netns": netns,
            "cgroups": [],
        });
        assert_eq!(runs["paths"], paths);
        let text = said(&guard, &["inspect", &id]);
        assert!(rows(&text, "state")[0].starts_with("running, created "), "{text}");
        assert_eq!(rows(&text, "VMM"), [format!("pid {pid}")]);
        assert_eq!(rows(&text, "socket"), [format!("{root}/run/api.sock")]);
        assert_eq!((rows(&text, "log"), rows(&text, "netns")), (vec![&*log], vec![&*netns]));

        said(&guard, &["kill", &id]);
        said(&guard, &["wait", &id]);
        let ended = inspect(&guard, &id);
        assert_eq!((&ended["state"], &ended["ended"]), (&json!("exited"), &json!({ "killed": 9 })));
        assert_eq!(ended["vmm"], json!({ "pid": pid, "alive": false }));
        assert_eq!(rows(&said(&guard, &["inspect", &id]), "exit"), ["killed by signal 9"]);
        said(&guard, &["rm", &id]);
        let gone = stockade(&guard, &["inspect", &id]);
        let line = format!("stockade: no jail '{id}'; list the jails with `stockade ps`\n");
        assert_eq!((gone.code, gone.stderr), (1, line));
    });
}

#[test]
fn a_corrupt_receipt_is_shown_as_corrupt() {
    privileged!(guard, {
        let place = guard.state().join("broken");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("receipt.json"), "{").unwrap();
        let found = inspect(&guard, "broken");
        assert_eq!((&found["state"], &found["spec"]), (&json!("corrupt"), &Value::Null));
        assert!(found["problem"].as_str().unwrap().contains("is corrupt"), "{found}");
        std::fs::remove_dir_all(guard.state()).unwrap();
    });
}

#[test]
fn a_jail_is_drawn_as_a_tree_in_the_locales_characters() {
    privileged!(guard, {
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        let net = guard.named("net");
        let flags = ["create", "--id", "drawn", "--exec-file", &probe, "--chroot-base-dir", &base];
        said(
            &guard,
            &[&flags[..], &["--netns", &net, "--cgroup", "pids.max=9", "--parent-cgroup", guard.name()]]
                .concat(),
        );
        said(&guard, &["place", "drawn", "/etc/hosts=hosts:bind:ro"]);
        let arguments =
            ["start", "drawn", "--ready=run/api.sock", "--", "listen=/run/api.sock", "spawn=1", "sleep"];
        let pid = said(&guard, &arguments).trim().to_owned();
        let draw = |locale: &str| {
            let mut command = command(&guard, &["inspect", "--tree", "drawn"]);
            run_with(command.env("LC_ALL", locale)).stdout
        };
        let ascii = draw("C");
        assert!(ascii.is_ascii(), "{ascii}");
        let lines = draw("C.UTF-8");
        assert!(lines.starts_with("drawn (running, created "), "{lines}");
        let cgroup = inspect(&guard, "drawn")["paths"]["cgroups"][0].as_str().unwrap().to_owned();
        let (root, state) = (format!("{base}/stockade-probe/drawn/root"), guard.state().join("drawn"));
        for row in [
            format!("├─ root {root}"),
            "│  ├─ mount / (".to_owned(),
            "│  ├─ mount /hosts (".to_owned(),
            format!("│  └─ socket {root}/run/api.sock"),
            format!("├─ network namespace /run/netns/{net}"),
            format!("├─ cgroup {cgroup}"),
            "├─ monitor ".to_owned(),
            format!("│  └─ VMM {pid} stockade-probe"),
            "│     └─ process ".to_owned(),
            format!("├─ receipt {}/receipt.json", state.display()),
            format!("└─ log {}/log", state.display()),
        ] {
            assert!(lines.lines().any(|line| line.starts_with(&row)), "{row}: {lines}");
        }
        let hosts = lines.lines().find(|line| line.contains("mount /hosts (")).unwrap();
        assert!(hosts.ends_with(", read-only)"), "{hosts}");
        said(&guard, &["rm", "--force", "drawn"]);
    });
}

#[test]
fn names_in_a_jail_do_not_control_the_terminal() {
    privileged!(guard, {
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        said(&guard, &["create", "--id", "sly", "--exec-file", &probe, "--chroot-base-dir", &base]);
        let socket = guard.base().join("stockade-probe/sly/root/run/\u{1b}]0;sly\u{7}");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for arguments in [&["inspect", "sly"][..], &["inspect", "--tree", "sly"]] {
            let text = said(&guard, arguments);
            assert!(text.contains("/run/\\u{1b}]0;sly\\u{7}") && !text.contains('\u{1b}'), "{text}");
        }
        drop(listener);
        said(&guard, &["rm", "sly"]);
    });
}
