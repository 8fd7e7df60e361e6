//! Medians, and confidence intervals of their ratios.

/// The sample at this part of the sorted samples, such as 0.99.
pub(crate) fn percentile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let at = ((last as f64) * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    percentile(samples, 0.5)
}

/// The ratio of two ways that were measured in turns.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Ratio {
    /// The median over the rounds of the ratio of the two medians of each round.
    pub(crate) value: f64,
    /// The interval of 95 % confidence.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The number of draws for the interval.
const DRAWS: usize = 1000;

/// A pseudo-random generator with a fixed seed.
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// The next number below `end`, which must not be 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap_or_default()
    }

    /// Shuffles the elements (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, all: &mut [T]) {
        for end in (1..all.len()).rev() {
            all.swap(end, self.below(end + 1));
        }
    }
}

/// The ratio of two ways, from the medians of each round.
///
/// The interval comes from draws of rounds with replacement (the bootstrap). The draws are always the same, so the
/// same samples have the same interval.
pub(crate) fn ratio(numerators: &[f64], denominators: &[f64]) -> Ratio {
    let rounds: Vec<f64> = numerators.iter().zip(denominators).map(|(one, other)| one / other).collect();
    let mut draws = Draws::new();
    let mut draw = || rounds[draws.below(rounds.len())];
    let medians: Vec<f64> =
        (0..DRAWS).map(|_| median(&(0..rounds.len()).map(|_| draw()).collect::<Vec<_>>())).collect();
    Ratio { value: median(&rounds), low: percentile(&medians, 0.025), high: percentile(&medians, 0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "samples are returned unchanged")]
    fn a_percentile_is_one_of_the_samples() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(median(&samples), 3.0);
        assert_eq!(percentile(&samples, 0.99), 5.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn shuffle_keeps_all_elements_and_reaches_every_order() {
        let mut draws = Draws::new();
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut all = [1, 2, 3];
            draws.shuffle(&mut all);
            orders.insert(all);
        }
        assert_eq!(orders.len(), 6, "{orders:?}");
    }

    #[test]
    fn a_ratio_is_in_its_interval_and_ignores_common_load() {
        let slower = [10.0, 20.0, 40.0, 10.0, 15.0];
        let faster: Vec<f64> = slower.iter().map(|time| time / 2.0).collect();
        assert_eq!(ratio(&faster, &slower), Ratio { value: 0.5, low: 0.5, high: 0.5 });
        let ratio = ratio(&[1.0, 2.0, 3.0], &[2.0, 2.0, 2.0]);
        assert!(ratio.low <= ratio.value && ratio.value <= ratio.high && ratio.low < ratio.high);
    }
}
