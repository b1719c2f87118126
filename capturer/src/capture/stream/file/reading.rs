//! Reads of the file at the front of the chain: which bytes are requested, how the answer is handled, and which bytes
//! are decoded.

use std::sync::Arc;

use super::{FileSource, room, unfinished};
use crate::capture::context::Context;
use crate::capture::io::{Action, FileError, FileNo, NO_DATA};
use crate::capture::stream::SourceEvent;
use crate::capture::stream::chain::{Copied, Handle, Link, Undelivered};
use crate::capture::stream::delivered;
use crate::decode::assemble::Lines;
use crate::limits::{READ_BYTES, RECORD_BYTES_MAX};
use crate::model::cursor::{Cursor, TailPrint};
use crate::model::record::StdType;
use crate::settings::FileFormat;
use crate::telemetry::metrics::{SkipReason, StreamError};

/// A read under way.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) file: FileNo,
    /// Where new bytes begin.
    pub(super) offset: u64,
    /// The file's first bytes are read, and nothing else.
    pub(super) is_head: bool,
    /// The read checks whether there is data behind NULs.
    pub(super) is_search: bool,
    /// How many bytes before that are read again.
    pub(super) again: usize,
}

impl FileSource {
    /// Arms the next read, if there is something to read and room for it.
    pub fn read_on(&mut self, cx: &mut Context<'_>) {
        let (may_read, waits) = (self.chain.may_read(), self.waits_for_split());
        if may_read && self.reading.is_none() {
            let memory = cx.memory.of(&self.reader.sinks, self.reader.group.of_paths);
            self.chain.assume_moved(&memory);
            self.chain.assume_copy();
        }
        let (left_out, head_bytes) = (self.is_left_out(), self.head_to_read(cx.now.mono_ms));
        let Some(front) = self.chain.links.front_mut() else { return };
        front.unread &= !left_out;
        let Handle::Open(file) = front.handle else { return };
        if self.reading.is_some() || !front.unread || !may_read || waits || self.in_line {
            return;
        }
        if let Some(lane) = front.lane
            && !cx.lanes.take(lane, self.stream)
        {
            self.in_line = true;
            return;
        }
        let Some(buffer) = cx.credit.file_read(head_bytes.unwrap_or(self.read_bytes)) else {
            if let Some(lane) = front.lane {
                cx.lanes.release(lane);
            }
            return;
        };
        self.reading_lane = front.lane;
        self.reading_bytes = buffer.capacity() as u64;
        self.asked_ms = cx.now.mono_ms;
        if head_bytes.is_some() {
            self.reading = Some(Reading { file, offset: front.offset, is_head: true, ..Reading::default() });
            cx.act(Action::ReadFile { stream: self.stream, file, offset: 0, buffer });
            return;
        }
        if let Some(offset) = front.searched_at() {
            front.unread = false;
            self.reading = Some(Reading { file, offset, is_search: true, ..Reading::default() });
            cx.act(Action::ReadFile { stream: self.stream, file, offset, buffer });
            return;
        }
        front.unread = false;
        self.head.on_read_on(front.offset, cx.now.mono_ms);
        // What was read before is read again: if it differs, the file was rewritten.
        let is_known = front.tail.end == front.offset && !front.tail.is_none();
        let again =
            if is_known { u64::from(front.tail.len_bytes) } else { front.offset.min(unfinished::LOOK_BACK) };
        self.reading =
            Some(Reading { file, offset: front.offset, again: again as usize, ..Reading::default() });
        let offset = front.offset - again;
        cx.act(Action::ReadFile { stream: self.stream, file, offset, buffer });
    }

    /// Whether it would read on if there were room.
    pub fn is_hungry(&self) -> bool {
        let front = self.chain.links.front();
        self.reading.is_none()
            && !self.in_line
            && self.chain.may_read()
            && !self.waits_for_split()
            && front.is_some_and(|link| link.unread && matches!(link.handle, Handle::Open(_)))
    }

    /// A read ended.
    pub fn on_read(
        &mut self,
        result: Result<usize, FileError>,
        buffer: Vec<u8>,
        file_len: Option<u64>,
        data_at: Option<u64>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        self.answered(cx);
        let Reading { file, offset: from, is_head, is_search, again } =
            self.reading.take().unwrap_or_default();
        if let Some(lane) = self.reading_lane.take() {
            cx.lanes.release(lane);
        }
        cx.credit.file_read_done();
        let is_awaited =
            |front: &Link| if is_search { front.is_searched_at(file, from) } else { front.is_at(file, from) };
        let count = match result {
            Ok(_) if !self.chain.links.front().is_some_and(is_awaited) => {
                // Rewritten meanwhile: what came is at another place now, if anywhere.
                cx.credit.give_back(buffer, 0);
                return self.go_on(cx, told);
            }
            Ok(_) if is_search => return self.on_searched(from, buffer, file_len, data_at, cx, told),
            Ok(count) => count,
            Err(error) => {
                cx.credit.give_back(buffer, 0);
                if let Some(front) = self.chain.links.front_mut() {
                    front.unread = true;
                }
                told.push(SourceEvent::Failed(StreamError::ReadFailed, error.to_string().into()));
                return;
            }
        };
        let shrank = file_len.is_some_and(|len| len < from);
        let is_another =
            if is_head { self.has_another_head(&buffer) } else { self.is_another(from, &buffer, again) };
        if shrank || count >= again {
            let is_copy = self.chain.links.front().is_some_and(|front| front.copy == Copied::Likely);
            if self.chain.is_no_copy(shrank || is_another) {
                cx.credit.give_back(buffer, 0);
                return self.go_on(cx, told);
            }
            if is_copy && self.chain.is_shown() {
                cx.credit.give_back(buffer, 0);
                return self.go_on(cx, told);
            }
            // It may bring no line that would tell where it stands.
            self.moved_on |= is_copy;
            if is_copy && self.chain.links.front().is_some_and(|front| front.found.rank == 0) {
                let path = self.path();
                tracing::info!(
                    path,
                    offset = from,
                    "has the content of a log that was removed, and reading continues where that one was left"
                );
            }
        }
        if from == 0
            && !is_head
            && (self.chain.begins_as_copy(&buffer) || self.begins_as_another(&buffer, cx))
        {
            cx.credit.give_back(buffer, 0);
            return self.go_on(cx, told);
        }
        let short = file_len.is_some_and(|len| self.chain.on_short(len));
        if short || is_another {
            if !short {
                // A head as long as it was says nothing of how much follows: the file may be shorter than it was.
                self.chain.begin_anew(file_len.unwrap_or(if is_head { count as u64 } else { from }));
            }
            self.forget_unfinished();
            // What is open may go on where the content went.
            if !self.chain.is_searching() {
                self.assembler.reset();
            }
            cx.credit.give_back(buffer, 0);
            self.scan(cx);
            return self.go_on(cx, told);
        }
        if is_head {
            self.head.on_seen(cx.now.mono_ms);
            cx.credit.give_back(buffer, 0);
            return self.go_on(cx, told);
        }
        let full = count == buffer.capacity();
        let read_to = from + (count.saturating_sub(again)) as u64;
        // A read may bring less than there is, even of what is only read again.
        let short = count < again || file_len.is_some_and(|len| len > read_to);
        if let Some(front) = self.chain.links.front_mut().filter(|_| full || short) {
            front.unread = true;
        }
        if count >= again {
            self.decode(buffer, again, full, data_at, cx, told);
        } else {
            cx.credit.give_back(buffer, 0);
        }
        self.look_at_head_later(cx);
        self.go_on(cx, told);
    }

    /// `again`: this many bytes were decoded before.
    fn decode(
        &mut self,
        mut buffer: Vec<u8>,
        again: usize,
        full: bool,
        data_at: Option<u64>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        let Some(front) = self.chain.links.front() else {
            cx.credit.give_back(buffer, 0);
            return;
        };
        // Whatever happened since the read was armed (growth, rotation, removal) has set `unread` again.
        let at_end = !front.unread;
        let is_final = front.settled && (front.last_look || !self.has_grace(front));
        let (offset, final_end) = (front.offset, at_end && (is_final || self.gone));
        let end = offset + (buffer.len() - again) as u64;
        let (mut data_at, no_data) = (data_at.filter(|at| *at < NO_DATA), data_at == Some(NO_DATA));
        if front.hole && room::is_nul(&buffer[again..]) {
            data_at = Some(front.nuls_to);
        }
        let hole_ends = data_at.is_some();
        let room = if final_end { 0 } else { self.room(&buffer, again, full && !no_data, hole_ends) };
        // Nobody knows yet what follows these NULs.
        let searches = room > 0 && full && !no_data && !hole_ends && !front.hole;
        buffer.truncate(buffer.len() - room);
        let at_end = at_end || room > 0 && no_data;
        if let Some(front) = self.chain.links.front_mut() {
            (front.room, front.len) = (room > 0 && at_end, front.len.max(end));
            front.unread &= !at_end;
        }
        let filled = again < buffer.len();
        if !searches {
            self.look_at_room_later(room > 0 && at_end, filled, cx);
        } else if filled {
            self.room_look_ms = 0;
        }
        for twin in self.chain.saw(offset - again as u64, &buffer) {
            cx.act(Action::CloseFile { file: twin });
        }
        if self.leaves_out(&buffer[again..]) {
            let end = offset + (buffer.len() - again) as u64;
            self.pass_over_front(end);
            cx.act(Action::Withdraw(self.stream));
            cx.credit.give_back(buffer, 0);
            return self.tell(Lines::default(), Vec::new(), 0, told);
        }
        let mut lines = Lines::default();
        let Some(begins) = self.begin_text(offset, &buffer, final_end) else {
            cx.credit.give_back(buffer, 0);
            return;
        };
        self.begin_buffer(offset, &buffer, again);
        self.begin_repeated(offset, &buffer, cx.now.unix_ns);
        let from = self.decode_split(offset, &buffer, again, again + begins, &mut lines, cx);
        let mut to = self.decode_lines(&buffer, from, &mut lines, cx);
        if final_end && to < buffer.len() {
            to = self.decode_rest(&buffer, to, &mut lines, cx);
        }
        let splits = at_end && !final_end && self.note_end(offset, &buffer, again, to, cx);
        let used = to - again;
        self.note_newest(&buffer[again..to]);
        if final_end && !self.holds_records() {
            // A plain line does not go on in the next file.
            self.assembler.close_all(&mut lines);
        }
        // A record that does not fit: give the next read room for it. Past the limit the decoder rejects it.
        let searches = searches && used == 0;
        let stuck = used == 0 && full && !searches;
        // The part of a hole after this read is not read at all.
        let hole =
            data_at.filter(|_| to == buffer.len()).map_or(0, |at| at.saturating_sub(offset + used as u64));
        if hole > 0 {
            cx.metrics.skipped(SkipReason::NulHole, 1);
        }
        self.read_bytes =
            if stuck { (self.read_bytes * 2).min(RECORD_BYTES_MAX + READ_BYTES) } else { READ_BYTES };
        let Some(front) = self.chain.links.front_mut() else { return };
        if searches {
            front.nuls_to = front.nuls_to.max(end);
        } else if used > 0 || hole > 0 {
            front.hole = false;
        }
        front.offset += used as u64 + hole;
        front.len = front.len.max(offset + (buffer.len() - again) as u64 + hole);
        if hole > 0 {
            front.tail = TailPrint::default();
        } else if used > 0 {
            front.tail = TailPrint::of(&buffer[..to], front.offset);
        }
        if at_end {
            self.close_open_lines(&mut lines);
        }
        if used > 0 {
            self.head.on_growth();
            self.groups_due.note(&self.assembler, self.stream, cx);
        }
        if used == 0 && lines.records.is_empty() && !splits {
            cx.credit.give_back(buffer, 0);
            return;
        }
        self.tell(lines, buffer, used as u64 + hole, told);
    }

    /// Ends the open groups of lines: nothing more is read.
    pub fn end_all_groups(&mut self, told: &mut Vec<SourceEvent>) {
        let mut lines = Lines::default();
        StdType::ALL.into_iter().for_each(|std_type| self.assembler.end_group(std_type, &mut lines));
        if !lines.records.is_empty() {
            self.tell(lines, Vec::new(), 0, told);
        }
    }

    /// Ends groups of lines that nothing came for, if all there is was read and no line waits for its end.
    pub fn end_groups(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let read_to_end = self.reading.is_none() && self.chain.links.iter().all(|link| !link.unread);
        let all_is_read = read_to_end && !self.groups_wait(cx.now.mono_ms);
        let mut lines = Lines::default();
        self.groups_due.end_due(&mut self.assembler, all_is_read, self.stream, &mut lines, cx);
        if !lines.records.is_empty() {
            self.tell(lines, Vec::new(), 0, told);
        }
    }

    /// The lines of each channel that were read and not delivered.
    pub(super) fn undelivered(&self) -> [Undelivered; 2] {
        StdType::ALL.map(|std_type| {
            let (starts, in_line) = self.assembler.undelivered(std_type);
            Undelivered { starts, in_line }
        })
    }

    pub(super) fn tell(
        &mut self,
        lines: Lines,
        read: Vec<u8>,
        source_bytes: u64,
        told: &mut Vec<SourceEvent>,
    ) {
        let mut end = self.chain.cursor(&self.undelivered());
        self.note_path(&mut end);
        if let (Cursor::File(end), FileFormat::Docker) = (&mut end, self.format) {
            delivered::note(&mut self.lines, &lines, &read);
            self.lines.open_ns = StdType::ALL.map(|std_type| self.assembler.open_time(std_type).unwrap_or(0));
            let end = Arc::make_mut(end);
            (end.lines, end.skip_delivered) = (self.lines.clone(), self.skip.marks.into());
        }
        self.note_split(&mut end);
        told.push(SourceEvent::Lines { lines, read, end, source_bytes });
    }
}
