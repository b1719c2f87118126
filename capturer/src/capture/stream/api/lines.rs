//! Turns the bytes of an answer into lines: frames or a terminal's bytes, times, pieces, and which lines were delivered
//! before.
//!
//! ```text
//! bytes ─▶ frame (stdcopy) or line (tty) ─▶ piece with its time ─▶ reaches back? known? ─▶ assembler ─▶ lines
//! ```
//! Not here: when to read and what to do at an answer's end ([`super`]).

use super::{ApiSource, LATE_NS, Phase, SourceEvent, TAIL_FIRST, TAIL_MAX, Then};
use crate::capture::context::Context;
use crate::capture::stream::rotation_guard::RotationGuard;
use crate::capture::stream::seen::Key;
use crate::decode::assemble::Lines;
use crate::decode::stdcopy::{self, FrameKind};
use crate::decode::{Piece, Step, timestamp, tty};
use crate::model::cursor::Cursor;
use crate::model::record::{MessageForm, StdType};
use crate::telemetry::metrics::{LossReason, SkipReason, StreamError};

impl ApiSource {
    pub(super) fn decode(
        &mut self,
        buffer: Vec<u8>,
        at_end: bool,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        let mut lines = Lines::default();
        let mut at = 0;
        let mut verdict = None;
        self.behind.came(buffer.len(), cx.now.unix_ns);
        while verdict.is_none() && at < buffer.len() {
            let (step, took) = self.next_piece(&buffer[at..], at_end);
            match step {
                Found::Piece(mut piece) => {
                    piece.text = piece.text.start + at..piece.text.end + at;
                    piece.time = piece.time.start + at..piece.time.end + at;
                    verdict = self.on_piece(&buffer, &piece, &mut lines, cx);
                }
                Found::Nothing => {}
                Found::NeedMore => break,
                Found::Skip(reason) => cx.metrics.skipped(reason, 1),
                Found::GiveUp(reason, text) => {
                    cx.metrics.skipped(reason, 1);
                    verdict = Some(match reason {
                        SkipReason::DaemonErrorFrame => Shortfall::Error(text),
                        _ => Shortfall::GiveUp(text),
                    });
                }
            }
            at += took;
        }
        if at_end && verdict.is_none() {
            self.close_open_lines(&mut lines);
            // Part of a frame. After a follow it is requested once more; this was that request.
            if at < buffer.len() && !self.answer.follow {
                cx.metrics.skipped(SkipReason::TornRecord, 1);
            }
        } else if verdict.is_none() {
            if at == 0 && lines.records.is_empty() {
                // Nothing complete yet: the buffer is kept, so that many small reads do not copy it each time.
                self.answer.held = buffer;
                return;
            }
            self.answer.held = buffer[at.min(buffer.len())..].to_vec();
        }
        if at > 0 {
            self.groups_due.note(&self.assembler, self.stream, cx);
        }
        if !lines.records.is_empty() {
            self.tell(lines, buffer, at as u64, cx, told);
        }
        match verdict {
            Some(Shortfall::Widen) => match self.damage.fell_short(self.tail.unwrap_or(TAIL_MAX)) {
                Some(lines) => self.ask_for(lines, cx),
                None => self.close(Then::Widen, cx),
            },
            Some(Shortfall::Error(text)) => self.on_damage(text, cx, told),
            Some(Shortfall::Gap) => self.go_to_files(cx, told),
            Some(Shortfall::Behind) => self.ask_for_skipped(cx),
            Some(Shortfall::GiveUp(text)) => {
                self.close(Then::Rest, cx);
                told.push(SourceEvent::Failed(StreamError::ApiError, text.into()));
            }
            None => {}
        }
    }

    /// The answer ended with dockerd's error, or has no line where a damaged log should have some.
    pub(super) fn on_damage(&mut self, text: String, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let is_whole = self.cursor.is_beginning() && !self.damage.is_searched();
        let asked = self.tail.filter(|_| !is_whole).unwrap_or(TAIL_MAX);
        let brought = self.gone || self.answer.new_lines > 0;
        match if brought { None } else { self.damage.failed(asked) } {
            Some(lines) => self.ask_for(lines, cx),
            None => {
                self.tail = Some(TAIL_FIRST);
                self.close(Then::Rest, cx);
                told.push(SourceEvent::Failed(StreamError::ApiError, text.into()));
            }
        }
    }

    /// Docker 20.10 may lose its place in a damaged log: an answer of some number of lines then has none, and no error.
    pub(super) fn is_lost_in_damage(&self) -> bool {
        self.damage.is_searched() && !self.answer.overlaps && !self.gone
    }

    fn ask_for(&mut self, lines: u32, cx: &mut Context<'_>) {
        self.tail = Some(lines);
        self.close(Then::Again, cx);
    }

    fn tell(
        &mut self,
        lines: Lines,
        read: Vec<u8>,
        source_bytes: u64,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        self.note_open_lines();
        let end = self.cursor;
        cx.credit.grow(read.capacity() as u64);
        match &mut self.guard {
            Some(guard) => guard.take(lines, read, end, source_bytes, cx, told),
            None => {
                told.push(SourceEvent::Lines { lines, read, end: Cursor::Api(Box::new(end)), source_bytes })
            }
        }
    }

    /// Ends groups of lines that have waited long enough.
    pub(super) fn end_groups(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        // While a connection is opened or closed, its lines are about to be read again.
        let all_is_read = matches!(self.phase, Phase::Reading { in_flight: true, .. } | Phase::Idle);
        let mut lines = Lines::default();
        self.groups_due.end_due(&mut self.assembler, all_is_read, self.stream, &mut lines, cx);
        self.tell_groups(lines, cx, told);
    }

    /// Ends the open groups of lines, because nothing more is read.
    pub(super) fn end_all_groups(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let mut lines = Lines::default();
        StdType::ALL.into_iter().for_each(|std_type| self.assembler.end_group(std_type, &mut lines));
        self.tell_groups(lines, cx, told);
    }

    fn tell_groups(&mut self, lines: Lines, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        StdType::ALL.into_iter().for_each(|std_type| self.release_grouped(std_type.index()));
        if !lines.records.is_empty() {
            self.tell(lines, Vec::new(), 0, cx, told);
        }
    }

    fn next_piece(&self, bytes: &[u8], at_end: bool) -> (Found, usize) {
        if self.tty {
            return match tty::next_piece(bytes, at_end) {
                Step::Item(piece, took) => (Found::Piece(piece), took),
                Step::NeedMore => (Found::NeedMore, 0),
                Step::Reject(_, took) => (Found::Skip(SkipReason::RecordInvalid), took),
            };
        }
        let (frame, took) = match stdcopy::next_frame(bytes) {
            Step::Item(frame, took) => (frame, took),
            Step::NeedMore => return (Found::NeedMore, 0),
            Step::Reject(error, took) => {
                return (Found::GiveUp(SkipReason::FrameInvalid, format!("the Engine sent {error}")), took);
            }
        };
        let payload = &bytes[frame.payload.clone()];
        let std_type = match frame.kind {
            FrameKind::Output(std_type) => std_type,
            FrameKind::DaemonError => {
                let text: String = String::from_utf8_lossy(payload).chars().take(300).collect();
                let text = format!("the Engine reports an error in the stream: {}", text.trim_end());
                return (Found::GiveUp(SkipReason::DaemonErrorFrame, text), took);
            }
        };
        if payload.is_empty() {
            return (Found::Nothing, took);
        }
        let Some((time, text, complete)) = stdcopy::split_time(payload) else {
            return (Found::Skip(SkipReason::RecordInvalid), took);
        };
        let start = frame.payload.start;
        let piece = Piece {
            decoded_len: text.len(),
            text: text.start + start..text.end + start,
            time: time.start + start..time.end + start,
            form: MessageForm::Raw,
            std_type,
            complete,
        };
        (Found::Piece(piece), took)
    }

    fn on_piece(
        &mut self,
        buffer: &[u8],
        piece: &Piece,
        lines: &mut Lines,
        cx: &Context<'_>,
    ) -> Option<Shortfall> {
        let Some(time_ns) = timestamp::parse(&buffer[piece.time.clone()]) else {
            cx.metrics.skipped(SkipReason::RecordInvalid, 1);
            return None;
        };
        let channel = piece.std_type.index();
        let mut deliver = true;
        if self.assembler.begins_line(buffer, piece) {
            let key = Key::new(time_ns, &buffer[piece.text.clone()]);
            if !self.answer.overlaps {
                let is_all = self.damage.takes_what_comes();
                if !is_all && !self.reaches_back(channel, key) {
                    return Some(Shortfall::Widen);
                }
                self.answer.overlaps = true;
                let behind = time_ns > self.cursor.channels[channel].time_ns;
                let is_gap = self.cursor.has_lines() && behind && !self.seen[channel].remembers(key);
                if is_all || is_gap {
                    // All that can be had was requested, and the last delivered line is not in it.
                    if self.guard.as_ref().is_some_and(RotationGuard::is_readable) {
                        return Some(Shortfall::Gap);
                    }
                    if is_all { self.declare_damaged(time_ns, cx) } else { self.declare_gap(time_ns, cx) }
                }
            }
            if self.behind.is_behind(time_ns) && self.asks_for_skipped(time_ns, cx) {
                return Some(Shortfall::Behind);
            }
            if self.assembler.close(piece.std_type, lines) {
                // The line before was left open at an exit, and is complete now.
                self.complete(channel);
            }
            deliver = self.seen[channel].is_new(key, &self.whole[channel]);
            self.answer.begun[channel] = Some((key, deliver));
            if time_ns >= self.cursor.open_ns[channel] {
                self.cursor.open_ns[channel] = 0;
            }
            if !deliver {
                cx.metrics.duplicates_dropped_total.inc();
            }
        }
        let completed = self.assembler.push(buffer, piece, time_ns as u64, deliver, lines);
        if completed.this {
            self.complete(channel);
        }
        None
    }

    fn declare_damaged(&self, first_ns: i64, cx: &Context<'_>) {
        cx.metrics.lost(LossReason::RecordDamaged, 0);
        tracing::warn!(
            container = %self.container_id,
            after = %timestamp::format(self.cursor.last_ns),
            before = %timestamp::format(first_ns),
            "dockerd can't read a record of its log, which a full disk, a power cut or a killed dockerd damaged: what lies before \
             the damage and was not delivered is lost, what lies behind it is captured; recreate the container to be rid of it"
        );
    }

    fn declare_gap(&self, first_ns: i64, cx: &Context<'_>) {
        cx.metrics.lost(LossReason::EngineSkippedRotation, 0);
        tracing::debug!(
            container = %self.container_id,
            after = %timestamp::format(self.cursor.last_ns),
            before = %timestamp::format(first_ns),
            "lost, an unknown number of bytes: the Engine's log begins behind the last line delivered; what lay between was rotated away"
        );
    }

    /// Whether the answer, which begins with this line, reaches back to delivered lines. It does if this line was
    /// delivered, because everything before a delivered line was delivered, too. Only the line's own channel can show
    /// it: on a busy machine a line of the other one gets into the log hundreds of milliseconds after its time.
    fn reaches_back(&self, channel: usize, key: Key) -> bool {
        if self.cursor.last_ns == 0 && self.damage.is_searched() {
            return false; // as many as can be had
        }
        if self.tail.is_none() || self.cursor.last_ns == 0 {
            return true;
        }
        let mark = &self.cursor.channels[channel];
        // A line with the mark's time may be another one than the delivered line. After the clock was set back an older line
        // may be a new one, too.
        let is_older = key.time_ns < mark.time_ns && !self.by_order;
        let delivered = is_older || self.seen[channel].remembers(key);
        let before_open = |(of, open): (usize, &i64)| {
            let late_ns = if of == channel { 0 } else { LATE_NS };
            *open == 0 || key.time_ns + late_ns < *open
        };
        delivered && self.cursor.open_ns.iter().enumerate().all(before_open)
    }

    /// The line that began last on a channel is complete: remember it if it was new. A line open since an earlier
    /// connection is only closed by itself or by a later line, because an answer that ends too early may have nothing
    /// but lines from before it.
    fn complete(&mut self, channel: usize) {
        let begun = self.answer.begun[channel].take();
        if begun.is_none_or(|(key, _)| key.time_ns >= self.cursor.open_ns[channel]) {
            self.cursor.open_ns[channel] = 0;
        }
        if let Some((key, true)) = begun {
            self.seen[channel].delivered(key, &mut self.whole[channel]);
            self.grouped[channel].push_back(key);
            self.release_grouped(channel);
        }
    }

    /// Lines that left their open group are in a record: only now does the position move behind them.
    fn release_grouped(&mut self, channel: usize) {
        while self.grouped[channel].len() > self.assembler.grouped(StdType::ALL[channel])
            && let Some(key) = self.grouped[channel].pop_front()
        {
            self.move_behind(channel, key);
        }
    }

    fn move_behind(&mut self, channel: usize, key: Key) {
        self.answer.new_lines += 1;
        self.behind.delivered(key.time_ns);
        self.damage.is_over();
        self.by_order = false;
        if let Some((_, lines)) = &mut self.activity {
            *lines += 1;
        }
        self.cursor.channels[channel].count_in(key.time_ns);
        if key.time_ns > self.cursor.last_ns {
            self.cursor.older_ns = self.cursor.last_ns;
        }
        self.cursor.last_ns = key.time_ns;
        if self.cursor.older_ns >= key.time_ns {
            // The clock was set back: the older line is not older any more.
            self.cursor.older_ns = 0;
        }
    }

    /// The answer has ended: lines open since before an exit that was known when it was requested are complete. Not at
    /// the end of a follow, which may come before the rest; another read follows, unless the container is gone.
    fn close_open_lines(&mut self, lines: &mut Lines) {
        let bound = match self.gone {
            true => Some(i64::MAX),
            false => self.answer.exited_at_ns.filter(|_| !self.answer.follow),
        };
        let Some(bound) = bound else { return };
        let closed = self.assembler.close_begun_by(bound, lines);
        for (channel, _) in closed.iter().enumerate().filter(|(_, closed)| **closed) {
            self.complete(channel);
        }
        (0..closed.len()).for_each(|channel| self.release_grouped(channel));
    }

    /// Notes the open lines. A line open since an earlier connection that did not come again remains noted.
    pub(super) fn note_open_lines(&mut self) {
        for std_type in StdType::ALL {
            if let Some(open) = self.assembler.open_on(std_type) {
                self.cursor.open_ns[std_type.index()] = open as i64;
            }
        }
    }
}

enum Found {
    Piece(Piece),
    Nothing,
    NeedMore,
    Skip(SkipReason),
    GiveUp(SkipReason, String),
}

enum Shortfall {
    Widen,
    /// The answer does not reach back, but the files may.
    Gap,
    /// Lines may have been skipped before this one.
    Behind,
    /// The daemon's own error.
    Error(String),
    GiveUp(String),
}
