//! The launchers, and what differs from each.

use testkit::Launcher;

/// A launcher, with everything that is not as from a plain one.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) launcher: Launcher,
    /// Whether its mounts are its own.
    pub(crate) in_own_mounts: bool,
    /// Whether its stdout and its stderr can be read.
    pub(crate) readable: [bool; 2],
    /// The commands that fail, several to a line, and the line of each.
    pub(crate) refusals: &'static [(&'static str, &'static str)],
    /// The facts that differ.
    pub(crate) differences: Vec<(String, String)>,
}

impl Row {
    /// A launcher in an odd state that makes no difference.
    fn odd(name: &'static str, oddities: &[&str]) -> Self {
        Self::new(name, Launcher::odd(oddities))
    }

    /// A launcher in a mount namespace of its own, which a line of shell prepares.
    fn mounts(name: &'static str, shell: &str, oddities: &[&str]) -> Self {
        let row = Self::new(name, Launcher::mounts(shell).then(Launcher::odd(oddities)));
        Self { in_own_mounts: true, ..row }
    }

    fn new(name: &'static str, launcher: Launcher) -> Self {
        Self {
            name,
            launcher,
            in_own_mounts: false,
            readable: [true; 2],
            refusals: &[],
            differences: Vec::new(),
        }
    }

    /// The line with which a command fails.
    pub(crate) fn refusal(&self, command: &str) -> Option<&'static str> {
        let has = |commands: &&str| commands.split(", ").any(|one| one == command);
        self.refusals.iter().find(|(commands, _)| has(commands)).map(|(_, line)| *line)
    }
}

fn all(lists: &[&[(&str, &str)]]) -> Vec<(String, String)> {
    lists.concat().into_iter().map(|(fact, value)| (fact.to_owned(), value.to_owned())).collect()
}

pub(crate) fn plain() -> Row {
    Row::new("nothing odd", Launcher::plain())
}

pub(crate) fn plain_in_own_mounts() -> Row {
    Row::mounts("its own mounts", "true", &[])
}

/// The drop-in passes on the umask, as Firecracker's jailer does.
const UMASK_0: &[(&str, &str)] =
    &[("drop-in umask", "0000"), ("daemonized Umask", "0000"), ("pid-ns Umask", "0000")];

pub(crate) fn umask_0() -> Row {
    Row { differences: all(&[UMASK_0]), ..Row::odd("umask 0", &["umask=0"]) }
}

pub(crate) fn umask_0777() -> Row {
    // The umask removes every bit of the executable's mode, as with Firecracker's jailer.
    Row {
        refusals: &[(
            "drop-in, daemonized, pid-ns",
            "Failed to exec into Firecracker: Permission denied (os error 13)",
        )],
        ..Row::odd("umask 0777", &["umask=0777"])
    }
}

pub(crate) fn signals_blocked() -> Row {
    Row::odd("blocked signals", &["signals-blocked"])
}

pub(crate) fn signals_ignored() -> Row {
    Row { differences: all(&[SIGNALS_IGNORED]), ..Row::odd("ignored signals", &["signals-ignored"]) }
}

/// The drop-in passes on which signals are ignored, all but SIGPIPE.
const SIGNALS_IGNORED: &[(&str, &str)] = &[
    ("run ignores SIGTERM", "true"),
    (
        "drop-in signals-ignored",
        "1 2 3 4 5 6 7 8 10 11 12 14 15 16 17 18 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 \
         44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64",
    ),
    ("daemonized SigIgn", "fffffffffffbeeff"),
    ("pid-ns SigIgn", "fffffffffffbeeff"),
];

pub(crate) fn input_and_error_closed() -> Row {
    let row = Row::odd("closed stdin and stderr", &["closed=0", "closed=2"]);
    Row { readable: [true, false], ..row }
}

pub(crate) fn streams_closed() -> Row {
    let row = Row::odd("closed streams", &["closed=0", "closed=1", "closed=2"]);
    Row { readable: [false, false], ..row }
}

pub(crate) fn few_descriptors() -> Row {
    Row::odd("a soft limit of 12 file descriptors", &["descriptors=12"])
}

pub(crate) fn real_time() -> Row {
    Row { differences: all(&[REAL_TIME]), ..Row::odd("SCHED_FIFO", &["real-time"]) }
}

/// The drop-in passes on its scheduling. The kernel gives tasks in real time no slack.
const REAL_TIME: &[(&str, &str)] = &[
    ("drop-in scheduling", "1 5 0"),
    ("drop-in timer-slack", "0"),
    ("daemonized scheduling policy", "1"),
    ("pid-ns scheduling policy", "1"),
];

pub(crate) fn ambient() -> Row {
    Row::odd("ambient capabilities", &["ambient"])
}

pub(crate) fn no_ptrace() -> Row {
    let row = Row::odd("no CAP_SYS_PTRACE", &["no-ptrace"]);
    Row { refusals: NO_PTRACE, differences: [without_ptrace(), unknown(&[])].concat(), ..row }
}

/// Mounts every hierarchy of cgroups read-only.
const READ_ONLY_CGROUPS: &str = "for at in $(grep -E ' cgroup2? ' /proc/self/mounts | cut -d' ' -f2); do \
                                 mount -o remount,bind,ro $at || exit 99; done";

pub(crate) fn read_only_cgroups() -> Row {
    let row = Row::mounts("read-only cgroups", READ_ONLY_CGROUPS, &[]);
    Row { differences: all(&[WITHOUT_CGROUPS]), ..row }
}

/// A jail then has no tracking cgroup.
const WITHOUT_CGROUPS: &[(&str, &str)] =
    &[("plan: cgroups", ""), ("plan -f: cgroups", ""), ("doctor tracking-cgroup", "warning")];

const HIDEPID: &str = "mount -t proc -o hidepid=2,gid=12399 proc /proc";

pub(crate) fn hidepid() -> Row {
    Row::mounts("hidepid", HIDEPID, &[])
}

pub(crate) fn hidepid_without_ptrace() -> Row {
    let row = Row::mounts("hidepid and no CAP_SYS_PTRACE", HIDEPID, &["no-ptrace"]);
    Row { refusals: HIDDEN, differences: without_ptrace(), ..row }
}

/// Commands that need the VMM's process, which the kernel hides from this launcher.
const HIDDEN: &[(&str, &str)] = &[
    (
        "exec, exec --root, exec --host-program, audit, audit --probe, wait --timeout, stop, rm --force, \
         rm of a killed run",
        "cannot inspect process PID: permission denied; run stockade with CAP_SYS_PTRACE, in the initial user namespace",
    ),
    (
        "stop --file",
        "cannot inspect process PID: permission denied; run stockade with CAP_SYS_PTRACE, in the initial user namespace\n\
         stockade: cannot inspect process PID: permission denied; run stockade with CAP_SYS_PTRACE, in the initial user namespace",
    ),
];

/// The facts about a jail that only a process sees that may trace the VMM.
const NEEDS_PTRACE: [&str; 6] =
    ["descriptors", "mount-namespace", "network-namespace", "other-namespaces", "pid-namespace", "root"];
/// Those that the program has to find out that `audit --probe` starts in the jail.
const FROM_INSIDE: [&str; 3] = ["escape", "inside-network", "inside-writable"];

fn without_ptrace() -> Vec<(String, String)> {
    all(&[&[("doctor inspection", "warning"), ("drop-in bounds CAP_SYS_PTRACE", "true")]])
}

/// `audit` does not know these facts.
fn unknown(more: &[&str]) -> Vec<(String, String)> {
    let outside = NEEDS_PTRACE.iter().chain(more);
    let both = outside.flat_map(|check| [format!("audit {check}"), format!("audit --probe {check}")]);
    let inside = FROM_INSIDE.iter().map(|check| format!("audit --probe {check}"));
    both.chain(inside).map(|fact| (fact, "unknown".to_owned())).collect()
}

pub(crate) fn subset() -> Row {
    let row = Row::mounts("subset=pid", "mount -t proc -o subset=pid proc /proc", &[]);
    let differences = all(&[&[
        ("doctor limits", "unknown"),
        ("doctor proc", "broken"),
        ("doctor receipts", "broken"),
        ("doctor suid-dumpable", "unknown"),
        ("doctor swap", "unknown"),
    ]]);
    Row { refusals: WITHOUT_BOOT_ID, differences, ..row }
}

/// Without the boot id, whether a recorded process lives cannot be known.
const WITHOUT_BOOT_ID: &[(&str, &str)] = &[
    (
        "plan, create, place, start, ps, inspect, logs, exec, exec --root, exec --host-program, audit, audit --probe, \
         wait --timeout, stop, wait, rm, run, run --detach",
        "cannot read '/proc/sys/kernel/random/boot_id': no such file or directory; mount a procfs at /proc, without the option subset=pid",
    ),
    (
        "gc",
        "jail NAME-vm: cannot read '/proc/sys/kernel/random/boot_id': no such file or directory; mount a procfs at /proc, without the option subset=pid",
    ),
    (
        "plan -f, run --detach -f",
        "jail 'NAME-one': cannot read '/proc/sys/kernel/random/boot_id': no such file or directory; mount a procfs at /proc, without the option subset=pid",
    ),
];

pub(crate) fn user_namespace() -> Row {
    let doctor = all(&[&[
        ("doctor device-nodes", "broken"),
        ("doctor join-namespace", "warning"),
        ("doctor kvm", "unknown"),
        ("doctor privileges", "broken"),
        ("doctor tun", "unknown"),
    ]]);
    let differences = [doctor, unknown(&["environment"])].concat();
    Row { refusals: USER_NAMESPACE, differences, ..Row::odd("a user namespace", &["user-namespace"]) }
}

/// The namespaces of a VMM can be opened only by a process that may trace it.
const NO_PTRACE: &[(&str, &str)] = &[(
    "exec, exec --root, exec --host-program",
    "cannot open '/proc/PID/ns/cgroup': permission denied; run stockade with CAP_SYS_PTRACE, in the initial user \
     namespace",
)];

/// A process there can neither mark a directory nor read a mark.
const USER_NAMESPACE: &[(&str, &str)] = &[
    (
        "create, run, run --detach",
        "cannot mark '/var/tmp/NAME/state': operation not permitted; run stockade with CAP_SYS_ADMIN, in the initial \
         user namespace",
    ),
    (
        "start, stop",
        "cannot read the mark of 'CGROUP2/stockade-NAME-vm-NONCE': operation not permitted; run stockade with \
         CAP_SYS_ADMIN, in the initial user namespace",
    ),
    (
        "exec, exec --root, exec --host-program",
        "cannot open '/proc/PID/ns/cgroup': permission denied; run stockade with CAP_SYS_PTRACE, in the initial user \
         namespace",
    ),
    (
        "run --detach -f",
        "jail 'NAME-one': cannot mark '/var/tmp/NAME/state': operation not permitted; run stockade with CAP_SYS_ADMIN, \
         in the initial user namespace",
    ),
    (
        "rm",
        "not removed: cgroup CGROUP2/stockade-NAME-vm-NONCE: cannot read the mark of \
         'CGROUP2/stockade-NAME-vm-NONCE': operation not permitted; run stockade with CAP_SYS_ADMIN, in the initial user namespace\n\
         stockade: not removed: directory /var/tmp/NAME/base/stockade-probe (shared with other jails): cannot read the \
         mark of '/var/tmp/NAME/base/stockade-probe': operation not permitted; run stockade with CAP_SYS_ADMIN, in the initial user namespace",
    ),
    (
        "drop-in, daemonized, pid-ns",
        "Failed to create /dev/net/tun via mknod inside the jail: Operation not permitted (os error 1)",
    ),
];

pub(crate) fn parent_stopped() -> Row {
    Row::odd("a stopped parent process", &["parent-stopped"])
}

/// All oddities under which every command succeeds.
pub(crate) fn everything() -> Row {
    let oddities = [
        // The others are those of its child.
        "parent-stopped",
        "umask=0",
        "signals-blocked",
        "signals-ignored",
        "descriptors=12",
        "ambient",
        "real-time",
        "closed=0",
    ];
    let row = Row::mounts("everything", &format!("{READ_ONLY_CGROUPS}; {HIDEPID}"), &oddities);
    Row { differences: all(&[UMASK_0, SIGNALS_IGNORED, REAL_TIME, WITHOUT_CGROUPS]), ..row }
}

/// Between clone and exec a VMM would stay there for ever.
pub(crate) fn frozen_parent_cgroup() -> Row {
    let refusals = &[(
        "run, run --detach, run --daemonize, start",
        "'CGROUP2/NAME/cgroup.freeze' freezes the jail's processes; write 0 to that file",
    )];
    Row { refusals, ..Row::new("a frozen parent cgroup", Launcher::plain()) }
}
