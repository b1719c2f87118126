//! Notices that the host's clock was set back. Streams over the API ask the Engine for what comes after a time, and lines
//! printed after the step have times that they would not ask for: they are told to go by the order of the lines instead.
//!
//! Not here: how they do that (`stream/api.rs`, `stream/seen.rs`).

use super::{Capture, Kind};
use crate::model::clock::Now;
use crate::model::record::StreamId;

/// A smaller step is covered by how far before the newest line the Engine is asked. The two clocks are not read at the same
/// moment, so on a busy host the wall clock seems to step by some milliseconds.
const STEP_MIN_NS: i64 = 500_000_000;

/// The wall clock, compared with the monotonic one.
#[derive(Debug, Default)]
pub(super) struct WallClock {
    last: Option<Now>,
}

impl WallClock {
    /// By how much it was set back since the last call; `None` if it was not.
    fn set_back_by(&mut self, now: Now) -> Option<i64> {
        let last = self.last.replace(now)?;
        let passed_ns = now.mono_ms.saturating_sub(last.mono_ms) as i64 * 1_000_000;
        let step_ns = last.unix_ns.saturating_add(passed_ns).saturating_sub(now.unix_ns);
        (step_ns >= STEP_MIN_NS).then_some(step_ns)
    }
}

impl Capture {
    pub(super) fn look_at_clock(&mut self, now: Now) {
        let Some(step_ns) = self.clock.set_back_by(now) else { return };
        let is_api = |id: &StreamId| self.streams.get(id).is_some_and(|it| matches!(it.kind, Kind::Api(_)));
        let ids: Vec<StreamId> = self.streams.keys().copied().filter(is_api).collect();
        if ids.is_empty() {
            return;
        }
        tracing::warn!(
            streams = ids.len(),
            "this host's clock was set back by {} s: logs that are read over Docker's API are asked for again by the order of \
             their lines; lines keep their times, so newer ones may look older",
            step_ns / 1_000_000_000
        );
        for id in ids {
            self.with_api(now, id, |api, cx, _| api.on_clock_set_back(cx));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_step_back_counts() {
        let at = |mono_ms, unix_ms: i64| Now { mono_ms, unix_ns: unix_ms * 1_000_000 };
        let mut clock = WallClock::default();
        for (now, expected_ms) in [
            (at(0, 1_000_000), None),
            (at(1_000, 1_001_000), None),
            // It is slewed, and read a moment later.
            (at(2_000, 1_001_900), None),
            // Set forward, or the host slept.
            (at(3_000, 1_900_000), None),
            (at(4_000, 1_300_000), Some(601_000)),
            (at(5_000, 1_301_000), None),
            // By less than what passed between two looks.
            (at(35_000, 1_330_000), Some(1_000)),
        ] {
            assert_eq!(clock.set_back_by(now), expected_ms.map(|ms: i64| ms * 1_000_000), "{now:?}");
        }
    }
}
