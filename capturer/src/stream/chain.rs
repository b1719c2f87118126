//! A followed path is a chain of files: the live one and its rotated kin, read oldest first. This module keeps the
//! chain in step with what scans of the directory show, and turns positions into cursors and back.
//!
//! A file is known by device, inode and birth time, not by its name, which rotation changes, nor by its inode alone,
//! which comes back after two or three rotations. A compressed file has a new inode: it is known by its first bytes.
//!
//! Positions are counted logically: bytes since the stream's first file in this run, through all files. So "is this
//! record behind that one" stays a comparison of two numbers when the chain moves on.

use std::collections::VecDeque;

use crate::capture::io::{FileNo, FoundFile};
use crate::cursor::{Cursor, FileCursor, FileId, FilePlace, HeadPrint};
use crate::limits::HEAD_BYTES;

/// Whether a link's file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    /// Not opened yet.
    None,
    /// The opening is under way.
    Opening(FileNo),
    /// Open.
    Open(FileNo),
}

/// One file of the chain.
#[derive(Debug)]
pub struct Link {
    /// As last found; the name is only good until the next rotation.
    pub found: FoundFile,
    /// Print of its head, as long as was seen.
    pub head: HeadPrint,
    /// Its file.
    pub handle: Handle,
    /// Next byte to read.
    pub offset: u64,
    /// Longest length seen.
    pub len: u64,
    /// No longer the live file: it will not grow.
    pub settled: bool,
    /// No longer in the directory: only its open file can still be read.
    pub deleted: bool,
    /// There may be bytes behind `offset`.
    pub unread: bool,
}

/// What a scan changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that vanished before they were opened: (name, bytes unread as far as known).
    pub lost: Vec<(String, u64)>,
    /// The resume position's file is nowhere: what it still held, and maybe whole files behind it, are gone.
    pub resume_lost: bool,
    /// The live file shrank behind the position: (bytes it had beyond what was read, its new length).
    pub truncated: Option<(u64, u64)>,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Oldest file first.
    Oldest,
    /// The live file, from its first byte.
    Live,
    /// The live file, from its end.
    End,
    /// A saved position.
    Resume(FileCursor),
}

/// The chain. `links[0]` is being read.
#[derive(Debug)]
pub struct Chain {
    start: Option<Start>,
    /// Oldest first.
    pub links: VecDeque<Link>,
    /// Logical position of `links[0]`'s first byte.
    base: u64,
    /// Files that positions may still point into: (logical position of the first byte, identity, head).
    marks: VecDeque<(u64, FileId, HeadPrint)>,
    /// The file that was finished last.
    finished: Option<(FileId, HeadPrint)>,
    /// Per channel: records that begin before this logical position were delivered in an earlier run.
    pub delivered_to: [u64; 2],
}

impl Chain {
    /// An empty chain.
    pub fn new(start: Start) -> Chain {
        Chain {
            start: Some(start),
            links: VecDeque::new(),
            base: 0,
            marks: VecDeque::new(),
            finished: None,
            delivered_to: [0; 2],
        }
    }

    /// Brings the chain in step with what is in the directory.
    pub fn on_scan(&mut self, mut found: Vec<FoundFile>) -> Changes {
        // Oldest first. While Docker compresses, `.1` and `.1.gz` both exist for a moment: the whole one counts.
        found.sort_by_key(|file| (std::cmp::Reverse(file.rank), file.compressed));
        found.dedup_by_key(|file| file.rank);
        match self.start.take() {
            Some(start) => self.begin(start, found),
            None => self.follow(found),
        }
    }

    fn begin(&mut self, start: Start, mut found: Vec<FoundFile>) -> Changes {
        let mut changes = Changes::default();
        if found.is_empty() {
            // Not made yet. A saved position waits for its file; anything else begins with the first byte to come.
            self.start = Some(if matches!(start, Start::Resume(_)) { start } else { Start::Oldest });
            return changes;
        }
        let (from, offset) = match &start {
            Start::Oldest => (0, 0),
            Start::Live => (found.len() - 1, 0),
            Start::End => (found.len() - 1, found[found.len() - 1].len),
            Start::Resume(cursor) => self.resume(cursor, &found, &mut changes),
        };
        found.drain(..from);
        self.links.extend(found.into_iter().map(link));
        self.links[0].offset = offset;
        self.settle();
        self.mark_front();
        changes
    }

    /// Which file to go on in, and where.
    fn resume(&mut self, cursor: &FileCursor, found: &[FoundFile], changes: &mut Changes) -> (usize, u64) {
        match find(found, cursor.file, &cursor.head) {
            Place::Same(at) => {
                self.delivered_to = cursor.skip.map(|skip| cursor.offset + skip);
                return (at, cursor.offset);
            }
            Place::Truncated(at) => {
                changes.truncated = Some((0, found[at].len));
                return (at, 0);
            }
            Place::Nowhere => changes.resume_lost = true,
        }
        match cursor.reached.map(|reached| (reached.offset, find(found, reached.file, &reached.head))) {
            Some((offset, Place::Same(at))) => (at, offset),
            _ => (0, 0),
        }
    }

    fn follow(&mut self, found: Vec<FoundFile>) -> Changes {
        let mut changes = Changes::default();
        let mut seen = vec![false; self.links.len()];
        let mut newest_known = None;
        for (at, file) in found.iter().enumerate() {
            let same = |id: FileId, head: &HeadPrint| is_same(file, id, head);
            if let Some(index) =
                self.links.iter().position(|link| link.is_in(file) || same(link.found.id, &link.head))
            {
                seen[index] = true;
                self.links[index].meet(file);
                newest_known = Some(at);
            } else if self.finished.is_some_and(|(id, head)| same(id, &head)) {
                newest_known = Some(at);
            }
        }
        for (link, seen) in self.links.iter_mut().zip(&seen) {
            link.deleted = !seen;
            if link.deleted && link.handle == Handle::None {
                changes.lost.push((link.found.name.clone(), link.len.saturating_sub(link.offset)));
            }
        }
        self.links.retain(|link| !(link.deleted && link.handle == Handle::None));
        let new = newest_known.map_or(0, |at| at + 1);
        self.links.extend(found.into_iter().skip(new).map(link));
        self.settle();
        if self.marks.is_empty() {
            self.mark_front();
        }
        changes.truncated = self.rewritten();
        changes
    }

    /// All but the newest file are done growing; so is the newest if it is not the live one.
    fn settle(&mut self) {
        let last = self.links.len().saturating_sub(1);
        for (at, link) in self.links.iter_mut().enumerate() {
            let settled = at < last || link.deleted || link.found.rank > 0;
            if settled && !link.settled {
                link.settled = true;
                link.unread = true;
            }
        }
    }

    /// The file being read begins otherwise than it did: truncated in place and written again. Its first bytes never
    /// change otherwise, so a scan can tell, however old it is. That it is shorter a scan can't tell, for reading went
    /// on meanwhile: see [`Chain::on_short`].
    fn rewritten(&mut self) -> Option<(u64, u64)> {
        let front = self.links.front_mut()?;
        let judged = front.found.head.len() >= front.head.len_bytes as usize;
        if front.deleted || !front.is_in(&front.found) || !judged || front.found.has_head(&front.head) {
            return None;
        }
        front.head = front.found.print();
        let len = front.found.len;
        Some(self.begin_front_again(len))
    }

    /// The file being read has this length now, by its descriptor. If that is less than what was read of it, it was
    /// truncated and is read from its beginning again. As [`Changes::truncated`].
    pub fn on_short(&mut self, len: u64) -> Option<(u64, u64)> {
        let front = self.links.front_mut().filter(|front| len < front.offset)?;
        front.head = HeadPrint::default();
        Some(self.begin_front_again(len))
    }

    fn begin_front_again(&mut self, len: u64) -> (u64, u64) {
        let Some(front) = self.links.front_mut() else { return (0, len) };
        let unread = front.len.saturating_sub(front.offset);
        self.base += front.offset;
        front.offset = 0;
        front.len = len;
        front.unread = true;
        self.delivered_to = [0; 2];
        self.mark_front();
        (unread, len)
    }

    /// The first file is read to its end: go on with the next. Returns the finished one's file.
    pub fn finish_front(&mut self) -> Option<FileNo> {
        let front = self.links.pop_front()?;
        self.base += front.offset;
        self.finished = Some((front.found.id, front.head));
        self.mark_front();
        match front.handle {
            Handle::Open(file) => Some(file),
            Handle::None | Handle::Opening(_) => None,
        }
    }

    fn mark_front(&mut self) {
        if let Some(front) = self.links.front() {
            self.marks.push_back((self.base, front.found.id, front.head));
        }
    }

    /// Bytes at the front's beginning were read: its print may be known better now.
    pub fn saw_head(&mut self, bytes: &[u8]) {
        let Some(front) = self.links.front_mut() else { return };
        let len = bytes.len().min(HEAD_BYTES);
        if front.head.len_bytes as usize >= len {
            return;
        }
        front.head = HeadPrint { len_bytes: len as u32, crc32: crc32fast::hash(&bytes[..len]) };
        if let Some(mark) = self.marks.back_mut() {
            mark.2 = front.head;
        }
    }

    /// Logical position of the next byte to read.
    pub fn position(&self) -> u64 {
        self.base + self.links.front().map_or(0, |front| front.offset)
    }

    /// The cursor for a stream whose oldest open line began at `oldest_open` and whose channels' open lines began at
    /// `open` (logical positions).
    pub fn cursor(&mut self, oldest_open: Option<u64>, open: [Option<u64>; 2]) -> Cursor {
        let position = self.position();
        let from = oldest_open.unwrap_or(position);
        while self.marks.len() > 1 && self.marks[1].0 <= from {
            self.marks.pop_front();
        }
        let Some((base, file, head)) = self.marks.front().copied() else { return Cursor::Beginning };
        let skip = open.map(|open| open.unwrap_or(position) - from);
        let reached = self.marks.back().filter(|mark| mark.0 > from);
        let reached =
            reached.map(|(base, file, head)| FilePlace { file: *file, head: *head, offset: position - base });
        Cursor::File(FileCursor { file, head, offset: from - base, skip, reached })
    }

    /// Bytes known to be unread.
    pub fn unread_bytes(&self) -> u64 {
        self.links.iter().map(|link| link.len.saturating_sub(link.offset)).sum()
    }

    /// Bytes of deleted files that are held open to be read.
    pub fn deleted_open_bytes(&self) -> u64 {
        let held = self.links.iter().filter(|link| link.deleted);
        held.map(|link| link.len.saturating_sub(link.offset)).sum()
    }
}

fn link(found: FoundFile) -> Link {
    Link {
        head: found.print(),
        handle: Handle::None,
        offset: 0,
        len: found.len,
        settled: false,
        deleted: false,
        unread: true,
        found,
    }
}

impl Link {
    /// An inode that is held open can't become another file: whatever its content is now, it is this link's.
    fn is_in(&self, file: &FoundFile) -> bool {
        let same_inode = (self.found.id.device, self.found.id.inode) == (file.id.device, file.id.inode);
        same_inode && matches!(self.handle, Handle::Open(_)) && !file.compressed
    }

    fn meet(&mut self, file: &FoundFile) {
        if file.compressed == self.found.compressed {
            self.len = self.len.max(file.len);
        }
        if file.head.len() > self.head.len_bytes as usize && file.has_head(&self.head) {
            self.head = file.print();
        }
        // Once open, the file itself counts; its compressed twin is only a new name for it.
        if self.handle == Handle::None || !file.compressed {
            self.found = file.clone();
        }
        if self.found.rank == 0 && file.rank > 0 {
            self.found.rank = file.rank;
        }
    }
}

/// The same file: by identity, or by its first bytes if it was compressed meanwhile. A short print proves nothing.
fn is_same(file: &FoundFile, id: FileId, head: &HeadPrint) -> bool {
    if file.compressed && file.id != id {
        return head.len_bytes >= HEAD_BYTES_PROOF && file.has_head(head);
    }
    file.id == id && file.has_head(head)
}

/// First bytes enough to know a compressed file by: a json-file record is at least so long and carries its time to
/// the nanosecond.
const HEAD_BYTES_PROOF: u32 = 50;

/// Where a saved position is now.
enum Place {
    /// In this file.
    Same(usize),
    /// This is its file, but it was truncated and written anew; nobody has a copy.
    Truncated(usize),
    /// Its file is gone.
    Nowhere,
}

fn find(found: &[FoundFile], id: FileId, head: &HeadPrint) -> Place {
    if let Some(at) = found.iter().position(|file| is_same(file, id, head)) {
        return Place::Same(at);
    }
    // Without a birth time it may as well be another file with the same number.
    let truncated = found.iter().position(|file| file.rank == 0 && file.id == id && id.birth_ns != 0);
    let Some(truncated) = truncated else { return Place::Nowhere };
    // Rotation by copying first left its content in a sibling.
    let is_copy =
        |file: &FoundFile| file.rank > 0 && head.len_bytes >= HEAD_BYTES_PROOF && file.has_head(head);
    found.iter().position(is_copy).map_or(Place::Truncated(truncated), Place::Same)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
