//! A followed path is a chain of files: the live one and its rotated kin, read oldest first. This module keeps the
//! chain in step with what scans of the directory show, and turns positions into cursors and back.
//!
//! A file is known by device, inode and birth time, not by its name, which rotation changes, nor by its inode alone,
//! which comes back after two or three rotations. A compressed file has a new inode: it is known by its first bytes.
//!
//! Positions are counted logically: bytes since the stream's first file in this run, through all files. So "is this
//! record behind that one" stays a comparison of two numbers when the chain moves on.

use std::collections::{BTreeSet, VecDeque};

use crate::capture::io::{FileNo, FoundFile, LaneId};
use crate::cursor::{ApiCursor, Cursor, FileCursor, FileId, FilePlace, HeadPrint};
use crate::limits::{HEAD_BYTES, PLACES_MAX};

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
    /// The file system it was opened on, if that may hang.
    pub lane: Option<LaneId>,
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
    /// It was opened by its inode number alone, which may have come back since the listing: files that were made and
    /// renamed meanwhile may stand before it. Not read until a later listing has shown them.
    pub doubted: bool,
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
    /// Behind the lines that were delivered over the API.
    After(ApiCursor),
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
    /// The last of them is `links[0]`.
    front_marked: bool,
    /// The file that was finished last.
    finished: Option<(FileId, HeadPrint)>,
    /// What the last listing showed; only as long as a link is doubted or may come to be.
    listed: Vec<(FileId, HeadPrint)>,
    /// Where an earlier run had gone on to in later files, should the first be gone before it is opened.
    reached: Vec<FilePlace>,
    /// Per channel: records that begin before this logical position were delivered in an earlier run.
    pub delivered_to: [u64; 2],
}

/// Lines of a channel that were read and not delivered, for they may go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// Where they begin, logical positions in order.
    pub starts: Vec<u64>,
    /// The last of them is not whole.
    pub in_line: bool,
}

impl Chain {
    /// An empty chain.
    pub fn new(start: Start) -> Chain {
        Chain {
            start: Some(start),
            links: VecDeque::new(),
            base: 0,
            marks: VecDeque::new(),
            front_marked: false,
            finished: None,
            listed: Vec::new(),
            reached: Vec::new(),
            delivered_to: [0; 2],
        }
    }

    /// Brings the chain in step with what is in the directory.
    pub fn on_scan(&mut self, mut found: Vec<FoundFile>) -> Changes {
        // Oldest first. While Docker compresses, `.1` and `.1.gz` both exist for a moment: the whole one counts.
        found.sort_by_key(|file| (std::cmp::Reverse(file.rank), file.compressed));
        found.dedup_by_key(|file| file.rank);
        // One file under two names: a rotation came between the looks at them, and the older name is the newer one.
        let mut seen: BTreeSet<FileId> = BTreeSet::new();
        found.retain(|file| seen.insert(file.id));
        let listed = found.iter().map(|file| (file.id, file.print())).collect();
        let changes = match self.start.take() {
            Some(start) => self.begin(start, found),
            None => self.follow(found),
        };
        let doubtful = self.links.iter().any(|link| link.doubted || !link.is_proven());
        self.listed = if doubtful { listed } else { Vec::new() };
        changes
    }

    /// The directory was listed after all that is open had been opened.
    pub fn trust_opened(&mut self) {
        let opened = self.links.iter_mut().filter(|link| matches!(link.handle, Handle::Open(_)));
        opened.for_each(|link| link.doubted = false);
    }

    fn begin(&mut self, start: Start, mut found: Vec<FoundFile>) -> Changes {
        let mut changes = Changes::default();
        if found.is_empty() {
            // Not made yet. A saved position waits for its file; anything else begins with the first byte to come.
            self.start = Some(if matches!(start, Start::Resume(_)) { start } else { Start::Oldest });
            return changes;
        }
        let (from, offset) = match &start {
            Start::Oldest | Start::After(_) => (0, 0),
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
                self.reached.clone_from(&cursor.reached);
                return (at, cursor.offset);
            }
            Place::Truncated(at) => {
                changes.truncated = Some((0, found[at].len));
                return (at, 0);
            }
            Place::Nowhere => changes.resume_lost = true,
        }
        for (number, place) in cursor.reached.iter().enumerate() {
            if let Place::Same(at) = find(found, place.file, &place.head) {
                self.delivered_to = place.skip.map(|skip| place.offset + skip);
                self.reached = cursor.reached[number + 1..].to_vec();
                return (at, place.offset);
            }
        }
        (0, 0)
    }

    /// The first file is gone unopened: goes on where an earlier run had gone on to, in the oldest file that it had reached.
    fn go_on_where_reached(&mut self) {
        let is_there = |place: &FilePlace| {
            self.links.iter().position(|link| is_same(&link.found, place.file, &place.head))
        };
        let Some((at, place)) = self.reached.iter().find_map(|place| Some((is_there(place)?, *place))) else {
            return;
        };
        if self.links.range(..=at).any(|link| link.handle != Handle::None) {
            return;
        }
        self.links.drain(..at);
        self.links[0].offset = place.offset;
        self.delivered_to = place.skip.map(|skip| self.base + place.offset + skip);
    }

    fn follow(&mut self, found: Vec<FoundFile>) -> Changes {
        let mut changes = Changes::default();
        let mut seen = vec![false; self.links.len()];
        let mut newest_known = None;
        let mut place_of_doubted = None;
        for (at, file) in found.iter().enumerate() {
            let same = |id: FileId, head: &HeadPrint| is_same(file, id, head);
            if let Some(index) = self
                .links
                .iter()
                .position(|link| link.is_in(file) || link.is_known() && same(link.found.id, &link.head))
            {
                seen[index] = true;
                self.links[index].meet(file);
                if self.links[index].doubted && place_of_doubted.is_none() {
                    place_of_doubted = Some((index, newest_known.map_or(0, |known| known + 1)..at));
                }
                newest_known = Some(at);
            } else if self.finished.is_some_and(|(id, head)| same(id, &head)) {
                newest_known = Some(at);
            } else if let Some(index) =
                self.links.iter().enumerate().position(|(at, link)| !seen[at] && link.was_copied_to(file))
            {
                seen[index] = true;
                self.links[index].meet(file);
                newest_known = Some(at);
            }
        }
        for (link, seen) in self.links.iter_mut().zip(&seen) {
            link.deleted = !seen;
            if link.deleted && link.handle == Handle::None && link.len > link.offset {
                changes.lost.push((link.found.name.clone(), link.len.saturating_sub(link.offset)));
            }
        }
        let is_lost = |link: &Link| link.deleted && link.handle == Handle::None;
        let front_lost = self.links.front().is_some_and(is_lost);
        if let Some(front) = self.links.front().filter(|_| front_lost) {
            // What follows begins where it was left.
            self.base += front.offset;
            self.delivered_to = [0; 2];
            self.front_marked = false;
        }
        if let Some((index, between)) = place_of_doubted {
            self.insert_made_meanwhile(index, &found[between]);
        }
        self.links.retain(|link| !is_lost(link));
        let new = newest_known.map_or(0, |at| at + 1);
        self.links.extend(found.into_iter().skip(new).map(link));
        if front_lost {
            self.go_on_where_reached();
        }
        self.settle();
        if !self.front_marked {
            self.mark_front();
        }
        changes.truncated = self.rewritten();
        changes
    }

    /// Before a doubted link: what is older than it and was not there when it was listed.
    fn insert_made_meanwhile(&mut self, index: usize, older: &[FoundFile]) {
        let was_there = |file: &&FoundFile| self.listed.iter().any(|(id, head)| is_same(file, *id, head));
        let new = older.iter().rev().take_while(|file| !was_there(file));
        let new: Vec<Link> = new.cloned().map(link).collect();
        if index == 0 && !new.is_empty() && self.front_marked {
            // Nothing of it was read: the mark is the new front's.
            self.marks.pop_back();
            self.front_marked = false;
        }
        for link in new {
            self.links.insert(index, link);
        }
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
        if let Some(mark) = self.marks.back_mut() {
            mark.2 = front.head;
        }
        self.base += front.offset;
        self.finished = Some((front.found.id, front.head));
        self.mark_front();
        match front.handle {
            Handle::Open(file) => Some(file),
            Handle::None | Handle::Opening(_) => None,
        }
    }

    fn mark_front(&mut self) {
        self.front_marked = !self.links.is_empty();
        if let Some(front) = self.links.front() {
            self.marks.push_back((self.base, front.found.id, front.head));
        }
    }

    /// These bytes stand at `offset` in the front: its print may be known better now. Returns files to close: a file that
    /// was compressed before anything of it was known may be in the chain twice, as itself and as its archive.
    pub fn saw(&mut self, offset: u64, bytes: &[u8]) -> Vec<FileNo> {
        let Some(front) = self.links.front_mut() else { return Vec::new() };
        let known = front.head.len_bytes as usize;
        let from =
            known.checked_sub(offset as usize).filter(|from| known < HEAD_BYTES && *from < bytes.len());
        let Some(from) = from else { return Vec::new() };
        let more = &bytes[from..bytes.len().min(from + HEAD_BYTES - known)];
        let mut hasher = crc32fast::Hasher::new_with_initial_len(front.head.crc32, known as u64);
        hasher.update(more);
        front.head = HeadPrint { len_bytes: (known + more.len()) as u32, crc32: hasher.finalize() };
        let head = front.head;
        let is_twin = |link: &Link| {
            link.found.compressed && head.len_bytes >= HEAD_BYTES_PROOF && link.found.has_head(&head)
        };
        let (mut twins, mut at) = (Vec::new(), 0);
        self.links.retain(|link| {
            at += 1;
            let twin = at > 1 && is_twin(link);
            if let (true, Handle::Open(file)) = (twin, link.handle) {
                twins.push(file);
            }
            !twin
        });
        twins
    }

    /// Logical position of the next byte to read.
    pub fn position(&self) -> u64 {
        self.base + self.links.front().map_or(0, |front| front.offset)
    }

    /// The cursor for a stream with these lines not delivered on its channels.
    pub fn cursor(&mut self, open: &[Undelivered; 2]) -> Cursor {
        let position = self.position();
        if let (Some(front), Some(mark)) = (self.links.front(), self.marks.back_mut())
            && self.front_marked
        {
            // Known better than when it was begun.
            mark.2 = front.head;
        }
        let since = |open: &Undelivered| open.starts.first().copied();
        let from = open.iter().filter_map(since).min().unwrap_or(position);
        while self.marks.len() > 1 && self.marks[1].0 <= from {
            self.marks.pop_front();
        }
        let Some((base, file, head)) = self.marks.front().copied() else { return Cursor::Beginning };
        let skip = open.each_ref().map(|open| since(open).unwrap_or(position) - from);
        let begun = 1.max(self.marks.len().saturating_sub(PLACES_MAX));
        let reached = (begun..self.marks.len()).map(|at| self.place_in(at, open)).collect();
        Cursor::File(FileCursor {
            file,
            head,
            offset: from - base,
            skip,
            reached,
            lines: ApiCursor::default(),
            passing: Default::default(),
        })
    }

    /// Where to go on if that file is there and none before it.
    fn place_in(&self, at: usize, open: &[Undelivered; 2]) -> FilePlace {
        let position = self.position();
        let (base, file, head) = self.marks[at];
        let end = self.marks.get(at + 1).map_or(position, |next| next.0);
        // The first line of a channel that is wholly behind what is gone.
        let first = open.each_ref().map(|open| open.starts.iter().copied().find(|start| *start >= base));
        let from = first.iter().map(|first| first.unwrap_or(position)).min().unwrap_or(position).min(end);
        // Of a line whose beginning is gone the rest is taken, from here on.
        let done = |channel: usize| if open[channel].in_line { from } else { position };
        let skip = [0, 1].map(|channel| first[channel].unwrap_or(done(channel)) - from);
        FilePlace { file, head, offset: from - base, skip }
    }

    /// Takes deleted files out, oldest first but not the first `keep`, until so many unread bytes went with them. Returns
    /// name, unread bytes and handle of each.
    pub fn give_up_deleted(&mut self, keep: usize, bytes: u64) -> Vec<(String, u64, Handle)> {
        let mut out = Vec::new();
        let (mut at, mut given_up) = (keep, 0);
        while given_up < bytes && at < self.links.len() {
            let link = &self.links[at];
            let unread = link.len.saturating_sub(link.offset);
            if !link.deleted || unread == 0 || matches!(link.handle, Handle::Opening(_)) {
                at += 1;
                continue;
            }
            out.push((link.found.name.clone(), unread, link.handle));
            given_up += unread;
            if at == 0 {
                self.finish_front();
            } else {
                self.links.remove(at);
            }
        }
        out
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
        lane: None,
        offset: 0,
        len: found.len,
        settled: false,
        deleted: false,
        unread: true,
        doubted: false,
        found,
    }
}

impl Link {
    /// An inode that is held open can't become another file: whatever its content is now, it is this link's.
    fn is_in(&self, file: &FoundFile) -> bool {
        let same_inode = (self.found.id.device, self.found.id.inode) == (file.id.device, file.id.inode);
        same_inode && matches!(self.handle, Handle::Open(_)) && !file.compressed
    }

    /// A number alone says nothing: it may have come back with another file since.
    fn is_known(&self) -> bool {
        self.handle != Handle::None || self.head.len_bytes > 0 || self.found.id.birth_ns != 0
    }

    /// Not known by its number alone.
    pub fn is_proven(&self) -> bool {
        self.found.id.birth_ns != 0 || self.found.head.len() >= HEAD_BYTES_PROOF as usize
    }

    /// Rotated by copying before it could be opened: it goes on in the copy, and its own inode begins anew.
    fn was_copied_to(&self, file: &FoundFile) -> bool {
        self.handle == Handle::None && self.found.rank == 0 && is_copy(file, &self.head)
    }

    fn meet(&mut self, file: &FoundFile) {
        if file.compressed == self.found.compressed {
            // Its writer went on after a rename that nobody was told of.
            self.unread |= file.len > self.len;
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

/// A rotated file that begins as the live one did. A short print proves nothing.
fn is_copy(file: &FoundFile, head: &HeadPrint) -> bool {
    file.rank > 0 && head.len_bytes >= HEAD_BYTES_PROOF && file.has_head(head)
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
    found.iter().position(|file| is_copy(file, head)).map_or(Place::Truncated(truncated), Place::Same)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
