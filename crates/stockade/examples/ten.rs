//! Ten jails in parallel, each with its own network and pid namespace. Run as root:
//!
//!     cargo run --package stockade --example ten

use std::time::Instant;

use stockade::spec::JailSpec;
use stockade::{ExitStatus, Store, Streams};

/// The life of one jail.
fn live(store: &Store, number: u32) -> stockade::Result<ExitStatus> {
    let name = format!("ten-{}-{number}", std::process::id());
    let spec =
        JailSpec::builder(&name, "/usr/bin/sleep").netns(&name).new_pid_ns(true).argument("0.1").build()?;
    let mut running = store.create(&spec)?.launch(Streams::default())?;
    let status = running.wait()?;
    running.teardown()?;
    Ok(status)
}

fn main() -> stockade::Result<()> {
    let (store, begun) = (&Store::from_environment()?, Instant::now());
    let statuses = std::thread::scope(|scope| {
        let lives: Vec<_> = (0..10).map(|number| scope.spawn(move || live(store, number))).collect();
        lives.into_iter().map(|life| life.join().expect("no life panics")).collect::<Result<Vec<_>, _>>()
    })?;
    let succeeded = statuses.iter().filter(|status| **status == ExitStatus::Exited(0)).count();
    println!("{succeeded} of {} exited with code 0, in {:.2?}", statuses.len(), begun.elapsed());
    Ok(())
}
