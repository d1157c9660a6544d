//! The next token from logits.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// 0 is greedy decoding.
    pub(crate) temperature: f32,
    /// The number of most likely tokens to draw from; 0 is all of them.
    pub(crate) top_k: usize,
    /// The probability mass to draw from; 1 is all of it.
    pub(crate) top_p: f32,
    pub(crate) seed: u64,
}

impl Sampling {
    pub(crate) const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 };

    fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 || self.top_k == 1
    }
}

pub(crate) struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self { sampling, rng: ChaCha8Rng::seed_from_u64(sampling.seed) }
    }

    /// The index of the chosen token. Never one of `banned`, unless nothing else is there.
    pub(crate) fn choose(&mut self, logits: &mut [f32], banned: &[u32]) -> u32 {
        for id in banned {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let chosen = if self.sampling.is_greedy() { most_likely(logits) } else { self.draw(logits) };
        u32::try_from(chosen).unwrap_or(0)
    }

    fn draw(&mut self, logits: &[f32]) -> usize {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        let by_logit = |left: &usize, right: &usize| logits[*right].total_cmp(&logits[*left]).then(left.cmp(right));
        let mut candidates: Vec<usize> = (0..logits.len()).collect();
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_logit);
            candidates.truncate(top_k);
        }
        candidates.sort_unstable_by(by_logit);
        let Some(first) = candidates.first() else { return 0 };
        let highest = logits[*first];
        let weights: Vec<f32> = candidates.iter().map(|id| ((logits[*id] - highest) / temperature).exp()).collect();
        let mass = weights.iter().sum::<f32>() * top_p;
        // The fewest tokens that hold the mass, and always one.
        let mut sum = 0.0;
        let kept = 1 + weights
            .iter()
            .take_while(|weight| {
                sum += **weight;
                sum < mass
            })
            .count();
        let kept = kept.min(weights.len());
        let mut point = self.rng.random::<f32>() * weights[..kept].iter().sum::<f32>();
        for (id, weight) in candidates.iter().zip(&weights[..kept]) {
            point -= weight;
            if point < 0.0 {
                return *id;
            }
        }
        candidates[kept - 1]
    }
}

/// The lowest index among the highest logits.
fn most_likely(logits: &[f32]) -> usize {
    let highest = logits.iter().enumerate().rev().max_by(|left, right| left.1.total_cmp(right.1));
    highest.map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 3.0, -1.0];

    fn drawn(sampling: Sampling, count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..count).map(|_| sampler.choose(&mut LOGITS.clone(), &[])).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(drawn(Sampling::GREEDY, 2), [1, 1]);
        assert_eq!(Sampler::new(Sampling::GREEDY).choose(&mut LOGITS.clone(), &[1, 3]), 2);
    }

    #[test]
    fn top_k_and_top_p_bound_the_choice() {
        let hot = Sampling { temperature: 1.0, top_k: 3, top_p: 1.0, seed: 5 };
        let mut seen = drawn(hot, 200);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [1, 2, 3]);
        // The two highest hold 0.80 of the mass.
        let mut seen = drawn(Sampling { top_k: 0, top_p: 0.7, ..hot }, 200);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [1, 3]);
        assert!(drawn(Sampling { top_p: 0.0, ..hot }, 20).iter().all(|id| *id == 1));
    }

    #[test]
    fn shares_follow_the_softmax_and_a_seed_repeats() {
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 9 };
        let ids = drawn(all, 4000);
        assert_eq!(ids, drawn(all, 4000));
        assert_ne!(ids, drawn(Sampling { seed: 10, ..all }, 4000));
        let share = ids.iter().filter(|id| **id == 2).count() as f64 / 4000.0;
        let total: f64 = LOGITS.iter().map(|logit| f64::from(*logit).exp()).sum();
        assert!((share - 2.0_f64.exp() / total).abs() < 0.03, "{share}");
    }
}
