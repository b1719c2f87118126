//! The writing end: appends records, commits several with one sync, and keeps the whole within its bound.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::format::{self, Record};
use super::{DROPPED_FILE, Position, Segment, Shared, is_disk_full, names};
use crate::settings::WhenFull;

/// The spool leaves this part of the disk free: without room for a checkpoint and a cursor, a kill would repeat the
/// records that it took last.
const DISK_LEFT_ONE_IN: u64 = 64;
/// But at least and at most this much.
const DISK_LEFT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;

/// Why records were not taken.
#[derive(Debug)]
pub enum AppendError {
    /// There is no room, and the config says to wait.
    Full,
    /// The file system failed.
    Io(io::Error),
}

/// The writer; see the head of this file.
pub struct Writer {
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// Number of the segment being written, or of the next one if none is open.
    number: u64,
    /// Length of its whole records; a failed write leaves more, which the next one overwrites.
    offset: u64,
    buffer: Vec<u8>,
    /// How many bytes of the disk may still be used, as of the last commit; `None` = to be asked.
    room: Option<u64>,
}

impl Writer {
    /// Some label set is held back, and must not exceed its share.
    pub fn has_shares(&self) -> bool {
        self.shared.config.when_full == WhenFull::Wait && !self.shared.state().shares.is_empty()
    }

    /// Whether lines of a label set may be put in; they then count as put in, until the shares are set again.
    pub fn take_share(&self, label_set: u64, bytes: u64) -> bool {
        self.shared.state().shares.take(label_set, bytes)
    }

    pub(super) fn new(shared: Arc<Shared>, number: u64, segment_bytes: u64) -> Writer {
        Writer { shared, segment_bytes, number, offset: 0, buffer: Vec::new(), room: None }
    }

    /// Writes records, all of them or none: one that nobody acknowledges must not be there. They are neither safe nor
    /// read before [`Writer::commit`].
    pub fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        self.buffer.clear();
        records.iter().for_each(|record| format::encode(record, &mut self.buffer));
        let len = self.buffer.len() as u64;
        if len == 0 {
            return Ok(());
        }
        if self.is_open() && self.offset > 0 && self.offset + len > self.segment_bytes {
            self.close_segment().map_err(AppendError::Io)?;
        }
        if let Err(error) = self.make_room(len) {
            // Delivered records of the segment being written are room, too.
            self.make_way().map_err(AppendError::Io)?;
            return Err(error);
        }
        if !self.disk_has(len) {
            self.make_way().map_err(AppendError::Io)?;
            return Err(AppendError::Io(io::ErrorKind::StorageFull.into()));
        }
        if !self.is_open() {
            self.open_segment().map_err(AppendError::Io)?;
        }
        let written = match &*self.shared.current() {
            Some((_, file)) => file.write_all_at(&self.buffer, self.offset).inspect_err(|_| {
                // An incomplete record takes room that others need, and a start would take it for damage.
                let _ = file.set_len(self.offset);
            }),
            None => return Err(AppendError::Full),
        };
        if let Err(error) = written {
            self.room = None;
            if is_disk_full(&error) {
                self.make_way().map_err(AppendError::Io)?;
            }
            return Err(AppendError::Io(error));
        }
        self.offset += len;
        self.room = self.room.map(|room| room.saturating_sub(len));
        let segment = Segment { len: self.offset, used: self.offset };
        self.shared.state().segments.insert(self.number, segment);
        Ok(())
    }

    /// Makes appended records safe, as the config has it, and available to the reader.
    pub fn commit(&mut self) -> io::Result<()> {
        self.room = None;
        let mut current = self.shared.current();
        if let Some((_, file)) = current.as_ref().filter(|_| self.shared.config.fsync) {
            file.sync_data()?;
        }
        // What is acknowledged must be found by the next start.
        self.shared.keep_name(&mut current)?;
        drop(current);
        self.shared.state().committed = Position { segment: self.number, offset: self.offset };
        Ok(())
    }

    /// Whether the disk has this many bytes besides what is left free. It is asked once for each commit, and whenever
    /// the known room is used up: others may have freed some.
    fn disk_has(&mut self, len: u64) -> bool {
        if self.room.is_none_or(|room| room < len) {
            self.room = Some(bytes_left(&self.shared.dir));
        }
        self.room.is_some_and(|room| room >= len)
    }

    /// How many bytes were dropped since the last call because the spool was full.
    pub fn take_dropped_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.shared.state().dropped_bytes)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    fn make_room(&mut self, len: u64) -> Result<(), AppendError> {
        loop {
            let is_open = self.is_open();
            let mut state = self.shared.state();
            // An empty spool takes anything, or a record longer than the whole would wait for ever.
            if state.bytes() == 0 || state.bytes() + len <= self.shared.config.bytes_max {
                return Ok(());
            }
            if self.shared.config.when_full == WhenFull::Wait {
                return Err(AppendError::Full);
            }
            let Some((&oldest, _)) = state.segments.first_key_value() else { return Ok(()) };
            if oldest == self.number && is_open {
                drop(state);
                self.close_segment().map_err(AppendError::Io)?;
                continue;
            }
            drop(state);
            // First written down, then done: a start must not think that somebody removed the segment.
            match self.say_dropped(oldest) {
                Ok(()) => fs::remove_file(self.shared.path(oldest)).or_else(gone_is_fine),
                Err(_) => self.shared.retire(oldest),
            }
            .map_err(AppendError::Io)?;
            state = self.shared.state();
            state.dropped_bytes += state.undelivered(oldest);
            state.segments.remove(&oldest);
            state.open.remove(&oldest);
        }
    }

    fn say_dropped(&self, number: u64) -> io::Result<()> {
        let new = self.shared.dir.join("dropped.new");
        fs::write(&new, number.to_string())?;
        fs::rename(new, self.shared.dir.join(DROPPED_FILE))
    }

    fn is_open(&self) -> bool {
        self.shared.current().is_some()
    }

    /// The disk is full. If some of the segment being written is delivered, it ends: only then can its space be given
    /// back.
    pub(super) fn make_way(&mut self) -> io::Result<()> {
        let gives_room = {
            let state = self.shared.state();
            let is_committed = state.committed == Position { segment: self.number, offset: self.offset };
            is_committed && state.undelivered(self.number) < self.offset
        };
        if gives_room { self.close_segment() } else { Ok(()) }
    }

    /// Committed whole: the reader leaves a segment only behind one that will not grow.
    fn close_segment(&mut self) -> io::Result<()> {
        self.commit()?;
        *self.shared.current() = None;
        self.number += 1;
        self.offset = 0;
        self.shared.state().committed = Position { segment: self.number, offset: 0 };
        Ok(())
    }

    fn open_segment(&mut self) -> io::Result<()> {
        let path = self.shared.path(self.number);
        let mut options = OpenOptions::new();
        // Read only where its name is gone and it must be copied.
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                names::make_dir(&self.shared.dir)?;
                self.shared.state().names_lost = true;
                options.open(&path)?
            }
            opened => opened?,
        };
        if self.shared.config.fsync {
            // The name must be as safe as the content will be.
            File::open(&self.shared.dir)?.sync_all()?;
        }
        *self.shared.current() = Some((self.number, self.shared.hold(file)));
        self.shared.state().segments.insert(self.number, Segment::default());
        Ok(())
    }
}

/// How much of a directory's disk the spool may use: what is free for this process, minus what is left to others.
/// Unbounded if that is unknown.
fn bytes_left(dir: &Path) -> u64 {
    let Ok(disk) = rustix::fs::statvfs(dir) else { return u64::MAX };
    let whole = disk.f_blocks * disk.f_frsize;
    // Some report no size at all.
    if whole == 0 {
        return u64::MAX;
    }
    // Root may use what file systems keep back from others.
    let free = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
    let reserve = (whole / DISK_LEFT_ONE_IN).clamp(*DISK_LEFT_BYTES.start(), *DISK_LEFT_BYTES.end());
    (free * disk.f_frsize).saturating_sub(reserve)
}

pub(super) fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
