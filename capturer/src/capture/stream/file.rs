//! A stream read from files: Docker's json-file of a container, or a path of `file_monitor`.
//!
//! ```text
//! open ─▶ scan ─▶ chain of files, oldest first ─▶ open ahead ─▶ read the first ─▶ decode ─▶ lines
//!           ▲                                                        │ short read: its end, for now
//!           └── inotify: files made, renamed, removed                └ settled: finish it, go on with the next
//! ```
//! The position is the end of the last complete record, so little is carried from one read to the next: incomplete
//! bytes are read again. For a plain line that is at most a piece of
//! [`LINE_PIECE_BYTES`](crate::limits::LINE_PIECE_BYTES). A quiet file costs nothing: it is read when inotify says that
//! it grew.

mod around;
mod binary;
mod copied;
mod denied;
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
mod reading;
mod records;
mod replaced;
mod room;
mod text;
#[cfg(test)]
mod text_tests;
mod unfinished;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::around::Surroundings;
pub use self::binary::NotText;
pub use self::copied::Doubted;
use self::elsewhere::Elsewhere;
use self::ended::Exits;
use self::hanging::SetAside;
use self::head::HeadLook;
use self::opening::{OPEN_AHEAD, unreadable};
pub use self::reader::Reader;
use self::reading::Reading;
use self::replaced::Writer;
use self::text::Text;
use self::unfinished::Unfinished;
use super::SourceEvent;
use super::chain::{Chain, Gone, Handle, Link, Start};
use super::delivered::SkipDelivered;
use super::groups::GroupsDue;
use crate::capture::context::{Context, Purpose};
use crate::capture::io::{Action, FileError, FoundFile, LaneId, NoFile};
use crate::decode::assemble::{Assembler, Lines};
use crate::limits::READ_BYTES;
use crate::model::cursor::{ApiCursor, Cursor, FileId, FilePlace};
use crate::model::rare::Rare;
use crate::model::record::StreamId;
use crate::settings::{FileFormat, Pipeline};

/// There is one for each followed file, and tens of thousands of those: what few need is boxed.
const _: () = assert!(size_of::<FileSource>() <= 840);

/// A stream read from files; see the head of this file.
#[derive(Debug)]
pub struct FileSource {
    stream: StreamId,
    /// Shared by the files in it.
    directory: Arc<str>,
    live_name: String,
    /// `Auto` until the first line was seen; if `decides`, that of the latest record.
    format: FileFormat,
    /// The format is decided line by line.
    decides: bool,
    /// Encoding of the file being read.
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
    /// Lines that were delivered over the API before.
    skip: Rare<SkipDelivered>,
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
    /// The file system on which the read under way has the turn.
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
    around: Rare<Surroundings>,
    /// Where links on the path lead.
    elsewhere: Elsewhere,
    /// Whose deliveries count, and among which streams a file has one reader.
    reader: Reader,
    /// Files that are its own to read, sorted.
    claimed: Vec<FileId>,
    /// Files among these that are finished, but not yet in the table of files read.
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
        let (lines, skip) = match &start {
            Start::After(cursor) => ((*cursor).into(), SkipDelivered::up_to(cursor).into()),
            Start::Resume(cursor) => {
                (cursor.lines.clone(), SkipDelivered::resume(*cursor.skip_delivered).into())
            }
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
            skip,
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

    /// Content of files last changed before this time, nanoseconds since 1970, that nobody has read is skipped.
    pub fn ignoring_before(mut self, ns: Option<i64>) -> FileSource {
        self.chain.ignore_before(ns);
        self
    }

    /// Whether its live file was skipped for its age, and nothing was added since.
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
                    // No output is needed for it.
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
        self.chain.on_listing_asked();
        cx.act(Action::Scan {
            stream: self.stream,
            directory: self.directory.clone(),
            live_name: self.live_name.clone(),
            wanted: self.chain.wanted(),
            apart: self.around.apart.to_vec(),
            olddirs: self.around.olddirs.to_vec(),
            before: self.elsewhere.before(),
            still: None,
        });
    }

    /// inotify: files were made, renamed or removed.
    pub fn on_chain_changed(&mut self, cx: &mut Context<'_>) {
        self.scan(cx);
    }

    /// inotify: so often another file got the live name. The files are listed next.
    pub fn on_live_made(&mut self, files: u32, cx: &Context<'_>) {
        self.chain.note_made(files, cx.now);
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
        // Before another listing is requested.
        let asked = self.chain.told_when_asked();
        if !latest {
            self.scan(cx);
        }
        match result {
            Ok(found) => {
                self.take_listing(found, latest, asked, cx);
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
                self.take_listing(Vec::new(), latest, asked, cx);
                self.chain.trust_opened();
            }
            // The link that led there now leads elsewhere.
            Err(_) if self.elsewhere.is_waiting() => {}
            Err(error) => {
                if let FileError::NotRegular(_, what) = &error {
                    self.chain.note_no_file(*what == NoFile::Directory, cx.now);
                }
                told.push(unreadable(&error));
            }
        }
        if latest && self.exits.told_ns != self.exits.at_ns {
            self.exits.at_ns = self.exits.told_ns;
            // The last bytes may have come without an event of their own, and open lines can be ended.
            if let Some(last) = self.chain.links.back_mut() {
                last.unread = true;
            }
        }
        self.open_ahead(cx);
        self.go_on(cx, told);
    }

    fn take_listing(&mut self, mut found: Vec<FoundFile>, latest: bool, asked: u32, cx: &mut Context<'_>) {
        found.retain(|file| !self.around.is_archive_of_another(file));
        // Names that are logs of their own are not listed for this one.
        let is_sure = self.around.apart.is_empty();
        let (unseen, look_again) = self.chain.count_unseen(&found, is_sure, asked, cx.now);
        let (found, others) = cx.owners.without_others(self.stream, self.reader.group, found);
        others.iter().for_each(|file| self.chain.note_read_by_another(file));
        let memory = cx.memory.of(&self.reader.sinks, self.reader.group.of_paths);
        let mut changes = self.chain.on_listing(found, latest, &memory);
        self.judge_left_out_anew();
        self.note_led_to();
        let is_lost =
            |gone: &Gone| !self.is_read_elsewhere(gone.file, cx) && !self.chain.is_denied(gone.file);
        changes.gone.retain(is_lost);
        changes.cut_off.retain(is_lost);
        changes.lost.retain(is_lost);
        changes.unreadable.retain(is_lost);
        changes.look_again |= look_again;
        if !changes.gone.is_empty() {
            // A line that was open when its file was rewritten does not continue.
            self.assembler.reset();
        }
        if !changes.gone.is_empty() || !changes.cut_off.is_empty() || !changes.lost.is_empty() {
            self.chain.note_position_changed();
        }
        self.declare(&changes, cx);
        self.declare_unseen(unseen, cx);
        for file in &changes.let_go {
            cx.act(Action::CloseFile { file: *file });
        }
        // If another listing has begun meanwhile, that is the second look. To order a third would make that one stale too,
        // and so on for ever.
        if changes.look_again && !self.scanning {
            self.scan(cx);
        }
        self.look_at_denied_later(cx);
        self.wait_for_late_writers(cx);
        self.note_replaced(cx.now.mono_ms);
        self.claim(cx);
    }

    /// Path of its live file.
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory, self.live_name)
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
            // `go_on` below reads the late files.
            Purpose::LateWriter => {}
            // Of the stream, or of the connection that was read before.
            _ => return,
        }
        self.go_on(cx, told);
    }

    /// Finishes files that are read to their end, and the source when none is left.
    fn go_on(&mut self, cx: &mut Context<'_>, told: &mut Vec<SourceEvent>) {
        self.note_emptied(cx);
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
            self.declare_never_readable(cx);
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
