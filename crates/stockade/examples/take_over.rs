//! A launcher is killed; another process finds its jails, then stops or removes them. Run as root:
//!
//!     cargo run --package stockade --example take_over

use std::process::Command;
use std::time::Duration;

use stockade::spec::JailSpec;
use stockade::{Jail, Store, Streams};

fn main() -> stockade::Result<()> {
    let store = Store::from_environment()?;
    match std::env::args().nth(1) {
        Some(name) => be_killed(&store, &name),
        None => take_over(&store),
    }
}

/// The launcher: it starts one jail, creates another, and is killed.
fn be_killed(store: &Store, name: &str) -> stockade::Result<()> {
    let jail =
        |role: &str| JailSpec::builder(format!("{name}-{role}"), "/usr/bin/sleep").argument("60").build();
    let running = store.create(&jail("run")?)?.launch(Streams::default())?;
    let created = store.create(&jail("wait")?)?;
    println!("the launcher has started pid {} and is killed", running.pid());
    let _ = Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status();
    drop((running, created));
    Ok(())
}

fn take_over(store: &Store) -> stockade::Result<()> {
    let name = format!("over-{}", std::process::id());
    let this = std::env::current_exe().expect("this program has a path");
    let status = Command::new(this).arg(&name).status().expect("start the launcher");
    println!("the launcher: {status}");

    // The created jail was abandoned with its launcher, and is collected.
    for report in store.collect(false)?.jails {
        println!("collected {}: {} objects removed", report.id, report.removed.len());
    }
    // The running VMM continues, and any process can open its jail.
    if let Some(Jail::Running(mut running)) = store.open(&format!("{name}-run").parse()?)? {
        println!("found pid {} running", running.pid());
        running.stop(Duration::from_secs(5))?;
        let report = running.teardown()?;
        println!("removed {}: {} objects left", report.id, report.left.len());
    }
    Ok(())
}
