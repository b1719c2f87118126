//! What a stream has read and lost so far, for `/api/v1/streams` and the metrics by source.

use std::sync::Arc;

use super::{Kind, Stream};
use crate::capture::io::FileNo;
use crate::telemetry::row_words::RATE_LIMIT;
use crate::telemetry::status::StreamRow;

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
    /// A batch with this many lines was passed on.
    pub(super) fn read(&mut self, lines: u64, bytes: u64, now_ms: u64) {
        self.lines += lines;
        self.bytes += bytes;
        if lines > 0 {
            self.last_line_at_ms = Some(now_ms);
        }
    }

    /// Part of the source is lost.
    pub(super) fn lost(&mut self, losses: u64, bytes: u64) {
        self.losses += losses;
        self.lost_bytes += bytes;
    }

    /// Whether at least one line was passed on.
    pub(super) fn has_lines(&self) -> bool {
        self.lines > 0
    }

    /// Fills in its part of a row.
    pub(super) fn describe(&self, row: &mut StreamRow, now_ms: u64) {
        (row.counts.lines, row.counts.bytes) = (self.lines, self.bytes);
        (row.counts.losses, row.counts.lost_bytes) = (self.losses, self.lost_bytes);
        row.last_line_age_ms = self.last_line_at_ms.map(|at| now_ms.saturating_sub(at));
    }
}

impl Stream {
    pub fn note_lost(&mut self, losses: u64, bytes: u64) {
        self.tally.lost(losses, bytes);
    }

    /// Whether a loss of it was declared.
    pub fn has_lost(&self) -> bool {
        self.tally.losses > 0
    }

    /// Bytes on disk that no sink has acknowledged yet, read or not. `None` = nobody knows how many the Engine has.
    pub fn lag_bytes(&self) -> Option<u64> {
        let Kind::File(file) = &self.kind else { return None };
        let sent = self.sent.iter().map(|sent| sent.source_bytes);
        let waiting = self.waiting.iter().map(|waiting| waiting.source_bytes);
        Some(file.unread_bytes().0 + sent.chain(waiting).sum::<u64>())
    }

    /// Whether it is a file that is skipped because it is not text.
    pub fn is_left_out(&self) -> bool {
        matches!(&self.kind, Kind::File(file) if file.is_left_out())
    }

    /// Its open files that may have grown and are not read: only a look shows how far the stream is behind.
    pub fn unmeasured(&self) -> impl Iterator<Item = FileNo> + '_ {
        let file = match &self.kind {
            Kind::File(file) => Some(file.unmeasured()),
            Kind::Api(_) => None,
        };
        file.into_iter().flatten()
    }

    /// The row that `/api/v1/streams` shows.
    pub fn row(&self, now_ms: u64) -> StreamRow {
        let container = self.source.container.as_ref();
        let mut row = StreamRow {
            id: self.source.id.0,
            key: Arc::clone(&self.source.key.0),
            name: container
                .map_or_else(|| self.source.path.clone().unwrap_or_default(), |c| c.name.as_str().into()),
            container_id: container.map(|container| container.id.as_str().into()).unwrap_or_default(),
            state: self.state.as_str(),
            cause: self.cause.clone(),
            mode_reason: self.kind_reason.clone(),
            state_age_ms: now_ms.saturating_sub(self.state_since_ms),
            outlet: self.source.outlet.index,
            lag_bytes: self.lag_bytes(),
            failures: self.failures,
            position: Some(self.acked.clone()),
            ..StreamRow::default()
        };
        if let Some(sent_ms) = self.oldest_sent_ms() {
            row.now.oldest_unacked_ms = Some(now_ms.saturating_sub(sent_ms));
        }
        if !self.last_error.text.is_empty() {
            row.now.last_error.clone_from(&self.last_error.text);
            row.now.last_error_short.clone_from(&self.last_error.short);
        }
        self.tally.describe(&mut row, now_ms);
        match &self.kind {
            Kind::File(file) => file.describe(&mut row, now_ms),
            Kind::Api(api) => api.describe(&mut row, now_ms),
        }
        if let Some(until) = self.limited_until_ms {
            row.now.operation = RATE_LIMIT;
            row.now.operation_deadline_ms = Some(until.saturating_sub(now_ms));
        }
        row
    }
}
