//! The life of a jail from launchers in odd states. Every command ends in success, with the same effects as from any
//! other launcher, or in the line that its row names. It leaves nothing.
#![allow(clippy::unwrap_used, missing_docs)]

mod rows;
mod story;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use rows::Row;
use story::{Facts, Story};
use testkit::{Guard, privileged};

/// The facts from a launcher without an oddity, with which the others are compared.
///
/// In a mount namespace of its own it does not see the template namespace, nor the network namespaces of the host.
fn ordinary(guard: &Guard, in_own_mounts: bool) -> &'static Facts {
    static HERE: OnceLock<Facts> = OnceLock::new();
    static IN_OWN_MOUNTS: OnceLock<Facts> = OnceLock::new();
    let (facts, row) =
        if in_own_mounts { (&IN_OWN_MOUNTS, rows::plain_in_own_mounts()) } else { (&HERE, rows::plain()) };
    facts.get_or_init(|| {
        let (facts, wrong) = Story::new(guard, &row).run_all();
        assert!(wrong.is_empty(), "from a launcher with {}:\n{}", row.name, wrong.join("\n"));
        // So that a fact that is missing everywhere is noticed.
        for fact in [
            "plan",
            "mode state",
            "vmm umask",
            "exec umask",
            "run umask",
            "drop-in umask",
            "daemonized Umask",
        ] {
            assert!(facts.contains_key(fact), "{fact}: {:?}", facts.keys());
        }
        facts
    })
}

/// Runs the story from a launcher, and compares its facts.
fn holds(guard: &Guard, row: &Row) {
    let ordinary = ordinary(guard, row.in_own_mounts);
    let (facts, mut wrong) = Story::new(guard, row).run_all();
    let found: BTreeMap<&str, &str> = facts
        .iter()
        .filter(|(fact, value)| ordinary.get(*fact) != Some(*value))
        .map(|(fact, value)| (fact.as_str(), value.as_str()))
        .collect();
    let wanted: BTreeMap<&str, &str> =
        row.differences.iter().map(|(fact, value)| (fact.as_str(), value.as_str())).collect();
    for (fact, value) in &found {
        if wanted.get(fact) != Some(value) {
            wrong.push(format!("{fact}: {value:?}, ordinarily {:?}", ordinary.get(*fact)));
        }
    }
    for (fact, value) in &wanted {
        if !found.contains_key(fact) {
            wrong.push(format!("{fact}: the row has {value:?}, but it is as ordinarily, or missing"));
        }
    }
    assert!(wrong.is_empty(), "from a launcher with {}:\n{}", row.name, wrong.join("\n"));
    testkit::tell(&format!("{}: {} facts compared, {} differ", row.name, facts.len(), found.len()));
}

macro_rules! rows {
    ($($test:ident: $row:ident,)*) => { $(
        #[test]
        fn $test() {
            privileged!(guard, { holds(&guard, &rows::$row()); });
        }
    )* };
}

#[test]
fn parent_cgroup_is_frozen() {
    privileged!(guard, {
        let wrong = Story::new(&guard, &rows::frozen_parent_cgroup()).below_a_frozen_cgroup();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

rows! {
    umask_of_0: umask_0,
    umask_of_0777: umask_0777,
    signals_are_blocked: signals_blocked,
    signals_are_ignored: signals_ignored,
    standard_input_and_error_are_closed: input_and_error_closed,
    all_standard_streams_are_closed: streams_closed,
    soft_limit_is_12_descriptors: few_descriptors,
    scheduling_is_in_real_time: real_time,
    capabilities_are_ambient: ambient,
    cap_sys_ptrace_is_missing: no_ptrace,
    cgroups_are_read_only: read_only_cgroups,
    procfs_hides_other_users_processes: hidepid,
    procfs_hides_processes_and_ptrace_is_missing: hidepid_without_ptrace,
    procfs_has_processes_alone: subset,
    user_namespace_is_another: user_namespace,
    parent_process_is_stopped: parent_stopped,
    everything_harmless_is_odd_at_once: everything,
}
