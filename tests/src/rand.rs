//! All random numbers of a test, from one seed that is printed first, so that a failure can be reproduced.
//!
//! xoshiro256** (Blackman and Vigna, 2018), its state filled by splitmix64 as its authors advise. No crate, since a
//! crate's next version may draw other numbers from the same seed, and old seeds stand in issues and commits.

use std::ops::Range;

/// A stream of numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub struct Rand {
    seed: u64,
    state: [u64; 4],
}

impl Rand {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        let mut fill = seed;
        let state = std::array::from_fn(|_| splitmix64(&mut fill));
        Self { seed, state }
    }

    /// The stream of `CAPTURER_SEED` if that is set, else of `seed`; prints which, and how to draw it again.
    ///
    /// # Panics
    /// If `CAPTURER_SEED` is set and is no number: another seed than the one asked for would prove nothing.
    pub fn from_env_or(seed: u64) -> Self {
        let seed = match std::env::var("CAPTURER_SEED") {
            Ok(text) => {
                text.parse().unwrap_or_else(|e| panic!("CAPTURER_SEED={text} is no 64-bit number: {e}"))
            }
            Err(_) => seed,
        };
        println!("seed {seed}; to draw it again: CAPTURER_SEED={seed}");
        Self::new(seed)
    }

    /// The seed this stream began with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Any 64-bit number.
    pub fn number(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// A number of `range`, each as likely (to one part in 2^64 of the range's size).
    ///
    /// # Panics
    /// If the range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "nothing to draw from {range:?}");
        let size = u128::from(range.end - range.start);
        range.start + ((u128::from(self.number()) * size) >> 64) as u64
    }

    /// [`Rand::within`] for sizes and indexes.
    pub fn index(&mut self, range: Range<usize>) -> usize {
        self.within(range.start as u64..range.end as u64) as usize
    }

    /// Yes, `of` times out of `out_of` on average.
    pub fn chance(&mut self, of: u64, out_of: u64) -> bool {
        self.within(0..out_of) < of
    }

    /// One of `items`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(0..items.len())]
    }

    /// Puts `items` in an order drawn by lot (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(0..last + 1));
        }
    }

    /// Fills `bytes` with any bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.number().to_le_bytes()[..chunk.len()]);
        }
    }

    /// A stream of its own for one part of a test, so that a draw more here does not change every draw there.
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of splitmix64 from 1234567, as its reference program prints them: seeds must mean the same
    /// for ever, on every machine.
    #[test]
    fn splitmix64_agrees_with_its_reference() {
        let mut state = 1_234_567;
        let drawn = [(); 3].map(|()| splitmix64(&mut state));
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn xoshiro_agrees_with_its_reference() {
        let mut rand = Rand { seed: 0, state: [1, 2, 3, 4] };
        let drawn = [(); 4].map(|()| rand.number());
        assert_eq!(drawn, [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn ranges_are_kept_and_filled() {
        let mut rand = Rand::new(7);
        let mut seen = [0_u32; 5];
        for _ in 0..5_000 {
            seen[rand.index(10..15) - 10] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1_150).contains(&n)), "{seen:?}");
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut items: Vec<u32> = (0..100).collect();
        Rand::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
