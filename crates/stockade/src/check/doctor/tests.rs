use rustix::io::Errno;
use stockade_syscalls::features::Feature;

use super::*;
use crate::host::{CgroupLayout, Hierarchy, Unified};
use crate::spec::known::Known;

/// A host without a fault.
fn healthy() -> HostFacts {
    let unified = Unified {
        mount: std::path::PathBuf::from("/sys/fs/cgroup").into(),
        controllers: vec!["cpu".into(), "pids".into()],
        has_parent: false,
    };
    HostFacts {
        kernel: "6.1.0-18-amd64".into(),
        cgroups: CgroupLayout { v1: Vec::new(), v2: Some(unified) },
        cgroup_kill: Some(true),
        tracking: true,
        jail_uid: 1234,
        pid_max: 4_194_304.into(),
        devices: vec![("/dev/kvm", None), ("/dev/net/tun", None)],
        base: BaseFacts {
            path: "/srv/jailer".into(),
            exists: true,
            existing: "/srv/jailer".into(),
            mount: "/srv".into(),
            is_root_only: true,
            filesystem: "xfs",
            free_bytes: 5 << 30,
            free_inodes: Some(1 << 20),
            ..BaseFacts::default()
        },
        socket_path: "/srv/jailer/firecracker/vm-1/root/run/firecracker.socket".into(),
        ..HostFacts::default()
    }
}

/// The findings that are not good.
fn found(change: impl FnOnce(&mut HostFacts)) -> Vec<(&'static str, Grade, String)> {
    let mut facts = healthy();
    change(&mut facts);
    let bad = diagnose(&facts).into_iter().filter(|finding| finding.grade > Grade::Good);
    bad.map(|finding| {
        assert!(finding.effect.is_some() && finding.fix.is_some(), "{finding:?} has no effect or fix");
        (finding.check, finding.grade, finding.fact)
    })
    .collect()
}

#[test]
fn a_healthy_host_has_only_good_findings() {
    assert_eq!(found(|_| ()), []);
    let names: Vec<&str> = diagnose(&healthy()).iter().map(|finding| finding.check).collect();
    let all = [
        "kernel",
        "system-calls",
        "privileges",
        "mount-namespace",
        "join-namespace",
        "device-nodes",
        "inspection",
        "proc",
        "cgroups",
        "kvm",
        "tun",
        "base",
        "limits",
        "socket-path",
        "netns",
        "template-namespace",
        "receipts",
        "swap",
        "smt",
        "ksm",
        "lsm",
    ];
    assert_eq!(names, all, "programs look for these names");
}

#[test]
fn an_unavailable_call_is_missing_or_forbidden() {
    let refused = |call, cause| Trial::Refused { call, cause };
    let calls = vec![
        (Feature::Clone3, Trial::Worked),
        (Feature::Openat2, refused("openat2", Errno::PERM)),
        (Feature::OpenTree, Trial::Killed(31)),
        (Feature::MountSetattr, refused("mount_setattr", Errno::NOSYS)),
        (Feature::PidfdOpen, Trial::Unknown("no process".into())),
    ];
    let mut facts = healthy();
    facts.trials.calls = calls;
    let found: Vec<_> =
        diagnose(&facts).into_iter().filter(|finding| finding.check == "system-calls").collect();
    let found: Vec<_> = found.iter().map(|finding| (finding.grade, finding.fact.as_str())).collect();
    assert_eq!(
        found,
        [
            (Grade::Broken, "a seccomp filter forbids openat2"),
            (Grade::Broken, "a seccomp filter forbids open_tree"),
            (Grade::Warning, "mount_setattr is missing; Linux has it since 5.12"),
            (Grade::Unknown, "pidfd_open: no process"),
        ]
    );
}

#[test]
fn each_fault_has_one_finding_of_its_grade() {
    let one = |check, grade, fact: &str| vec![(check, grade, fact.to_owned())];
    let cases: Vec<(fn(&mut HostFacts), _)> = vec![
        (|f| f.kernel = "5.4.0".into(), one("kernel", Grade::Broken, "Linux 5.4.0 is older than 5.10")),
        (|f| f.uid = 1000, one("privileges", Grade::Broken, "this is uid 1000")),
        (|f| f.jail_uid = 0, one("jail-uid", Grade::Warning, "the VMMs would run as root")),
        (|f| f.suid_dumpable = 1.into(), one("suid-dumpable", Grade::Warning, "fs.suid_dumpable is 1")),
        (
            |f| f.missing_capabilities = vec!["CAP_MKNOD"],
            one("privileges", Grade::Broken, "root lacks CAP_MKNOD"),
        ),
        (
            |f| f.forbidden_namespaces = vec!["net"],
            one("namespaces", Grade::Warning, "no namespace of these kinds can be created: net"),
        ),
        (
            |f| f.cgroups = CgroupLayout::default(),
            one("cgroups", Grade::Warning, "no cgroup hierarchy is mounted"),
        ),
        (
            |f| f.cgroup_kill = Some(false),
            one("cgroup-kill", Grade::Note, "cgroup.kill is missing; Linux has it since 5.14"),
        ),
        (
            |f| f.tracking = false,
            one(
                "tracking-cgroup",
                Grade::Warning,
                "no cgroup can be created below the cgroup of this process",
            ),
        ),
        (
            |f| f.devices[0].1 = Some("no such file or directory".into()),
            one("kvm", Grade::Warning, "cannot open '/dev/kvm': no such file or directory"),
        ),
        (|f| f.base.options = vec!["noexec"], one("base", Grade::Broken, "/srv/jailer is mounted noexec")),
        (|f| f.base.options = vec!["nodev"], one("base", Grade::Broken, "/srv/jailer is mounted nodev")),
        (
            |f| f.base.is_root_only = false,
            one("base", Grade::Warning, "not only root can write to /srv/jailer"),
        ),
        (
            |f| (f.base.free_bytes, f.base.free_inodes) = (1536, Some(3)),
            one("base", Grade::Warning, "/srv/jailer has 1.5 KiB and 3 inodes left"),
        ),
        (|f| f.base.filesystem = "ext4", one("reflink", Grade::Note, "ext4 has no reflinks")),
        (
            |f| f.open_files = Some(1024),
            one("limits", Grade::Note, "a process can have 1024 open file descriptors"),
        ),
        (
            |f| f.socket_path = format!("/{}", "x".repeat(107)).into(),
            one(
                "socket-path",
                Grade::Warning,
                &format!("/{} has 108 bytes; the path of a socket has at most 107", "x".repeat(107)),
            ),
        ),
        (
            |f| f.netns_shared = Some(false).into(),
            one("netns", Grade::Warning, "/run/netns is a mount and not shared"),
        ),
        (|f| f.no_receipts = Some("no".into()), one("receipts", Grade::Broken, "no")),
        // Without root, unreadable receipts are no fault of the host.
        (
            |f| (f.uid, f.no_receipts) = (1000, Some("no".into())),
            [
                one("privileges", Grade::Broken, "this is uid 1000"),
                one("receipts", Grade::Unknown, "only root can read them"),
            ]
            .concat(),
        ),
        (
            |f| f.strays = vec!["/var/lib/stockade/fill".into(), "/var/lib/stockade/x".into()],
            one(
                "strays",
                Grade::Note,
                "in the state directory, but of no jail: /var/lib/stockade/fill, /var/lib/stockade/x",
            ),
        ),
        (|f| f.stale = (2, 0), one("receipts", Grade::Warning, "2 of abandoned jails")),
        (|f| f.swap = vec!["/dev/vdb".into()].into(), one("swap", Grade::Warning, "on: /dev/vdb")),
        (|f| f.smt = true.into(), one("smt", Grade::Warning, "simultaneous multithreading is on")),
        (|f| f.ksm = true.into(), one("ksm", Grade::Warning, "the kernel merges identical pages")),
        (|f| f.lsm = vec!["selinux".into()].into(), one("lsm", Grade::Note, "selinux is active")),
    ];
    for (change, expected) in cases {
        assert_eq!(found(change), expected);
    }
}

type Change = fn(&mut HostFacts);

#[test]
fn a_fact_of_the_host_that_was_not_read_is_unknown() {
    fn why<T>() -> Known<T> {
        Known::unknown("why")
    }
    let cases: [(Change, &str); 15] = [
        (|f| f.in_user_namespace = why(), "privileges"),
        (|f| f.suid_dumpable = why(), "suid-dumpable"),
        (|f| f.pid_max = why(), "limits"),
        (|f| f.netns_shared = why(), "netns"),
        (|f| f.swap = why(), "swap"),
        (|f| f.smt = why(), "smt"),
        (|f| f.ksm = why(), "ksm"),
        (|f| f.lsm = why(), "lsm"),
        (|f| (f.no_cgroups, f.cgroups) = (Some("why".into()), CgroupLayout::default()), "cgroups"),
        (|f| f.base.unread = Some("why".into()), "base"),
        (|f| f.trials.mounts = Trial::Unknown("why".into()), "mount-namespace"),
        (|f| f.trials.namespaces = vec![("net", Trial::Unknown("why".into()))], "namespaces"),
        (|f| f.trials.join = Trial::Unknown("why".into()), "join-namespace"),
        (|f| f.trials.nodes = vec![("/dev/urandom", Trial::Unknown("why".into()))], "device-nodes"),
        (|f| f.trials.inspection = Trial::Unknown("why".into()), "inspection"),
    ];
    for (change, check) in cases {
        let found = found(change);
        let [(found, grade, fact)] = &found[..] else { panic!("{check}: {found:?}") };
        assert_eq!((*found, *grade), (check, Grade::Unknown));
        assert!(fact.contains("why"), "{fact}");
    }
}

#[test]
fn a_refused_trial_names_its_call() {
    let refused = |call| Trial::Refused { call, cause: Errno::PERM };
    let grades = |change: &dyn Fn(&mut HostFacts)| {
        let mut facts = healthy();
        change(&mut facts);
        let bad = diagnose(&facts).into_iter().filter(|finding| finding.grade > Grade::Good);
        bad.map(|finding| (finding.check, finding.grade, finding.fact)).collect::<Vec<_>>()
    };
    let fact = "unshare fails: operation not permitted".to_owned();
    let found = grades(&|f| f.trials.mounts = refused("unshare"));
    assert_eq!(found, [("mount-namespace", Grade::Broken, fact)]);
    let fact = "/dev/urandom: mknod fails: operation not permitted".to_owned();
    let found = grades(&|f| f.trials.nodes = vec![("/dev/urandom", refused("mknod"))]);
    assert_eq!(found, [("device-nodes", Grade::Broken, fact)]);
    let found = grades(&|f| f.trials.nodes = vec![("/dev/kvm", refused("open"))]);
    let fact = "the node of '/dev/kvm' in a jail cannot be opened: operation not permitted".to_owned();
    assert_eq!(found, [("kvm", Grade::Warning, fact)]);
    let found = grades(&|f| f.trials.join = Trial::Killed(31));
    assert_eq!(found[0].2, "signal 31 kills a process at one of its calls, as a seccomp filter does");
}

fn finding(facts: &HostFacts, check: &str) -> Finding {
    diagnose(facts).into_iter().find(|finding| finding.check == check).expect("the check exists")
}

#[test]
fn cgroups_are_listed_with_their_enabled_controllers() {
    let mut facts = healthy();
    let fact = |facts: &HostFacts| finding(facts, "cgroups").fact;
    assert_eq!(fact(&facts), "cgroup v2 with cpu pids; enabled for child cgroups: none");
    facts.delegated = vec!["pids".into()];
    assert_eq!(fact(&facts), "cgroup v2 with cpu pids; enabled for child cgroups: pids");
    let memory = Hierarchy {
        mount: std::path::PathBuf::from("/sys/fs/cgroup/memory").into(),
        options: vec!["rw".into(), "memory".into()],
        has_parent: false,
    };
    facts.cgroups.v1.push(memory);
    assert_eq!(
        fact(&facts),
        "cgroup v1 with memory; cgroup v2 with cpu pids; enabled for child cgroups: pids"
    );
    facts.cgroups.v2.as_mut().expect("cgroup v2").controllers.clear();
    facts.delegated.clear();
    assert_eq!(
        fact(&facts),
        "cgroup v1 with memory; cgroup v2 with no controllers; enabled for child cgroups: none"
    );
}

#[test]
fn the_fix_names_the_mount_point_to_remount() {
    let mut facts = healthy();
    facts.base.options = vec!["noexec"];
    let fix = finding(&facts, "base").fix.expect("a fix");
    assert_eq!(fix, "run 'mount -o remount,exec /srv', or use another --chroot-base-dir");
}
