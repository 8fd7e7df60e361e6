//! The report: tables, the plot and all samples.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::benches::Length;
use crate::series::{Bench, number};
use crate::worker::Worker;
use crate::{Done, plot, text};

/// Many idle jails at once.
#[derive(Debug, Serialize)]
pub(crate) struct Crowd {
    pub(crate) jails: u32,
    /// Whether the executable is `copied` or `bound`.
    pub(crate) executable: &'static str,
    /// The time to prepare and start a jail of the first tenth with a monitor, in microseconds.
    pub(crate) first_us: f64,
    /// The same for the last tenth, when all other jails exist.
    pub(crate) last_us: f64,
    /// The time to remove a jail, in microseconds.
    pub(crate) remove_us: f64,
    /// The size of a jail's entry in the state directory, in bytes.
    pub(crate) state_bytes: f64,
    /// The private memory of a monitor, in KiB.
    pub(crate) monitor_kib: f64,
    /// The number of a monitor's threads.
    pub(crate) monitor_threads: f64,
}

impl Crowd {
    pub(crate) fn measure(length: Length, executable: &'static str, worker: &mut Worker) -> Done<Self> {
        let jails = match length {
            Length::Smoke => 5,
            Length::Quick => 200,
            Length::Full => 4000,
        };
        eprintln!("{jails} idle jails at once, executable {executable}");
        let many = worker.ask(&format!("crowd {executable} {jails}"))?;
        let monitor = worker.ask("monitor")?;
        let ([first_us, last_us, remove_us, state_bytes], [monitor_kib, monitor_threads]) =
            (&many[..], &monitor[..])
        else {
            return Err("unexpected answer of a worker".into());
        };
        let [first_us, last_us, remove_us, state_bytes] =
            [first_us, last_us, remove_us, state_bytes].map(|figure| *figure);
        let [monitor_kib, monitor_threads] = [monitor_kib, monitor_threads].map(|figure| *figure);
        Ok(Self {
            jails,
            executable,
            first_us,
            last_us,
            remove_us,
            state_bytes,
            monitor_kib,
            monitor_threads,
        })
    }

    fn table(&self) -> String {
        format!(
            "| {} idle jails at once, executable {} | each |\n|---|---|\n\
             | prepare and start with a monitor, the first tenth | {} µs |\n\
             | the same, the last tenth | {} µs |\n| remove, 64 together | {} µs |\n\
             | receipt and log on disk | {} bytes |\n| private memory of the monitor | {} KiB |\n\
             | threads of the monitor | {} |\n",
            self.jails,
            self.executable,
            number(self.first_us),
            number(self.last_us),
            number(self.remove_us),
            number(self.state_bytes),
            number(self.monitor_kib),
            self.monitor_threads
        )
    }
}

/// The results so far.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    benches: Vec<Bench>,
    crowds: Vec<Crowd>,
    /// The benches and peers that could not be measured, with the reasons.
    missing: Vec<String>,
}

impl Report {
    pub(crate) fn new(missing: Vec<String>) -> Self {
        Self { missing, ..Self::default() }
    }

    /// Adds and prints a bench.
    pub(crate) fn add(&mut self, bench: Bench, directory: Option<&Path>) -> Done {
        println!("{}", bench.table());
        self.benches.push(bench);
        self.write(directory)
    }

    pub(crate) fn add_crowd(&mut self, crowd: Crowd, directory: Option<&Path>) -> Done {
        println!("{}", crowd.table());
        self.crowds.push(crowd);
        self.write(directory)
    }

    /// Prints the missing benches and peers.
    pub(crate) fn end(&self) {
        self.missing.iter().for_each(|missing| println!("{missing}"));
    }

    /// Writes the tables, the plot and all samples. Called after every bench, so that an interrupted run loses
    /// nothing.
    fn write(&self, directory: Option<&Path>) -> Done {
        let Some(directory) = directory else { return Ok(()) };
        fs::create_dir_all(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let mut tables: Vec<String> = self.benches.iter().map(Bench::table).collect();
        tables.extend(self.crowds.iter().map(Crowd::table));
        tables.push(self.missing.join("\n"));
        let json = serde_json::to_string(self).map_err(text)?;
        let (tables, plot) = (tables.join("\n"), plot::svg(&self.benches));
        for (name, content) in [("bench.md", tables), ("bench.json", json), ("bench.svg", plot)] {
            let path = directory.join(name);
            fs::write(&path, content).map_err(|e| format!("{}: {}", path.display(), text(e)))?;
        }
        Ok(())
    }
}
