//! The same jail in the words of Firecracker's `jailer`.

use std::ffi::OsString;
use std::path::Path;

use super::builder::{JailBuilder, NetnsWish};
use super::netns::NETNS_DIRECTORY;

impl JailBuilder {
    /// The arguments with which Firecracker's `jailer`, or its drop-in, makes this jail: its own, then `--`, then
    /// the VMM's. Nothing is checked: to try what `jailer` does with a wrong or a missing one, give it that.
    ///
    /// A network namespace goes by the path of its file, and has to be there when `jailer` is run. Of a ramfs,
    /// a profile and a closure `jailer` knows nothing.
    pub fn jailer_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        add("--id", self.id.clone().into());
        add("--exec-file", self.exec_file.clone().into());
        add("--uid", self.uid.clone().into());
        add("--gid", self.gid.clone().into());
        add("--chroot-base-dir", self.base.clone().into());
        if let NetnsWish::Named(name) = &self.netns {
            add("--netns", Path::new(NETNS_DIRECTORY).join(name).into());
        }
        let switches = [(self.daemonize, "--daemonize"), (self.new_pid_ns, "--new-pid-ns")];
        arguments.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.into()));
        let mut add = |flag: &str, value: &str| arguments.extend([flag.into(), value.into()]);
        self.parent_cgroup.iter().for_each(|parent| add("--parent-cgroup", parent));
        self.cgroup_version.iter().for_each(|version| add("--cgroup-version", version));
        self.cgroups.iter().for_each(|setting| add("--cgroup", setting));
        self.limits.iter().for_each(|limit| add("--resource-limit", limit));
        if !self.arguments.is_empty() {
            arguments.push("--".into());
            arguments.extend(self.arguments.iter().cloned());
        }
        arguments
    }
}
