//! The reading end: hands out committed records in order, skips damage, reads a record again when it is to be sent, and
//! forgets delivered ones.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::cursor::{self, Cursor, Rest, Start};
use super::format::{self, HEAD_BYTES, Record, Step};
use super::writer::gone_is_fine;
use super::{Position, Segment, Shared, Shares, unix_ms};
use crate::ledger::claims::Claimed;

/// Bytes that are read of a record at first: most are whole then. At least its head.
const FIRST_BYTES: u64 = 4096;
const _: () = assert!(FIRST_BYTES >= HEAD_BYTES as u64);
/// Segments that are held open: the one being read and a few from which records are sent.
const FILES_OPEN_MAX: usize = 4;
/// Holes consist of whole blocks of the file system.
const BLOCK_BYTES: u64 = 4096;
/// Bytes of records kept in memory after they were read: most are sent soon.
const RECENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// With more open records than this, only every fifth call saves the cursor, which names each of them.
const OPEN_MANY: usize = 2_000;
const OPEN_SAVES_LEFT_OUT_MAX: u32 = 4;

/// What the reader found.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A record and its place; it is open until [`Reader::done`].
    Record(Record, Position),
    /// Bytes of this segment that are no record.
    Damaged {
        /// Name of the file.
        file: String,
        /// Offset where it begins.
        offset: u64,
        /// Number of bytes.
        bytes: u64,
    },
    /// The last record of a segment of an earlier run is incomplete. Usually it was never acknowledged, so its lines
    /// come again from their source; nobody can know whether the disk lost more.
    Unfinished {
        /// Name of the file.
        file: String,
        /// Number of bytes.
        bytes: u64,
    },
    /// A segment, or the end of one, is gone, and the agent did not remove it.
    Missing {
        /// Name of the file.
        file: String,
        /// Number of bytes; 0 = nobody knows.
        bytes: u64,
    },
    /// A record waited for longer than allowed, and is forgotten.
    TooOld(Record, u64),
    /// There is nothing more that is committed.
    Nothing,
}

/// The state of a record that was read before.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It is available.
    Record(Record),
    /// It waited for longer than allowed; its length in bytes.
    TooOld(Record, u64),
    /// A full spool dropped it, which was counted there.
    Dropped,
    /// Its segment is gone, or its bytes are damaged; how many bytes.
    Lost(u64),
}

/// A record that was read and is not delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Open {
    /// Bytes in the segment.
    pub len: u32,
    /// When it was put in.
    pub time_ms: u64,
    /// How many of its lines, from the first on, are delivered.
    pub done: u32,
}

/// The reader; see the head of this file.
pub struct Reader {
    shared: Arc<Shared>,
    at: Position,
    /// Records that were open at the last stop: they come first.
    again: VecDeque<Position>,
    missing: VecDeque<Read>,
    open: BTreeMap<Position, Open>,
    /// Payloads of some of them, kept in memory.
    recent: BTreeMap<Position, Record>,
    recent_bytes: usize,
    files: VecDeque<(u64, Claimed<File>)>,
    saved: Cursor,
    saves_left_out: u32,
    /// Bytes that were open in each segment when holes were last made in it.
    holed: BTreeMap<u64, u64>,
    /// The first segment that is written in this run.
    first_of_run: u64,
    /// Minimum length of each segment of an earlier run.
    lengths: BTreeMap<u64, u64>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, start: Start) -> Reader {
        // A start begins a new segment.
        let first_of_run = shared.state().committed.segment;
        Reader {
            shared,
            at: start.read,
            again: start.open.keys().copied().collect(),
            missing: start.missing.into(),
            open: start.open,
            recent: BTreeMap::new(),
            recent_bytes: 0,
            files: VecDeque::new(),
            saved: Cursor::default(),
            saves_left_out: 0,
            holed: BTreeMap::new(),
            first_of_run,
            lengths: start.lengths,
        }
    }

    /// Whether it was put in before this run, maybe under another config.
    pub fn is_of_earlier_run(&self, at: Position) -> bool {
        at.segment < self.first_of_run
    }

    /// The next thing in the spool.
    pub fn read_next(&mut self) -> io::Result<Read> {
        if let Some(missing) = self.missing.pop_front() {
            return Ok(missing);
        }
        while let Some(at) = self.again.pop_front() {
            match self.load(at)? {
                Loaded::Record(record) => {
                    if let Some(open) = self.open.get_mut(&at) {
                        open.time_ms = record.time_ms;
                    }
                    return Ok(Read::Record(record, at));
                }
                Loaded::TooOld(record, bytes) => return Ok(Read::TooOld(record, bytes)),
                Loaded::Lost(bytes) => {
                    let file = format!("{:010}.seg", at.segment);
                    return Ok(Read::Damaged { file, offset: at.offset, bytes });
                }
                Loaded::Dropped => {}
            }
        }
        loop {
            let (limit, committed) = {
                let mut state = self.shared.state();
                state.read = self.at;
                let committed = state.committed;
                let limit = match state.segments.get(&self.at.segment) {
                    Some(_) if self.at.segment == committed.segment => committed.offset,
                    Some(segment) => segment.len,
                    None if self.at.segment >= committed.segment => return Ok(Read::Nothing),
                    // Dropped to make room.
                    None => 0,
                };
                (limit, committed)
            };
            if self.at.offset >= limit {
                if self.at.segment >= committed.segment {
                    return Ok(Read::Nothing);
                }
                self.at = Position { segment: self.at.segment + 1, offset: 0 };
                continue;
            }
            match self.read_at(limit)? {
                Some(read) => return Ok(read),
                None => {
                    let Position { segment, offset } = self.at;
                    self.at = Position { segment: segment + 1, offset: 0 };
                    // If the writer still counts it, the writer did not drop it.
                    if self.shared.state().segments.remove(&segment).is_some() {
                        let bytes = limit - offset;
                        return Ok(Read::Missing { file: format!("{segment:010}.seg"), bytes });
                    }
                }
            }
        }
    }

    fn read_at(&mut self, limit: u64) -> io::Result<Option<Read>> {
        let at = self.at;
        let Some((step, whole)) = self.step(at, limit - at.offset)? else { return Ok(None) };
        let Step::Record(record, len) = step else {
            let mut rest = vec![0; whole as usize];
            let Some(file) = self.file(at.segment)? else { return Ok(None) };
            file.read_exact_at(&mut rest, at.offset)?;
            let bytes = format::damaged_len(&rest) as u64;
            self.at.offset += bytes;
            let file = format!("{:010}.seg", at.segment);
            // Acknowledged records had been synced whole. The cursor knows a segment that was longer once.
            let is_end = matches!(step, Step::NeedMore(_)) && bytes == whole && self.shared.config.fsync;
            let was_longer = self.lengths.get(&at.segment).is_some_and(|len| at.offset < *len);
            if is_end && self.is_of_earlier_run(at) && !was_longer {
                return Ok(Some(Read::Unfinished { file, bytes }));
            }
            return Ok(Some(Read::Damaged { file, offset: at.offset, bytes }));
        };
        self.at.offset += len as u64;
        if self.is_too_old(&record) {
            return Ok(Some(Read::TooOld(record, len as u64)));
        }
        self.open.insert(at, Open { len: len as u32, time_ms: record.time_ms, done: 0 });
        *self.shared.state().open.entry(at.segment).or_default() += len as u64;
        self.recent_bytes += record.block.len();
        self.recent.insert(at, record.clone());
        while self.recent_bytes > RECENT_BYTES_MAX
            && let Some((_, oldest)) = self.recent.pop_first()
        {
            self.recent_bytes -= oldest.block.len();
        }
        Ok(Some(Read::Record(record, at)))
    }

    /// What is at an offset of which this many bytes may be read, and their number. `None` = the file is gone.
    fn step(&mut self, at: Position, left: u64) -> io::Result<Option<(Step, u64)>> {
        let Some(file) = self.file(at.segment)? else { return Ok(None) };
        // Somebody may have cut the file.
        let left = left.min(file.metadata()?.len().saturating_sub(at.offset));
        let mut bytes = vec![0; left.min(FIRST_BYTES) as usize];
        file.read_exact_at(&mut bytes, at.offset)?;
        let mut step = format::decode(&bytes);
        if let Step::NeedMore(whole) = step
            && whole as u64 <= left
        {
            bytes.resize(whole, 0);
            file.read_exact_at(&mut bytes, at.offset)?;
            step = format::decode(&bytes);
        }
        Ok(if left == 0 { None } else { Some((step, left)) })
    }

    fn file(&mut self, segment: u64) -> io::Result<Option<&File>> {
        let renewed = std::mem::take(&mut self.shared.state().renewed);
        self.files.retain(|(open, _)| !renewed.contains(open));
        if let Some(index) = self.files.iter().position(|(open, _)| *open == segment) {
            let found = self.files.remove(index);
            self.files.extend(found);
        } else {
            match open_quietly(&self.shared.path(segment)) {
                Ok(file) => self.files.push_back((segment, self.shared.hold(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
            if self.files.len() > FILES_OPEN_MAX {
                self.files.pop_front();
            }
        }
        Ok(self.files.back().map(|(_, file)| &**file))
    }

    fn is_too_old(&self, record: &Record) -> bool {
        let age_max_ms = self.shared.config.age_max.as_millis() as u64;
        unix_ms().saturating_sub(record.time_ms) > age_max_ms
    }

    /// Reads an open record again. One that is not available is forgotten.
    pub fn load(&mut self, at: Position) -> io::Result<Loaded> {
        let Some(open) = self.open.get(&at).copied() else { return Ok(Loaded::Dropped) };
        let known = self.shared.state().segments.contains_key(&at.segment);
        let step = match self.take_recent(at).filter(|_| known) {
            Some(record) => Some((Step::Record(record, open.len as usize), u64::from(open.len))),
            None if known => self.step(at, u64::from(open.len))?,
            None => None,
        };
        let bytes = u64::from(open.len);
        let loaded = match step {
            Some((Step::Record(record, _), _)) if !self.is_too_old(&record) => {
                return Ok(Loaded::Record(record));
            }
            Some((Step::Record(record, _), _)) => Loaded::TooOld(record, bytes),
            None if !known => Loaded::Dropped,
            _ => Loaded::Lost(bytes),
        };
        self.done(at);
        Ok(loaded)
    }

    fn take_recent(&mut self, at: Position) -> Option<Record> {
        let record = self.recent.remove(&at)?;
        self.recent_bytes -= record.block.len();
        Some(record)
    }

    /// A record was delivered.
    pub fn done(&mut self, at: Position) {
        self.take_recent(at);
        let Some(open) = self.open.remove(&at) else { return };
        let mut state = self.shared.state();
        if let Some(bytes) = state.open.get_mut(&at.segment) {
            *bytes = bytes.saturating_sub(u64::from(open.len));
        }
    }

    /// This many lines at a record's beginning were delivered. The next save of the cursor says so.
    pub fn done_in_part(&mut self, at: Position, lines: usize) {
        if let Some(open) = self.open.get_mut(&at) {
            open.done = lines as u32;
        }
    }

    /// Lines at a record's beginning that were delivered, maybe by an earlier run.
    pub fn lines_done(&self, at: Position) -> usize {
        self.open.get(&at).map_or(0, |open| open.done as usize)
    }

    /// The place before which everything is delivered.
    pub fn position(&self) -> Position {
        self.open.keys().next().map_or(self.at, |first| (*first).min(self.at))
    }

    /// When the oldest record that is not delivered was put in.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.open.values().next().map(|open| open.time_ms)
    }

    /// Sets how much label sets that are held back may put in.
    pub fn set_shares(&self, shares: Shares) {
        self.shared.state().shares = shares;
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    /// Number of the first segment on disk; 0 = there is none.
    pub fn oldest_segment(&self) -> u64 {
        self.shared.state().segments.first_key_value().map_or(0, |(number, _)| *number)
    }

    /// Saves what was delivered, then gives its space back. Called now and then.
    pub fn forget(&mut self) -> io::Result<()> {
        if self.open.len() > OPEN_MANY && self.saves_left_out < OPEN_SAVES_LEFT_OUT_MAX {
            self.saves_left_out += 1;
            return Ok(());
        }
        self.save()
    }

    /// The same, but never skipped: at the end.
    pub fn save(&mut self) -> io::Result<()> {
        self.saves_left_out = 0;
        let (segments, committed) = {
            let state = self.shared.state();
            let len = |(number, segment): (&u64, &Segment)| {
                (
                    *number,
                    if *number == state.committed.segment { state.committed.offset } else { segment.len },
                )
            };
            let segments: BTreeMap<u64, u64> = state.segments.iter().map(len).collect();
            (segments, state.committed)
        };
        let end = self.at.segment.min(committed.segment);
        let ends = |number: &u64| *number < end;
        let with_open: BTreeMap<u64, u64> = self.open.iter().fold(BTreeMap::new(), |mut sums, (at, open)| {
            *sums.entry(at.segment).or_default() += u64::from(open.len);
            sums
        });
        let gone: Vec<u64> = segments
            .keys()
            .filter(|number| ends(number) && !with_open.contains_key(number))
            .copied()
            .collect();
        let kept = segments.iter().filter(|(number, _)| !gone.contains(number));
        let rest = Rest {
            read: self.at,
            open: self.open.clone(),
            segments: kept.map(|(number, len)| (*number, *len)).collect(),
        };
        let cursor = Cursor { done: self.position(), rest: Some(rest) };
        if self.save_cursor(&cursor).is_err() {
            // The disk may be full, possibly of records that the spool has delivered.
            for number in &gone {
                self.shared.retire(*number)?;
                self.forget_segment(*number);
            }
            self.save_cursor(&cursor)?;
        }
        let retired = self.shared.state().retired.clone();
        for number in retired {
            if ends(&number) && !with_open.contains_key(&number) {
                fs::remove_file(self.shared.done_path(number)).or_else(gone_is_fine)?;
                self.shared.state().retired.remove(&number);
            }
        }
        for number in gone {
            fs::remove_file(self.shared.path(number)).or_else(gone_is_fine)?;
            self.forget_segment(number);
        }
        for (number, open) in with_open.into_iter().filter(|(number, _)| ends(number)) {
            self.make_holes(number, open)?;
        }
        Ok(())
    }

    fn save_cursor(&mut self, cursor: &Cursor) -> io::Result<()> {
        if *cursor != self.saved {
            cursor::save(&self.shared.dir, cursor)?;
            self.saved.clone_from(cursor);
        }
        Ok(())
    }

    fn forget_segment(&mut self, number: u64) {
        self.files.retain(|(open, _)| *open != number);
        self.holed.remove(&number);
        self.shared.state().segments.remove(&number);
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Whether a cursor was saved in this run.
    pub(super) fn has_saved(&self) -> bool {
        self.saved != Cursor::default()
    }

    /// The saved file is gone: the next save writes it again.
    pub(super) fn forget_saved(&mut self) {
        self.saved = Cursor::default();
        self.saves_left_out = OPEN_SAVES_LEFT_OUT_MAX;
    }

    /// A segment's file, if it is open.
    pub(super) fn open_file(&mut self, segment: u64) -> Option<&mut Claimed<File>> {
        self.files.iter_mut().find(|(open, _)| *open == segment).map(|(_, file)| file)
    }

    /// Forgets a segment that is gone; returns how many of its bytes were not delivered. Its records count as dropped.
    pub(super) fn give_up(&mut self, number: u64) -> u64 {
        let bytes = self.shared.state().undelivered(number);
        let places: Vec<Position> = self.open.keys().filter(|at| at.segment == number).copied().collect();
        places.into_iter().for_each(|at| self.done(at));
        self.again.retain(|at| at.segment != number);
        self.forget_segment(number);
        self.shared.state().open.remove(&number);
        bytes
    }

    /// Gives back the space of delivered records in a segment, if that is worth it.
    fn make_holes(&mut self, number: u64, open: u64) -> io::Result<()> {
        let len = self.shared.state().segments.get(&number).map_or(0, |segment| segment.len);
        let before = self.holed.get(&number).copied().unwrap_or(len);
        if open > before / 2 {
            return Ok(());
        }
        self.holed.insert(number, open);
        let file = match OpenOptions::new().write(true).open(self.shared.path(number)) {
            Ok(file) => self.shared.hold(file),
            Err(error) => return gone_is_fine(error),
        };
        let records = self.open.range(Position { segment: number, offset: 0 }..);
        let records = records.take_while(|(at, _)| at.segment == number);
        let mut from = 0_u64;
        let ends = records.map(|(at, open)| (at.offset, at.offset + u64::from(open.len)));
        for (start, end) in ends.chain([(len, len)]) {
            let hole = from.next_multiple_of(BLOCK_BYTES)..start / BLOCK_BYTES * BLOCK_BYTES;
            if hole.start < hole.end {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // A file system without holes keeps the whole segment until all of it is delivered.
                if fallocate(&*file, flags, hole.start, hole.end - hole.start).is_err() {
                    return Ok(());
                }
            }
            from = end;
        }
        let segment = Segment::of(&file.metadata()?);
        self.shared.state().segments.insert(number, segment);
        Ok(())
    }
}

/// Opens a segment to be read. Nobody wants its access time, and setting that is a change of its inode with each read.
fn open_quietly(path: &Path) -> io::Result<File> {
    let quietly = OpenOptions::new().read(true).custom_flags(OFlags::NOATIME.bits() as i32).open(path);
    // Only who owns a file may do that.
    quietly.or_else(|_| File::open(path))
}
