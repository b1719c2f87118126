//! The records of what was read.

use super::FileSource;
use crate::capture::support::Context;
use crate::decode::assemble::Lines;
use crate::decode::{DecodeError, Piece, Step, cri, json_line, line, timestamp};
use crate::metrics::{LossReason, SkipReason};
use crate::settings::FileFormat;

impl FileSource {
    /// Decodes whole records from there on; returns where the last of them ends.
    pub(super) fn decode_lines(
        &mut self,
        buffer: &[u8],
        from: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let base = self.chain.position().wrapping_sub(from as u64);
        let clean = self.format != FileFormat::Docker || json_line::is_clean(buffer);
        let mut at = from;
        while at < buffer.len() {
            let step = match self.format {
                FileFormat::Docker => json_line::next_record(&buffer[at..], clean),
                FileFormat::Cri => cri::next_record(&buffer[at..]),
                FileFormat::Auto | FileFormat::Raw => line::next_line(&buffer[at..]),
            };
            match step {
                Step::Item(mut piece, took) => {
                    shift(&mut piece, at);
                    let begins_at = base.wrapping_add(at as u64);
                    let deliver = begins_at >= self.chain.delivered_to[piece.std_type.index()];
                    if self.passing.is_over() {
                        self.assembler.push(buffer, &piece, begins_at, deliver, lines);
                    } else {
                        self.pass_over(buffer, &piece, begins_at, deliver, lines, cx);
                    }
                    at += took;
                }
                Step::Reject(error, took) => {
                    count_reject(error, took, cx);
                    at += took;
                }
                Step::NeedMore => break,
            }
        }
        at
    }

    /// As [`Assembler::push`], for a line that may have been delivered over the API.
    fn pass_over(
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
            if let Some(last_ns) = self.passing.gap_before(time_ns) {
                self.declare_gap(last_ns, time_ns, cx);
            }
            if self.assembler.close(piece.std_type, lines) {
                // The line before was left open at an exit; it is whole now.
                self.passing.completed(piece.std_type);
            }
            deliver = !self.passing.begins(piece.std_type, time_ns);
        }
        if self.assembler.push(buffer, piece, begins_at, deliver, lines).this {
            self.passing.completed(piece.std_type);
        }
    }

    /// It has records with ends of their own; a line may go on in the next of them, and in the next file.
    pub(super) fn holds_records(&self) -> bool {
        matches!(self.format, FileFormat::Docker | FileFormat::Cri)
    }

    /// What is left at the end of a file that will not grow: of a plain file its last line, of one of records a torn one.
    pub(super) fn decode_rest(
        &mut self,
        buffer: &[u8],
        used: usize,
        again: usize,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> usize {
        let rest = &buffer[again + used..];
        if self.holds_records() {
            count_reject(DecodeError::TornRecord, rest.len(), cx);
        } else if let Some(mut piece) = line::last_line(rest) {
            shift(&mut piece, again + used);
            let begins_at = self.chain.position() + used as u64;
            let deliver = begins_at >= self.chain.delivered_to[piece.std_type.index()];
            self.assembler.push(buffer, &piece, begins_at, deliver, lines);
        }
        buffer.len()
    }
}

fn shift(piece: &mut Piece, by: usize) {
    piece.text = piece.text.start + by..piece.text.end + by;
    piece.time = piece.time.start + by..piece.time.end + by;
}

pub(super) fn guess_format(buffer: &[u8]) -> FileFormat {
    match memchr::memchr(b'\n', buffer) {
        Some(end) if json_line::looks_like_record(&buffer[..end]) => FileFormat::Docker,
        Some(end) if cri::looks_like_record(&buffer[..end]) => FileFormat::Cri,
        Some(_) => FileFormat::Raw,
        None => FileFormat::Auto,
    }
}

fn count_reject(error: DecodeError, bytes: usize, cx: &Context<'_>) {
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
