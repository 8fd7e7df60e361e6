//! The demo's report as text.

use std::fmt::Write;

use serde_json::Value;

use super::Demo;

pub(crate) fn text(demo: &Demo) -> String {
    let mut text = String::new();
    let mut line = |label: &str, content: String| {
        let _ = writeln!(text, "{label:11}{content}");
    };
    let probe = &demo.probe;
    line("jail", format!("{} in {}", demo.id, demo.root));
    line("runs as", format!("uid {}, gid {}, pid {} inside", probe["uid"], probe["gid"], probe["pid"]));
    line("namespaces", format!("own {}; the host's {}", namespaces(probe, true), namespaces(probe, false)));
    line("sees", sees(probe));
    line("devices", join(&probe["devices"], |device| device["path"].as_str().map(str::to_owned)));
    line("placed", format!("{} (read from inside: the same as outside)", demo.placed));
    line("KVM guest", guest(&demo.kvm_guest));
    for (number, escape) in probe["escapes"].as_array().into_iter().flatten().enumerate() {
        let label = if number == 0 { "escapes" } else { "" };
        let held = match (escape["held"] == true, escape["tried"] == false) {
            (true, _) => "held",
            (false, true) => "UNKNOWN",
            (false, false) => "NOT HELD",
        };
        let field = |key: &str| escape[key].as_str().unwrap_or("?").to_owned();
        line(label, format!("{held:8} {:20} {:7} {}", field("name"), field("result"), field("what")));
    }
    let phases = &demo.phases;
    let named = [
        ("prepare", phases.prepare_us),
        ("place", phases.place_us),
        ("launch", phases.launch_us),
        ("run", phases.run_us),
        ("teardown", phases.teardown_us),
        ("total", phases.total_us),
    ];
    let times: Vec<String> = named.iter().map(|(name, us)| format!("{name} {}", milliseconds(*us))).collect();
    line("times", times.join(", "));
    match demo.leftovers.as_slice() {
        [] => line("leftovers", "none: the host is as it was".into()),
        some => some.iter().for_each(|what| line("LEFT", what.clone())),
    }
    text
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10)
}

fn guest(result: &str) -> String {
    match result {
        "hlt" => "ran in real mode to its HLT exit, on /dev/kvm from inside the jail".to_owned(),
        reason => format!("did not run: {reason}"),
    }
}

fn sees(probe: &Value) -> String {
    let mounts = match probe["mounts"].as_array() {
        Some(mounts) => format!("{} mount{}", mounts.len(), if mounts.len() == 1 { "" } else { "s" }),
        None => "mounts unknown".to_owned(),
    };
    let environment = match probe["environment"].as_array().map_or(0, Vec::len) {
        0 => "an empty environment".to_owned(),
        some => format!("{some} environment variables"),
    };
    let descriptors = join(&probe["descriptors"], |fd| Some(fd.to_string()));
    let network = join(&probe["network"], |name| name.as_str().map(str::to_owned));
    format!("{mounts}, file descriptors {descriptors}, {environment}, interfaces {network}")
}

fn namespaces(probe: &Value, own: bool) -> String {
    let kinds = probe["namespaces"].as_object().into_iter().flatten();
    let kinds: Vec<&str> =
        kinds.filter(|(_, facts)| facts["own"] == own).map(|(kind, _)| kind.as_str()).collect();
    kinds.join(" ")
}

fn join(list: &Value, name: impl Fn(&Value) -> Option<String>) -> String {
    let names: Vec<String> = list.as_array().into_iter().flatten().filter_map(name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}
