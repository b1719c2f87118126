//! A network sink's queue on disk: what was taken from capture and not yet delivered. It holds lines that the host may
//! rotate away during a long outage, and lets the sink's reading go on while the network is slow.
//!
//! ```text
//! sink thread ─ Writer: append … commit (one sync for several) ─▶ NNNNNNNNNN.seg ─ Reader: next ─▶ delivery
//!                          ▲ full: wait or drop the oldest                           │ forget: unlink, `cursor`
//!                          └────────────────────── State (what is where) ◀───────────┘
//! ```
//! Only what was committed is read, so nothing is sent that a power cut could take back from under its position. A
//! start always begins a new segment: a torn end stays behind, where the reader passes it over and says so.
//!
//! Records are delivered in any order, for one label set may wait long while others go on. So the cursor file names the
//! place up to which was read and each record before it that is not delivered; it lists the segments with their lengths
//! too, so that one that is gone or cut is noticed. A segment of which nothing is left is removed. Where little is left
//! of one, the room of the rest is given back to the file system (a hole), so that one label set that waits does not fill
//! the disk with what others delivered; `shares.rs` bounds what it takes itself. Without a cursor file reading begins at the
//! oldest segment and repeats lines.
//!
//! A full disk must not keep the spool from getting smaller: the cursor is written into room that it has already, and where
//! even that fails, a delivered segment is renamed (`.done`) and emptied, which takes no room. A `.done` says at the next
//! start that its segment needs nothing more; it goes once a saved cursor says so.
//!
//! Somebody may remove the directory while the agent runs: `names.rs` sees that and puts back what is still open.
//!
//! Not here: what the bytes mean, and who gets them.

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

/// A segment is at least and at most so long; between them a sixteenth of the whole.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;
/// What was read and what was delivered; see `cursor.rs`.
const CURSOR_FILE: &str = "cursor";
/// Number of the last segment that made room for newer ones.
const DROPPED_FILE: &str = "dropped";

/// A place in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Byte offset in it.
    pub offset: u64,
}

/// For whom the spool's files are open.
#[derive(Clone, Debug)]
pub struct Held {
    /// Where that is told.
    pub claims: Claims,
    /// The sink that owns its descriptors.
    pub owner: Owner,
}

/// What writer and reader share.
struct Shared {
    dir: PathBuf,
    config: settings::Spool,
    held: Held,
    state: Mutex<State>,
    /// The segment that is being written, if one is open. The writer has it locked while it writes, and the reader while it
    /// puts the file back under its name.
    current: Mutex<Option<(u64, Claimed<fs::File>)>>,
}

#[derive(Debug, Default)]
struct State {
    segments: BTreeMap<u64, Segment>,
    /// Up to where may be read.
    committed: Position,
    /// Up to where was read.
    read: Position,
    /// By segment: bytes of records that were read and are not delivered.
    open: BTreeMap<u64, u64>,
    /// Bytes given up because the spool was full, not delivered before.
    dropped_bytes: u64,
    /// What label sets that are held back may put in.
    shares: Shares,
    /// Segments of which a `.done` is left.
    retired: BTreeSet<u64>,
    /// Segments that have another file than before, since the reader looked last.
    renewed: BTreeSet<u64>,
    /// A name was found gone; the reader has not looked yet what else is.
    names_lost: bool,
    /// Segments that got their names back since.
    put_back: usize,
    /// Device and inode of the directory.
    dir_id: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    len: u64,
    /// Bytes that it takes on disk: fewer than `len` once there are holes in it.
    used: u64,
}

impl Segment {
    /// Of a file that is there.
    fn of(metadata: &fs::Metadata) -> Segment {
        use std::os::unix::fs::MetadataExt as _;
        Segment { len: metadata.len(), used: metadata.len().min(metadata.blocks() * 512) }
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.used).sum()
    }

    /// Bytes of a segment that nobody has.
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

    /// A segment needs nothing more, and there may be no room on the disk to write that down. It is said by its name before
    /// its bytes are given back, so a crash between the two repeats nothing and loses nothing.
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

/// There is no room left on the disk, or in the quota.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A spool that was opened.
pub struct Opened {
    pub writer: Writer,
    pub reader: Reader,
    /// What was odd; none of it stops a start.
    pub notes: Vec<String>,
    /// Nothing was there, not even what an empty spool leaves at a stop.
    pub is_new: bool,
}

/// Opens a spool, making its directory if it is not there.
pub fn open(dir: &Path, config: &settings::Spool, held: Held) -> io::Result<Opened> {
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
            // Its copying was cut off.
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
    // A cursor can name a segment that a power cut took; what is written now must not lie before it.
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
