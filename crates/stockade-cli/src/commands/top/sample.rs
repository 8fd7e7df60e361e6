//! Samples of the jails' resource use, and the rates between two samples.

use std::collections::{HashMap, VecDeque};
use std::time::{Instant, SystemTime};

use clap::ValueEnum;
use serde::Serialize;
use stockade::spec::JailId;
use stockade::{Error, JailState, Listing, Receipt, Store, Usage};

use crate::terminal::output::Failure;

/// The number of samples in a jail's history.
const HISTORY: usize = 32;

/// The order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    // Processor, highest first.
    Cpu,
    // Memory, highest first.
    Memory,
    // Reads and writes together, highest first.
    Io,
    // Processes and threads, highest first.
    Tasks,
    // Age, youngest first.
    Age,
    // The id.
    Id,
}

impl Order {
    pub(super) fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        match self {
            Self::Cpu => {
                rows.sort_by(|a, b| b.cpu_percent.unwrap_or(-1.0).total_cmp(&a.cpu_percent.unwrap_or(-1.0)));
            }
            Self::Memory => rows.sort_by_key(|row| std::cmp::Reverse(row.usage.memory_bytes)),
            Self::Io => rows.sort_by_key(|row| std::cmp::Reverse(row.io_per_second())),
            Self::Tasks => rows.sort_by_key(|row| std::cmp::Reverse(row.usage.tasks)),
            Self::Age => rows.sort_by_key(|row| row.age_seconds.unwrap_or(u64::MAX)),
            Self::Id => (),
        }
    }

    /// The next one, in the order of the columns.
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|order| *order == self).unwrap_or(0);
        all[(at + 1) % all.len()]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Tasks => "tasks",
            Self::Age => "age",
            Self::Id => "id",
        }
    }
}

/// One sample of a jail, with the rates since the previous sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) id: JailId,
    pub(super) pid: Option<i32>,
    pub(super) state: JailState,
    pub(super) age_seconds: Option<u64>,
    /// Processor time since the previous sample, in percent of one processor.
    pub(super) cpu_percent: Option<f64>,
    /// Share of that time in which the jail's limit held it back, in percent.
    pub(super) throttled_percent: Option<f64>,
    pub(super) read_per_second: Option<u64>,
    pub(super) written_per_second: Option<u64>,
    #[serde(flatten)]
    pub(super) usage: Usage,
    /// `cpu_percent` of the latest samples, the newest last.
    #[serde(skip)]
    pub(super) history: Vec<u64>,
}

impl Row {
    fn io_per_second(&self) -> u64 {
        self.read_per_second.unwrap_or(0).saturating_add(self.written_per_second.unwrap_or(0))
    }
}

/// Takes samples, and keeps the previous one of each jail.
pub(super) struct Sampler<'a> {
    store: Store,
    wanted: &'a dyn Fn(&Listing) -> bool,
    known: HashMap<JailId, Known>,
}

/// The previous sample of a jail.
struct Known {
    /// Modification time of the receipt: an unchanged receipt is not read again.
    written: Option<SystemTime>,
    receipt: Receipt,
    usage: Usage,
    at: Instant,
    history: VecDeque<u64>,
}

impl<'a> Sampler<'a> {
    /// Creates a sampler of the jails that are `wanted`.
    pub(super) fn new(store: Store, wanted: &'a dyn Fn(&Listing) -> bool) -> Self {
        Self { store, wanted, known: HashMap::new() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Takes a sample of every wanted jail.
    pub(super) fn sample(&mut self) -> Result<Vec<Row>, Failure> {
        let ids = self.store.ids()?;
        self.known.retain(|id, _| ids.contains(id));
        ids.into_iter().filter_map(|id| self.sample_one(id).transpose()).collect()
    }

    fn sample_one(&mut self, id: JailId) -> Result<Option<Row>, Failure> {
        // If the time cannot be read, the receipt is read, which reports the cause.
        let written = self.store.receipt_written(&id).ok();
        let before = self.known.remove(&id).filter(|known| known.written.is_some());
        let (receipt, before) = match before {
            Some(known) if known.written == written => {
                (known.receipt, Some((known.usage, known.at, known.history)))
            }
            other => match self.store.read(&id) {
                Ok(Some(receipt)) => (receipt, other.map(|known| (known.usage, known.at, known.history))),
                Ok(None) => return Ok(None),
                Err(error @ Error::Receipt { .. }) => {
                    let listing = Listing::corrupt(id, error.to_string());
                    return Ok((self.wanted)(&listing).then(|| corrupt(listing.id)));
                }
                Err(error) => return Err(error.into()),
            },
        };
        let Listing { pid, state, age, .. } = match Listing::of(&receipt) {
            listing if (self.wanted)(&listing) => listing,
            _ => return Ok(None),
        };
        let (usage, at) = (receipt.usage(), Instant::now());
        let (last, since, mut history) = match before {
            Some((last, then, history)) => (last, at.duration_since(then).as_micros(), history),
            None => (Usage::default(), 0, VecDeque::new()),
        };
        let rate = |now: Option<u64>, then: Option<u64>| per_second(now?.saturating_sub(then?), since);
        let (cpu, held) = (rate(usage.cpu_us, last.cpu_us), rate(usage.throttled_us, last.throttled_us));
        history.push_back(cpu.unwrap_or(0) / 10_000);
        if history.len() > HISTORY {
            history.pop_front();
        }
        let row = Row {
            id: id.clone(),
            pid,
            state,
            age_seconds: age,
            cpu_percent: cpu.map(percent),
            throttled_percent: held.map(percent),
            read_per_second: rate(usage.read_bytes, last.read_bytes),
            written_per_second: rate(usage.written_bytes, last.written_bytes),
            usage,
            history: history.iter().copied().collect(),
        };
        self.known.insert(id, Known { written, receipt, usage, at, history });
        Ok(Some(row))
    }
}

/// The rate per second of an amount in this many microseconds.
fn per_second(amount: u64, since_us: u128) -> Option<u64> {
    (u128::from(amount) * 1_000_000).checked_div(since_us).and_then(|rate| u64::try_from(rate).ok())
}

/// Microseconds per second as percent, to a tenth.
fn percent(us_per_second: u64) -> f64 {
    f64::from(u32::try_from(us_per_second / 1_000).unwrap_or(u32::MAX)) / 10.0
}

fn corrupt(id: JailId) -> Row {
    Row {
        id,
        pid: None,
        state: JailState::Corrupt,
        age_seconds: None,
        cpu_percent: None,
        throttled_percent: None,
        read_per_second: None,
        written_per_second: None,
        usage: Usage::default(),
        history: Vec::new(),
    }
}
