//! Flags of other tools, and stockade's equivalents.
//!
//! The tools are docker, podman, runc, Firecracker's jailer, nsjail, bubblewrap and systemctl.

use glob::Pattern;

/// Commands that describe a jail.
pub(super) const DESCRIBE_JAIL: &[&str] = &["run", "create", "plan"];
/// Commands that pass arguments to a VMM.
pub(super) const TAKE_VMM_ARGUMENTS: &[&str] = &["run", "create", "start", "plan"];
/// Commands that take the id of a jail, or several.
const TAKE_ID: &[&str] = &[
    "start", "stop", "kill", "wait", "rm", "inspect", "audit", "logs", "exec", "shell", "place", "unplace",
    "events", "top",
];
const EXEC: &[&str] = &["exec", "shell"];
const ALL: &[&str] = &[];

/// A flag that stockade does not have.
struct ForeignFlag {
    /// The commands with this hint; empty for all.
    commands: &'static [&'static str],
    /// Patterns of the flag's names.
    names: &'static [&'static str],
    /// Pattern of its value; `*` also matches a missing one.
    value: &'static str,
    /// `{N:SIZE}` stands for the value, or for SIZE without one; see [`fill`] for the letters.
    hint: &'static str,
}

const fn flag(
    commands: &'static [&'static str],
    names: &'static [&'static str],
    value: &'static str,
    hint: &'static str,
) -> ForeignFlag {
    ForeignFlag { commands, names, value, hint }
}

/// The first match applies. Flags that only a VMM has are left out: their hint is that of stray arguments.
const FLAGS: &[ForeignFlag] = &[
    // Memory.
    flag(DESCRIBE_JAIL, &["--memory", "--cpus", "--net", "--device"], "?*=*", FOR_THE_VMM),
    flag(
        DESCRIBE_JAIL,
        &["--memory", "-m", "--mem", "--memory-max", "--memory-limit", "--cgroup_mem_max"],
        "*",
        "use --cgroup memory.max={v:SIZE}, or --cgroup memory.limit_in_bytes={v:SIZE} on cgroup v1; a VMM's own flag goes after --",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--memory-swap"],
        "*",
        "use --cgroup memory.memsw.limit_in_bytes={v:SIZE} on cgroup v1, or --cgroup memory.swap.max=SIZE for the swap alone on v2",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--memory-reservation"],
        "*",
        "use --cgroup memory.low={v:SIZE}, or --cgroup memory.soft_limit_in_bytes={v:SIZE} on cgroup v1",
    ),
    // Processors, processes and disks.
    flag(
        DESCRIBE_JAIL,
        &["--cpus"],
        "*",
        "use --cgroup 'cpu.max={q:QUOTA} 100000', or --cgroup cpu.cfs_quota_us={q:QUOTA} on cgroup v1; a VMM's own flag goes after --",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--cpu-quota", "--cpu-period", "--cgroup_cpu_ms_per_sec"],
        "*",
        "use --cgroup 'cpu.max=QUOTA PERIOD', or --cgroup cpu.cfs_quota_us=QUOTA on cgroup v1",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--cpu-shares"],
        "*",
        "use --cgroup cpu.weight=N of 1 to 10000, or --cgroup cpu.shares={v:N} on cgroup v1",
    ),
    flag(DESCRIBE_JAIL, &["--cpuset-cpus", "--cpuset"], "*", "use --cgroup cpuset.cpus={v:LIST}"),
    flag(DESCRIBE_JAIL, &["--cpuset-mems"], "*", "use --cgroup cpuset.mems={v:LIST}"),
    flag(DESCRIBE_JAIL, &["--node"], "*", "use --cgroup cpuset.mems={v:N} and --cgroup cpuset.cpus=LIST"),
    flag(DESCRIBE_JAIL, &["--pids-limit", "--pids", "--cgroup_pids_max"], "*", "use --cgroup pids.max={v:N}"),
    flag(
        DESCRIBE_JAIL,
        &["--device-read-*", "--device-write-*", "--blkio-weight*"],
        "*",
        "use --cgroup 'io.max=MAJOR:MINOR rbps=SIZE', or --cgroup 'blkio.throttle.read_bps_device=MAJOR:MINOR SIZE' on cgroup v1",
    ),
    flag(DESCRIBE_JAIL, &["--cgroup-parent"], "*", "did you mean '--parent-cgroup'?"),
    // Limits of the process.
    flag(DESCRIBE_JAIL, &["--ulimit"], "nofile=*", "use --resource-limit no-file={u:COUNT}"),
    flag(DESCRIBE_JAIL, &["--ulimit"], "fsize=*", "use --resource-limit fsize={u:SIZE}"),
    flag(
        DESCRIBE_JAIL,
        &["--rlimit_nofile", "--nofile", "--no-file"],
        "*",
        "use --resource-limit no-file={v:COUNT}",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--ulimit", "--rlimit*", "--limit", "--fsize"],
        "*",
        "use --resource-limit with no-file=COUNT or fsize=SIZE",
    ),
    // Network.
    flag(
        DESCRIBE_JAIL,
        &["-p", "-P", "--publish*", "--port*", "--expose"],
        "*",
        "stockade forwards no ports; use --netns NAME, and forward them to that namespace with `nft`",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--ip", "--ip6", "--dns*", "--mac-address", "--add-host", "--network-alias"],
        "*",
        "stockade sets up no addresses; use --netns NAME, and configure that namespace with `ip`",
    ),
    flag(DESCRIBE_JAIL, &["--network", "--net"], "none", "did you mean '--new-net-ns'?"),
    flag(
        DESCRIBE_JAIL,
        &["--network", "--net"],
        "host",
        "a jail has the host's network by default; remove this flag",
    ),
    flag(DESCRIBE_JAIL, &["--share-net"], "*", "a jail has the host's network by default; remove this flag"),
    flag(DESCRIBE_JAIL, &["--network", "--network-mode", "--net"], "*", "did you mean '--netns'?"),
    flag(DESCRIBE_JAIL, &["--unshare-net"], "*", "did you mean '--new-net-ns'?"),
    // Other namespaces.
    flag(DESCRIBE_JAIL, &["--pid"], "host", "a VMM has the host's PIDs by default; remove this flag"),
    flag(
        DESCRIBE_JAIL,
        &["--pid", "--pidns", "--unshare-pid", "--init"],
        "*",
        "did you mean '--new-pid-ns'?",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--ipc", "--uts", "--userns", "--cgroupns", "--unshare-*", "--hostname"],
        "*",
        "stockade creates mount, network and PID namespaces only; remove this flag",
    ),
    // Files.
    flag(DESCRIBE_JAIL, &["--volume", "--mount", "--volumes-from"], "*", PLACE),
    flag(DESCRIBE_JAIL, &["--bind", "--bindmount", "-B"], "*", "use --place SRC=NAME:bind"),
    flag(DESCRIBE_JAIL, &["--ro-bind", "--bindmount_ro", "-R"], "*", "use --place SRC=NAME:ro:bind"),
    flag(
        DESCRIBE_JAIL,
        &["--read-only", "--how"],
        "*",
        "use an option behind the source, as in --place SRC:ro",
    ),
    flag(DESCRIBE_JAIL, &["--device", "--dev-bind"], "*", "use --place {s:/dev/NAME}"),
    flag(DESCRIBE_JAIL, &["--gpus"], "*", "use --place for each device node"),
    flag(
        DESCRIBE_JAIL,
        &["--tmpfs", "--tmpfsmount", "--shm-size"],
        "*",
        "use --ramfs SIZE, which mounts a ramfs on /ramfs",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--chroot", "--rootfs"],
        "*",
        "use --chroot-base-dir for the directory of all jails, and --place for the files of this one",
    ),
    flag(DESCRIBE_JAIL, &["--base", "--base-dir", "--chroot-dir"], "*", "did you mean '--chroot-base-dir'?"),
    flag(DESCRIBE_JAIL, &["--config", "--jail-file"], "*.toml", "did you mean '--file {v:FILE}'?"),
    flag(
        DESCRIBE_JAIL,
        &["--image", "--pull", "--platform"],
        "*",
        "stockade has no images; use --exec-file for the VMM and --place for its files",
    ),
    // The process.
    flag(DESCRIBE_JAIL, &["--name"], "*", "did you mean '--id'?"),
    flag(
        DESCRIBE_JAIL,
        &["--entrypoint", "--exec", "--exec_file", "--executable", "--vmm"],
        "*",
        "did you mean '--exec-file'?",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--user", "--group", "--group-add", "-u", "-g"],
        "*",
        "did you mean '--uid' and '--gid'?",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--workdir", "-w", "--cwd", "--chdir"],
        "*",
        "a VMM starts in the root of its jail; remove this flag",
    ),
    flag(
        TAKE_VMM_ARGUMENTS,
        &["-e", "-E", "--env", "--env-file", "--setenv"],
        "*",
        "a VMM has an empty environment; remove this flag",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--privileged", "--cap-add", "--cap", "--keep_caps"],
        "*",
        "a VMM has no capabilities; remove this flag, and use --place for the devices that it needs",
    ),
    flag(DESCRIBE_JAIL, &["--cap-drop"], "*", "a VMM has no capabilities; remove this flag"),
    flag(
        DESCRIBE_JAIL,
        &["--no-new-privs", "--no-new-privileges", "--security-opt", "--seccomp_policy", "--seccomp_string"],
        "*",
        "stockade sets no_new_privs, and a VMM installs its own seccomp filter; remove this flag",
    ),
    // The jail's life.
    flag(&["run"], &["--rm"], "*", "remove this flag: `run` removes its jail unless it is detached"),
    flag(DESCRIBE_JAIL, &["--rm"], "*", "use `run`, which removes its jail"),
    flag(&["run"], &["--background", "-D", "-b"], "*", "did you mean '--detach'?"),
    flag(&["create"], &["-d", "--detach"], "*", "`create` starts no VMM; use `run -d`"),
    flag(&["start"], &["-d", "--detach"], "*", "`start` returns when the VMM runs; remove this flag"),
    flag(
        TAKE_VMM_ARGUMENTS,
        &["--restart*"],
        "*",
        "stockade restarts no VMM; use the systemd unit stockade@.service, which has Restart=on-failure",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--label*", "--tag", "-l", "--annotation"],
        "*",
        "stockade has no labels; begin the ids with a common name, and select with --filter 'id=NAME-*'",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--health-*", "--no-healthcheck"],
        "*",
        "use --ready to wait until the VMM accepts connections",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--log-driver", "--log-opt"],
        "*",
        "use --log-size for the log of a detached VMM, and `stockade logs` to read it",
    ),
    flag(
        DESCRIBE_JAIL,
        &["--stop-timeout", "--time_limit"],
        "*",
        "use --grace of `run`, or --timeout of `stop`",
    ),
    flag(TAKE_VMM_ARGUMENTS, &["--stop-signal"], "*", STOP_SIGNAL),
    flag(&["stop"], &["-s", "--signal"], "*", STOP_SIGNAL),
    flag(&["stop"], &["-f", "--force"], "*", "use --timeout 0, or `stockade kill`"),
    flag(
        DESCRIBE_JAIL,
        &["--pidfile", "--pid-file", "--cidfile"],
        "*",
        "read the pid with `stockade ps`, or with `stockade inspect --json`",
    ),
    flag(DESCRIBE_JAIL, &["--replace"], "*", "remove the old jail with `stockade rm --force` first"),
    flag(DESCRIBE_JAIL, &["--dry-run"], "*", "use `stockade plan` with the same flags"),
    flag(TAKE_VMM_ARGUMENTS, &["-[it]", "--interactive", "--tty", "--attach"], "*", TERMINAL),
    flag(EXEC, &["-[it]", "--interactive", "--tty"], "*", TERMINAL),
    flag(EXEC, &["-e"], "*", "did you mean '--env NAME=VALUE'?"),
    flag(EXEC, &["--env-file"], "*", "use --env NAME=VALUE for each variable"),
    flag(EXEC, &["-u", "--user"], "*", "exec runs as the VMM's user; use --root for root"),
    flag(EXEC, &["--privileged"], "*", "did you mean '--root'?"),
    flag(EXEC, &["-d", "--detach"], "*", "exec does not detach; put & behind the command"),
    flag(
        EXEC,
        &["-w", "--workdir", "--cwd"],
        "*",
        "a program starts in the root of the jail; remove this flag",
    ),
    // Other commands.
    flag(TAKE_ID, &["--id", "--name"], "*", "write the id without a flag"),
    flag(&["wait", "events"], &["-t", "--time"], "*", "did you mean '--timeout'?"),
    flag(&["events"], &["-f", "--follow"], "*", "events always follows; remove this flag"),
    flag(&["events"], &["--since"], "*", "did you mean '--all', for the past events of existing jails?"),
    flag(&["events", "logs"], &["--filter"], "*", "name the jail by its id"),
    flag(&["top"], &["-n"], "*", "did you mean '--once'?"),
    flag(&["top"], &["-d"], "*", "did you mean '--interval {v:TIME}'?"),
    flag(&["gc"], &["-n"], "*", "did you mean '--dry-run'?"),
    flag(&["gc"], &["-a", "--all"], "*", "gc removes every abandoned jail; remove this flag"),
    flag(&["logs"], &["--tail"], "*", "did you mean '-n N'?"),
    flag(
        &["logs"],
        &["--since", "--until", "--timestamps", "-t"],
        "*",
        "a log has no times; use -n N for its last lines",
    ),
    flag(
        &["rm"],
        &["-r", "-R", "--recursive", "--volumes"],
        "*",
        "rm removes the whole jail; remove this flag",
    ),
    flag(&["ps", "inspect", "top", "events"], &["--format", "-o", "--output"], "*", "use --json"),
    flag(ALL, &["-y", "--yes"], "*", "stockade asks no questions; remove this flag"),
    flag(
        TAKE_VMM_ARGUMENTS,
        &["--debug", "--log-level"],
        "*",
        "use -v, or -vv for more detail; a VMM's own flag goes after --",
    ),
    flag(ALL, &["--debug", "--log-level"], "*", "use -v, or -vv for more detail"),
    flag(ALL, &["--statedir", "--root"], "*", "did you mean '--state-dir'?"),
];

const FOR_THE_VMM: &str = "put the VMM's arguments after --";
const PLACE: &str = "use --place SRC=NAME, with :bind for the host's own file";
const STOP_SIGNAL: &str = "stockade sends SIGTERM, then SIGKILL; use `stockade kill -s` for another signal";
const TERMINAL: &str = "stockade attaches the terminal automatically; remove this flag";

/// The hint for a flag of another tool.
///
/// # Arguments
/// `wrong`: the flag at which the parser failed. Of combined short flags, this is the first unknown one.
pub(super) fn hint(command: &str, arguments: &[String], wrong: &str) -> Option<String> {
    let value = value_of(arguments, wrong)?;
    // The settings of a jail are those of its creation.
    let describing = if command == "start" { "create" } else { command };
    let known = |command: &str| {
        FLAGS.iter().find(|flag| {
            let matches = |pattern: &str, text: &str| Pattern::new(pattern).is_ok_and(|p| p.matches(text));
            (flag.commands.is_empty() || flag.commands.contains(&command))
                && flag.names.iter().any(|pattern| matches(pattern, wrong))
                && matches(flag.value, value.as_deref().unwrap_or_default())
        })
    };
    let own = known(command).map(|flag| fill(flag.hint, value.as_deref()));
    own.or_else(|| {
        let hint = fill(known(describing)?.hint, value.as_deref());
        match hint.strip_prefix("use --") {
            Some(flag) => Some(format!("set it when the jail is created, with --{flag}")),
            // A flag that `start` does not have either.
            None if hint.starts_with("did you mean") => None,
            None => Some(hint),
        }
    })
}

/// The value of the wrong flag; `None` inside if it has none.
#[expect(clippy::option_option, reason = "found or not, and with a value or without")]
fn value_of(arguments: &[String], wrong: &str) -> Option<Option<String>> {
    let is_long = wrong.starts_with("--");
    let at = arguments.iter().position(|argument| match wrong.strip_prefix('-') {
        Some(letters) if !is_long => {
            argument.starts_with('-') && !argument.starts_with("--") && argument.contains(letters)
        }
        _ => argument.split('=').next() == Some(wrong),
    })?;
    let next = arguments.get(at + 1).filter(|next| !next.starts_with('-')).cloned();
    if is_long {
        let value = arguments[at].split_once('=').map(|(_, value)| value.to_owned());
        return Some(value.or(next));
    }
    // In `-p80:80` the value follows the letter, in `-dit` other flags do.
    let letters = &arguments[at][arguments[at].find(wrong.trim_start_matches('-'))?..];
    let behind = letters.char_indices().nth(1).map_or("", |(second, _)| &letters[second..]);
    let is_value = behind.starts_with(|letter: char| !letter.is_alphabetic());
    Some(if is_value { Some(behind.to_owned()) } else { next })
}

/// Replaces the placeholders of a hint. `{v:SIZE}` is the value, `{s:SIZE}` its part before a colon, `{u:SIZE}` its part
/// after an equals sign and before a colon, `{q:SIZE}` a number of processors as microseconds of 100 milliseconds.
fn fill(hint: &str, value: Option<&str>) -> String {
    let mut parts = hint.split('{');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let Some((placeholder, rest)) = part.split_once('}') else { continue };
        let (kind, default) = placeholder.split_once(':').unwrap_or((placeholder, ""));
        let text = match (kind, value) {
            (_, None) => None,
            ("s", Some(value)) => value.split(':').next().map(str::to_owned),
            ("u", Some(value)) => value.split(['=', ':']).nth(1).map(str::to_owned),
            ("q", Some(value)) => quota(value),
            (_, Some(value)) => Some(value.to_owned()),
        };
        filled += &text.filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned());
        filled += rest;
    }
    filled
}

/// The microseconds of each 100 milliseconds for a number of processors.
fn quota(cpus: &str) -> Option<String> {
    let cpus = cpus.parse::<f64>().ok().filter(|cpus| (0.01..=1024.0).contains(cpus))?;
    Some(format!("{:.0}", cpus * 100_000.0))
}

/// Checks the table against the commands.
#[cfg(test)]
pub(super) fn check_flags(cli: &clap::Command) {
    for flag in FLAGS {
        for pattern in flag.names.iter().chain([&flag.value]) {
            Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        }
        for command in flag.commands {
            let own = cli.find_subcommand(command).unwrap_or_else(|| panic!("no command {command}"));
            for name in flag.names {
                let is_own = own.get_arguments().any(|arg| {
                    arg.get_long().is_some_and(|long| format!("--{long}") == *name)
                        || arg.get_short().is_some_and(|short| format!("-{short}") == *name)
                });
                assert!(!is_own, "{command} has {name} itself");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(line: &str, wrong: &str) -> Option<String> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        hint(&arguments[0], &arguments, wrong)
    }

    #[test]
    fn the_value_is_found_in_each_form() {
        for (line, wrong) in [
            ("run --pids-limit 7", "--pids-limit"),
            ("run --pids-limit=7", "--pids-limit"),
            ("plan --pids-limit 7 --id x", "--pids-limit"),
        ] {
            assert_eq!(hint_of(line, wrong).as_deref(), Some("use --cgroup pids.max=7"), "{line}");
        }
        assert_eq!(
            hint_of("run --pids-limit -d", "--pids-limit").as_deref(),
            Some("use --cgroup pids.max=N")
        );
        for line in ["run -m512m", "run -m 512m", "run -qm512m"] {
            let hint = hint_of(line, "-m").unwrap_or_default();
            assert!(hint.contains("memory.max=512m,"), "{line}: {hint}");
        }
    }

    #[test]
    fn combined_short_flags_are_recognised() {
        for (line, wrong) in
            [("run -dit", "-i"), ("run -ti", "-t"), ("exec -it vm", "-i"), ("exec -ti vm", "-t")]
        {
            assert_eq!(hint_of(line, wrong).as_deref(), Some(TERMINAL), "{line}");
        }
    }

    #[test]
    fn values_are_converted() {
        assert_eq!(quota("1.5").as_deref(), Some("150000"));
        assert_eq!(quota("many"), None);
        assert_eq!(fill("a {u:N} {s:M}", Some("nofile=9:10")), "a 9 nofile=9");
        assert_eq!(fill("a {v:N}", Some("")), "a N");
    }

    #[test]
    fn a_flag_at_start_is_one_of_the_creation() {
        let hint = "set it when the jail is created, with --cgroup pids.max=7";
        assert_eq!(hint_of("start vm --pids-limit 7", "--pids-limit").as_deref(), Some(hint));
        assert_eq!(hint_of("start vm --config-file x", "--config-file"), None);
    }
}
