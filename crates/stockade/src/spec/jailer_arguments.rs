//! The same jail as arguments of Firecracker's jailer.

use std::ffi::OsString;
use std::path::Path;

use super::builder::{JailBuilder, NetnsRequest};
use super::netns::NETNS_DIRECTORY;
use super::{Account, CgroupSetting, ResourceLimit};

impl JailBuilder {
    /// The arguments with which Firecracker's jailer, or the drop-in, creates this jail: its own, then `--`, then the
    /// VMM's.
    ///
    /// Nothing is checked, so that a test can pass a wrong argument to `jailer`. A network namespace is the path of
    /// its file, which has to exist when `jailer` runs. Names of users and sizes with a unit become numbers, which is
    /// all that `jailer` understands. It has no arguments for a ramfs, a profile and shared libraries.
    pub fn jailer_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        add("--id", self.id.clone().into());
        add("--exec-file", self.exec_file.clone().into());
        let id =
            |account: Account, text: &String| account.parse(text).map_or(text.clone(), |id| id.to_string());
        add("--uid", id(Account::User, &self.uid).into());
        add("--gid", id(Account::Group, &self.gid).into());
        add("--chroot-base-dir", self.base.clone().into());
        if let NetnsRequest::Named(name) = &self.netns {
            add("--netns", Path::new(NETNS_DIRECTORY).join(name).into());
        }
        let switches = [(self.daemonize, "--daemonize"), (self.new_pid_ns, "--new-pid-ns")];
        arguments.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.into()));
        let mut add = |flag: &str, value: &str| arguments.extend([flag.into(), value.into()]);
        self.parent_cgroup.iter().for_each(|parent| add("--parent-cgroup", parent));
        self.cgroup_version.iter().for_each(|version| add("--cgroup-version", version));
        for text in &self.cgroups {
            let setting = text.parse().and_then(CgroupSetting::in_bytes);
            add("--cgroup", &setting.map_or(text.clone(), |setting| setting.to_string()));
        }
        for text in &self.limits {
            let limit = ResourceLimit::with_unit(text);
            add("--resource-limit", &limit.map_or(text.clone(), |limit| limit.to_string()));
        }
        if !self.arguments.is_empty() {
            arguments.push("--".into());
            arguments.extend(self.arguments.iter().cloned());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::JailSpec;

    #[test]
    fn names_and_units_become_numbers() {
        let builder = JailSpec::builder("vm", "/bin/vmm").uid("root").gid("7").cgroup("memory.max=1K");
        let arguments = builder.resource_limit("fsize=1M").resource_limit("wrong").jailer_arguments();
        let line = arguments.join(" ".as_ref()).into_string().expect("plain text");
        let end = "--uid 0 --gid 7 --chroot-base-dir /srv/jailer --cgroup memory.max=1024 --resource-limit fsize=1048576 \
                   --resource-limit wrong";
        assert!(line.ends_with(end), "{line}");
    }
}
