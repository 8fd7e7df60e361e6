//! Other programs that put a process into a jail, each with the set of isolation that comes nearest.

use std::fs;
use std::path::{Path, PathBuf};

use stockade_syscalls::call::Call;

use crate::child::{execute, reap, start};
use crate::ground::Ground;
use crate::ways::{Cgroups, Ready, fresh_id, jailer};
use crate::worker::Worker;
use crate::{Done, text};

/// Each peer, the program it is, and what it isolates.
pub(crate) const PEERS: [(&str, &str, &str); 6] = [
    (
        "jailer",
        "",
        "the same set: mount namespace, pivot_root, devices, uid and gid, a copy of the executable",
    ),
    (
        "bubblewrap",
        "bwrap",
        "mount namespace, pivot_root, devices; no uid of its own, no copy of the executable",
    ),
    ("crun", "crun", "mount and pid namespaces, pivot_root, uid and gid; a cgroup of its own"),
    ("runc", "runc", "mount and pid namespaces, pivot_root, uid and gid; a cgroup of its own"),
    (
        "firejail",
        "firejail",
        "mount and pid namespaces, private devices and chroot-like lists, seccomp off; runs as root",
    ),
    (
        "systemd-run",
        "systemd-run",
        "RootDirectory=, User=, PrivateDevices=; needs systemd as the first process",
    ),
];

/// The peers that can be measured on this machine, and why the others cannot.
pub(crate) struct Peers {
    pub(crate) there: Vec<&'static str>,
    pub(crate) missing: Vec<String>,
}

impl Peers {
    /// Tries each of them once.
    pub(crate) fn find(worker: &mut Worker) -> Self {
        let mut peers = Self { there: Vec::new(), missing: Vec::new() };
        for (name, _, _) in PEERS {
            match find(name).and_then(|_| worker.ask(&format!("start {name} 1"))) {
                Ok(_) => peers.there.push(name),
                Err(why) => peers.missing.push(format!("not measured: {name}: {why}")),
            }
        }
        peers
    }

    pub(crate) fn has(&self, peer: &str) -> bool {
        self.there.contains(&peer)
    }
}

fn find(peer: &str) -> Done<PathBuf> {
    if peer.starts_with("jailer") {
        let named = std::env::var_os("STOCKADE_BENCH_JAILER").ok_or("STOCKADE_BENCH_JAILER names none")?;
        let path = PathBuf::from(named);
        return if path.is_file() { Ok(path) } else { Err(format!("{} is no file", path.display())) };
    }
    if peer == "systemd-run" && !Path::new("/run/systemd/private").exists() {
        return Err("systemd does not run here".into());
    }
    let program = PEERS.iter().find(|(name, _, _)| *name == peer).map_or(peer, |(_, program, _)| program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut places = std::env::split_paths(&path).chain(more).map(|directory| directory.join(program));
    places.find(|path| path.is_file()).ok_or_else(|| "not installed".into())
}

/// Prepares one start by a peer.
pub(crate) fn ready(ground: &Ground, peer: &str) -> Done<Ready> {
    let program = find(peer)?;
    let id = fresh_id();
    let root = ground.directory.join(&id);
    if peer == "jailer" {
        return jailer(ground, program, Cgroups::None);
    }
    if peer == "jailer-v1" {
        return jailer(ground, program, Cgroups::Asked(1));
    }
    let rootfs = root.join("rootfs");
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(rootfs.join(folder)).map_err(text)?;
    }
    fs::copy(&ground.vmm, rootfs.join("vmm")).map_err(text)?;
    let (rootfs, vmm) = (rootfs.display().to_string(), ground.vmm.display().to_string());
    let bundle = root.display().to_string();
    let words: Vec<&str> = match peer {
        "bubblewrap" => {
            vec!["--bind", &rootfs, "/", "--dev", "/dev", "--new-session", "--cap-drop", "ALL", "/vmm"]
        }
        "firejail" => vec!["--quiet", "--noprofile", "--private-dev", "--private", "--net=none", &vmm],
        "systemd-run" => {
            vec!["--quiet", "--pipe", "--wait", "--property=PrivateDevices=yes", "--uid=1234", &vmm]
        }
        _ => {
            fs::write(root.join("config.json"), oci(&id)).map_err(text)?;
            vec!["run", "--bundle", &bundle, &id]
        }
    };
    let words: Vec<String> = words.into_iter().map(Into::into).collect();
    Ok(Box::new(move |output| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let child = start(vec![Call::Redirect([None, Some(output), None]), execute(&program, &words)])?;
        Ok(Box::new(move || {
            reap(&child)?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// The configuration of a container that is as near to a jail as OCI has it.
fn oci(id: &str) -> String {
    serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 1234, "gid": 1234}, "args": ["/vmm"], "env": [], "cwd": "/",
            "noNewPrivileges": false,
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("/stockade-bench/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
        },
    })
    .to_string()
}
