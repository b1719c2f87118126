//! The writing end: appends records, commits several with one sync, and keeps the whole within its bound.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::sync::Arc;

use super::format::{self, Record};
use super::{DROPPED_FILE, Position, Segment, Shared};
use crate::ledger::claims::Claimed;
use crate::settings::WhenFull;

/// Why a record was not taken.
#[derive(Debug)]
pub enum AppendError {
    /// There is no room, and the config says to wait.
    Full,
    /// The file system said no.
    Io(io::Error),
}

/// See the module's head.
pub struct Writer {
    shared: Arc<Shared>,
    segment_bytes: u64,
    /// Number of the segment being written, or of the next one if none is open.
    number: u64,
    file: Option<Claimed<File>>,
    /// Length of whole records in it; a failed write leaves more, which the next one overwrites.
    offset: u64,
    buffer: Vec<u8>,
}

impl Writer {
    /// Some label set is held back, and has a share that it must not exceed.
    pub fn has_shares(&self) -> bool {
        self.shared.config.when_full == WhenFull::Wait && !self.shared.state().shares.is_empty()
    }

    /// Whether lines of a label set may be put in; they count as put in then, until the shares are given out anew.
    pub fn take_share(&self, label_set: u64, bytes: u64) -> bool {
        self.shared.state().shares.take(label_set, bytes)
    }

    pub(super) fn new(shared: Arc<Shared>, number: u64, segment_bytes: u64) -> Writer {
        Writer { shared, segment_bytes, number, file: None, offset: 0, buffer: Vec::new() }
    }

    /// Writes a record. It is neither safe nor read before [`Writer::commit`].
    pub fn append(&mut self, record: &Record) -> Result<(), AppendError> {
        self.buffer.clear();
        format::encode(record, &mut self.buffer);
        let len = self.buffer.len() as u64;
        if self.file.is_some() && self.offset > 0 && self.offset + len > self.segment_bytes {
            self.close_segment().map_err(AppendError::Io)?;
        }
        self.make_room(len)?;
        if self.file.is_none() {
            self.open_segment().map_err(AppendError::Io)?;
        }
        let Some(file) = &self.file else { return Err(AppendError::Full) };
        file.write_all_at(&self.buffer, self.offset).map_err(AppendError::Io)?;
        self.offset += len;
        let segment = Segment { len: self.offset, used: self.offset };
        self.shared.state().segments.insert(self.number, segment);
        Ok(())
    }

    /// Makes what was appended safe, as the config has it, and lets the reader have it.
    pub fn commit(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.as_ref().filter(|_| self.shared.config.fsync) {
            file.sync_data()?;
        }
        self.shared.state().committed = Position { segment: self.number, offset: self.offset };
        Ok(())
    }

    /// What has been given up so far because it was full.
    pub fn take_dropped_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.shared.state().dropped_bytes)
    }

    /// Bytes on disk.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    fn make_room(&mut self, len: u64) -> Result<(), AppendError> {
        loop {
            let mut state = self.shared.state();
            // An empty spool takes anything, else a record longer than the whole would wait for ever.
            if state.bytes() == 0 || state.bytes() + len <= self.shared.config.bytes_max {
                return Ok(());
            }
            if self.shared.config.when_full == WhenFull::Wait {
                return Err(AppendError::Full);
            }
            let Some((&oldest, _)) = state.segments.first_key_value() else { return Ok(()) };
            if oldest == self.number && self.file.is_some() {
                drop(state);
                self.close_segment().map_err(AppendError::Io)?;
                continue;
            }
            // First said, then done: a start must not take it for a segment that somebody removed.
            fs::write(self.shared.dir.join(DROPPED_FILE), oldest.to_string()).map_err(AppendError::Io)?;
            fs::remove_file(self.shared.path(oldest)).or_else(gone_is_fine).map_err(AppendError::Io)?;
            state.dropped_bytes += state.undelivered(oldest);
            state.segments.remove(&oldest);
            state.open.remove(&oldest);
        }
    }

    /// Committed whole: the reader leaves a segment only behind one that will not grow.
    fn close_segment(&mut self) -> io::Result<()> {
        self.commit()?;
        self.file = None;
        self.number += 1;
        self.offset = 0;
        self.shared.state().committed = Position { segment: self.number, offset: 0 };
        Ok(())
    }

    fn open_segment(&mut self) -> io::Result<()> {
        let path = self.shared.path(self.number);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        if self.shared.config.fsync {
            // The name must be as safe as what the file will hold.
            File::open(&self.shared.dir)?.sync_all()?;
        }
        self.file = Some(self.shared.hold(file));
        self.shared.state().segments.insert(self.number, Segment::default());
        Ok(())
    }
}

pub(super) fn gone_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
