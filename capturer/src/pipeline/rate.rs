//! How much of a source passes per second: a bucket that fills by the time of its lines. So a backlog that is read at
//! once is not cut, only lines that were printed too fast. A line without a time of its own counts as written when it
//! was read.
//!
//! `capture/stream/rate_limiter.rs` is for `over: wait`, and another thing: it is charged for batches that were read
//! already, by the agent's clock, may go below zero, and says until when to wait.

use crate::settings::pipeline::RateLimit;

const SECOND_NS: u128 = 1_000_000_000;

/// The room that a source has left for lines and bytes, in billionths of one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RateFilter {
    /// The newest time seen; `None` = no line came yet, and the bucket is full.
    newest_ns: Option<i64>,
    lines: u128,
    bytes: u128,
}

impl RateFilter {
    /// Whether a line may pass; if so, takes its room.
    pub(super) fn takes(&mut self, limit: RateLimit, time_ns: i64, len: u32) -> bool {
        let full = |rate: u64| u128::from(rate) * limit.burst.as_nanos();
        let (lines_full, bytes_full) = (full(limit.lines), full(limit.bytes));
        match self.newest_ns {
            None => (self.lines, self.bytes) = (lines_full, bytes_full),
            Some(newest) => {
                // A time before the newest fills nothing.
                let elapsed = u128::try_from(time_ns.saturating_sub(newest)).unwrap_or(0);
                self.lines = lines_full.min(self.lines + elapsed * u128::from(limit.lines));
                self.bytes = bytes_full.min(self.bytes + elapsed * u128::from(limit.bytes));
            }
        }
        self.newest_ns = Some(self.newest_ns.map_or(time_ns, |newest| newest.max(time_ns)));
        // A line longer than the whole bucket takes all of it, because otherwise it could never pass.
        let lines = SECOND_NS.min(lines_full);
        let bytes = (u128::from(len) * SECOND_NS).min(bytes_full);
        if self.lines < lines || self.bytes < bytes {
            return false;
        }
        self.lines -= lines;
        self.bytes -= bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::pipeline::Over;

    const MS: i64 = 1_000_000;

    fn limit(lines: u64, bytes: u64) -> RateLimit {
        RateLimit { lines, bytes, burst: Duration::from_secs(2), over: Over::Drop }
    }

    #[test]
    fn lines_a_second() {
        let (mut filter, limit) = (RateFilter::default(), limit(10, 0));
        let mut taken = |at_ms: i64, count: usize| {
            (0..count).filter(|_| filter.takes(limit, at_ms * MS, 1_000_000)).count()
        };
        assert_eq!(taken(1_000, 50), 20, "the burst: two seconds of it");
        assert_eq!(taken(1_099, 5), 0);
        assert_eq!(taken(1_100, 5), 1);
        assert_eq!(taken(500, 5), 0, "a clock set back fills nothing");
        assert_eq!(taken(2_100, 50), 10);
        assert_eq!(taken(1_000_000, 50), 20, "no more than the burst, however long it was quiet");
    }

    #[test]
    fn bytes_a_second() {
        let (mut filter, limit) = (RateFilter::default(), limit(0, 100));
        assert!(filter.takes(limit, 0, 150) && filter.takes(limit, 0, 50) && !filter.takes(limit, 0, 1));
        assert!(filter.takes(limit, 0, 0), "an empty line has no bytes");
        assert!(!filter.takes(limit, 1_999 * MS, 1_000), "longer than the bucket, which is not full");
        assert!(filter.takes(limit, 2_000 * MS, 1_000) && !filter.takes(limit, 2_000 * MS, 1));
    }
}
