//! Benches: series of samples, measured in turns, and their ratios.

use serde::Serialize;

use crate::Done;
use crate::statistics::{Draws, Ratio, median, percentile, ratio};
use crate::tasks::Tasks;
use crate::worker::Workers;

/// The kind of host to measure on; each kind has a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HostKind {
    /// The number of additional mounts.
    pub(crate) mounts: u32,
    /// Whether it has a template namespace; otherwise starts copy the host's mount namespace.
    #[serde(rename = "skeleton")]
    pub(crate) has_template: bool,
}

/// Repeated measurements of one way.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    /// The name of the way, as in `docs/performance.md`.
    pub(crate) name: String,
    /// The request to the worker.
    pub(crate) question: String,
    #[serde(rename = "place")]
    pub(crate) host: HostKind,
    /// The samples of all rounds, in the unit of the bench.
    pub(crate) samples: Vec<f64>,
    /// The median of each round, for ratios.
    pub(crate) rounds: Vec<f64>,
}

/// Series that are measured in turns, so that other load on the machine affects all of them.
#[derive(Debug, Serialize)]
pub(crate) struct Bench {
    pub(crate) title: String,
    /// The unit of a sample.
    pub(crate) unit: &'static str,
    pub(crate) series: Vec<Series>,
    /// The ratios of series.
    pub(crate) claims: Vec<Claim>,
    /// The number of additional tasks on the host.
    pub(crate) tasks: u32,
    #[serde(skip)]
    pub(crate) rounds: u32,
}

/// A ratio of two series.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    #[serde(rename = "ours")]
    pub(crate) numerator: String,
    #[serde(rename = "theirs")]
    pub(crate) denominator: String,
    /// The aim.
    pub(crate) at_most: Option<f64>,
    pub(crate) ratio: Option<Ratio>,
}

impl Bench {
    pub(crate) fn new(title: impl Into<String>, unit: &'static str, rounds: u32) -> Self {
        Self { title: title.into(), unit, series: Vec::new(), claims: Vec::new(), tasks: 0, rounds }
    }

    /// Sets the number of additional tasks.
    pub(crate) fn among(self, tasks: u32) -> Self {
        Self { tasks, ..self }
    }

    pub(crate) fn series(
        mut self,
        name: impl Into<String>,
        host: HostKind,
        question: impl Into<String>,
    ) -> Self {
        let (samples, rounds) = (Vec::new(), Vec::new());
        self.series.push(Series { name: name.into(), question: question.into(), host, samples, rounds });
        self
    }

    pub(crate) fn claim(
        mut self,
        numerator: impl Into<String>,
        denominator: impl Into<String>,
        at_most: Option<f64>,
    ) -> Self {
        self.claims.push(Claim {
            numerator: numerator.into(),
            denominator: denominator.into(),
            at_most,
            ratio: None,
        });
        self
    }

    /// Measures round by round. Each round has all series once, in a new order.
    pub(crate) fn run(&mut self, workers: &mut Workers) -> Done {
        eprintln!("{}", self.title);
        let _tasks = Tasks::start(self.tasks)?;
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        let mut draws = Draws::new();
        // The first round only warms the caches and is not counted.
        for round in 0..=self.rounds {
            draws.shuffle(&mut order);
            for &at in &order {
                let series = &mut self.series[at];
                let samples = workers.at(series.host)?.ask(&series.question)?;
                if round > 0 {
                    series.rounds.push(median(&samples));
                    series.samples.extend(samples);
                }
            }
        }
        for claim in &mut self.claims {
            let rounds = |name: &str| {
                self.series.iter().find(|series| series.name == name).map(|series| &series.rounds)
            };
            claim.ratio = rounds(&claim.numerator)
                .zip(rounds(&claim.denominator))
                .map(|(one, other)| ratio(one, other));
        }
        Ok(())
    }

    /// The bench as a table in Markdown.
    pub(crate) fn table(&self) -> String {
        use std::fmt::Write;
        let mut text = format!("| {} | median | p99 | samples |\n|---|---|---|---|\n", self.title);
        for series in &self.series {
            let (middle, high) = (median(&series.samples), percentile(&series.samples, 0.99));
            let high = if series.samples.len() < 20 { String::new() } else { number(high) };
            let _ = writeln!(
                text,
                "| {} | {} {} | {high} | {} |",
                series.name,
                number(middle),
                self.unit,
                series.samples.len()
            );
        }
        let known: Vec<_> =
            self.claims.iter().filter_map(|claim| claim.ratio.map(|ratio| (claim, ratio))).collect();
        if !known.is_empty() {
            text.push_str("\n| ratio | | 95 % | aim |\n|---|---|---|---|\n");
        }
        for (claim, ratio) in known {
            let aim = claim.at_most.map_or(String::new(), |aim| format!("at most {aim}"));
            let Ratio { value, low, high } = ratio;
            let _ = writeln!(
                text,
                "| {} / {} | {value:.2} | {low:.2} to {high:.2} | {aim} |",
                claim.numerator, claim.denominator
            );
        }
        text
    }
}

/// Formats a number with three significant digits and a separator for thousands.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 1000.0 => {
            let whole = format!("{value:.0}");
            let (high, low) = whole.split_at(whole.len() - 3);
            format!("{high},{low}")
        }
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}
