//! Many jails at once: what each costs while it does nothing, and what it takes to remove them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use stockade::{Jail, JailPool, TeardownOptions, teardown_all};

use crate::child::{began, now, pipe};
use crate::ground::Ground;
use crate::statistics::median;
use crate::ways::{plain, removed, streams};
use crate::{Done, text};

/// How long it takes to remove so many jails whose VMMs run, in microseconds.
pub(crate) fn teardown(ground: &Ground, way: &str, many: u32) -> Done<f64> {
    let jails = (0..many).map(|_| idle(ground, false)).collect::<Done<Vec<_>>>()?;
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
        other => return Err(format!("no teardown is called {other}")),
    }
    Ok((now() - begin) / 1000.0)
}

/// A jail whose VMM does nothing, with its executable copied or bound.
fn idle(ground: &Ground, bound: bool) -> Done<stockade::Running> {
    let spec = plain(ground).argument("stay").bind_executable(bound).build().map_err(text)?;
    ground.store.create(&spec).map_err(text)?.launch_watched(0).map_err(text)
}

/// Makes so many idle jails, and removes them. Returns how long the first and the last tenth took to make, and all
/// of them to remove, in microseconds a jail, and what one keeps in the state directory, in bytes.
pub(crate) fn crowd(ground: &Ground, way: &str, many: u32) -> Done<Vec<f64>> {
    let mut ids = Vec::new();
    let mut took = Vec::new();
    for _ in 0..many {
        let begin = now();
        let jail = idle(ground, way == "bound")?;
        took.push((now() - begin) / 1000.0);
        // Not held open: each takes a few descriptors.
        ids.push(jail.receipt().id.clone());
    }
    let last = ids.last().ok_or("there is no jail")?;
    let state = size_of(ground.store.directory().join(last.as_str()).as_path())?;
    let begin = now();
    for some in ids.chunks(64) {
        let jails =
            some.iter().map(|id| ground.store.open(id).map_err(text)?.ok_or_else(|| format!("{id} is gone")));
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

/// Private memory in KiB, and threads, of the monitor of an idle jail.
pub(crate) fn monitor(ground: &Ground) -> Done<Vec<f64>> {
    let jail = idle(ground, false)?;
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

/// Starts of so many jails of a pool, one after the other, from taking one on, in microseconds.
pub(crate) fn pool(ground: &Ground, many: u32) -> Done<Vec<f64>> {
    let pool = JailPool::new(&ground.store, &plain(ground).build().map_err(text)?, 2).map_err(text)?;
    let mut samples = Vec::new();
    for _ in 0..many {
        pool.wait_until_warm().map_err(text)?;
        let (tells, output) = pipe()?;
        let begin = now();
        let running = pool.take().and_then(|jail| jail.launch(streams(output))).map_err(text)?;
        samples.push((began(tells, true)? - begin) / 1000.0);
        removed(running)?;
    }
    for report in pool.close() {
        report.map_err(text)?;
    }
    Ok(samples)
}
