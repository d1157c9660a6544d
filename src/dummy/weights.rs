//! Random numbers for weights, reproducible to the bit.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Numbers that one random stream gives; part of the format, since it decides every bit.
pub(super) const BLOCK: usize = 1 << 16;
/// Standard deviation of the sum of eight uniform bytes.
const SUM_DEVIATION: f64 = 209.021_6;
const SUM_MEAN: i32 = 8 * 255 / 2;

/// A tensor's random numbers: nearly normal, with mean 0 and a given standard deviation.
///
/// Each number is the sum of eight uniform bytes, scaled, and not a logarithm and a cosine, whose last bits differ
/// between machines.
pub(super) struct Numbers {
    seed: [u8; 32],
    scale: f32,
}

impl Numbers {
    /// The seed and the tensor's name decide the numbers; order and number of threads do not.
    pub(super) fn new(seed: u64, tensor: &str, deviation: f64) -> Self {
        let seed = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(tensor).finalize();
        #[expect(clippy::cast_possible_truncation, reason = "weights are 32-bit")]
        let scale = (deviation / SUM_DEVIATION) as f32;
        Self { seed: seed.into(), scale }
    }

    /// The numbers of some blocks, computed in parallel, as little-endian bytes.
    pub(super) fn blocks(&self, blocks: std::ops::Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; blocks.len() * BLOCK * 4];
        bytes.par_chunks_exact_mut(BLOCK * 4).zip(blocks).for_each(|(bytes, block)| self.fill(block, bytes));
        bytes
    }

    fn fill(&self, block: usize, bytes: &mut [u8]) {
        let mut rng = ChaCha8Rng::from_seed(self.seed);
        rng.set_stream(block as u64);
        for number in bytes.as_chunks_mut::<4>().0 {
            let sum: i32 = rng.next_u64().to_le_bytes().into_iter().map(i32::from).sum();
            // At most 2040, which 32-bit floats hold exactly.
            #[expect(clippy::cast_precision_loss, reason = "see above")]
            let centred = (sum - SUM_MEAN) as f32;
            *number = (centred * self.scale).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(numbers: &Numbers, blocks: std::ops::Range<usize>) -> Vec<f32> {
        numbers.blocks(blocks).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn the_spread_is_the_one_asked_for() {
        let numbers = floats(&Numbers::new(1, "w", 0.02), 0..4);
        let count = numbers.len() as f64;
        let mean: f64 = numbers.iter().map(|number| f64::from(*number)).sum::<f64>() / count;
        let deviation = (numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>() / count).sqrt();
        assert!(mean.abs() < 2e-4, "{mean}");
        assert!((deviation - 0.02).abs() < 2e-4, "{deviation}");
    }

    #[test]
    fn blocks_are_the_same_alone_and_together() {
        let numbers = Numbers::new(1, "w", 1.0);
        assert_eq!(numbers.blocks(0..3)[BLOCK * 4..BLOCK * 8], numbers.blocks(1..2));
        assert_ne!(numbers.blocks(0..1), Numbers::new(2, "w", 1.0).blocks(0..1));
        assert_ne!(numbers.blocks(0..1), Numbers::new(1, "v", 1.0).blocks(0..1));
    }
}
