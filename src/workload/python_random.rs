//! The random numbers of Python's `random` and of numpy's legacy `numpy.random`, number for number.
//!
//! Both are MT19937, seeded in different ways. The expected numbers of the tests were printed by CPython and numpy.

use indexmap::IndexSet;
use rand_mt::Mt;

/// Python's `random` after `random.seed(seed)`.
pub(super) struct PythonRandom(Mt);

impl PythonRandom {
    pub(super) fn seeded(seed: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of it")]
        let words = [seed as u32, (seed >> 32) as u32];
        let key = if words[1] == 0 { &words[..1] } else { &words[..] };
        Self(Mt::new_with_key(key.iter().copied()))
    }

    /// `random.getrandbits(bits)`, for 1 to 64 bits.
    pub(super) fn bits(&mut self, bits: u32) -> u64 {
        if bits <= 32 {
            return u64::from(self.0.next_u32() >> (32 - bits));
        }
        let low = u64::from(self.0.next_u32());
        low | u64::from(self.0.next_u32() >> (64 - bits)) << 32
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        let bits = usize::BITS - limit.leading_zeros();
        loop {
            let number = usize::try_from(self.bits(bits));
            if let Some(number) = number.ok().filter(|&number| number < limit) {
                return number;
            }
        }
    }

    /// The positions that `random.sample` takes out of `population`; `None` where it raises a `ValueError`.
    pub(super) fn sample(&mut self, population: usize, count: usize) -> Option<Vec<usize>> {
        if count > population {
            return None;
        }
        if population > most_of_a_pool(count) {
            let mut chosen = IndexSet::with_capacity(count);
            while chosen.len() < count {
                chosen.insert(self.below(population));
            }
            return Some(chosen.into_iter().collect());
        }
        let mut pool: Vec<usize> = (0..population).collect();
        let take = |taken| {
            let at = self.below(population - taken);
            let found = pool[at];
            pool[at] = pool[population - taken - 1];
            found
        };
        Some((0..count).map(take).collect())
    }

    /// `random.shuffle(items)`
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Larger populations are drawn from with repetition, as Python's own estimate of the memory has it.
fn most_of_a_pool(count: usize) -> usize {
    const SMALL_SET: usize = 21;
    if count <= 5 {
        return SMALL_SET;
    }
    let table =
        (1..usize::BITS / 2).map(|power| 4_usize.saturating_pow(power)).find(|&table| table >= count.saturating_mul(3));
    SMALL_SET.saturating_add(table.unwrap_or(usize::MAX))
}

/// numpy's global generator after `numpy.random.seed(seed)`.
pub(super) struct NumpyRandom(Mt);

impl NumpyRandom {
    pub(super) fn seeded(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// One item of `randint(low, high, size)`.
    pub(super) fn integer(&mut self, low: u32, high: u32) -> u32 {
        let most = high - 1 - low;
        if most == 0 {
            return low;
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let number = self.0.next_u32() & mask;
            if number <= most {
                return low + number;
            }
        }
    }

    /// `exponential(scale)`
    pub(super) fn exponential(&mut self, scale: f64) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        let uniform = (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0;
        -(1.0 - uniform).ln() * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(seed: u64) -> PythonRandom {
        PythonRandom::seeded(seed)
    }

    fn first(positions: Option<Vec<usize>>, count: usize) -> Vec<usize> {
        positions.unwrap()[..count].to_vec()
    }

    #[test]
    fn bits_are_those_of_python() {
        let mut random = python(0);
        assert_eq!([0; 3].map(|_| random.bits(32)), [3_626_764_237, 1_654_615_998, 3_255_389_356]);
        assert_eq!(python(0).bits(64), 7_106_521_602_475_165_645);
        assert_eq!(python(1 << 40).bits(32), 445_128_065);
    }

    #[test]
    fn samples_are_those_of_python() {
        assert_eq!(first(python(0).sample(10, 5), 5), [6, 9, 0, 2, 4]);
        assert_eq!(first(python(0).sample(92_812, 1000), 5), [50_494, 55_125, 5306, 33_936, 67_013]);
        assert_eq!(first(python(0).sample(1500, 1000), 5), [788, 861, 82, 530, 1047]);
        let mut twice = python(0);
        assert_eq!(first(twice.sample(92_812, 1200), 3), [50_494, 55_125, 5306]);
        assert_eq!(first(twice.sample(1100, 1000), 3), [221, 53, 1078]);
        assert_eq!(python(0).sample(3, 4), None);
        assert_eq!(python(0).sample(0, 0), Some(Vec::new()));
    }

    #[test]
    fn shuffles_are_those_of_python() {
        let shuffled = |seed, count: usize| {
            let mut items: Vec<usize> = (0..count).collect();
            python(seed).shuffle(&mut items);
            items
        };
        assert_eq!(shuffled(1, 10), [6, 8, 9, 7, 5, 3, 0, 4, 1, 2]);
        assert_eq!(shuffled(0, 10), [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]);
        assert_eq!(shuffled(1, 92_812)[..5], [16_019, 26_505, 11_054, 31_803, 92_364]);
    }

    #[test]
    fn draws_are_those_of_numpy() {
        let integers = |low, high| {
            let mut random = NumpyRandom::seeded(1);
            [0; 5].map(|_| random.integer(low, high))
        };
        assert_eq!(integers(1, 1025), [38, 236, 909, 73, 768]);
        assert_eq!(integers(512, 1025), [549, 747, 584, 656, 641]);
        assert_eq!(integers(7, 8), [7; 5]);
        let mut random = NumpyRandom::seeded(1);
        let expected = [0.269_802_918_6, 0.637_062_626_5, 0.000_057_190_7];
        for (drawn, expected) in [0; 3].map(|_| random.exponential(0.5)).into_iter().zip(expected) {
            assert!((drawn - expected).abs() < 1e-10, "{drawn} is not {expected}");
        }
    }
}
