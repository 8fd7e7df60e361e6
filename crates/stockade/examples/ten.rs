//! Ten jails at once, each with its own network and pid namespace. As root:
//!
//!     cargo run --package stockade --example ten

use std::time::Instant;

use stockade::spec::JailSpec;
use stockade::{ExitStatus, Store, Streams};

/// One jail's whole life.
fn live(store: &Store, number: u32) -> stockade::Result<ExitStatus> {
    let name = format!("ten-{}-{number}", std::process::id());
    let spec =
        JailSpec::builder(&name, "/usr/bin/sleep").netns(&name).new_pid_ns(true).argument("0.1").build()?;
    let mut running = store.create(&spec)?.launch(Streams::default())?;
    let ended = running.wait()?;
    running.teardown()?;
    Ok(ended)
}

fn main() -> stockade::Result<()> {
    let (store, begun) = (&Store::from_environment()?, Instant::now());
    let ends = std::thread::scope(|scope| {
        let lives: Vec<_> = (0..10).map(|number| scope.spawn(move || live(store, number))).collect();
        lives.into_iter().map(|life| life.join().expect("no life panics")).collect::<Result<Vec<_>, _>>()
    })?;
    let well = ends.iter().filter(|ended| **ended == ExitStatus::Exited(0)).count();
    println!("{well} of {} ended well, in {:.2?}", ends.len(), begun.elapsed());
    Ok(())
}
