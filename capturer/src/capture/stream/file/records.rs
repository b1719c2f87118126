//! What happens to a file's records: which are delivered, and how the others are reported.

use super::FileSource;
use crate::capture::context::Context;
use crate::decode::assemble::Lines;
use crate::decode::{DecodeError, Piece, timestamp};
use crate::model::cursor::{ApiCursor, FileId};
use crate::settings::FileFormat;
use crate::telemetry::metrics::{LossReason, SkipReason};

impl FileSource {
    /// Its position by times, if lines were read.
    pub fn lines(&self) -> Option<ApiCursor> {
        Some(*self.lines).filter(|lines| !lines.is_none())
    }

    /// Over the API, what was delivered last stood in this live file.
    pub fn delivered_from(mut self, file: Option<FileId>) -> FileSource {
        file.into_iter().for_each(|file| self.skip.delivered_from(file));
        self
    }

    /// As [`Assembler::push`](crate::decode::assemble::Assembler::push), for a line that may have been delivered over the API.
    pub(super) fn pass_over(
        &mut self,
        buffer: &[u8],
        piece: &Piece,
        begins_at: u64,
        mut deliver: bool,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) {
        if deliver
            && self.assembler.begins_line(buffer, piece)
            && let Some(time_ns) = timestamp::parse(&buffer[piece.time.clone()])
        {
            let file = self.chain.links.front().map(|front| front.found.id);
            if let Some(gap) = self.skip.gap_before(time_ns, file) {
                self.declare_gap(gap, time_ns, cx);
            }
            if self.assembler.close(piece.std_type, lines) {
                // The line before was left open at an exit; it is whole now.
                self.skip.completed(piece.std_type);
            }
            deliver = !self.skip.begins(piece.std_type, time_ns);
        }
        if self.assembler.push(buffer, piece, begins_at, deliver, lines).this {
            self.skip.completed(piece.std_type);
        }
    }

    /// It has records with ends of their own; a line may go on in the next of them, and in the next file.
    pub(super) fn holds_records(&self) -> bool {
        matches!(self.format, FileFormat::Docker | FileFormat::Cri)
    }
}

pub(super) fn count_reject(error: DecodeError, bytes: usize, cx: &Context<'_>) {
    let (skip, loss) = match error {
        // A writer without O_APPEND leaves it when its log is truncated: nothing ever stood there.
        DecodeError::NulHole => return cx.metrics.skipped(SkipReason::NulHole, 1),
        DecodeError::RecordTooLong => (SkipReason::RecordTooLong, LossReason::RecordTooLong),
        DecodeError::TornRecord | DecodeError::FrameInvalid | DecodeError::NoTime => {
            (SkipReason::TornRecord, LossReason::RecordDamaged)
        }
    };
    cx.metrics.skipped(skip, 1);
    cx.metrics.lost(loss, bytes as u64);
}
