//! What a start does with the outputs of the last run: nothing in them is cut off but a torn end, for nobody knows yet
//! whether its source still exists.
//!
//! ```text
//! mark ─▶ its file: under the output's name, rotated, renamed by somebody, or known by its print
//!      ─▶ what was written after it, in this file and in those begun since ─▶ overhang.rs
//! ```
//! A file that is shorter than its mark, or has other bytes before it, was emptied or cut since. Its first bytes tell
//! whether its content is left from before or was written after the mark.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::beneath::{identify, open_file, open_parent};
use super::keys::source_hash;
use super::overhang::{Overhangs, Part, Segment};
use super::{Restored, generations};
use crate::limits::{OUTPUT_OVERHANG_BYTES_MAX, OUTPUT_PRINT_BYTES};
use crate::model::cursor::{FileId, HeadPrint};
use crate::model::record::{OutputMark, OutputPrint, Uncovered};
use crate::settings::OutputFormat;
use crate::text::counted::{counted, which};

const CHUNK_BYTES: usize = 1024 * 1024;
/// After this long no source is expected to come back for records that a crash left uncovered.
const UNCOVERED_S_MAX: u64 = 24 * 3600;

/// How the outputs are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ways<'a> {
    pub(super) format: OutputFormat,
    /// One output may hold several sources.
    pub(super) shared: bool,
    /// As configured, for messages.
    pub(super) directory: &'a Path,
    pub(super) now_s: u64,
}

/// Restores the output of each mark.
pub(super) fn restore(
    root: &OwnedFd,
    ways: Ways<'_>,
    marks: &BTreeMap<Arc<str>, OutputMark>,
) -> (Restored, Overhangs) {
    let mut work = Work {
        root,
        ways,
        overhangs: Overhangs::default(),
        restored: Restored::default(),
        bytes_left: OUTPUT_OVERHANG_BYTES_MAX,
        inodes: BTreeMap::new(),
    };
    let mut gone = BTreeSet::new();
    // What an earlier crash left is older than what stands behind any mark: a source may have another output since then, as
    // a container does that was renamed.
    let taken: Vec<io::Result<()>> = marks.values().map(|mark| work.take_uncovered(mark)).collect();
    // The agent may be killed again before any stream is attached: with these marks the next start must find everything
    // that this one found.
    for (mark, taken) in marks.values().zip(taken) {
        let restored = taken.and_then(|()| work.restore(mark)).unwrap_or_else(|error| {
            let is_gone = error.kind() == io::ErrorKind::NotFound;
            // This happens for a file that is no text: its output was empty, and was removed.
            if !is_gone || mark.len_bytes > 0 {
                let had = counted(mark.len_bytes, "byte");
                work.note(&mark.path, &format!("can't be continued ({error}); it had {had}"));
            }
            if is_gone {
                gone.insert(mark.path.clone());
            }
            mark.clone()
        });
        work.restored.marks.insert(mark.path.clone(), restored);
    }
    let Work { mut overhangs, mut restored, .. } = work;
    for (path, mark) in &mut restored.marks {
        let found = overhangs.uncovered(path);
        // For an output that can't be read now, the earlier knowledge stays.
        if !found.is_empty() || gone.contains(path) {
            mark.uncovered = found;
        }
    }
    restored.marks.retain(|path, mark| !mark.uncovered.is_empty() || !gone.contains(path));
    (restored, overhangs)
}

/// A print of a file's first bytes and of the last before a length.
pub(super) fn print_of(file: &OwnedFd, len: u64) -> io::Result<OutputPrint> {
    let bytes = (OUTPUT_PRINT_BYTES as u64).min(len);
    let print = |at| -> io::Result<HeadPrint> {
        let mut buffer = vec![0; bytes as usize];
        read_all(file, &mut buffer, at)?;
        Ok(HeadPrint { len_bytes: bytes as u32, crc32: crc32fast::hash(&buffer) })
    };
    Ok(OutputPrint { head: print(0)?, tail: print(len - bytes)? })
}

fn read_all(file: &OwnedFd, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let count = rustix::io::pread(file, &mut *buffer, at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (buffer, at) = (&mut buffer[count..], at + count as u64);
    }
    Ok(())
}

struct Work<'a> {
    root: &'a OwnedFd,
    ways: Ways<'a>,
    overhangs: Overhangs,
    restored: Restored,
    bytes_left: u64,
    /// Names by inode number, by directory; made when a file is missing.
    inodes: BTreeMap<String, BTreeMap<u64, Vec<String>>>,
}

struct Found {
    file: OwnedFd,
    id: FileId,
    len: u64,
}

impl Found {
    fn open(dir: &OwnedFd, name: &str) -> io::Result<Found> {
        let file = open_file(dir, name, OFlags::empty(), 0)?;
        let (id, len) = identify(&file)?;
        Ok(Found { file, id, len })
    }

    fn begins_as(&self, print: HeadPrint) -> bool {
        self.has(print, 0)
    }

    fn has(&self, print: HeadPrint, at: u64) -> bool {
        let mut buffer = vec![0; print.len_bytes.min(OUTPUT_PRINT_BYTES as u32) as usize];
        read_all(&self.file, &mut buffer, at).is_ok() && crc32fast::hash(&buffer) == print.crc32
    }

    /// Whether the file still has what was written up to the mark.
    fn holds(&self, mark: &OutputMark) -> bool {
        self.len >= mark.len_bytes
            && mark.print.is_none_or(|print| {
                let tail_at = mark.len_bytes.saturating_sub(u64::from(print.tail.len_bytes));
                self.begins_as(print.head) && self.has(print.tail, tail_at)
            })
    }

    /// Whether this is the file of the mark, though its numbers may have changed: a network file system or a copy has
    /// other ones.
    fn is_marked(&self, mark: &OutputMark) -> bool {
        mark.file.can_be(self.id) || (mark.print.is_some() && mark.len_bytes > 0 && self.holds(mark))
    }
}

impl Work<'_> {
    fn restore(&mut self, mark: &OutputMark) -> io::Result<OutputMark> {
        let path = Arc::clone(&mark.path);
        let (dir, live) = open_parent(self.root, &path, false)?;
        let live_found = Found::open(&dir, live);
        let mut newest = None;
        let (from, ours) = match &live_found {
            Ok(found) if found.is_marked(mark) => (self.behind_mark(found, mark), true),
            _ => {
                newest = self.elsewhere(&dir, live, &path, mark)?;
                (0, newest.is_some())
            }
        };
        let mut live = match live_found {
            Ok(live) => live,
            // What was written went where the file went; the name begins a new file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return newest.map_or(Err(error), |newest| self.mark_of(&path, &newest));
            }
            Err(error) => return Err(error),
        };
        let part = self.part(&path, &live, from, live.len, None)?;
        if part.end < live.len && (ours || part.records > 0) && self.cut_torn(&path, &live, part.end)? {
            live.len = part.end;
        }
        if part.records > 0 {
            let bytes = part.end - from;
            self.note(
                &path,
                &format!(
                    "holds {} ({bytes} bytes) written after the last checkpoint, which {} not written again",
                    counted(part.records, "record"),
                    which(part.records, "stays, and is", "stay, and are")
                ),
            );
        }
        if !ours && part.records == 0 {
            self.note(
                &path,
                "is a different file than before; its content stays, and new records are appended",
            );
        }
        self.mark_of(&path, &live)
    }

    /// The mark at the end of a file; uncovered parts of other outputs are added later.
    fn mark_of(&self, path: &Arc<str>, found: &Found) -> io::Result<OutputMark> {
        let print = Some(print_of(&found.file, found.len)?);
        let path = path.clone();
        Ok(OutputMark { path, file: found.id, len_bytes: found.len, print, uncovered: Vec::new() })
    }

    /// Where the content begins that was written after the mark.
    fn behind_mark(&mut self, found: &Found, mark: &OutputMark) -> u64 {
        if found.holds(mark) {
            return mark.len_bytes;
        }
        let begins_as_before = match mark.print {
            Some(print) => found.begins_as(print.head),
            None => found.len > 0,
        };
        if begins_as_before && found.len < mark.len_bytes {
            self.note(&mark.path, &format!(
                "is {} shorter than at the last checkpoint: somebody cut it, or the machine lost power; what is \
                 missing is not written again",
                counted(mark.len_bytes - found.len, "byte")
            ));
            return found.len;
        }
        self.note(&mark.path, "was emptied by somebody since the last checkpoint");
        0
    }

    /// Looks through the mark's file under another name, and the files begun since. Returns the newest of them; `None`
    /// = the file is not there.
    fn elsewhere(
        &mut self,
        dir: &OwnedFd,
        live: &str,
        path: &Arc<str>,
        mark: &OutputMark,
    ) -> io::Result<Option<Found>> {
        let older = generations::list(dir, live)?;
        let unpacked = older.iter().filter(|older| !older.packed).map(|older| older.name.clone());
        let names: Vec<String> = unpacked.collect();
        let mut parts = Vec::new();
        let is_it = |name: &String| Found::open(dir, name).is_ok_and(|found| found.is_marked(mark));
        if let Some(at) = names.iter().rposition(is_it) {
            parts.extend_from_slice(&names[at..]);
            self.note(
                path,
                &format!(
                    "was rotated {} after the last checkpoint",
                    counted((names.len() - at) as u64, "time")
                ),
            );
        } else if let Some(name) = self.by_inode(dir, path, mark.file, |found| found.holds(mark))? {
            self.note(path, &format!("was renamed to {name} by somebody; a new file takes its place"));
            parts.push(name);
        }
        let mut newest = None;
        for (index, name) in parts.iter().enumerate() {
            let found = Found::open(dir, name)?;
            let from = if index == 0 && found.holds(mark) { mark.len_bytes } else { 0 };
            self.part(path, &found, from, found.len, None)?;
            newest = Some(found);
        }
        Ok(newest)
    }

    /// Finds a file that somebody renamed within the directory of its output.
    fn by_inode(
        &mut self,
        dir: &OwnedFd,
        path: &str,
        file: FileId,
        is_it: impl Fn(&Found) -> bool,
    ) -> io::Result<Option<String>> {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if !self.inodes.contains_key(parent) {
            let mut inodes: BTreeMap<u64, Vec<String>> = BTreeMap::new();
            for entry in rustix::fs::Dir::read_from(dir)? {
                let entry = entry?;
                if let Ok(name) = entry.file_name().to_str() {
                    inodes.entry(entry.ino()).or_default().push(name.to_owned());
                }
            }
            self.inodes.insert(parent.to_owned(), inodes);
        }
        let names = self.inodes[parent].get(&file.inode);
        let is_it =
            |name: &&String| Found::open(dir, name).is_ok_and(|found| file.can_be(found.id) && is_it(&found));
        Ok(names.into_iter().flatten().find(is_it).cloned())
    }

    fn take_uncovered(&mut self, mark: &OutputMark) -> io::Result<()> {
        if mark.uncovered.is_empty() {
            return Ok(());
        }
        let (dir, live) = open_parent(self.root, &mark.path, false)?;
        mark.uncovered.iter().try_for_each(|part| self.uncovered(&dir, live, &mark.path, part))
    }

    /// Takes up what an earlier crash left of a source that has not come back.
    fn uncovered(&mut self, dir: &OwnedFd, live: &str, path: &Arc<str>, part: &Uncovered) -> io::Result<()> {
        if self.ways.now_s.saturating_sub(part.since_s) > UNCOVERED_S_MAX {
            return Ok(());
        }
        let older = generations::list(dir, live)?.into_iter().filter(|older| !older.packed);
        let names = older.map(|older| older.name).chain([live.to_owned()]);
        let is_it = |found: &Found| part.file.can_be(found.id) && found.len >= part.to;
        let mut found = names.filter_map(|name| Found::open(dir, &name).ok()).find(is_it);
        if found.is_none()
            && let Some(name) = self.by_inode(dir, path, part.file, is_it)?
        {
            found = Some(Found::open(dir, &name)?);
        }
        let Some(found) = found else { return Ok(()) };
        self.part(path, &found, part.from, part.to, Some(part)).map(drop)
    }

    /// Takes up the records of a part of a file; only those of one source, if asked to.
    fn part(
        &mut self,
        path: &Arc<str>,
        found: &Found,
        from: u64,
        to: u64,
        only: Option<&Uncovered>,
    ) -> io::Result<TakenUp> {
        let mut taken = TakenUp { end: from, records: 0 };
        if from >= to {
            return Ok(taken);
        }
        let segment = Segment { path: Arc::clone(path), file: found.id, to };
        let part = Part {
            format: self.ways.format,
            segment: self.overhangs.add_segment(segment),
            nameless: source_hash(&[path.as_bytes()]),
            until_ns: modified_ns(&found.file)?,
            mixed: self.ways.shared && self.ways.format != OutputFormat::Ndjson,
            since_s: only.map_or(self.ways.now_s, |only| only.since_s),
            only: only.map(|only| only.source),
        };
        let (mut text, mut read) = (Vec::new(), from);
        while read < to {
            let count = (CHUNK_BYTES as u64).min(to - read);
            let old = text.len();
            text.resize(old + count as usize, 0);
            read_all(&found.file, &mut text[old..], read)?;
            read += count;
            if self.bytes_left < count {
                self.note(path, &format!(
                    "{} bytes after the last checkpoint are too many to compare; lines of theirs that are read again will \
                     be in the output twice",
                    to - taken.end
                ));
                return Ok(TakenUp { end: to, ..taken });
            }
            self.bytes_left -= count;
            let (end, records) = self.overhangs.add_lines(&part, &text, taken.end);
            text.drain(..(end - taken.end) as usize);
            taken = TakenUp { end, records: taken.records + records };
        }
        self.overhangs.end_segment(part.segment, taken.end);
        Ok(taken)
    }

    /// Cuts off an incomplete record at the end, left by the last run. False = it is not ours.
    fn cut_torn(&mut self, path: &str, live: &Found, end: u64) -> io::Result<bool> {
        let mut first = [0];
        read_all(&live.file, &mut first, end)?;
        let json = matches!(self.ways.format, OutputFormat::Ndjson | OutputFormat::Docker);
        if json && first != *b"{" {
            return Ok(false);
        }
        rustix::fs::ftruncate(&live.file, end)?;
        self.note(
            path,
            &format!("ended with an incomplete record: {} cut off", counted(live.len - end, "byte")),
        );
        Ok(true)
    }

    fn note(&mut self, path: &str, text: &str) {
        self.restored.notes.push(format!("{} {text}", self.ways.directory.join(path).display()));
    }
}

struct TakenUp {
    /// The offset after its last whole line.
    end: u64,
    /// Records in it.
    records: u64,
}

fn modified_ns(file: &OwnedFd) -> io::Result<i64> {
    let stat = rustix::fs::fstat(file)?;
    Ok(stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64)
}
