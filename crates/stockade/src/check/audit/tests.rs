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
        mounts: vec![("/".into(), "ext4".into(), false)],
        limited: ["memory", "pids", "cpu"].map(|what| (what.to_owned(), vec!["file=1".into()])).into(),
        limits: BTreeMap::from([
            ("Max core file size".into(), Some(0)),
            ("Max open files".into(), Some(2048)),
        ]),
        ..AuditFacts::default()
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
        (Box::new(|f| ignore(f.capabilities.remove("CapEff"))), ("capabilities", Grade::Broken)),
        (Box::new(|f| f.no_new_privs = false), ("no-new-privs", Grade::Note)),
        (Box::new(|f| f.seccomp = 0), ("seccomp", Grade::Warning)),
        (Box::new(|f| f.shared_namespaces = vec!["mnt".into()]), ("mount-namespace", Grade::Broken)),
        (Box::new(|f| f.shared_namespaces = vec!["net".into()]), ("network-namespace", Grade::Warning)),
        (Box::new(|f| f.shared_namespaces = vec!["pid".into()]), ("pid-namespace", Grade::Note)),
        (Box::new(|f| f.root_is_the_hosts = true), ("root", Grade::Broken)),
        (Box::new(|f| f.mounts.push(("/proc".into(), "proc".into(), true))), ("mounts", Grade::Warning)),
        (
            Box::new(move |f| f.descriptors = leads("/etc", Reach::OutsideDirectory)),
            ("descriptors", Grade::Broken),
        ),
        (
            Box::new(move |f| f.descriptors = leads("/dev/pts/0", Reach::OutsideFile)),
            ("descriptors", Grade::Warning),
        ),
        (Box::new(|f| f.environment = vec!["TOKEN".into()]), ("environment", Grade::Note)),
        (
            Box::new(|f| ignore(f.limited.insert("memory".into(), Vec::new()))),
            ("memory-limit", Grade::Warning),
        ),
        (Box::new(|f| ignore(f.limited.remove("pids"))), ("pids-limit", Grade::Warning)),
        (
            Box::new(|f| ignore(f.limits.insert("Max core file size".into(), None))),
            ("core-dumps", Grade::Note),
        ),
        (
            Box::new(|f| {
                f.settings =
                    vec![Setting { file: "pids.max".into(), asked: "9".into(), found: Some("max".into()) }];
            }),
            ("settings", Grade::Note),
        ),
        (
            Box::new(move |f| f.tree.devices = vec![special("/disk", 0, true, (254, 0))]),
            ("devices", Grade::Warning),
        ),
        (
            Box::new(move |f| f.tree.devices = vec![special("/dev/mem", 0, false, (1, 1))]),
            ("devices", Grade::Note),
        ),
        (
            Box::new(move |f| f.tree.set_id = vec![special("/su", 0, false, (0, 0))]),
            ("set-id", Grade::Broken),
        ),
        (Box::new(|f| f.tree.cut_off = true), ("tree", Grade::Note)),
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
        facts.landlock = Some(7);
        facts.shared_namespaces = vec!["user".into()];
        change(&mut facts);
        let findings = diagnose(&facts);
        let fact =
            findings.into_iter().find(|finding| finding.check == "landlock").map(|finding| finding.fact);
        fact.unwrap_or_default().split(':').next().map(str::to_owned)
    };
    let fact = |change| fact(change).unwrap_or_default();
    assert_eq!(fact(|_| ()), "in no domain");
    assert_eq!(fact(|f| f.landlock = None), "none");
    // Each of these could have entered one.
    assert_eq!(fact(|f| f.no_new_privs_threads = 1), "unknown");
    assert_eq!(fact(|f| f.shared_namespaces.clear()), "unknown");
    assert_eq!(fact(|f| ignore(f.capabilities.insert("CapPrm".into(), 1 << 21))), "unknown");
}

#[test]
fn common_devices_and_streams_are_good() {
    let device = |device| Special { path: "/dev/x".into(), uid: 1234, block: false, device };
    let leads = |target: &str, reach| Descriptor { number: 0, target: target.into(), reach };
    let bad = found(|facts| {
        facts.tree.devices = vec![device((10, 232)), device((10, 200)), device((1, 9))];
        facts.tree.set_id = vec![device((0, 0))];
        facts.descriptors = vec![
            leads("/dev/null", Reach::OutsideFile),
            leads("pipe:[7]", Reach::Pathless),
            leads("/disk.img", Reach::Inside),
        ];
    });
    assert_eq!(bad, []);
}

#[test]
fn a_successful_escape_and_a_probe_without_attempts_are_broken() {
    let grades = |report| diagnose_inside(&report, false).iter().map(|finding| finding.grade).max();
    assert_eq!(grades(json!({ "escapes": [{ "held": true }] })), Some(Grade::Good));
    assert_eq!(grades(json!({ "escapes": [{ "held": true }, { "held": false }] })), Some(Grade::Broken));
    assert_eq!(grades(json!({})), Some(Grade::Broken));
    // The first process of the jail's own pid namespace is the VMM, not an outsider.
    let report = json!({ "escapes": [{ "name": "trace-other", "held": false }] });
    assert!(diagnose_inside(&report, true).iter().all(|finding| finding.grade == Grade::Good));
    assert_eq!(grades(report), Some(Grade::Broken));
}
