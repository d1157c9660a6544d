use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution as _};

use crate::stats::interval::CONFIDENCE;
use crate::stats::{Interval, percentile};

/// Resamples of each side.
const RESAMPLES: usize = 1000;

/// The percentile of `new` - that of `base`, and where 95 % of the differences between 1000 resamples of both lie.
///
/// Both are in ascending order. The same values always give the same interval. `None` when either has fewer than two
/// values. The interval takes values to be drawn independently of each other, which requests that a server batches
/// together are not quite, and it knows nothing of how rounds differ: rounds say more.
#[must_use]
pub fn percentile_difference(base: &[f64], new: &[f64], percent: f64) -> Option<Interval> {
    if base.len() < 2 || new.len() < 2 {
        return None;
    }
    let mean = percentile(new, percent)? - percentile(base, percent)?;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut differences = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        differences.push(resampled(new, percent, &mut rng)? - resampled(base, percent, &mut rng)?);
    }
    differences.sort_by(f64::total_cmp);
    let outside = (100.0 - CONFIDENCE) / 2.0;
    Some(Interval { mean, low: percentile(&differences, outside)?, high: percentile(&differences, 100.0 - outside)? })
}

/// The percentile of as many values drawn from `sorted`, with replacement.
///
/// Nothing needs to be drawn but the values on both sides of the rank: of n positions drawn evenly from 0 to 1, the
/// k-th smallest is distributed as Beta(k, n + 1 - k), and the next one is the least of n - k positions above it. So a
/// million values cost no more than ten.
fn resampled(sorted: &[f64], percent: f64, rng: &mut ChaCha8Rng) -> Option<f64> {
    let count = sorted.len() as f64;
    let rank = percent / 100.0 * (count - 1.0);
    let drawn_below = rank.floor() + 1.0;
    let low = Beta::new(drawn_below, count + 1.0 - drawn_below).ok()?.sample(rng);
    let left = (count - drawn_below).max(1.0);
    let high = 1.0 - (1.0 - low) * rng.random::<f64>().powf(1.0 / left);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions lie within 0 to 1")]
    let at = |position: f64| sorted[((position * count) as usize).min(sorted.len() - 1)];
    Some(at(low) + (at(high) - at(low)) * rank.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: u32, shift: f64) -> Vec<f64> {
        let mut values: Vec<f64> =
            (0..count).map(|i| shift + 100.0 * (f64::from(i) * 0.618_034).fract().powi(2)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The textbook's way: draw all values, sort them, take the percentile.
    fn drawn_one_by_one(sorted: &[f64], percent: f64, rng: &mut ChaCha8Rng) -> f64 {
        let mut drawn: Vec<f64> = sorted.iter().map(|_| sorted[rng.random_range(0..sorted.len())]).collect();
        drawn.sort_by(f64::total_cmp);
        percentile(&drawn, percent).unwrap()
    }

    #[test]
    fn resamples_are_distributed_as_if_all_values_were_drawn() {
        const COUNT: usize = 20_000;
        let sorted = values(41, 0.0);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for percent in [0.0, 50.0, 90.0, 99.0, 100.0] {
            let mut quick: Vec<f64> = (0..COUNT).map(|_| resampled(&sorted, percent, &mut rng).unwrap()).collect();
            let mut slow: Vec<f64> = (0..COUNT).map(|_| drawn_one_by_one(&sorted, percent, &mut rng)).collect();
            quick.sort_by(f64::total_cmp);
            slow.sort_by(f64::total_cmp);
            for at in [2.5, 25.0, 50.0, 75.0, 97.5] {
                let (quick, slow) = (percentile(&quick, at).unwrap(), percentile(&slow, at).unwrap());
                // Neighbouring values are up to 5 apart.
                assert!((quick - slow).abs() < 5.0, "p{at} of the resampled p{percent}: {quick} is not {slow}");
            }
        }
    }

    #[test]
    fn a_shift_is_found_and_equal_values_do_not_differ() {
        let base = values(400, 0.0);
        let same = percentile_difference(&base, &base, 50.0).unwrap();
        assert!(same.mean == 0.0 && same.low < 0.0 && same.high > 0.0, "{same:?}");
        let shifted = percentile_difference(&base, &values(300, 30.0), 50.0).unwrap();
        assert!(shifted.low > 15.0 && shifted.high < 45.0, "{shifted:?}");
        assert_eq!(percentile_difference(&base, &values(300, 30.0), 50.0), Some(shifted));
        assert_eq!(percentile_difference(&base, &[1.0], 50.0), None);
    }
}
