//! The cursor file: up to where the spool was read, which records before that are not delivered, and which segments
//! there were. Text, renamed into place, not synced: an old one repeats lines but loses none.
//!
//! Two files swap names at each save, so a save already has its space on disk: otherwise a full disk could never get
//! emptier. After the text come NULs, as reserve for a longer one.
//!
//! ```text
//! 7 4096 1a2b3c4d        all before this place was delivered, with a checksum
//! read 9 0               up to here was read
//! open 7:4096:312 …      records between the two that were not delivered: place and length
//! part=7:4096:200        so many lines of a record are done (no space: an older agent skips this line)
//! segments 7:65000 …     segments and their lengths
//! sum 5e6f7a8b           checksum of the lines above
//! ```
//! The file of an older agent only has the first line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::reader::{Open, Read};
use super::{CURSOR_FILE, DROPPED_FILE, Position};

/// The other of the two files.
const NEW_FILE: &str = "cursor.new";
/// Minimum length of the file.
const FILE_BYTES_MIN: usize = 16 * 1024;

/// Segments that are gone for a good reason.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The last one that a full spool dropped; all before it were dropped, too.
    pub dropped: u64,
    /// Segments of which a `.done` is left.
    pub done: BTreeSet<u64>,
}

impl Said {
    fn knows(&self, number: u64) -> bool {
        number <= self.dropped || self.done.contains(&number)
    }
}

/// The cursor; see the head of this file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cursor {
    pub done: Position,
    pub rest: Option<Rest>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rest {
    pub read: Position,
    pub open: BTreeMap<Position, Open>,
    pub segments: BTreeMap<u64, u64>,
}

/// Where a reader begins.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub read: Position,
    pub open: BTreeMap<Position, Open>,
    /// The next segment gets this number or a higher one.
    pub next_min: u64,
    /// What is gone though nobody reported it; to be reported first.
    pub missing: Vec<Read>,
    /// Minimum length of each segment.
    pub lengths: BTreeMap<u64, u64>,
}

pub(super) fn save(dir: &Path, cursor: &Cursor) -> io::Result<()> {
    let (new, current) = (dir.join(NEW_FILE), dir.join(CURSOR_FILE));
    write_over(&new, show(cursor).into_bytes())?;
    if renameat_with(CWD, &new, CWD, &current, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    // There is none yet, or the file system can't exchange names.
    fs::rename(&new, &current)?;
    // The next save reserves space if this one could not.
    let _ = write_over(&new, Vec::new());
    Ok(())
}

/// Writes into the space that a file already has.
fn write_over(path: &Path, mut bytes: Vec<u8>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let len = file.metadata()?.len() as usize;
    let room = bytes.len().next_power_of_two().max(FILE_BYTES_MIN);
    if len > 4 * room {
        file.set_len(room as u64)?;
    }
    bytes.resize(if len > 4 * room { room } else { len.max(room) }, 0);
    file.write_all_at(&bytes, 0)
}

/// `None` = there is no file.
pub(super) fn load(dir: &Path) -> Result<Option<Cursor>, String> {
    match fs::read(dir.join(CURSOR_FILE)) {
        Ok(bytes) => parse(String::from_utf8_lossy(&bytes).trim_end_matches('\0')).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Number of the last segment that was dropped to make room; 0 = none.
pub(super) fn load_dropped(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(DROPPED_FILE)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn show(cursor: &Cursor) -> String {
    let done = format!("{} {}", cursor.done.segment, cursor.done.offset);
    let mut text = format!("{done} {:08x}\n", crc32fast::hash(done.as_bytes()));
    if let Some(rest) = &cursor.rest {
        let _ = write!(text, "read {} {}\nopen", rest.read.segment, rest.read.offset);
        for (at, open) in &rest.open {
            let _ = write!(text, " {}:{}:{}", at.segment, at.offset, open.len);
        }
        for (at, open) in rest.open.iter().filter(|(_, open)| open.done > 0) {
            let _ = write!(text, "\npart={}:{}:{}", at.segment, at.offset, open.done);
        }
        text.push_str("\nsegments");
        for (number, len) in &rest.segments {
            let _ = write!(text, " {number}:{len}");
        }
        text.push('\n');
        let sum = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "sum {sum:08x}");
    }
    text
}

fn parse(text: &str) -> Result<Cursor, String> {
    let fields: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
    let [segment, offset, crc] = fields[..] else {
        return Err(format!("{} bytes that make no sense", text.len()));
    };
    let sum = format!("{:08x}", crc32fast::hash(format!("{segment} {offset}").as_bytes()));
    match (segment.parse(), offset.parse()) {
        (Ok(segment), Ok(offset)) if sum == crc => {
            Ok(Cursor { done: Position { segment, offset }, rest: parse_rest(text) })
        }
        _ => Err("its checksum is wrong".to_owned()),
    }
}

/// `None` = missing or damaged: then some lines are repeated, nothing worse.
fn parse_rest(text: &str) -> Option<Rest> {
    let body = &text[..text.rfind("sum ")?];
    let sum = format!("sum {:08x}\n", crc32fast::hash(body.as_bytes()));
    if text[body.len()..] != sum {
        return None;
    }
    let mut rest = Rest::default();
    for line in body.lines().skip(1) {
        if let Some(part) = line.strip_prefix("part=") {
            let [segment, offset, done] = numbers(part)?[..] else { return None };
            if let Some(open) = rest.open.get_mut(&Position { segment, offset }) {
                open.done = u32::try_from(done).ok()?;
            }
            continue;
        }
        let (name, values) = line.split_once(' ').unwrap_or((line, ""));
        for value in values.split(' ').filter(|_| name != "read").filter(|value| !value.is_empty()) {
            match (name, &numbers(value)?[..]) {
                ("open", [segment, offset, len]) => {
                    let open = Open { len: u32::try_from(*len).ok()?, ..Open::default() };
                    rest.open.insert(Position { segment: *segment, offset: *offset }, open);
                }
                ("segments", [number, len]) => drop(rest.segments.insert(*number, *len)),
                _ => return None,
            }
        }
        if name == "read" {
            let (segment, offset) = values.split_once(' ')?;
            rest.read = Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? };
        }
    }
    Some(rest)
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split(':').map(str::parse).collect::<Result<_, _>>().ok()
}

/// Where to begin with these segments on disk. Pure.
pub(super) fn resume(cursor: Option<&Cursor>, lengths: &BTreeMap<u64, u64>, said: &Said) -> Start {
    let first = lengths.first_key_value().map_or(1, |(number, _)| *number);
    let begin = Position { segment: first, offset: 0 };
    let Some(cursor) = cursor else { return Start { read: begin, ..Start::default() } };
    let rest = cursor.rest.clone().unwrap_or_else(|| Rest { read: cursor.done, ..Rest::default() });
    let lengths_then = rest.segments.clone();
    let mut start = Start { read: rest.read.max(cursor.done), lengths: lengths_then, ..Start::default() };
    let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
    for (at, open) in rest.open {
        if lengths.contains_key(&at.segment) {
            start.open.insert(at, open);
        } else if !said.knows(at.segment) {
            *lost.entry(at.segment).or_default() += u64::from(open.len);
        }
    }
    // Segments that were not read, and are gone or shorter than they were.
    for (number, len) in rest.segments.range(start.read.segment..) {
        let read = if *number == start.read.segment { start.read.offset } else { 0 };
        let there = lengths.get(number).copied().unwrap_or(0).max(read);
        if *len > there && !said.knows(*number) {
            *lost.entry(*number).or_default() += len - there;
        }
    }
    // Numbers have no gaps; the length of a segment that the list does not have yet is unknown.
    let last = lengths.last_key_value().map_or(0, |(number, _)| *number);
    let known = rest.segments.last_key_value().map_or(0, |(number, _)| *number).max(said.dropped);
    for number in (known + 1).max(start.read.segment)..last {
        if cursor.rest.is_some() && !lengths.contains_key(&number) && !said.knows(number) {
            lost.entry(number).or_default();
        }
    }
    let missing = |(number, bytes): (u64, u64)| Read::Missing { file: format!("{number:010}.seg"), bytes };
    start.missing = lost.into_iter().map(missing).collect();
    // Another segment with that number must not be entered in the middle.
    if start.read.offset > 0 && !lengths.contains_key(&start.read.segment) {
        start.read = Position { segment: start.read.segment + 1, offset: 0 };
    }
    start.read = start.read.max(begin);
    start.next_min = start.read.segment;
    start
}
