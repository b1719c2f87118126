//! Pauses after failures, and the chance in them.

/// A small deterministic generator for jitter: the same seed gives the same run.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// A value between `ms` × 3/4 and `ms` × 5/4.
    pub fn around(&mut self, ms: u64) -> u64 {
        // xorshift64; quality does not matter here.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ms - ms / 4 + self.0 % (ms / 2 + 1)
    }

    /// As [`back_off_ms`], with jitter, and never more than `max_ms`.
    pub fn back_off(&mut self, first_ms: u64, failures: u32, max_ms: u64) -> u64 {
        // Jitter adds up to a quarter.
        self.around(back_off_ms(first_ms, failures, max_ms / 5 * 4))
    }
}

/// The pause after so many failures in a row: the first pause, doubled with each further failure, at most 65,536 times
/// as long.
fn back_off_ms(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
    (first_ms << failures.saturating_sub(1).min(16)).min(max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let pauses = [0, 1, 2, 3, 8, 100, u32::MAX].map(|failures| back_off_ms(200, failures, 30_000));
        assert_eq!(pauses, [200, 200, 400, 800, 25_600, 30_000, 30_000]);
        assert_eq!(back_off_ms(200, u32::MAX, u64::MAX), 200 * 65_536);
    }

    #[test]
    fn jitter_stays_around() {
        let mut jitter = Jitter::new(7);
        for _ in 0..1000 {
            assert!((75..=125).contains(&jitter.around(100)));
        }
        assert_eq!(jitter.around(0), 0);
        for _ in 0..1000 {
            assert!((150..=250).contains(&jitter.back_off(200, 1, 20_000)));
            assert!((12_000..=20_000).contains(&jitter.back_off(200, 100, 20_000)));
        }
    }
}
