//! The only chance in the chaos: numbers that are the same for the same seed on every machine.

use std::ops::RangeInclusive;
use std::time::Duration;

/// splitmix64.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The generator of a seed and of one of those who draw from it.
    pub(super) fn of(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed);
        random.0 = random.next() ^ stream;
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        let (low, high) = range.into_inner();
        Duration::from_millis(low + self.below(high - low + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_every_stream_its_own() {
        let numbers = |seed, stream| {
            let mut random = Random::of(seed, stream);
            [random.next(), random.next()]
        };
        assert_eq!(numbers(7, 1), numbers(7, 1));
        assert_ne!(numbers(7, 1), numbers(7, 2));
        assert_ne!(numbers(7, 1), numbers(8, 1));
        let mut random = Random::of(1, 1);
        assert!((0..1_000).all(|_| (20..=22).contains(&random.millis(20..=22).as_millis())));
    }
}
