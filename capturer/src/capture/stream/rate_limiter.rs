//! How much of a stream may be read (`rate_limit` with `over: wait`). The rest stays where it is: in the log file, or
//! with the Engine.
//!
//! A batch is read whole, so the limit may be exceeded by one batch; the wait after it is longer accordingly.

use crate::settings::Pipeline;
use crate::settings::pipeline::Over;

/// Lines and bytes a second, with a reserve for bursts.
#[derive(Debug)]
pub(super) struct RateLimiter {
    lines: Bucket,
    bytes: Bucket,
}

impl RateLimiter {
    /// The limit of a pipeline, if its lines should wait and not be dropped.
    pub(super) fn of(pipeline: &Pipeline, now_ms: u64) -> Option<RateLimiter> {
        let limit = pipeline.rate_limit.filter(|limit| limit.over == Over::Wait)?;
        Some(RateLimiter::new(limit.lines, limit.bytes, limit.burst.as_millis() as u64, now_ms))
    }

    /// 0 = no limit.
    fn new(lines_per_second: u64, bytes_per_second: u64, burst_ms: u64, now_ms: u64) -> RateLimiter {
        let bucket = |rate| Bucket::new(rate, burst_ms, now_ms);
        RateLimiter { lines: bucket(lines_per_second), bytes: bucket(bytes_per_second) }
    }

    /// So much was read. Returns the time before which no more may be read, if it has to wait.
    pub(super) fn take(&mut self, lines: u64, bytes: u64, now_ms: u64) -> Option<u64> {
        self.lines.take(lines, now_ms).max(self.bytes.take(bytes, now_ms))
    }
}

#[derive(Debug)]
struct Bucket {
    /// Per second, which is thousandths per millisecond; 0 = no limit.
    rate: u64,
    /// Thousandths that may be saved up.
    full: i64,
    /// Thousandths; negative = read ahead.
    level: i64,
    at_ms: u64,
}

impl Bucket {
    fn new(rate: u64, burst_ms: u64, now_ms: u64) -> Bucket {
        let full = i64::try_from(rate.saturating_mul(burst_ms)).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        Bucket { rate, full, level: full, at_ms: now_ms }
    }

    fn take(&mut self, count: u64, now_ms: u64) -> Option<u64> {
        if self.rate == 0 {
            return None;
        }
        let passed = now_ms.saturating_sub(self.at_ms);
        let gained = i64::try_from(passed.saturating_mul(self.rate)).unwrap_or(i64::MAX / 4);
        let spent = i64::try_from(count.saturating_mul(1000)).unwrap_or(i64::MAX / 4);
        self.level = self.level.saturating_add(gained).min(self.full).saturating_sub(spent);
        self.at_ms = now_ms;
        (self.level < 0).then(|| now_ms + self.level.unsigned_abs().div_ceil(self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate_holds() {
        let mut rate_limiter = RateLimiter::new(100, 0, 2_000, 0);
        assert_eq!(rate_limiter.take(200, u64::MAX, 0), None);
        // 50 too many are half a second.
        assert_eq!(rate_limiter.take(50, 0, 0), Some(500));
        // Half of them has come back.
        assert_eq!(rate_limiter.take(0, 0, 250), Some(500));
        assert_eq!(rate_limiter.take(0, 0, 500), None);
        assert_eq!(rate_limiter.take(1, 0, 500), Some(510));
        // Never more than the burst is saved up.
        assert_eq!(rate_limiter.take(200, 0, 1_000_000), None);
        assert_eq!(rate_limiter.take(1, 0, 1_000_000), Some(1_000_010));
    }

    #[test]
    fn the_tighter_limit_counts() {
        let mut rate_limiter = RateLimiter::new(10, 1_000, 0, 0);
        assert_eq!(rate_limiter.take(1, 1_000, 0), Some(1_000));
        assert_eq!(rate_limiter.take(20, 0, 1_000), Some(3_000));
    }

    #[test]
    fn huge_numbers_are_only_long_waits() {
        let mut rate_limiter = RateLimiter::new(u64::MAX, 1, u64::MAX, 0);
        assert_eq!(rate_limiter.take(u64::MAX, u64::MAX, u64::MAX / 2), None);
        assert!(rate_limiter.take(0, u64::MAX, 5).is_some_and(|until| until > 1 << 50));
    }
}
