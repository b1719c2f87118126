//! A network sink's queue on disk: what was taken from capture and not yet delivered. It holds lines that the host may
//! rotate away during a long outage, and lets the sink's reading go on while the network is slow.
//!
//! ```text
//! sink thread ─ Writer: append … commit (one sync for several) ─▶ NNNNNNNNNN.seg ─ Reader: next ─▶ delivery
//!                          ▲ full: wait or drop the oldest                           │ forget: unlink, `cursor`
//!                          └────────────────────── State (what is where) ◀───────────┘
//! ```
//! Only what was committed is read, so nothing is sent that a power cut could take back from under its position. A
//! start always begins a new segment: a torn end stays behind, where the reader passes it over and says so. The cursor
//! file says up to where all was delivered; without it reading begins at the oldest segment and repeats some lines.
//!
//! Not here: what the bytes mean, and who gets them.

pub mod format;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::settings;

pub use reader::{Read, Reader};
pub use writer::{AppendError, Writer};

/// A segment is at least and at most so long; between them a sixteenth of the whole.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=16 * 1024 * 1024;
/// Where all before it was delivered.
const CURSOR_FILE: &str = "cursor";

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
    /// The sink.
    pub owner: Owner,
}

/// What writer and reader share.
struct Shared {
    dir: PathBuf,
    config: settings::Spool,
    held: Held,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of each segment on disk.
    segments: BTreeMap<u64, u64>,
    /// Up to where may be read.
    committed: Position,
    /// Up to where was read.
    read: Position,
    /// Bytes given up because the spool was full, not read before.
    dropped_bytes: u64,
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.values().sum()
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
}

/// Opens a spool, making its directory if it is not there. The notes say what was odd; none stops a start.
pub fn open(dir: &Path, config: &settings::Spool, held: Held) -> io::Result<(Writer, Reader, Vec<String>)> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut state = State::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_suffix(".seg").and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number.filter(|number| *number > 0 && *number < u64::MAX) {
            state.segments.insert(number, entry.metadata()?.len());
        }
    }
    let mut notes = Vec::new();
    let first = state.segments.first_key_value().map_or(1, |(number, _)| *number);
    let next = state.segments.last_key_value().map_or(0, |(number, _)| *number) + 1;
    let begin = Position { segment: first, offset: 0 };
    state.read = match reader::load_cursor(dir) {
        // Its segment is gone, by a power cut or by hand: another one with that number must not be entered midway.
        Ok(Some(cursor)) if cursor.offset > 0 && !state.segments.contains_key(&cursor.segment) => {
            Position { segment: cursor.segment + 1, offset: 0 }.max(begin)
        }
        Ok(Some(cursor)) => cursor.max(begin),
        Ok(None) if state.segments.is_empty() => begin,
        Ok(None) => {
            notes.push(
                "it has no cursor: what is there is delivered from its beginning, some lines again"
                    .to_owned(),
            );
            begin
        }
        Err(why) => {
            notes.push(format!(
                "its cursor was unreadable ({why}): what is there is delivered from its beginning, some lines again"
            ));
            begin
        }
    };
    // A cursor can name a segment that a power cut took; what is written now must not lie before it.
    let next = next.max(state.read.segment);
    state.committed = Position { segment: next, offset: 0 };
    let read = state.read;
    let shared =
        Arc::new(Shared { dir: dir.to_owned(), config: config.clone(), held, state: Mutex::new(state) });
    let segment_bytes = (config.bytes_max / 16).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
    Ok((Writer::new(Arc::clone(&shared), next, segment_bytes), Reader::new(shared, read), notes))
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
