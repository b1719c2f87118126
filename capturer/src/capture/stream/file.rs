//! A stream read from files: Docker's json-file of a container, or a path of `file_monitor`.
//!
//! ```text
//! open ─▶ scan ─▶ chain of files, oldest first ─▶ open ahead ─▶ read the first ─▶ decode ─▶ lines
//!           ▲                                                        │ short read: its end, for now
//!           └── inotify: files made, renamed, removed                └ settled: finish it, go on with the next
//! ```
//! The position is the end of the last whole record, so little is carried from one read to the next: what was incomplete is
//! read again. Of a plain line that is a piece of [`LINE_PIECE_BYTES`](crate::limits::LINE_PIECE_BYTES) at most. A quiet file
//! costs nothing: it is read when inotify says that it grew.

mod around;
mod binary;
mod elsewhere;
mod ended;
mod hanging;
mod head;
mod idle;
mod late;
mod length;
#[cfg(test)]
mod listing_tests;
mod losses;
mod opening;
mod reader;
mod records;
mod replaced;
mod room;
mod text;
#[cfg(test)]
mod text_tests;
mod unfinished;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::around::Around;
pub use self::binary::NotText;
use self::elsewhere::Elsewhere;
use self::ended::Exits;
use self::hanging::SetAside;
use self::head::HeadLook;
use self::opening::{OPEN_AHEAD, unreadable};
pub use self::reader::Reader;
use self::replaced::Writer;
use self::text::Text;
use self::unfinished::Unfinished;
use super::SourceEvent;
use super::chain::{Chain, Copied, Handle, Link, Start, Undelivered};
use super::delivered::{self, Passing};
use super::groups::GroupsDue;
use crate::capture::context::{Context, Purpose};
use crate::capture::io::{Action, FileError, FileNo, FoundFile, LaneId, NO_DATA};
use crate::decode::assemble::{Assembler, Lines};
use crate::limits::{READ_BYTES, RECORD_BYTES_MAX};
use crate::model::cursor::{ApiCursor, Cursor, FileId, FilePlace, TailPrint};
use crate::model::rare::Rare;
use crate::model::record::{StdType, StreamId};
use crate::settings::{FileFormat, Pipeline};
use crate::telemetry::metrics::{SkipReason, StreamError};

/// There is one for each followed file, and tens of thousands of those: what few need is boxed.
const _: () = assert!(size_of::<FileSource>() <= 840);

/// See the module's head.
#[derive(Debug)]
pub struct FileSource {
    stream: StreamId,
    /// Shared by the files in it.
    directory: Arc<str>,
    live_name: String,
    /// `Auto` until the first line was seen; if `decides`, that of the latest record.
    format: FileFormat,
    /// What a line is, is decided line by line.
    decides: bool,
    /// How the text of the file that is read is encoded.
    text: Text,
    /// Whether it is text at all.
    judged: binary::JudgedContent,
    /// The last line has no end yet.
    unfinished: Option<Unfinished>,
    /// A line is split there, in this file.
    split: Option<Box<(FileId, u64)>>,
    /// How long to wait before room is looked at again, milliseconds; 0 = there is no room.
    room_look_ms: u64,
    chain: Chain,
    assembler: Assembler,
    /// Of Docker's logs: the same position by times.
    lines: Rare<ApiCursor>,
    /// What was delivered over the API before.
    passing: Rare<Passing>,
    scanning: bool,
    scan_again: bool,
    /// The files were listed once.
    opened: bool,
    /// The read in flight.
    reading: Option<Reading>,
    head: HeadLook,
    /// Capacity of the next read; larger than usual only for a record that did not fit.
    read_bytes: usize,
    /// Capacity of the buffer that the read under way has.
    reading_bytes: u64,
    /// Whose turn it took.
    reading_lane: Option<LaneId>,
    /// When anything was last asked for or answered.
    asked_ms: u64,
    set_aside: Option<Box<SetAside>>,
    /// It waits for its turn to read.
    in_line: bool,
    /// It waits until fewer files are open.
    waits_to_open: bool,
    /// Looks where inotify does not tell.
    looks: u32,
    /// Its writer goes on for a while after a rename: a followed path, not a container.
    renamed_while_written: bool,
    /// Of Docker's logs: where dockerd writes.
    writer: Writer,
    /// When files that are no longer live were listed last because one was written to.
    rotated_looked_ms: u64,
    around: Rare<Around>,
    /// Where links lead.
    elsewhere: Elsewhere,
    /// Whose deliveries count, and among which streams a file has one reader.
    reader: Reader,
    /// Files that are its own to read, sorted.
    claimed: Vec<FileId>,
    /// Those of them that are finished, and not yet in the table of files read.
    unacked: Rare<BTreeSet<FileId>>,
    /// A file was finished since the position was last reported.
    moved_on: bool,
    /// Of a container.
    exits: Rare<Exits>,
    /// By channel: when the open group of lines has waited long enough.
    groups_due: GroupsDue,
    /// Reading begins at the end of what is there.
    start_is_end: bool,
    /// The container or path is gone: the live file will not grow.
    gone: bool,
    drained: bool,
}

impl FileSource {
    /// A source that does nothing until [`FileSource::open`].
    pub fn new(
        stream: StreamId,
        directory: impl Into<Arc<str>>,
        live_name: String,
        format: FileFormat,
        start: Start,
        line_bytes_max: usize,
    ) -> FileSource {
        let start = match start {
            // All of a container's log is asked for.
            Start::Resume(cursor) if format == FileFormat::Docker && cursor.says_nothing() => Start::Oldest,
            start => start,
        };
        let start_is_end = start == Start::End;
        let split = match &start {
            Start::Resume(cursor) if cursor.split > 0 => Some(Box::new((cursor.file, cursor.split))),
            _ => None,
        };
        let (lines, passing) = match &start {
            Start::After(cursor) => ((*cursor).into(), Passing::up_to(cursor).into()),
            Start::Resume(cursor) => (cursor.lines.clone(), Passing::resume(*cursor.passing).into()),
            Start::Oldest | Start::Live | Start::Since(_) | Start::End => Default::default(),
        };
        FileSource {
            stream,
            directory: directory.into(),
            live_name,
            decides: format == FileFormat::Auto,
            format,
            text: Text::default(),
            judged: binary::JudgedContent::default(),
            unfinished: None,
            room_look_ms: 0,
            split,
            chain: Chain::new(start),
            assembler: Assembler::new(line_bytes_max),
            lines,
            passing,
            scanning: false,
            scan_again: false,
            opened: false,
            reading: None,
            head: HeadLook::default(),
            read_bytes: READ_BYTES,
            reading_bytes: 0,
            reading_lane: None,
            asked_ms: 0,
            set_aside: None,
            in_line: false,
            waits_to_open: false,
            looks: 0,
            renamed_while_written: false,
            writer: Writer::default(),
            rotated_looked_ms: 0,
            around: Rare::default(),
            elsewhere: Elsewhere::default(),
            reader: Reader::default(),
            claimed: Vec::new(),
            unacked: Rare::default(),
            moved_on: false,
            exits: Rare::default(),
            groups_due: GroupsDue::default(),
            start_is_end,
            gone: false,
            drained: false,
        }
    }

    /// Its lines are joined if the pipeline says so.
    pub fn with_pipeline(mut self, pipeline: Option<&Arc<Pipeline>>) -> FileSource {
        self.assembler = self.assembler.with_pipeline(pipeline);
        self
    }

    /// The file of a program that goes on writing for a while after a rename, or that is copied and emptied. Copies from
    /// before `looked_ns`, nanoseconds since 1970, were seen in an earlier run.
    pub fn rotated_while_written(mut self, looked_ns: i64) -> FileSource {
        self.renamed_while_written = true;
        self.chain.copied_since(looked_ns);
        self
    }

    /// The live file was this one when its path was found. What was renamed since, and before it is listed, is read too.
    pub fn found_as(mut self, file: Option<FileId>) -> FileSource {
        file.into_iter().for_each(|file| self.chain.begin_with(file));
        self
    }

    /// What files hold that were last changed before this time, nanoseconds since 1970, and that nobody has read, is passed
    /// over.
    pub fn ignoring_before(mut self, ns: Option<i64>) -> FileSource {
        self.chain.ignore_before(ns);
        self
    }

    /// Its live file was passed over for its age, and nothing was added to it since.
    pub fn is_ignored(&self) -> bool {
        self.chain.is_ignored()
    }

    /// What was read before, by whom, and under which names in its directory others are read.
    pub fn with_memory(mut self, places: Vec<FilePlace>, reader: Reader, apart: Vec<String>) -> FileSource {
        self.chain.remember(places);
        self.reader = reader;
        if !apart.is_empty() {
            self.around.apart = apart;
        }
        self
    }

    /// The position it begins with, once its directory was listed.
    pub fn first_position(&mut self) -> Option<Cursor> {
        (self.opened || !self.scanning).then(|| {
            let mut cursor = self.chain.cursor(&Default::default());
            self.note_path(&mut cursor);
            cursor
        })
    }

    /// Starts, or starts again after a failure. Files are opened at once, so that nothing that happens before the first
    /// read can take them away.
    pub fn open(&mut self, cx: &mut Context<'_>) {
        self.opened = false;
        self.set_unfinished_timer(cx);
        if cx.will_wake(self.stream, Purpose::Look) {
            // It was put off while the stream waited for another attempt.
            self.look_later(cx);
        }
        if cx.will_wake(self.stream, Purpose::Room) {
            cx.wake(self.stream, Purpose::Room, cx.now.mono_ms);
        }
        self.scan(cx);
    }

    /// The outputs are ready: what was opened before is now reported.
    pub fn begin(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        // An opening that failed meanwhile is tried again and reported.
        let failed = self.chain.links.iter().take(OPEN_AHEAD).any(Link::is_to_be_opened);
        match (self.opened && !failed, self.scanning) {
            (true, _) => {
                told.push(SourceEvent::Opened);
                if self.is_ignored() {
                    // No output has to stand there for it.
                    cx.act(Action::Withdraw(self.stream));
                }
                if self.start_is_end || self.is_ignored() {
                    if self.format == FileFormat::Docker {
                        *self.lines = ApiCursor::after(cx.now.unix_ns);
                    }
                    // So that the position is in the checkpoint before the first line comes.
                    self.tell(Lines::default(), Vec::new(), 0, told);
                }
            }
            // The listing under way will show it.
            (false, true) => self.opened = false,
            (false, false) => self.open(cx),
        }
    }

    fn scan(&mut self, cx: &mut Context<'_>) {
        if self.scanning {
            self.scan_again = true;
            return;
        }
        self.scanning = true;
        self.asked_ms = cx.now.mono_ms;
        cx.act(Action::Scan {
            stream: self.stream,
            directory: self.directory.clone(),
            live_name: self.live_name.clone(),
            wanted: self.chain.wanted(),
            apart: self.around.apart.to_vec(),
            olddirs: self.around.olddirs.to_vec(),
        });
    }

    /// inotify: files were made, renamed or removed.
    pub fn on_chain_changed(&mut self, cx: &mut Context<'_>) {
        self.scan(cx);
    }

    /// inotify: the live file was written to.
    pub fn on_grew(&mut self, cx: &mut Context<'_>) {
        if self.is_left_out() {
            return self.look_later_at_left_out(cx);
        }
        let Some(last) = self.chain.links.back_mut() else { return };
        last.unread = true;
        if last.idle {
            self.open_ahead(cx);
        }
    }

    /// The directory was listed.
    pub fn on_scanned(
        &mut self,
        result: Result<Vec<FoundFile>, FileError>,
        cx: &mut Context<'_>,
        told: &mut Vec<SourceEvent>,
    ) {
        self.answered(cx);
        self.scanning = false;
        let latest = !std::mem::take(&mut self.scan_again);
        if !latest {
            self.scan(cx);
        }
        match result {
            Ok(found) => {
                self.take_listing(found, latest, cx);
                if !self.opened {
                    self.opened = true;
                    told.push(SourceEvent::Opened);
                }
                if latest {
                    self.chain.trust_opened();
                }
                if self.chain.links.is_empty() && !self.gone {
                    self.look_later(cx);
                }
            }
            // With the directory went all that was not opened.
            Err(FileError::NoDirectory(_)) if self.gone || self.opened => {
                self.take_listing(Vec::new(), latest, cx);
                self.chain.trust_opened();
            }
            // The link that led there now leads elsewhere.
            Err(_) if self.elsewhere.is_waiting() => {}
            Err(error) => told.push(unreadable(&error)),
        }
        if latest && self.exits.told_ns != self.exits.at_ns {
            self.exits.at_ns = self.exits.told_ns;
            // The last bytes may have come without a wake-up of their own, and open lines can be closed.
            if let Some(last) = self.chain.links.back_mut() {
                last.unread = true;
            }
        }
        self.open_ahead(cx);
        self.go_on(cx, told);
    }

    fn take_listing(&mut self, mut found: Vec<FoundFile>, latest: bool, cx: &mut Context<'_>) {
        found.retain(|file| !self.around.is_archive_of_another(file));
        let (found, others) = cx.owners.without_others(self.stream, self.reader.group, found);
        others.iter().for_each(|file| self.chain.note_read_by_another(file));
        let memory = cx.memory.of(&self.reader.sinks, self.reader.group.of_paths);
        let mut changes = self.chain.on_listing(found, latest, &memory);
        self.judge_left_out_anew();
        changes.gone.retain(|gone| !self.is_read_elsewhere(gone.file, cx));
        changes.cut_off.retain(|gone| !self.is_read_elsewhere(gone.file, cx));
        if !changes.gone.is_empty() {
            // A line that was open when its file was rewritten does not go on.
            self.assembler.reset();
        }
        self.declare(&changes, cx);
        for file in &changes.let_go {
            cx.act(Action::CloseFile { file: *file });
        }
        // If another listing has begun meanwhile, that is the second look. To order a third would make that one stale too,
        // and so on for ever.
        if changes.look_again && !self.scanning {
            self.scan(cx);
        }
        self.wait_for_late_writers(cx);
        self.note_replaced(cx.now.mono_ms);
        self.claim(cx);
    }

    /// Arms the next read, if there is something to read and room for it.
    pub fn read_on(&mut self, cx: &mut Context<'_>) {
        let (may_read, waits) = (self.chain.may_read(), self.waits_for_split());
        if may_read && self.reading.is_none() {
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
                told.push(SourceEvent::Failed(StreamError::ReadFailed, error.to_string()));
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
            // It may bring no line that would tell where it stands.
            self.moved_on |= is_copy;
        }
        if from == 0 && self.chain.begins_as_copy(&buffer) {
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

    /// Path of its live file.
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory, self.live_name)
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
        // What stands behind these NULs, nobody knows yet.
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
        // What a hole has beyond this read is not read at all.
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

    /// Ends groups of lines that nothing came for, if all there is was read.
    pub fn end_groups(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        let read_to_end = self.reading.is_none() && self.chain.links.iter().all(|link| !link.unread);
        let mut lines = Lines::default();
        self.groups_due.end_due(&mut self.assembler, read_to_end, self.stream, &mut lines, cx);
        if !lines.records.is_empty() {
            self.tell(lines, Vec::new(), 0, told);
        }
    }

    fn tell(&mut self, lines: Lines, read: Vec<u8>, source_bytes: u64, told: &mut Vec<SourceEvent>) {
        let open = StdType::ALL.map(|std_type| {
            let (starts, in_line) = self.assembler.undelivered(std_type);
            Undelivered { starts, in_line }
        });
        let mut end = self.chain.cursor(&open);
        self.note_path(&mut end);
        if let (Cursor::File(end), FileFormat::Docker) = (&mut end, self.format) {
            delivered::note(&mut self.lines, &lines, &read);
            self.lines.open_ns = StdType::ALL.map(|std_type| self.assembler.open_time(std_type).unwrap_or(0));
            let end = Arc::make_mut(end);
            (end.lines, end.passing) = (self.lines.clone(), self.passing.marks.into());
        }
        self.note_split(&mut end);
        told.push(SourceEvent::Lines { lines, read, end, source_bytes });
    }

    /// A deadline has come.
    pub fn on_timer(&mut self, purpose: Purpose, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        match purpose {
            Purpose::Look => self.look(cx),
            Purpose::LookAtRotated => self.look_at_rotated(cx),
            Purpose::Unfinished => self.look_at_unfinished(),
            Purpose::Room => self.look_at_room(cx),
            Purpose::Head => self.look_at_head(),
            Purpose::Groups => self.end_groups(cx, told),
            // Goes on, as behind all others.
            Purpose::LateWriter => {}
            // Of the stream, or of the connection that was read before.
            _ => return,
        }
        self.go_on(cx, told);
    }

    /// Finishes files that are read to their end, and the source when none is left.
    fn go_on(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.go_over(cx);
        loop {
            self.read_late_ones(cx, told);
            let may_read = self.chain.may_read();
            let Some(front) = self.chain.links.front() else { break };
            let more = self.chain.links.len() > 1;
            let read_to_end = matches!(front.handle, Handle::Open(_)) && !front.unread && may_read;
            if self.reading.is_some() || !read_to_end || !(front.settled && more || self.gone) {
                break;
            }
            let has_grace = self.has_grace(front) && !front.last_look && !self.gone;
            let waits = has_grace && self.renamed_while_written && self.holds_records();
            if waits && self.waits_for_rest_of_line(cx) {
                break;
            }
            if self.is_left_out() {
                self.pass_over_front(0);
            }
            if has_grace {
                if self.renamed_while_written {
                    self.leave_open_line(told);
                }
                self.park(cx);
            } else {
                self.moved_on = true;
                if let Some(file) = self.chain.finish_front() {
                    cx.act(Action::CloseFile { file });
                }
            }
            self.open_ahead(cx);
            self.claim(cx);
        }
        self.tell_moved_on(told);
        if self.gone
            && !self.drained
            && self.chain.links.is_empty()
            && self.chain.parked.is_empty()
            && !self.scanning
            && self.reading.is_none()
        {
            self.drained = true;
            self.declare_never_found(cx);
            let mut lines = Lines::default();
            self.assembler.close_all(&mut lines);
            if !lines.records.is_empty() {
                self.tell(lines, Vec::new(), 0, told);
            }
            cx.act(Action::Unwatch { stream: self.stream });
            told.push(SourceEvent::Drained);
        }
    }

    /// No read is under way that will end. (A listing or an opening need not be waited for.)
    pub fn is_at_rest(&self) -> bool {
        self.reading.is_none() || self.set_aside.is_some()
    }
}

/// A read under way.
#[derive(Debug, Default)]
struct Reading {
    file: FileNo,
    /// Where new bytes begin.
    offset: u64,
    /// The file's first bytes are read, and nothing else.
    is_head: bool,
    /// It is looked whether anything stands behind NULs.
    is_search: bool,
    /// How many bytes before that are read again.
    again: usize,
}
