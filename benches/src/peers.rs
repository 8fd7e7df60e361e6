//! Peers: other programs that isolate a process, each with its closest set of isolation.

use std::fs;
use std::path::{Path, PathBuf};

use stockade_syscalls::call::Call;

use crate::child::{execute, reap, start};
use crate::setup::Setup;
use crate::ways::{Cgroups, Ready, fresh_id, jailer};
use crate::worker::Worker;
use crate::{Done, text};

/// The name, the program and the isolation of each peer.
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

/// The peers that can be measured on this machine, and the reasons why others cannot.
pub(crate) struct Peers {
    pub(crate) available: Vec<&'static str>,
    pub(crate) missing: Vec<String>,
}

impl Peers {
    /// Tries each peer once.
    pub(crate) fn find(worker: &mut Worker) -> Self {
        let mut peers = Self { available: Vec::new(), missing: Vec::new() };
        for (name, _, _) in PEERS {
            match find(name).and_then(|_| worker.ask(&format!("start {name} 1"))) {
                Ok(_) => peers.available.push(name),
                Err(cause) => peers.missing.push(format!("not measured: {name}: {cause}")),
            }
        }
        peers
    }

    pub(crate) fn has(&self, peer: &str) -> bool {
        self.available.contains(&peer)
    }
}

fn find(peer: &str) -> Done<PathBuf> {
    if peer.starts_with("jailer") {
        let named = std::env::var_os("STOCKADE_BENCH_JAILER").ok_or("STOCKADE_BENCH_JAILER is not set")?;
        let path = PathBuf::from(named);
        return if path.is_file() { Ok(path) } else { Err(format!("{} is no file", path.display())) };
    }
    if peer == "systemd-run" && !Path::new("/run/systemd/private").exists() {
        return Err("systemd is not running".into());
    }
    let program = PEERS.iter().find(|(name, _, _)| *name == peer).map_or(peer, |(_, program, _)| program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut paths = std::env::split_paths(&path).chain(more).map(|directory| directory.join(program));
    paths.find(|path| path.is_file()).ok_or_else(|| "not installed".into())
}

/// Prepares one start by a peer.
pub(crate) fn ready(setup: &Setup, peer: &str) -> Done<Ready> {
    let program = find(peer)?;
    let id = fresh_id();
    let root = setup.directory.join(&id);
    if peer == "jailer" {
        return jailer(setup, program, Cgroups::None);
    }
    if peer == "jailer-v1" {
        return jailer(setup, program, Cgroups::ByFlags(1));
    }
    let rootfs = root.join("rootfs");
    for name in ["proc", "dev", "sys"] {
        fs::create_dir_all(rootfs.join(name)).map_err(text)?;
    }
    fs::copy(&setup.vmm, rootfs.join("vmm")).map_err(text)?;
    let (rootfs, vmm) = (rootfs.display().to_string(), setup.vmm.display().to_string());
    let bundle = root.display().to_string();
    let arguments: Vec<&str> = match peer {
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
    let arguments: Vec<String> = arguments.into_iter().map(Into::into).collect();
    Ok(Box::new(move |output| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let child = start(vec![Call::Redirect([None, Some(output), None]), execute(&program, &arguments)])?;
        Ok(Box::new(move || {
            reap(&child)?;
            fs::remove_dir_all(root).map_err(text)
        }))
    }))
}

/// The OCI configuration of a container that is close to a jail.
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
