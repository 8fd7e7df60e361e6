//! A specification from text, as a command line, a file or a program contains it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{
    Account, CgroupSetting, CgroupVersion, DEFAULT_BASE, DEFAULT_OWNER, ExecFile, HostPath, JailSpec, Netns,
    Owner, ParentCgroup, Profiles, ResourceLimit, SpecError,
};
use crate::spec::layout::Layout;
use crate::spec::libraries::Libraries;

/// An unchecked specification. [`JailBuilder::build`] checks all of it. Its error names the wrong part as the command
/// line names its flag.
///
/// ```no_run
/// # fn main() -> stockade::Result<()> {
/// let spec = stockade::spec::JailSpec::builder("vm-1", "/usr/local/bin/firecracker")
///     .netns("vm-1")
///     .new_pid_ns(true)
///     .cgroup("pids.max=64")
///     .arguments(["--config-file", "/vm.json"])
///     .build()?;
/// # let _ = spec;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
// One for each switch.
#[allow(clippy::struct_excessive_bools)]
pub struct JailBuilder {
    pub(super) id: String,
    pub(super) exec_file: PathBuf,
    pub(super) libraries: bool,
    pub(super) bind_executable: bool,
    pub(super) uid: String,
    pub(super) gid: String,
    pub(super) base: PathBuf,
    pub(super) allow_unsafe_base: bool,
    pub(super) netns: NetnsRequest,
    pub(super) daemonize: bool,
    pub(super) new_pid_ns: bool,
    pub(super) cgroups: Vec<String>,
    pub(super) cgroup_version: Option<String>,
    pub(super) parent_cgroup: Option<String>,
    pub(super) limits: Vec<String>,
    pub(super) ramfs: Option<u64>,
    pub(super) profile: Option<String>,
    pub(super) profiles: Profiles,
    pub(super) arguments: Vec<OsString>,
}

#[derive(Clone, Debug)]
pub(super) enum NetnsRequest {
    Host,
    New,
    Named(String),
}

impl JailSpec {
    /// Begins a specification of the jail `id` for the executable `exec_file`.
    pub fn builder(id: impl Into<String>, exec_file: impl Into<PathBuf>) -> JailBuilder {
        JailBuilder {
            id: id.into(),
            exec_file: exec_file.into(),
            libraries: true,
            bind_executable: false,
            uid: DEFAULT_OWNER.uid.to_string(),
            gid: DEFAULT_OWNER.gid.to_string(),
            base: DEFAULT_BASE.into(),
            allow_unsafe_base: false,
            netns: NetnsRequest::Host,
            daemonize: false,
            new_pid_ns: false,
            cgroups: Vec::new(),
            cgroup_version: None,
            parent_cgroup: None,
            limits: Vec::new(),
            ramfs: None,
            profile: None,
            profiles: Profiles::default(),
            arguments: Vec::new(),
        }
    }
}

impl JailBuilder {
    /// The user of the VMM and of its files: a number, or a name in `/etc/passwd` (default: 1234).
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts are given as they are")]
    pub fn uid(mut self, uid: impl ToString) -> Self {
        self.uid = uid.to_string();
        self
    }

    /// The group of the VMM and of its files: a number, or a name in `/etc/group` (default: 1234).
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts are given as they are")]
    pub fn gid(mut self, gid: impl ToString) -> Self {
        self.gid = gid.to_string();
        self
    }

    /// The directory in which the jail is created (default: `/srv/jailer`). A missing one is created.
    pub fn base(mut self, directory: impl Into<PathBuf>) -> Self {
        self.base = directory.into();
        self
    }

    /// Whether the jail is created even if its uid can write to the base, to the executable's directory in it, or to a
    /// directory above (default: false). Such a uid can exchange the directories of jails.
    pub fn allow_unsafe_base(mut self, allow: bool) -> Self {
        self.allow_unsafe_base = allow;
        self
    }

    /// The VMM's network namespace (default: the host's).
    ///
    /// With a slash in it, `name_or_path` is the path of a namespace to join. Without, it is a name: an existing
    /// namespace is joined, a missing one is created and removed with the jail.
    pub fn netns(mut self, name_or_path: impl Into<String>) -> Self {
        self.netns = NetnsRequest::Named(name_or_path.into());
        self
    }

    /// Runs the VMM in a new network namespace without a name, which exists as long as the VMM.
    pub fn new_netns(mut self) -> Self {
        self.netns = NetnsRequest::New;
        self
    }

    /// Whether the VMM is the first process of its own pid namespace (default: false).
    pub fn new_pid_ns(mut self, new: bool) -> Self {
        self.new_pid_ns = new;
        self
    }

    /// Whether the VMM's standard streams are `/dev/null` (default: false).
    pub fn daemonize(mut self, daemonize: bool) -> Self {
        self.daemonize = daemonize;
        self
    }

    /// Adds a cgroup setting, for example `pids.max=64`. Sizes may have a unit, as in `memory.max=512M`.
    pub fn cgroup(mut self, setting: impl Into<String>) -> Self {
        self.cgroups.push(setting.into());
        self
    }

    /// The cgroup version, 1 or 2 (default: the one that has the controllers).
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts are given as they are")]
    pub fn cgroup_version(mut self, version: impl ToString) -> Self {
        self.cgroup_version = Some(version.to_string());
        self
    }

    /// The cgroup in which the jail's cgroups are created (default: the executable's name).
    pub fn parent_cgroup(mut self, path: impl Into<String>) -> Self {
        self.parent_cgroup = Some(path.into());
        self
    }

    /// Adds a resource limit of the VMM, `no-file=COUNT` or `fsize=SIZE`. The last limit of a kind counts.
    pub fn resource_limit(mut self, limit: impl Into<String>) -> Self {
        self.limits.push(limit.into());
        self
    }

    /// Mounts a ramfs on `/ramfs`, with a nominal size in bytes.
    pub fn ramfs(mut self, bytes: u64) -> Self {
        self.ramfs = Some(bytes);
        self
    }

    /// The profile, by name or file as in [`Profiles::named`] (default: by the executable's name).
    pub fn profile(mut self, name_or_file: impl Into<String>) -> Self {
        self.profile = Some(name_or_file.into());
        self
    }

    /// The profiles to choose from (default: the built-in ones and `/etc/stockade/profiles`).
    pub fn profiles(mut self, profiles: Profiles) -> Self {
        self.profiles = profiles;
        self
    }

    /// Whether the dynamic loader and the shared libraries of the VMM are placed (default: true).
    pub fn libraries(mut self, place: bool) -> Self {
        self.libraries = place;
        self
    }

    /// Whether the executable and its shared libraries are bound read-only instead of copied (default: false).
    ///
    /// Invalid for a VMM of uid 0, which could make them writable.
    pub fn bind_executable(mut self, bind: bool) -> Self {
        self.bind_executable = bind;
        self
    }

    /// Adds an argument of the VMM.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments of the VMM.
    pub fn arguments<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Checks everything and resolves paths and names on this host.
    ///
    /// # Errors
    /// Returns [`SpecError::Argument`] with the name of the first wrong part, and the cause.
    pub fn build(&self) -> Result<JailSpec, SpecError> {
        let id = self.id.parse().map_err(wrong("id"))?;
        let exec_file = ExecFile::new(&self.exec_file).map_err(wrong("exec-file"))?;
        let base = HostPath::future_directory(&self.base).map_err(wrong("chroot-base-dir"))?;
        let mut spec = JailSpec::new(id, exec_file, base);
        Layout::new(&spec).check_length().map_err(wrong("chroot-base-dir"))?;
        let profile = match &self.profile {
            Some(name) => self.profiles.named(name),
            None => self.profiles.for_executable(&spec.exec_file),
        };
        spec.profile = profile.map_err(wrong("profile"))?;
        if self.libraries {
            spec.libraries = Libraries::of(&spec.exec_file).map_err(wrong("exec-file"))?;
        }
        let uid = Account::User.parse(&self.uid).map_err(wrong("uid"))?;
        let gid = Account::Group.parse(&self.gid).map_err(wrong("gid"))?;
        spec.owner = Owner { uid, gid };
        spec.allow_unsafe_base = self.allow_unsafe_base;
        spec.bind_executable = self.bind_executable;
        if spec.bind_executable && spec.owner.uid == 0 {
            return Err(wrong("bind-exec")(SpecError::ReadOnlyOwner(spec.owner)));
        }
        if spec.bind_executable {
            spec.exec_file.check_executable(spec.owner).map_err(wrong("exec-file"))?;
        }
        spec.netns = match &self.netns {
            NetnsRequest::Host => Netns::Host,
            NetnsRequest::New => Netns::New,
            NetnsRequest::Named(name) => Netns::from_argument(name).map_err(wrong("netns"))?,
        };
        spec.daemonize = self.daemonize;
        spec.new_pid_ns = self.new_pid_ns;
        let setting = |text: &String| text.parse::<CgroupSetting>()?.in_bytes();
        spec.cgroups = self.cgroups.iter().map(setting).collect::<Result<_, _>>().map_err(wrong("cgroup"))?;
        let version = self.cgroup_version.as_deref().map(known_version).transpose();
        spec.cgroup_version = version.map_err(wrong("cgroup-version"))?;
        let parent = self.parent_cgroup.as_deref().map(known_parent).transpose();
        spec.parent_cgroup = parent.map_err(wrong("parent-cgroup"))?;
        let limits = self.limits.iter().map(|text| ResourceLimit::with_unit(text));
        let limits = limits.collect::<Result<Vec<_>, _>>().map_err(wrong("resource-limit"))?;
        spec.limits.extend(limits);
        spec.ramfs = self.ramfs;
        spec.arguments.clone_from(&self.arguments);
        Ok(spec)
    }
}

fn wrong<E: Into<SpecError>>(name: &'static str) -> impl Fn(E) -> SpecError {
    move |cause| match cause.into() {
        // It names its own part.
        named @ SpecError::Argument { .. } => named,
        cause => SpecError::Argument { name, cause: Box::new(cause) },
    }
}

/// Parses 1 or 2. Firecracker's jailer accepts any number here and fails later for lack of such a hierarchy.
fn known_version(text: &str) -> Result<CgroupVersion, SpecError> {
    match text.parse()? {
        CgroupVersion::Unknown(_) => Err(SpecError::CgroupVersion(text.to_owned())),
        version => Ok(version),
    }
}

/// Parses a parent that is not empty. Firecracker's jailer takes an empty one for the hierarchy's root.
fn known_parent(text: &str) -> Result<ParentCgroup, SpecError> {
    if text.is_empty() { Err(SpecError::ParentCgroup(String::new())) } else { text.parse() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        let good = || JailSpec::builder("vm-1", "/bin/sh").libraries(false);
        let error_of = |builder: JailBuilder| builder.build().expect_err("must be refused").to_string();
        for (builder, name) in [
            (JailSpec::builder("vm_1", "/bin/sh"), "id"),
            (JailSpec::builder("vm-1", "/no/such"), "exec-file"),
            (good().base("/proc/version"), "chroot-base-dir"),
            (good().uid("-1"), "uid"),
            (good().uid("stockade-no-such-name"), "uid"),
            (good().gid(u32::MAX), "gid"),
            (good().netns("../x"), "netns"),
            (good().netns(".x"), "netns"),
            (good().cgroup("pids.max"), "cgroup"),
            (good().cgroup("memory.max=lots"), "cgroup"),
            (good().cgroup_version(3), "cgroup-version"),
            (good().parent_cgroup("/x"), "parent-cgroup"),
            (good().parent_cgroup(""), "parent-cgroup"),
            (good().resource_limit("cpu=1"), "resource-limit"),
            (good().resource_limit("fsize=lots"), "resource-limit"),
            (good().profile("no-such"), "profile"),
        ] {
            let error = error_of(builder);
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
    }

    #[test]
    fn omitted_parts_have_their_defaults() {
        let built = JailSpec::builder("vm-1", "/bin/sh").libraries(false).build().expect("it is valid");
        let plain = JailSpec::new(
            "vm-1".parse().expect("an id"),
            ExecFile::new(Path::new("/bin/sh")).expect("a shell"),
            HostPath::future_directory(Path::new(DEFAULT_BASE)).expect("a base"),
        );
        assert_eq!(JailSpec { started_us: 0, ..built }, JailSpec { started_us: 0, ..plain });
    }
}
