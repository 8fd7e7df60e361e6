use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::check::doctor::{Finding, Grade};

/// A jail without a weakness.
fn tight() -> AuditFacts {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| (name.to_owned(), 0));
    AuditFacts {
        uids: vec![1234; 4],
        gids: vec![1234; 4],
        asked_owner: (1234, 1234),
        capabilities: sets.into(),
        no_new_privs: true,
        seccomp: 2,
        shared_namespaces: vec!["user".into()],
        mounts: vec![("/".into(), "ext4".into(), false)].into(),
        limited: ["memory", "pids", "cpu"].map(|what| (what.to_owned(), vec!["file=1".into()])).into(),
        limits: BTreeMap::from([
            ("Max core file size".into(), Some(0)),
            ("Max open files".into(), Some(2048)),
        ])
        .into(),
        ..AuditFacts::default()
    }
}

/// Changes a fact that is known.
fn change<T>(known: &mut Known<T>) -> &mut T {
    match known {
        Known::Fact(fact) => fact,
        Known::Unknown { unknown } => panic!("{unknown}"),
    }
}

type Change = Box<dyn FnOnce(&mut AuditFacts)>;

/// Drops the previous value of a map's key.
fn ignore<T>(_: T) {}

/// The findings that are not good.
fn found(change: impl FnOnce(&mut AuditFacts)) -> Vec<(&'static str, Grade)> {
    let mut facts = tight();
    change(&mut facts);
    let bad = diagnose(&facts).into_iter().filter(|finding| finding.grade > Grade::Good);
    bad.map(|Finding { check, grade, effect, fix, .. }| {
        assert!(effect.is_some() && fix.is_some(), "{check} has no effect or fix");
        (check, grade)
    })
    .collect()
}

#[test]
fn each_weakness_has_one_finding_and_a_tight_jail_none() {
    assert_eq!(found(|_| ()), []);
    let special = |path: &str, uid, block, device| Special { path: path.into(), uid, block, device };
    let leads = |target: &str, reach| vec![Descriptor { number: 7, target: target.into(), reach }];
    let cases: Vec<(Change, _)> = vec![
        (Box::new(|f| f.uids[2] = 0), ("owner", Grade::Broken)),
        (Box::new(|f| f.uids[1] = 77), ("owner", Grade::Broken)),
        (Box::new(|f| f.groups = vec![4]), ("groups", Grade::Warning)),
        (Box::new(|f| ignore(f.capabilities.insert("CapAmb".into(), 1))), ("capabilities", Grade::Broken)),
        (Box::new(|f| f.no_new_privs = false), ("no-new-privs", Grade::Note)),
        (Box::new(|f| f.seccomp = 0), ("seccomp", Grade::Warning)),
        (Box::new(|f| f.shared_namespaces.push("mnt".into())), ("mount-namespace", Grade::Broken)),
        (Box::new(|f| f.shared_namespaces.push("net".into())), ("network-namespace", Grade::Warning)),
        (Box::new(|f| f.shared_namespaces.push("pid".into())), ("pid-namespace", Grade::Note)),
        (Box::new(|f| f.root_is_the_hosts = true.into()), ("root", Grade::Broken)),
        (
            Box::new(|f| change(&mut f.mounts).push(("/proc".into(), "proc".into(), true))),
            ("mounts", Grade::Warning),
        ),
        (
            Box::new(move |f| f.descriptors = leads("/etc", Reach::OutsideDirectory).into()),
            ("descriptors", Grade::Broken),
        ),
        (
            Box::new(move |f| f.descriptors = leads("/dev/pts/0", Reach::OutsideFile).into()),
            ("descriptors", Grade::Warning),
        ),
        (Box::new(|f| f.environment = vec!["TOKEN".into()].into()), ("environment", Grade::Note)),
        (
            Box::new(|f| ignore(f.limited.insert("memory".into(), Vec::new()))),
            ("memory-limit", Grade::Warning),
        ),
        (Box::new(|f| ignore(f.limited.remove("pids"))), ("pids-limit", Grade::Warning)),
        (
            Box::new(|f| ignore(change(&mut f.limits).insert("Max core file size".into(), None))),
            ("core-dumps", Grade::Note),
        ),
        (
            Box::new(|f| {
                f.settings = vec![Setting {
                    file: "pids.max".into(),
                    asked: "9".into(),
                    found: "max".to_owned().into(),
                }];
            }),
            ("settings", Grade::Note),
        ),
        (
            Box::new(move |f| change(&mut f.tree).devices = vec![special("/disk", 0, true, (254, 0))]),
            ("devices", Grade::Warning),
        ),
        (
            Box::new(move |f| change(&mut f.tree).devices = vec![special("/dev/mem", 0, false, (1, 1))]),
            ("devices", Grade::Note),
        ),
        (
            Box::new(move |f| change(&mut f.tree).set_id = vec![special("/su", 0, false, (0, 0))]),
            ("set-id", Grade::Broken),
        ),
        (
            Box::new(move |f| change(&mut f.tree).capable = vec![special("/ping", 1234, false, (0, 0))]),
            ("file-capabilities", Grade::Broken),
        ),
        (Box::new(|f| f.same_uid = vec!["vm-2".into()]), ("neighbours", Grade::Warning)),
    ];
    for (change, expected) in cases {
        assert_eq!(found(change), [expected]);
    }
}

#[test]
fn a_landlock_domain_is_excluded_or_unknown() {
    let fact = |change: fn(&mut AuditFacts)| {
        let mut facts = tight();
        facts.landlock = Some(7).into();
        facts.shared_namespaces = vec!["user".into()];
        change(&mut facts);
        let findings = diagnose(&facts);
        let fact =
            findings.into_iter().find(|finding| finding.check == "landlock").map(|finding| finding.fact);
        fact.unwrap_or_default().split(':').next().map(str::to_owned)
    };
    let fact = |change| fact(change).unwrap_or_default();
    assert_eq!(fact(|_| ()), "in no domain");
    assert_eq!(fact(|f| f.landlock = None.into()), "none");
    // Each of these could have entered one.
    assert_eq!(fact(|f| f.no_new_privs_threads = 1.into()), "unknown");
    assert_eq!(fact(|f| f.shared_namespaces.clear()), "unknown");
    assert_eq!(fact(|f| ignore(f.capabilities.insert("CapPrm".into(), 1 << 21))), "unknown");
}

#[test]
fn common_devices_and_streams_are_good() {
    let device = |device| Special { path: "/dev/x".into(), uid: 1234, block: false, device };
    let leads = |target: &str, reach| Descriptor { number: 0, target: target.into(), reach };
    let bad = found(|facts| {
        let tree = change(&mut facts.tree);
        tree.devices = vec![device((10, 232)), device((10, 200)), device((1, 9))];
        tree.set_id = vec![device((0, 0))];
        facts.descriptors = vec![
            leads("/dev/null", Reach::OutsideFile),
            leads("pipe:[7]", Reach::Pathless),
            leads("/disk.img", Reach::Inside),
        ]
        .into();
    });
    assert_eq!(bad, []);
}

#[test]
fn a_fact_that_was_not_read_is_neither_good_nor_bad() {
    fn why<T>() -> Known<T> {
        Known::unknown("permission denied")
    }
    let unseen = |kind: &'static str| -> Change {
        Box::new(move |f| ignore(f.unseen_namespaces.insert(kind.into(), "permission denied".into())))
    };
    let one = |check| vec![check];
    let tree = ["devices", "set-id", "file-capabilities", "writable", "sockets", "tree"].to_vec();
    let cases: Vec<(Change, Vec<&str>)> = vec![
        // As a user namespace shows the VMM's IDs.
        (Box::new(|f| (f.ids_are_mapped, f.uids) = (true, vec![65534; 4])), one("owner")),
        (Box::new(|f| (f.ids_are_mapped, f.gids) = (true, vec![0; 4])), one("owner")),
        (Box::new(|f| ignore(f.capabilities.remove("CapEff"))), one("capabilities")),
        (Box::new(|f| ignore(f.capabilities.remove("CapBnd"))), one("bounding-set")),
        // The VMM is in a user namespace of its own.
        (
            Box::new(|f| {
                f.shared_namespaces.clear();
                f.capabilities.insert("CapEff".into(), 1);
            }),
            one("capabilities"),
        ),
        (Box::new(|f| (f.landlock, f.no_new_privs_threads) = (why(), 1.into())), one("landlock")),
        (Box::new(|f| (f.landlock, f.no_new_privs_threads) = (Some(7).into(), why())), one("landlock")),
        (unseen("mnt"), one("mount-namespace")),
        (unseen("net"), one("network-namespace")),
        (unseen("pid"), one("pid-namespace")),
        (unseen("uts"), one("other-namespaces")),
        (Box::new(|f| f.root_is_the_hosts = why()), one("root")),
        (Box::new(|f| f.mounts = why()), one("mounts")),
        (Box::new(|f| f.descriptors = why()), one("descriptors")),
        (
            Box::new(|f| {
                let reach = Reach::Unknown;
                change(&mut f.descriptors).push(Descriptor { number: 3, target: "/x".into(), reach });
            }),
            one("descriptors"),
        ),
        (Box::new(|f| f.environment = why()), one("environment")),
        (Box::new(|f| f.cgroups = why()), one("cgroup")),
        (
            Box::new(|f| {
                f.limited.clear();
                let why = || vec!["permission denied".to_owned()];
                f.unread_limits = ["memory", "pids", "cpu"].map(|name| (name.to_owned(), why())).into();
            }),
            ["memory-limit", "pids-limit", "cpu-limit"].to_vec(),
        ),
        (
            Box::new(|f| {
                f.settings = vec![Setting { file: "devices.deny".into(), asked: "a".into(), found: why() }];
            }),
            one("settings"),
        ),
        (Box::new(|f| f.limits = why()), ["open-files", "core-dumps"].to_vec()),
        (Box::new(|f| change(&mut f.limits).clear()), ["open-files", "core-dumps"].to_vec()),
        (Box::new(|f| f.tree = why()), tree.clone()),
        (Box::new(|f| change(&mut f.tree).cut_off = true), tree.clone()),
        (
            Box::new(|f| {
                let tree = change(&mut f.tree);
                (tree.unread_count, tree.unread) = (1, vec!["/x: permission denied".into()]);
            }),
            tree,
        ),
        (Box::new(|f| f.unread_jails = vec!["vm-2".into()]), one("neighbours")),
    ];
    for (change, checks) in cases {
        let expected: Vec<_> = checks.into_iter().map(|check| (check, Grade::Unknown)).collect();
        assert_eq!(found(change), expected);
    }
}

#[test]
fn a_bad_file_is_named_also_in_a_tree_read_in_part() {
    let found = found(|f| {
        let tree = change(&mut f.tree);
        tree.cut_off = true;
        tree.set_id = vec![Special { path: "/su".into(), uid: 0, block: false, device: (0, 0) }];
    });
    assert!(found.contains(&("set-id", Grade::Broken)), "{found:?}");
}

#[test]
fn an_escape_is_broken_and_an_untried_one_unknown() {
    let grades = |report| diagnose_inside(&report, Some(false)).iter().map(|finding| finding.grade).max();
    let with = |escapes| json!({ "escapes": escapes, "network": ["lo"], "writable": ["/"] });
    assert_eq!(grades(with(json!([{ "held": true }]))), Some(Grade::Good));
    assert_eq!(grades(with(json!([{ "held": true }, { "held": false }]))), Some(Grade::Broken));
    assert_eq!(
        grades(with(json!([{ "held": true }, { "held": false, "tried": false }]))),
        Some(Grade::Unknown)
    );
    assert_eq!(grades(with(json!([{ "held": true }, {}]))), Some(Grade::Unknown));
    assert_eq!(grades(json!({})), Some(Grade::Unknown));
    let unread = json!({ "escapes": [{ "held": true }], "network": { "unknown": "EAGAIN" }, "writable": [] });
    assert_eq!(grades(unread), Some(Grade::Unknown));
    // The first process of the jail's own pid namespace is the VMM, not an outsider.
    let report = with(json!([{ "name": "trace-other", "held": false }]));
    let grade = |own| diagnose_inside(&report, own).iter().map(|finding| finding.grade).max();
    assert_eq!(grade(Some(true)), Some(Grade::Good));
    assert_eq!(grade(None), Some(Grade::Unknown));
    assert_eq!(grade(Some(false)), Some(Grade::Broken));
    assert!(diagnose_no_probe("why").iter().all(|finding| finding.grade == Grade::Unknown));
}
