//! Many idle jails at once: the cost of each, and of their removal.

use std::fs;
use std::os::unix::fs::MetadataExt;

use stockade::{Jail, JailPool, TeardownOptions, teardown_all};

use crate::child::{began, now, pipe};
use crate::setup::Setup;
use crate::statistics::median;
use crate::ways::{plain, removed, streams};
use crate::{Done, text};

/// The time to remove `many` running jails, in microseconds.
pub(crate) fn teardown(setup: &Setup, way: &str, many: u32) -> Done<f64> {
    let jails = (0..many).map(|_| idle(setup, false)).collect::<Done<Vec<_>>>()?;
    let begin = now();
    match way {
        "one-by-one" => {
            for jail in jails {
                jail.teardown().map_err(text)?;
            }
        }
        "together" => {
            let jails = jails.into_iter().map(Jail::Running).collect();
            for report in teardown_all(jails, TeardownOptions::default()) {
                report.map_err(text)?;
            }
        }
        other => return Err(format!("unknown teardown '{other}'")),
    }
    Ok((now() - begin) / 1000.0)
}

/// Starts a jail with an idle VMM, whose executable is copied or bound.
fn idle(setup: &Setup, bound: bool) -> Done<stockade::Running> {
    let spec = plain(setup).argument("stay").bind_executable(bound).build().map_err(text)?;
    setup.store.create(&spec).map_err(text)?.launch_monitored(0).map_err(text)
}

/// Creates and removes `many` idle jails.
///
/// Returns the median time to create one of the first tenth and one of the last tenth, and the mean time to remove
/// one, in microseconds; then the size of one jail's entry in the state directory, in bytes.
pub(crate) fn crowd(setup: &Setup, way: &str, many: u32) -> Done<Vec<f64>> {
    let mut ids = Vec::new();
    let mut took = Vec::new();
    for _ in 0..many {
        let begin = now();
        let jail = idle(setup, way == "bound")?;
        took.push((now() - begin) / 1000.0);
        // The handle is dropped: each holds a few file descriptors.
        ids.push(jail.receipt().id.clone());
    }
    let last = ids.last().ok_or("no jails")?;
    let state = size_of(setup.store.directory().join(last.as_str()).as_path())?;
    let begin = now();
    for some in ids.chunks(64) {
        let jails = some
            .iter()
            .map(|id| setup.store.open(id).map_err(text)?.ok_or_else(|| format!("{id} does not exist")));
        for report in teardown_all(jails.collect::<Done<_>>()?, TeardownOptions::default()) {
            report.map_err(text)?;
        }
    }
    let removed = (now() - begin) / 1000.0 / f64::from(many);
    let tenth = took.len().div_ceil(10);
    Ok(vec![median(&took[..tenth]), median(&took[took.len() - tenth..]), removed, state])
}

#[expect(clippy::cast_precision_loss, reason = "sizes of small files")]
fn size_of(directory: &std::path::Path) -> Done<f64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(text)? {
        bytes += entry.map_err(text)?.metadata().map_err(text)?.size();
    }
    Ok(bytes as f64)
}

/// The private memory in KiB and the number of threads of an idle jail's monitor.
pub(crate) fn monitor(setup: &Setup) -> Done<Vec<f64>> {
    let jail = idle(setup, false)?;
    let status = fs::read_to_string(format!("/proc/{}/status", jail.pid())).map_err(text)?;
    let parent = field(&status, "PPid:")?;
    let memory = fs::read_to_string(format!("/proc/{parent}/smaps_rollup")).map_err(text)?;
    let status = fs::read_to_string(format!("/proc/{parent}/status")).map_err(text)?;
    let private = field(&memory, "Private_Clean:")? + field(&memory, "Private_Dirty:")?;
    let threads = field(&status, "Threads:")?;
    jail.teardown().map_err(text)?;
    Ok(vec![private, threads])
}

fn field(table: &str, name: &str) -> Done<f64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
    line.split_whitespace().next().unwrap_or_default().parse().map_err(|e| format!("{name}: {e}"))
}

/// The times from taking a jail from a pool to its VMM's first instruction, for `many` jails in turn, in microseconds.
pub(crate) fn pool(setup: &Setup, many: u32) -> Done<Vec<f64>> {
    let pool = JailPool::new(&setup.store, &plain(setup).build().map_err(text)?, 2).map_err(text)?;
    let mut samples = Vec::new();
    for _ in 0..many {
        pool.wait_until_warm().map_err(text)?;
        let (input, output) = pipe()?;
        let begin = now();
        let running = pool.take().and_then(|jail| jail.launch(streams(output))).map_err(text)?;
        samples.push((began(input, true)? - begin) / 1000.0);
        removed(running)?;
    }
    for report in pool.close() {
        report.map_err(text)?;
    }
    Ok(samples)
}
