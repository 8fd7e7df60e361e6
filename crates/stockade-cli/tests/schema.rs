//! The `--json` output of every command matches its schema in `docs/schema`, which has every field.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use jsonschema::Validator;
use serde_json::Value;
use testkit::{Guard, command, commands, privileged, program, run, said, stockade};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema")
}

/// The names of the existing schemas.
fn names() -> BTreeSet<String> {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = files.filter_map(|name| Some(name.to_str()?.strip_suffix(".json")?.to_owned()));
    // The schema of an input.
    names.filter(|name| name != "jail-file").collect()
}

fn schema(name: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn validator(name: &str) -> Validator {
    jsonschema::validator_for(&schema(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Checks a command's output against its schema.
fn check(name: &str, printed: &str) -> Value {
    let value: Value = serde_json::from_str(printed).unwrap_or_else(|e| panic!("{name}: {e}: {printed}"));
    let wrong: Vec<String> =
        validator(name).iter_errors(&value).map(|e| format!("{} {e}", e.instance_path())).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    value
}

#[test]
fn every_command_with_json_has_a_schema_and_no_other() {
    let with_json =
        |command: &String| run("stockade", &[command.as_str(), "--help"]).stdout.contains("--json");
    let commands: BTreeSet<String> = commands().into_iter().filter(with_json).collect();
    assert!(commands.len() > 10, "{commands:?}");
    assert_eq!(commands, names());
}

#[test]
fn a_schema_refuses_unknown_fields() {
    for name in names() {
        closed(&name, &schema(&name));
        // No command prints this field.
        assert!(!validator(&name).is_valid(&serde_json::json!([{ "surprise": 1 }])), "{name}");
    }
}

/// Checks that each object of a schema lists its fields, and excludes or describes additional ones.
fn closed(at: &str, schema: &Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type") == Some(&"object".into()) {
                assert!(fields.contains_key("additionalProperties"), "{at} takes any field");
            }
            fields.iter().for_each(|(name, part)| closed(&format!("{at}/{name}"), part));
        }
        Value::Array(parts) => parts.iter().for_each(|part| closed(at, part)),
        _ => (),
    }
}

/// The flags of a jail with every option.
fn everything(guard: &Guard) -> Vec<String> {
    let tree = guard.directory().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), "text").unwrap();
    let (base, probe) = (guard.base(), program("stockade-probe"));
    let arguments = format!(
        "--exec-file {} --chroot-base-dir {} --netns {} --new-pid-ns --ramfs 1M --cgroup pids.max=64 \
         --parent-cgroup {} --resource-limit fsize=1000000 --resource-limit no-file=100 --place /etc/passwd:ro \
         --place /etc/group=etc/group:bind --place {tree}:copy --place {tree}=bound:bind:ro --place /dev/null=null",
        probe.display(),
        base.display(),
        guard.named("net"),
        guard.name(),
        tree = tree.display(),
    );
    arguments.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_jail_with_every_option_matches_the_schemas() {
    privileged!(guard, {
        let flags = everything(&guard);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let with = |arguments: &[&str]| -> String { said(&guard, &[arguments, &flags].concat()) };
        check("plan", &with(&["plan", "--json", "--id", "vm"]));
        check("create", &with(&["create", "--json", "--id", "vm"]));
        let probe = program("stockade-probe").display().to_string();
        let base = guard.base().display().to_string();
        let file =
            format!("[[jail]]\nid = 'vm'\nexec-file = '{probe}'\n[[jail]]\nid = 'b'\nexec-file = '{probe}'");
        let file = guard.file("jails.toml", &file).display().to_string();
        let planned = check("plan", &stockade(&guard, &["plan", "--json", "-f", &file]).stdout);
        assert!(planned[0]["differences"].as_array().unwrap().len() > 10, "{planned}");
        check("inspect", &said(&guard, &["inspect", "--json", "vm"]));
        check("place", &said(&guard, &["place", "--json", "vm", "/etc/hostname", "/etc/hosts=h:bind"]));
        let tool = guard.file("tool", "");
        testkit::set_mode(&tool, 0o4755);
        let tool = tool.display().to_string();
        let placed = check("place", &stockade(&guard, &["place", "--json", "vm", &tool]).stdout);
        assert_eq!(placed[0]["stripped"]["powers"], serde_json::json!(["set-uid"]));
        let planned = [&["plan", "--json", "--id", "other", "--place", &tool], &flags[..]].concat();
        check("plan", &said(&guard, &planned));
        said(&guard, &["start", "vm", "--", "sleep"]);
        check("ps", &said(&guard, &["ps", "--json"]));
        check("inspect", &said(&guard, &["inspect", "--json", "vm"]));
        check("inspect", &said(&guard, &["inspect", "--json", "--all"]));
        check("top", &said(&guard, &["top", "--json"]));
        let audited = check("audit", &stockade(&guard, &["audit", "--json", "--probe", "vm"]).stdout);
        assert!(audited["inside"]["uid"] == 1234, "{audited}");
        check("audit", &stockade(&guard, &["audit", "--json", "--all"]).stdout);
        let compared = check("audit", &said(&guard, &["audit", "--json", "--against", "vm", "vm"]));
        assert_eq!((&compared["against"], &compared["alike"]), (&"vm".into(), &true.into()));
        said(&guard, &["create", "--id", "b", "--exec-file", &probe, "--chroot-base-dir", &base]);
        check("start", &said(&guard, &["start", "--json", "b", "--", "sleep"]));
        let compared = stockade(&guard, &["audit", "--json", "--against", "vm", "--all"]);
        assert_eq!(compared.code, 1);
        let compared = check("audit", &compared.stdout);
        let differing = compared.as_array().unwrap().iter().find(|one| one["id"] == "b").unwrap();
        assert_eq!(differing["alike"], false);
        let differences = differing["differences"].as_array().unwrap();
        let pids = differences.iter().find(|one| one["check"] == "pids-limit").unwrap();
        assert_eq!([&pids["of_id"][0]["grade"], &pids["of_against"][0]["grade"]], ["warning", "good"]);
        said(&guard, &["rm", "--force", "b"]);
        said(&guard, &["kill", "vm"]);
        let ended = check("wait", &said(&guard, &["wait", "--json", "vm"]));
        assert_eq!(ended["ended"], serde_json::json!({ "killed": 9 }));
        check("inspect", &said(&guard, &["inspect", "--json", "vm"]));
        let removed = check("rm", &said(&guard, &["rm", "--json", "vm"]));
        assert!(removed["jails"][0]["removed"].as_array().unwrap().len() > 10, "{removed}");
    });
}

#[test]
fn plans_of_every_kind_match_the_schema() {
    privileged!(guard, {
        let base = guard.base().display().to_string();
        for arguments in [
            "--exec-file /usr/bin/env",
            "--exec-file /bin/busybox --no-closure --new-net-ns --daemonize",
            "--exec-file /bin/busybox --no-closure --profile firecracker --place /dev/zero:ro",
            "--exec-file /bin/busybox --no-closure --profile qemu --cgroup pids.max=1",
        ] {
            let arguments = arguments.split(' ').chain(["--chroot-base-dir", &base]);
            let arguments: Vec<&str> =
                ["plan", "--id", "vm", "--json"].into_iter().chain(arguments).collect();
            check("plan", &said(&guard, &arguments));
        }
    });
}

#[test]
fn problems_match_the_schemas() {
    privileged!(guard, {
        let place = guard.state().join("broken");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("receipt.json"), "{").unwrap();
        let listed = check("ps", &stockade(&guard, &["ps", "--json"]).stdout);
        assert_eq!((&listed[0]["state"], listed[0]["problem"].is_string()), (&"corrupt".into(), true));
        check("inspect", &said(&guard, &["inspect", "--json", "broken"]));
        check("top", &said(&guard, &["top", "--json"]));
        for (command, arguments) in [
            ("gc", &["gc", "--json"][..]),
            ("rm", &["rm", "--json", "broken"]),
            ("doctor", &["doctor", "--json"]),
        ] {
            let output = stockade(&guard, arguments);
            check(command, &output.stdout);
        }
        std::fs::remove_dir_all(guard.state()).unwrap();
    });
}

#[test]
fn events_match_the_schema_line_by_line() {
    privileged!(guard, {
        let flags = everything(&guard);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        said(&guard, &[&["create", "--id", "vm"], &flags[..]].concat());
        said(&guard, &["start", "vm", "--", "exit=3"]);
        said(&guard, &["wait", "vm"]);
        let mut listening = command(&guard, &["events", "--json", "--all", "--until", "removed"]);
        let mut listening = listening.arg("vm").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(listening.stdout.take().unwrap()).lines();
        let mut next = || check("events", &lines.next().unwrap().unwrap())["event"].clone();
        assert_eq!([next(), next(), next()], ["created", "started", "exited"]);
        said(&guard, &["rm", "vm"]);
        assert_eq!(next(), "removed");
        assert!(listening.wait().unwrap().success());
        let broken = guard.state().join("broken");
        std::fs::create_dir_all(&broken).unwrap();
        std::fs::write(broken.join("receipt.json"), "{").unwrap();
        let damaged = stockade(&guard, &["events", "--json", "--all", "--timeout", "0"]);
        assert_eq!((damaged.code, damaged.stderr.as_str()), (124, ""));
        assert_eq!(check("events", &damaged.stdout)["event"], "corrupt");
        std::fs::remove_dir_all(guard.state()).unwrap();
    });
}

#[test]
fn reports_about_the_host_match_the_schemas() {
    privileged!(guard, {
        check("doctor", &stockade(&guard, &["doctor", "--json"]).stdout);
        check("gc", &said(&guard, &["gc", "--json"]));
        check("profiles", &said(&guard, &["profiles", "--json"]));
        check("version", &said(&guard, &["version", "--json"]));
        check("host-setup", &said(&guard, &["host-setup", "--json"]));
        let base = guard.base().display().to_string();
        check("demo", &said(&guard, &["demo", "--json", "--chroot-base-dir", &base]));
    });
}
