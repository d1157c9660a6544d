/// How the values of one statistic are spread, in the unit of the values.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Sum of the values / their number.
    pub mean: f64,
    /// Population standard deviation: the root of the mean of (value - mean)², as GenAI-Perf has it.
    pub std: f64,
    pub min: f64,
    pub p50: f64,
    pub p75: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    /// Of fewer than 1000 values it lies between the two largest: little more than the maximum.
    pub p99_9: f64,
    pub max: f64,
}

impl Distribution {
    /// The spread of `values`; `None` when there are none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let mean = mean(&values)?;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let at = |percent| percentile(&values, percent);
        Some(Self {
            mean,
            std: variance.sqrt(),
            min,
            p50: at(50.0)?,
            p75: at(75.0)?,
            p90: at(90.0)?,
            p95: at(95.0)?,
            p99: at(99.0)?,
            p99_9: at(99.9)?,
            max,
        })
    }
}

/// Sum of the values / their number; `None` when there are none.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The value that `percent` of `sorted` are at or below: linear interpolation between closest ranks, numpy's default.
///
/// With n values the rank is percent / 100 × (n - 1), counted from 0. `sorted` is in ascending order; `percent` outside
/// 0 to 100 gives the nearest end. `None` when there are no values.
#[must_use]
pub fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = (percent / 100.0).clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the rank lies within 0 to `last`")]
    let below = rank.floor() as usize;
    let (low, high) = (sorted[below], sorted[last.min(below + 1)]);
    let share = rank - rank.floor();
    // From the nearer end, as numpy does, so that rounding never leaves the two neighbours.
    Some(if share < 0.5 { low + (high - low) * share } else { high - (high - low) * (1.0 - share) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition read aloud: a value that is `f` of the way from one rank to the next.
    fn naive(values: &[f64], percent: u32) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let hundredths = percent as usize * (sorted.len() - 1);
        let (rank, rest) = (hundredths / 100, hundredths % 100);
        if rest == 0 {
            return sorted[rank];
        }
        let share = rest as f64 / 100.0;
        sorted[rank] * (1.0 - share) + sorted[rank + 1] * share
    }

    proptest! {
        #[test]
        fn percentiles_equal_the_naive_ones(values in prop::collection::vec(0.0..1e7, 1..200), percent in 0_u32..=100) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let found = percentile(&sorted, f64::from(percent)).unwrap();
            let expected = naive(&values, percent);
            prop_assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
        }

        #[test]
        fn a_distribution_is_in_order(values in prop::collection::vec(0.0..1e7, 1..200)) {
            let it = Distribution::of(values).unwrap();
            let rising = [it.min, it.p50, it.p75, it.p90, it.p95, it.p99, it.p99_9, it.max];
            prop_assert!(rising.is_sorted(), "{rising:?}");
            prop_assert!(it.std >= 0.0 && it.std <= it.max - it.min + 1e-6);
        }
    }

    #[test]
    fn percentiles_equal_numpys() {
        // numpy.percentile([15, 20, 35, 40, 50], q), from its documentation's method `linear`.
        let sorted = [15.0, 20.0, 35.0, 40.0, 50.0];
        for (percent, expected) in [(0.0, 15.0), (5.0, 16.0), (30.0, 23.0), (40.0, 29.0), (50.0, 35.0), (100.0, 50.0)] {
            let found = percentile(&sorted, percent).unwrap();
            assert!((found - expected).abs() < 1e-12, "p{percent}: {found} is not {expected}");
        }
    }

    #[test]
    fn standard_deviation_is_the_populations() {
        let it = Distribution::of(vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((it.mean, it.std), (5.0, 2.0));
    }

    #[test]
    fn one_value_is_all_of_its_distribution_and_no_value_is_none() {
        let it = Distribution::of(vec![3.0]).unwrap();
        assert_eq!((it.min, it.p50, it.p99, it.max, it.std), (3.0, 3.0, 3.0, 3.0, 0.0));
        assert_eq!(Distribution::of(vec![]), None);
        assert_eq!(percentile(&[], 50.0), None);
    }
}
