//! The reading end: hands out committed records in order, passes over damage, and forgets what was delivered.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::format::{self, HEAD_BYTES, Record, Step};
use super::writer::gone_is_fine;
use super::{CURSOR_FILE, Position, Shared, unix_ms};
use crate::ledger::claims::Claimed;

/// What reading came upon.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// A record, and the place behind it.
    Record(Record, Position),
    /// Bytes of this segment that are no record.
    Damaged {
        /// Name of the file.
        file: String,
        /// From there.
        offset: u64,
        /// So many.
        bytes: u64,
    },
    /// Bytes of records that waited for longer than they may.
    TooOld(u64),
    /// Nothing more is committed.
    Nothing,
}

/// See the module's head.
pub struct Reader {
    shared: Arc<Shared>,
    at: Position,
    file: Option<(u64, Claimed<File>)>,
    saved: Position,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, at: Position) -> Reader {
        Reader { shared, at, file: None, saved: at }
    }

    /// The next thing there is.
    pub fn read_next(&mut self) -> io::Result<Read> {
        loop {
            let limit = {
                let mut state = self.shared.state();
                state.read = self.at;
                let committed = state.committed;
                match state.segments.get(&self.at.segment) {
                    Some(_) if self.at.segment == committed.segment => committed.offset,
                    Some(len) => *len,
                    None if self.at.segment >= committed.segment => return Ok(Read::Nothing),
                    // Dropped to make room, or taken away by somebody.
                    None => 0,
                }
            };
            let last = self.at.segment >= self.shared.state().committed.segment;
            if self.at.offset >= limit {
                if last {
                    return Ok(Read::Nothing);
                }
                self.at = Position { segment: self.at.segment + 1, offset: 0 };
                continue;
            }
            match self.read_at(limit)? {
                Some(read) => return Ok(read),
                // The writer dropped it meanwhile.
                None => self.at = Position { segment: self.at.segment + 1, offset: 0 },
            }
        }
    }

    fn read_at(&mut self, limit: u64) -> io::Result<Option<Read>> {
        let Position { segment, offset } = self.at;
        if self.file.as_ref().is_none_or(|(open, _)| *open != segment) {
            match File::open(self.shared.path(segment)) {
                Ok(file) => self.file = Some((segment, self.shared.hold(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some((_, file)) = &self.file else { return Ok(None) };
        let left = limit - offset;
        let mut bytes = vec![0; left.min(HEAD_BYTES as u64) as usize];
        file.read_exact_at(&mut bytes, offset)?;
        let mut step = format::decode(&bytes);
        if let Step::NeedMore(whole) = step
            && whole as u64 <= left
        {
            bytes.resize(whole, 0);
            file.read_exact_at(&mut bytes, offset)?;
            step = format::decode(&bytes);
        }
        let Step::Record(record, len) = step else {
            let mut rest = vec![0; left as usize];
            file.read_exact_at(&mut rest, offset)?;
            let bytes = format::damaged_len(&rest) as u64;
            self.at.offset += bytes;
            let file = format!("{segment:010}.seg");
            return Ok(Some(Read::Damaged { file, offset, bytes }));
        };
        self.at.offset += len as u64;
        let age_max_ms = self.shared.config.age_max.as_millis() as u64;
        if unix_ms().saturating_sub(record.time_ms) > age_max_ms {
            return Ok(Some(Read::TooOld(len as u64)));
        }
        Ok(Some(Read::Record(record, self.at)))
    }

    /// Where reading goes on.
    pub fn position(&self) -> Position {
        self.at
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.state().bytes()
    }

    /// All before this place was delivered: saves that, and removes the segments before it.
    pub fn forget(&mut self, done: Position) -> io::Result<()> {
        if done == self.saved {
            return Ok(());
        }
        save_cursor(&self.shared.dir, done)?;
        self.saved = done;
        let (gone, last): (Vec<u64>, u64) = {
            let state = self.shared.state();
            (
                state.segments.range(..done.segment).map(|(number, _)| *number).collect(),
                state.committed.segment,
            )
        };
        for number in gone.into_iter().filter(|number| *number < last) {
            fs::remove_file(self.shared.path(number)).or_else(gone_is_fine)?;
            self.shared.state().segments.remove(&number);
        }
        Ok(())
    }
}

/// A small text with a checksum, renamed into place. Not synced: an old one repeats lines, and loses none.
fn save_cursor(dir: &Path, at: Position) -> io::Result<()> {
    let text = format!("{} {}", at.segment, at.offset);
    let new = dir.join("cursor.new");
    fs::write(&new, format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())))?;
    fs::rename(new, dir.join(CURSOR_FILE))
}

/// `None` = there is none.
pub(super) fn load_cursor(dir: &Path) -> Result<Option<Position>, String> {
    let text = match fs::read(dir.join(CURSOR_FILE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [segment, offset, crc] = fields[..] else {
        return Err(format!("{} bytes without sense", text.len()));
    };
    let sum = format!("{:08x}", crc32fast::hash(format!("{segment} {offset}").as_bytes()));
    match (segment.parse(), offset.parse()) {
        (Ok(segment), Ok(offset)) if sum == crc => Ok(Some(Position { segment, offset })),
        _ => Err("its checksum is wrong".to_owned()),
    }
}
