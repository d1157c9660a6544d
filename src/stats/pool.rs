use hdrhistogram::Histogram;

use crate::stats::Distribution;

/// Up to so many values are kept as they are: 8 MiB.
const EXACT: usize = 1 << 20;
/// Beyond that they are counted in buckets of this many significant decimal digits, in at most 5 MiB.
const DIGITS: u8 = 4;
/// A day: longer than any gap between two chunks.
const LONGEST_NS: u64 = 86_400_000_000_000;

/// Durations of which there may be more than memory should hold: a million answers have a hundred million gaps.
///
/// Up to 1,048,576 values every statistic is exact. Beyond that the mean, the deviation, the least and the greatest are
/// still exact; percentiles are those of the nearest rank, at most 0.01 % too high.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Nanoseconds.
    exact: Vec<u64>,
    counted: Option<Box<Counted>>,
}

#[derive(Debug)]
struct Counted {
    histogram: Histogram<u64>,
    least: u64,
    greatest: u64,
    mean: f64,
    /// Sum of (value - mean)², kept up to date by Welford's method.
    squares: f64,
}

impl Pool {
    pub(super) fn add(&mut self, ns: u64) {
        if let Some(counted) = &mut self.counted {
            return counted.add(ns);
        }
        self.exact.push(ns);
        if self.exact.len() > EXACT {
            let mut counted = Counted::new();
            for ns in std::mem::take(&mut self.exact) {
                counted.add(ns);
            }
            self.counted = Some(Box::new(counted));
        }
    }

    /// How the values are spread, in milliseconds; `None` when there are none.
    pub(super) fn distribution(self) -> Option<Distribution> {
        match self.counted {
            Some(counted) => Some(counted.distribution()),
            None => Distribution::of(self.exact.into_iter().map(milliseconds).collect()),
        }
    }
}

impl Counted {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, DIGITS).expect("the bounds are in order");
        Self { histogram, least: u64::MAX, greatest: 0, mean: 0.0, squares: 0.0 }
    }

    fn add(&mut self, ns: u64) {
        self.histogram.saturating_record(ns);
        self.least = self.least.min(ns);
        self.greatest = self.greatest.max(ns);
        let from_mean = ns as f64 - self.mean;
        self.mean += from_mean / self.histogram.len() as f64;
        self.squares += from_mean * (ns as f64 - self.mean);
    }

    fn distribution(&self) -> Distribution {
        let at = |percent: f64| {
            let bucket = self.histogram.value_at_quantile(percent / 100.0);
            milliseconds(bucket.clamp(self.least, self.greatest))
        };
        Distribution {
            mean: self.mean / 1e6,
            std: (self.squares / self.histogram.len() as f64).sqrt() / 1e6,
            min: milliseconds(self.least),
            p50: at(50.0),
            p75: at(75.0),
            p90: at(90.0),
            p95: at(95.0),
            p99: at(99.0),
            p99_9: at(99.9),
            max: milliseconds(self.greatest),
        }
    }
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Durations spread over six decades, in an order that is not sorted.
    fn durations(count: usize) -> impl Iterator<Item = u64> {
        (0..count).map(|index| {
            let share = (index as f64 * 0.618_033_988_749).fract();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 us to 1 s")]
            let ns = 10_f64.powf(3.0 + 6.0 * share) as u64;
            ns
        })
    }

    fn pooled(count: usize) -> Pool {
        let mut pool = Pool::default();
        durations(count).for_each(|ns| pool.add(ns));
        pool
    }

    #[test]
    fn a_small_pool_is_exact() {
        let pool = pooled(1000);
        assert!(pool.counted.is_none());
        assert_eq!(pool.distribution(), Distribution::of(durations(1000).map(milliseconds).collect()));
    }

    #[test]
    fn a_large_pool_keeps_its_error_bound() {
        let count = EXACT + 100_000;
        let exact = Distribution::of(durations(count).map(milliseconds).collect()).unwrap();
        let pool = pooled(count);
        assert!(pool.counted.is_some() && pool.exact.is_empty());
        let counted = pool.distribution().unwrap();
        assert_eq!((counted.min, counted.max), (exact.min, exact.max));
        let figures = |it: &Distribution| [it.mean, it.std, it.p50, it.p75, it.p90, it.p95, it.p99, it.p99_9];
        for (counted, exact) in figures(&counted).into_iter().zip(figures(&exact)) {
            // 0.01 % of the bucket, and as much again for the rank: neighbours are 0.001 % apart here.
            assert!((counted / exact - 1.0).abs() < 2e-4, "{counted} is not {exact}");
        }
    }
}
