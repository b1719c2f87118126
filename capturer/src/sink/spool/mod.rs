//! A network sink's queue on disk: records taken from capture and not yet delivered. It keeps lines that the host may
//! rotate away during a long outage, and lets the sink read on while the network is slow.
//!
//! ```text
//! sink thread ─ Writer: append … commit (one sync for several) ─▶ NNNNNNNNNN.seg ─ Reader: next ─▶ delivery
//!                          ▲ full: wait or drop the oldest                           │ forget: unlink, `cursor`
//!                          └────────────────────── State (what is where) ◀───────────┘
//! ```
//! Only committed records are read, so nothing is sent that a power cut could still take from the spool. A start always
//! begins a new segment: a torn end stays in the old one, where the reader skips it and says so.
//!
//! Records are delivered in any order, for one label set may wait long while others continue. So the cursor file names
//! the place up to which was read and each earlier record that is not delivered; it also lists the segments with their
//! lengths, so that a missing or cut one is noticed. A segment is removed once all of it is delivered. If little is
//! left of one, the space of the rest is given back to the file system (a hole), so that a waiting label set does not
//! fill the disk with the delivered records of others; `shares.rs` bounds what it takes itself. Without a cursor file
//! reading begins at the oldest segment and repeats lines.
//!
//! A full disk must not keep the spool from shrinking: the cursor is written into space that it already has, and if
//! even that fails, a delivered segment is renamed (`.done`) and emptied, which takes no space. A `.done` tells the
//! next start that its segment is finished; it is removed once a saved cursor says so.
//!
//! Somebody may remove the directory while the agent runs: `names.rs` notices that and restores files that are still
//! open.
//!
//! Not here: what the payloads mean, and who gets them.

pub(crate) mod block;
mod cursor;
pub(crate) mod format;
mod names;
mod reader;
mod shares;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::settings;

pub use names::Found;
pub use reader::{Loaded, Read, Reader};
pub use shares::{Shares, Waits};
pub use writer::{AppendError, Writer};

/// Bounds of a segment's length; between them it is a sixteenth of the whole spool.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;
/// The cursor file; see `cursor.rs`.
const CURSOR_FILE: &str = "cursor";
/// Holds the number of the last segment that was dropped to make room.
const DROPPED_FILE: &str = "dropped";

/// A place in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte offset in it.
    pub offset: u64,
}

/// The owner of the spool's descriptors.
#[derive(Clone, Debug)]
pub struct SpoolOwner {
    /// Where that is told.
    pub claims: Claims,
    /// The sink that owns its descriptors.
    pub owner: Owner,
}

/// State shared by writer and reader.
struct Shared {
    dir: PathBuf,
    config: settings::Spool,
    held: SpoolOwner,
    state: Mutex<State>,
    /// The segment being written, if one is open. The writer has it locked while it writes, and the reader while it
    /// restores the file's name.
    current: Mutex<Option<(u64, Claimed<fs::File>)>>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    /// Records up to here may be read.
    committed: Position,
    /// Records up to here were read.
    read: Position,
    /// For each segment: bytes of records that were read and are not delivered.
    open: BTreeMap<u64, u64>,
    /// Bytes dropped, undelivered, because the spool was full.
    dropped_bytes: u64,
    /// How much label sets that are held back may put in.
    shares: Shares,
    /// Segments of which a `.done` is left.
    retired: BTreeSet<u64>,
    /// Segments whose file was replaced since the reader last checked.
    renewed: BTreeSet<u64>,
    /// The writer missed a name; the reader has not checked the others yet.
    names_lost: bool,
    /// How many segments got their names back since.
    put_back: usize,
    /// Device and inode of the directory.
    dir_id: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    len: u64,
    /// Bytes on disk: fewer than `len` once there are holes in it.
    used: u64,
}

impl Segment {
    /// For an existing file.
    fn of(metadata: &fs::Metadata) -> Segment {
        use std::os::unix::fs::MetadataExt as _;
        Segment { len: metadata.len(), used: metadata.len().min(metadata.blocks() * 512) }
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.used).sum()
    }

    /// How many bytes of a segment are unread, or read and not delivered.
    fn undelivered(&self, number: u64) -> u64 {
        let len = self.segments.get(&number).map_or(0, |segment| segment.len);
        let read = match number.cmp(&self.read.segment) {
            std::cmp::Ordering::Less => len,
            std::cmp::Ordering::Equal => self.read.offset,
            std::cmp::Ordering::Greater => 0,
        };
        len.saturating_sub(read) + self.open.get(&number).copied().unwrap_or(0)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Whole values only are written under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, file: fs::File) -> Claimed<fs::File> {
        self.held.claims.hold(file, self.held.owner.clone())
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:010}.seg"))
    }

    fn done_path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:010}.done"))
    }

    fn current(&self) -> MutexGuard<'_, Option<(u64, Claimed<fs::File>)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment is finished, and the disk may have no room to write that down. Its name says so before its space is
    /// given back, so a crash between the two repeats and loses nothing.
    fn retire(&self, number: u64) -> io::Result<()> {
        let done = self.done_path(number);
        match fs::rename(self.path(number), &done) {
            Ok(()) => {
                self.state().retired.insert(number);
                fs::OpenOptions::new().write(true).open(&done)?.set_len(0)
            }
            Err(error) => writer::gone_is_fine(error),
        }
    }
}

/// The disk, or the quota, has no room left.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A spool that was opened.
pub struct Opened {
    pub writer: Writer,
    pub reader: Reader,
    /// Oddities that do not stop a start.
    pub notes: Vec<String>,
    /// The directory was empty, without even the files that an empty spool leaves at a stop.
    pub is_new: bool,
}

/// Opens a spool, making its directory if it is not there.
pub fn open(dir: &Path, config: &settings::Spool, held: SpoolOwner) -> io::Result<Opened> {
    names::make_dir(dir)?;
    let mut state = State { dir_id: Some(names::id(&fs::metadata(dir)?)), ..State::default() };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((number, kind)) = name.split_once('.') else { continue };
        let number = number.parse::<u64>().ok().filter(|number| *number > 0 && *number < u64::MAX);
        match (number, kind) {
            (Some(number), "seg") => drop(state.segments.insert(number, Segment::of(&entry.metadata()?))),
            (Some(number), "done") => drop(state.retired.insert(number)),
            // Its copying was interrupted.
            (Some(_), names::COPY) => fs::remove_file(entry.path()).or_else(writer::gone_is_fine)?,
            _ => {}
        }
    }
    let mut notes = Vec::new();
    let lengths: BTreeMap<u64, u64> =
        state.segments.iter().map(|(number, segment)| (*number, segment.len)).collect();
    let cursor = cursor::load(dir).unwrap_or_else(|why| {
        notes.push(format!(
            "its cursor was unreadable ({why}): the spool is delivered from its beginning, so some lines are repeated"
        ));
        None
    });
    if cursor.is_none() && notes.is_empty() && !state.segments.is_empty() {
        let note = "it has no cursor: the spool is delivered from its beginning, so some lines are repeated";
        notes.push(note.to_owned());
    }
    let is_new = cursor.is_none() && notes.is_empty() && lengths.is_empty() && state.retired.is_empty();
    let said = cursor::Said { dropped: cursor::load_dropped(dir), done: state.retired.clone() };
    let start = cursor::resume(cursor.as_ref(), &lengths, &said);
    state.read = start.read;
    for (place, open) in &start.open {
        *state.open.entry(place.segment).or_default() += u64::from(open.len);
    }
    let last = state.segments.last_key_value().map_or(0, |(number, _)| *number);
    let next = last.max(state.retired.last().copied().unwrap_or(0)) + 1;
    // A cursor can name a segment that a power cut took; new records must not come before it.
    let next = next.max(start.next_min);
    state.committed = Position { segment: next, offset: 0 };
    let shared = Arc::new(Shared {
        dir: dir.to_owned(),
        config: config.clone(),
        held,
        state: Mutex::new(state),
        current: Mutex::new(None),
    });
    let segment_bytes = (config.bytes_max / 16).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    let writer = Writer::new(Arc::clone(&shared), next, segment_bytes);
    let mut reader = Reader::new(shared, start);
    if is_new && let Err(error) = reader.save() {
        notes.push(format!("saving that it is empty: {error}"));
    }
    Ok(Opened { writer, reader, notes, is_new })
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
