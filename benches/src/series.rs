//! What is measured against what, in turns.

use serde::Serialize;

use crate::Done;
use crate::statistics::{Draws, Ratio, median, percentile, ratio};
use crate::tasks::Tasks;
use crate::worker::Workers;

/// Which of the workers is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Place {
    /// How many mounts its host has more.
    pub(crate) mounts: u32,
    /// Whether it has a skeleton; otherwise the host's mount namespace is copied.
    pub(crate) skeleton: bool,
}

/// One thing that is measured again and again.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    /// What is measured, as in the document.
    pub(crate) name: String,
    /// What the worker is asked.
    pub(crate) question: String,
    pub(crate) place: Place,
    /// The samples of all rounds, in the unit of the bench: microseconds unless told otherwise.
    pub(crate) samples: Vec<f64>,
    /// The median of each round, for ratios.
    pub(crate) rounds: Vec<f64>,
}

/// Series that are measured in turns, so that what slows the machine slows all of them.
#[derive(Debug, Serialize)]
pub(crate) struct Bench {
    pub(crate) title: String,
    /// What a sample is.
    pub(crate) unit: &'static str,
    pub(crate) series: Vec<Series>,
    /// What is divided by what, by name, and at most how much that may be.
    pub(crate) claims: Vec<Claim>,
    /// How many tasks more than this one the host has meanwhile.
    pub(crate) tasks: u32,
    #[serde(skip)]
    pub(crate) rounds: u32,
}

/// A ratio that is looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    pub(crate) ours: String,
    pub(crate) theirs: String,
    /// The limit; the lower end if it is a rate.
    pub(crate) at_most: Option<f64>,
    pub(crate) ratio: Option<Ratio>,
}

impl Bench {
    pub(crate) fn new(title: impl Into<String>, unit: &'static str, rounds: u32) -> Self {
        Self { title: title.into(), unit, series: Vec::new(), claims: Vec::new(), tasks: 0, rounds }
    }

    /// On a host with so many tasks more.
    pub(crate) fn among(self, tasks: u32) -> Self {
        Self { tasks, ..self }
    }

    pub(crate) fn series(
        mut self,
        name: impl Into<String>,
        place: Place,
        question: impl Into<String>,
    ) -> Self {
        let (samples, rounds) = (Vec::new(), Vec::new());
        self.series.push(Series { name: name.into(), question: question.into(), place, samples, rounds });
        self
    }

    pub(crate) fn claim(
        mut self,
        ours: impl Into<String>,
        theirs: impl Into<String>,
        at_most: Option<f64>,
    ) -> Self {
        self.claims.push(Claim { ours: ours.into(), theirs: theirs.into(), at_most, ratio: None });
        self
    }

    /// Measures, one round of every series after the other, each round in an order of its own.
    pub(crate) fn run(&mut self, workers: &mut Workers) -> Done {
        eprintln!("{}", self.title);
        let _tasks = Tasks::start(self.tasks)?;
        let mut order: Vec<usize> = (0..self.series.len()).collect();
        let mut draws = Draws::new();
        // Not counted: the first of everything finds nothing in any cache.
        for round in 0..=self.rounds {
            draws.shuffle(&mut order);
            for &at in &order {
                let series = &mut self.series[at];
                let samples = workers.at(series.place)?.ask(&series.question)?;
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
            claim.ratio =
                rounds(&claim.ours).zip(rounds(&claim.theirs)).map(|(ours, theirs)| ratio(ours, theirs));
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
                claim.ours, claim.theirs
            );
        }
        text
    }
}

/// Three digits that matter, thousands apart.
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
