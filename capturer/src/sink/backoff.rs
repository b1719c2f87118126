//! Pauses after failures: of an output, or of Loki as a whole, a tenant, a label set. Pure.
//!
//! The core has pauses of its own (`capture/context/jitter.rs`): its chance comes from a seed, and it spreads them less, because
//! what it spares is the dockerd of one host, and not a server that many agents share.

use std::time::Duration;

/// The pause after so many failures before the last one. It doubles from `min` to `max`. Half of it is fixed, half random,
/// so that agents that failed together do not come back together.
pub(super) fn pause(failures: u32, min: Duration, max: Duration, chance: u64) -> Duration {
    let whole = min.saturating_mul(1 << failures.min(16)).min(max).as_millis() as u64;
    Duration::from_millis(whole / 2 + chance % (whole / 2 + 1))
}

/// A number from outside for [`pause`].
pub(super) fn chance() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How many there were since it last went well.
    pub fn failures(self) -> u32 {
        self.failures
    }

    /// The next pause is a short one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Counts a failure and returns the [`pause`] after it, in milliseconds. The server may ask for `at_least` this much.
    pub fn next_ms(&mut self, min: Duration, max: Duration, at_least: Duration, chance: u64) -> u64 {
        let pause = pause(self.failures, min, max, chance);
        self.failures = self.failures.saturating_add(1);
        pause.max(at_least).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_secs(60);

    fn pauses(chance: u64) -> [u64; 9] {
        let mut backoff = Backoff::default();
        [(); 9].map(|()| backoff.next_ms(MIN, MAX, Duration::ZERO, chance))
    }

    #[test]
    fn pauses_double_to_their_limit_and_half_of_each_is_chance() {
        let longest = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000];
        assert_eq!(pauses(0), longest.map(|pause| pause / 2));
        for chance in [1, 77, 12_345_678, u64::MAX] {
            let drawn = pauses(chance).into_iter().zip(longest);
            drawn.for_each(|(pause, longest)| assert!((longest / 2..=longest).contains(&pause), "{pause}"));
        }
    }

    #[test]
    fn what_the_server_asks_for_is_waited_for_and_success_begins_anew() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_ms(MIN, MAX, Duration::from_secs(600), 0), 600_000);
        assert_eq!((backoff.next_ms(MIN, MAX, Duration::ZERO, 0), backoff.failures()), (500, 2));
        backoff.reset();
        assert_eq!((backoff.next_ms(MIN, MAX, Duration::ZERO, 0), backoff.failures()), (250, 1));
    }
}
