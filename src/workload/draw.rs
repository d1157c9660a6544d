//! Numbers drawn from the distributions of a manifest.

use rand::RngExt as _;
use rand::distr::Distribution as _;
use rand::distr::weighted::WeightedIndex;
use rand_chacha::ChaCha8Rng;
use rand_distr::{LogNormal, Normal};

use super::WorkloadError;
use super::synthetic::generator;
use crate::spec::{Amount, Distribution, Spread};

/// What a number is drawn for: each has random numbers of its own, so that a change of one moves no other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    InputTokens,
    OutputTokens,
    Turns,
    ThinkTime,
    Prefix,
    HashId,
    UniquePrefix,
}

impl Purpose {
    /// The generator of the thing at `index`, whose texts were drawn `attempt` times before. Prompts use the lengths of
    /// texts where this has a number above all lengths, so no two are the same.
    pub(super) fn generator(self, seed: u64, index: u64, attempt: u64) -> ChaCha8Rng {
        generator([seed, (1 << 32) + self as u64, index, attempt])
    }
}

/// Draws one number after the other.
pub(super) struct Draws {
    source: Source,
    random: ChaCha8Rng,
}

enum Source {
    Fixed(u32),
    Uniform { min: u32, max: u32 },
    Normal { of: Normal<f64>, min: u32, max: u32 },
    Lognormal { of: LogNormal<f64>, min: u32, max: u32 },
    Histogram { values: Vec<u32>, of: WeightedIndex<f64> },
}

impl Draws {
    pub(super) fn new(amount: &Amount, purpose: Purpose, seed: u64) -> Result<Self, WorkloadError> {
        let source = match amount {
            Amount::Fixed(number) => Source::Fixed(*number),
            Amount::Drawn(distribution) => Source::of(distribution)?,
        };
        Ok(Self { source, random: purpose.generator(seed, 0, 0) })
    }

    /// The next number, 1 or more.
    pub(super) fn next(&mut self) -> u32 {
        let random = &mut self.random;
        let number = match &self.source {
            Source::Fixed(number) => *number,
            Source::Uniform { min, max } => random.random_range(*min..=*max),
            Source::Normal { of, min, max } => whole(of.sample(random), *min, *max),
            Source::Lognormal { of, min, max } => whole(of.sample(random), *min, *max),
            Source::Histogram { values, of } => values[of.sample(random)],
        };
        number.max(1)
    }
}

impl Source {
    fn of(distribution: &Distribution) -> Result<Self, WorkloadError> {
        let impossible = |reason: String| WorkloadError::Draw { reason };
        let ordered = |min: u32, max: u32| {
            if min <= max { Ok((min, max)) } else { Err(impossible(format!("`min` {min} is above `max` {max}"))) }
        };
        match distribution {
            Distribution::Uniform(bounds) => {
                let (min, max) = ordered(bounds.min, bounds.max)?;
                Ok(Self::Uniform { min, max })
            }
            Distribution::Normal(Spread { mean, stddev, min, max }) => {
                let of = Normal::new(*mean, *stddev).map_err(|error| impossible(error.to_string()))?;
                let (min, max) = ordered(*min, *max)?;
                Ok(Self::Normal { of, min, max })
            }
            Distribution::Lognormal(Spread { mean, stddev, min, max }) => {
                let of =
                    LogNormal::from_mean_cv(*mean, stddev / mean).map_err(|error| impossible(error.to_string()))?;
                let (min, max) = ordered(*min, *max)?;
                Ok(Self::Lognormal { of, min, max })
            }
            Distribution::Histogram(histogram) => {
                let values = histogram.values.clone();
                let even = vec![1.0; values.len()];
                let weights = if histogram.weights.is_empty() { &even } else { &histogram.weights };
                if weights.len() != values.len() {
                    return Err(impossible(format!("{} weights for {} values", weights.len(), values.len())));
                }
                let of = WeightedIndex::new(weights).map_err(|error| impossible(error.to_string()))?;
                Ok(Self::Histogram { values, of })
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn whole(number: f64, min: u32, max: u32) -> u32 {
    (number.round() as u32).clamp(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Bounds, Histogram};

    fn drawn(distribution: Distribution) -> Vec<u32> {
        let mut draws = Draws::new(&Amount::Drawn(distribution), Purpose::InputTokens, 3).unwrap();
        (0..20_000).map(|_| draws.next()).collect()
    }

    fn mean(numbers: &[u32]) -> f64 {
        numbers.iter().copied().map(f64::from).sum::<f64>() / numbers.len() as f64
    }

    #[test]
    fn numbers_have_the_stated_mean_and_bounds() {
        let spread = |mean, stddev, min, max| Spread { mean, stddev, min, max };
        for (distribution, expected, bounds) in [
            (Distribution::Uniform(Bounds { min: 10, max: 20 }), 15.0, 10..=20),
            (Distribution::Normal(spread(500.0, 100.0, 1, 10_000_000)), 500.0, 1..=1100),
            (Distribution::Lognormal(spread(500.0, 300.0, 1, 10_000_000)), 500.0, 1..=20_000),
            (Distribution::Histogram(Histogram { values: vec![10, 90], weights: vec![3.0, 1.0] }), 30.0, 10..=90),
            (Distribution::Histogram(Histogram { values: vec![10, 90], weights: Vec::new() }), 50.0, 10..=90),
            (Distribution::Normal(spread(500.0, 0.0, 1, 10_000_000)), 500.0, 500..=500),
            (Distribution::Normal(spread(5.0, 500.0, 4, 6)), 5.0, 4..=6),
        ] {
            let numbers = drawn(distribution.clone());
            assert!((mean(&numbers) / expected - 1.0).abs() < 0.02, "{distribution:?}: {}", mean(&numbers));
            assert!(numbers.iter().all(|number| bounds.contains(number)), "{distribution:?}");
            assert_eq!(numbers, drawn(distribution));
        }
        assert_eq!(drawn(Distribution::Normal(spread(1.0, 50.0, 1, 9))).iter().min(), Some(&1));
    }

    #[test]
    fn what_cannot_be_drawn_from_is_an_error() {
        for distribution in [
            Distribution::Uniform(Bounds { min: 2, max: 1 }),
            Distribution::Histogram(Histogram { values: vec![1], weights: vec![0.0] }),
            Distribution::Histogram(Histogram { values: vec![1], weights: vec![1.0, 1.0] }),
            Distribution::Histogram(Histogram { values: Vec::new(), weights: Vec::new() }),
            Distribution::Lognormal(Spread { mean: 0.0, stddev: f64::NAN, min: 2, max: 1 }),
        ] {
            let amount = Amount::Drawn(distribution);
            assert!(Draws::new(&amount, Purpose::Turns, 0).is_err(), "{amount:?}");
        }
    }
}
