//! A stream whose newest line has a time that the clock has yet to reach, because the clock was set back: what is printed now
//! is older, and the Engine would leave it out of an answer from a time on. So the newest lines are asked for, whatever their
//! time, and what follows the newest delivered line is new ([`Seen`]).
//!
//! ```text
//! clock set back ─▶ the newest lines ─┬ begin with a line that was delivered ─▶ what follows the newest one is new
//!                                     └ do not ─▶ more of them, at last the whole log ─▶ the newest one is not in it:
//!                                                                                        all of it is new
//! ```
//! Not here: who notices a step (`core/clock.rs`).

use super::{ApiSource, OVERLAP_NS, Phase, Then};
use crate::capture::context::Context;
use crate::capture::stream::seen::Seen;
use crate::model::cursor::ApiCursor;
use crate::telemetry::metrics::LossReason;

/// A newest line that is so much later than now shows that the clock was set back. What is less is within the overlap.
const SET_BACK_MIN_NS: i64 = OVERLAP_NS / 4;

impl ApiSource {
    /// A line that is printed now would be older than what was delivered.
    pub(super) fn is_ahead_of(&self, unix_ns: i64) -> bool {
        self.cursor.channels.iter().any(|mark| mark.time_ns > unix_ns + SET_BACK_MIN_NS)
    }

    /// The host's clock was set back. An open answer may be one that leaves out what is printed from now on, because it was asked
    /// for from a later time.
    pub fn on_clock_set_back(&mut self, cx: &mut Context<'_>) {
        if !self.is_ahead_of(cx.now.unix_ns) {
            return;
        }
        self.by_order = true;
        if !self.gone && matches!(self.phase, Phase::Opening(_) | Phase::Reading { .. }) {
            self.close(if self.answer.follow { Then::Open } else { Then::CatchUp }, cx);
        }
    }

    /// The whole log came, and the newest delivered line is not in it. It was rotated away, and all that is left is newer.
    pub(super) fn lost_its_place(&self) -> bool {
        let is_whole = self.tail.is_none() && self.answer.overlaps && self.answer.new_lines == 0;
        self.by_order && is_whole && self.cursor.has_lines() && !self.seen.iter().any(Seen::passed)
    }

    /// All of the log is new.
    pub(super) fn begin_anew(&mut self, cx: &Context<'_>) {
        cx.metrics.lost(LossReason::EngineSkippedRotation, 0);
        tracing::debug!(
            container = %self.container_id,
            "lost, an unknown number of bytes: since the clock was set back, the last line delivered was rotated away"
        );
        self.cursor = ApiCursor::default();
        self.seen = Default::default();
        self.by_order = false;
    }
}
