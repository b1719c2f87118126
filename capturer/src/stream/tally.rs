//! What a stream has read and lost so far, for `/api/v1/streams` and the figures by source.

use crate::status::StreamRow;

/// Sums over a stream's life.
#[derive(Debug, Default)]
pub(super) struct Tally {
    lines: u64,
    bytes: u64,
    losses: u64,
    lost_bytes: u64,
    last_line_at_ms: Option<u64>,
}

impl Tally {
    /// A batch of so many lines was handed on.
    pub(super) fn read(&mut self, lines: u64, bytes: u64, now_ms: u64) {
        self.lines += lines;
        self.bytes += bytes;
        if lines > 0 {
            self.last_line_at_ms = Some(now_ms);
        }
    }

    /// Some of the source is lost.
    pub(super) fn lost(&mut self, losses: u64, bytes: u64) {
        self.losses += losses;
        self.lost_bytes += bytes;
    }

    /// At least one line was handed on.
    pub(super) fn has_lines(&self) -> bool {
        self.lines > 0
    }

    /// Fills in its part of a row.
    pub(super) fn describe(&self, row: &mut StreamRow, now_ms: u64) {
        (row.lines, row.bytes) = (self.lines, self.bytes);
        (row.losses, row.lost_bytes) = (self.losses, self.lost_bytes);
        row.last_line_age_ms = self.last_line_at_ms.map(|at| now_ms.saturating_sub(at));
    }
}
