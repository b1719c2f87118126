//! A followed path is a chain of files: the live one and its rotated files, read oldest first. This module updates the
//! chain by scans of the directory, and converts positions into cursors and back.
//!
//! A file is recognized by device, inode and birth time: not by its name, which rotation changes, nor by its inode
//! alone, which comes back after two or three rotations. A compressed or copied file has a new inode; it is recognized
//! by its first bytes and those before the position ([`FilePlace`]).
//!
//! One listing proves nothing. A file that it lacks counts as gone only if the next one lacks it too, and a file that
//! it shows is new only if it is unknown and nothing behind it in the order of rotation is known.
//!
//! Positions are logical: bytes since the stream's first file in this run, through all files. So whether a record is
//! behind another one remains a comparison of two numbers when the chain moves on.

mod copies;
mod denied;
mod doubt;
mod known;
mod link;
mod moved;
mod older;
mod orphan;
mod position;
#[cfg(test)]
mod random_tests;
mod resume;
mod strange;
mod unseen;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::capture::io::{FileNo, FoundFile};
use crate::model::cursor::{ApiCursor, FileCursor, FileId, FilePlace, HeadPrint, TailPrint};
use crate::model::rare::{Begins, Rare};

pub use denied::Denied;
use denied::DeniedFiles;
pub use doubt::{ContentFate, Doubt};
use known::Known;
pub use known::{Memory, Remembers};
pub use link::{Copied, Handle, Link};
use link::{HEAD_BYTES_PROOF, begins_as, file_of, grew, insert_by_birth, is_same, link, link_at};
use orphan::Orphan;
use unseen::Unseen;

/// A rotated file that was read to its present end. Its writer may still write to it.
#[derive(Debug)]
pub struct Parked {
    pub link: Link,
    /// When it is due; `None` = it was just found to have grown.
    pub due_ms: Option<u64>,
}

/// What a scan changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files that vanished before they were opened.
    pub lost: Vec<Gone>,
    /// Content of files that were rewritten or are gone.
    pub gone: Vec<Gone>,
    /// Files after which others may have come and gone unseen. They themselves were read completely.
    pub cut_off: Vec<Gone>,
    /// Two files between which others may have come and gone, if so.
    pub gap: Option<(String, String)>,
    /// Files that could not be read as long as they were there.
    pub unreadable: Vec<Gone>,
    /// Files that are no longer read.
    pub let_go: Vec<FileNo>,
    /// This listing alone proves nothing: list again.
    pub look_again: bool,
}

impl Begins for Changes {
    const BEGINNING: &'static Changes = &Changes {
        lost: Vec::new(),
        gone: Vec::new(),
        cut_off: Vec::new(),
        gap: None,
        unreadable: Vec::new(),
        let_go: Vec::new(),
        look_again: false,
    };
}

impl Begins for VecDeque<FilePlace> {
    const BEGINNING: &'static VecDeque<FilePlace> = &VecDeque::new();
}

impl Begins for VecDeque<HeadPrint> {
    const BEGINNING: &'static VecDeque<HeadPrint> = &VecDeque::new();
}

/// Possible losses that one listing alone does not prove.
#[derive(Debug, Default)]
struct Doubts {
    /// The file that was being read when a listing showed only new ones.
    cut_off: Option<Gone>,
    /// Files that grew after they were read, and could not be opened.
    slipped: Vec<Gone>,
    /// Files that came and went between two listings.
    unseen: Unseen,
    /// Files that can't be read.
    denied: DeniedFiles,
    /// That the first file went before it was listed is counted already.
    vanish_counted: bool,
    /// When the file to resume in was renamed, nanoseconds since 1970; 0 = not known.
    renamed_ns: i64,
}

impl Begins for Doubts {
    const BEGINNING: &'static Doubts = &Doubts {
        cut_off: None,
        slipped: Vec::new(),
        unseen: Unseen::NONE,
        denied: DeniedFiles::NONE,
        vanish_counted: false,
        renamed_ns: 0,
    };
}

/// Content of a file that was not found again.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    /// The file's last known name.
    pub name: String,
    /// Bytes known to be unread; 0 = nobody knows whether there were any.
    pub bytes: u64,
    /// It was rewritten in place; otherwise it is gone.
    pub in_place: bool,
    /// The file.
    pub file: FileId,
}

/// Where a chain begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest file.
    Oldest,
    /// With the first byte of the live file.
    Live,
    /// With the live file, and files rotated since this time, nanoseconds since 1970.
    Since(i64),
    /// At the end of the live file.
    End,
    /// At a saved position.
    Resume(Arc<FileCursor>),
    /// Behind lines that were delivered over the API.
    After(ApiCursor),
}

/// The chain. `links[0]` is being read.
#[derive(Debug)]
pub struct Chain {
    start: Option<Box<Start>>,
    /// Oldest first.
    pub links: VecDeque<Link>,
    /// Read to their present ends; their writers may still write to them.
    pub parked: Vec<Parked>,
    /// Logical position of `links[0]`'s first byte. It wraps: a file that grew late is read after newer ones.
    base: u64,
    /// Stretches of files that positions may still point into, in the order in which they were read.
    stretches: VecDeque<Stretch>,
    /// The last of them belongs to `links[0]`.
    front_marked: bool,
    /// Files that were read to their ends, or skipped.
    known: Known,
    /// The file that was finished last had been removed by then, and was read to its end.
    ended: bool,
    /// Content of a rewritten file that is searched for; what the file has now is not read meanwhile.
    orphan: Option<Box<Orphan>>,
    /// Whether the first file is another log's copy.
    doubt: Doubt,
    /// What was read of the file that was written anew last, until somebody asks.
    emptied: Option<Box<FilePlace>>,
    /// The live file as it was found, which may have been renamed before it was listed. Without a birth = not known.
    first: FileId,
    /// Its writer may copy and empty it (logrotate's copytruncate). Copies made after this time, nanoseconds since
    /// 1970, are new; `None` = it is never copied.
    copied_since_ns: Option<i64>,
    /// Possible losses that one listing alone does not prove.
    doubts: Rare<Doubts>,
    /// Where content was left that was searched for in vain. It may still turn up.
    given_up_at: Rare<VecDeque<FilePlace>>,
    /// Beginnings of files in its directory that other streams read.
    heads_of_others: Rare<VecDeque<HeadPrint>>,
    /// Losses of content that was given up between two scans.
    given_up: Rare<Changes>,
    /// Where reading stopped in files since the last cursor.
    done: Rare<Vec<FilePlace>>,
    /// Files in the last listing; only while a link is doubted or may become so.
    listed: Rare<Vec<(FileId, HeadPrint)>>,
    /// Files that the last listing showed, sorted.
    present: Box<[FileId]>,
    /// Where an earlier run had stopped in later files, in case the first is gone before it is opened.
    reached: Rare<Vec<FilePlace>>,
    /// Existing content of files last changed before this time that nobody has read is skipped.
    ignore_before_ns: Option<i64>,
    /// The live file whose content was skipped for this, and its length then.
    ignored: Option<Box<(FileId, u64)>>,
    /// Per channel: records that begin before this logical position were delivered in an earlier run.
    pub delivered_to: [u64; 2],
}

/// A stretch of a file.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Logical position of its first byte.
    start: u64,
    /// Logical position of the file's first byte.
    base: u64,
    file: FileId,
    head: HeadPrint,
    tail: TailPrint,
    is_copy: bool,
}

/// Lines of a channel that were read but not delivered, because they may continue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// Their beginnings, as logical positions in order.
    pub starts: Vec<u64>,
    /// The last of them is incomplete.
    pub in_line: bool,
}

impl Chain {
    /// An empty chain.
    pub fn new(start: Start) -> Chain {
        let mut chain = Chain {
            start: None,
            links: VecDeque::new(),
            parked: Vec::new(),
            base: 0,
            stretches: VecDeque::new(),
            front_marked: false,
            known: Known::default(),
            ended: false,
            orphan: None,
            doubt: Doubt::None,
            emptied: None,
            first: FileId::default(),
            copied_since_ns: None,
            doubts: Rare::default(),
            given_up_at: Rare::default(),
            heads_of_others: Rare::default(),
            given_up: Rare::default(),
            done: Rare::default(),
            listed: Rare::default(),
            present: Box::default(),
            reached: Rare::default(),
            ignore_before_ns: None,
            ignored: None,
            delivered_to: [0; 2],
        };
        if let Start::Resume(cursor) = &start {
            chain.resume_denied(cursor);
        }
        chain.start = Some(Box::new(start));
        chain
    }

    /// Adds files that were read in earlier runs.
    pub fn remember(&mut self, places: impl IntoIterator<Item = FilePlace>) {
        places.into_iter().for_each(|place| self.known.put(place));
    }

    /// The live file when the path was found.
    pub fn begin_with(&mut self, file: FileId) {
        self.first = file;
    }

    /// It may be copied; copies from before `since_ns`, nanoseconds since 1970, were seen by an earlier run.
    pub fn copied_since(&mut self, since_ns: i64) {
        self.copied_since_ns = Some(since_ns);
    }

    /// Files to find whatever their names are.
    pub fn wanted(&self) -> Vec<FileId> {
        // Tens of thousands of files need one of these at once: usually only the link and the first file are in it.
        let mut wanted = Vec::with_capacity(self.links.len() + self.parked.len() + 1);
        wanted.extend(self.in_hand().map(|link| link.found.id));
        if let Some(Start::Resume(cursor)) = self.start.as_deref() {
            wanted.push(cursor.file);
            wanted.extend(cursor.reached.iter().map(|place| place.file));
        }
        wanted.extend(Some(self.first).filter(|first| first.birth_ns != 0 && self.start.is_some()));
        wanted.extend(self.known.newest());
        wanted
    }

    /// Files being read or waited for, and files that were read whose writers may still write to them.
    pub fn in_hand(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().chain(self.parked.iter().map(|parked| &parked.link))
    }

    /// The chain's present files, sorted: usually one, at a first start as many as were rotated.
    pub fn held(&self) -> Vec<FileId> {
        let mut held: Vec<FileId> = self.in_hand().map(|link| link.found.id).collect();
        held.sort_unstable();
        held.dedup();
        held
    }

    /// Updates the chain from a listing. `latest`: nothing has happened in the directory since the listing was
    /// requested.
    pub fn on_listing(&mut self, mut found: Vec<FoundFile>, latest: bool, memory: Memory<'_>) -> Changes {
        // Oldest first. While Docker compresses, `.1` and `.1.gz` both exist for a moment: the complete one counts.
        let strange: Vec<_> = found.extract_if(.., |file| file.rank == FoundFile::RANK_STRANGE).collect();
        let (mut strangers, mut named): (Vec<_>, Vec<_>) =
            found.drain(..).partition(|file| file.rank >= FoundFile::RANK_BY_BIRTH);
        strangers.retain(|file| file.rank == FoundFile::RANK_BY_BIRTH || self.is_known(file, memory));
        strangers.sort_by_key(|file| file.id.birth_ns);
        named.sort_by_key(|file| (std::cmp::Reverse(file.rank), file.compressed));
        named.dedup_by_key(|file| file.rank);
        strangers.into_iter().for_each(|file| insert_by_birth(&mut named, file));
        let mut found = named;
        // One file under two names: it was rotated during the listing, and the name with the higher rank is the present
        // one. Or it is a hard link: then only the live name shows that the file still grows. If this guess is wrong,
        // the next listing corrects it.
        let live = found.iter().find(|file| file.rank == 0).map(|file| file.id);
        let mut seen: BTreeSet<FileId> = BTreeSet::new();
        found.retain(|file| (file.rank == 0 || Some(file.id) != live) && seen.insert(file.id));
        let by_name = found.iter().filter(|file| file.rank != FoundFile::RANK_UNKNOWN);
        let mut present: Vec<FileId> =
            by_name.map(|file| file.id).chain(self.denied_files().map(|file| file.id)).collect();
        present.sort_unstable();
        self.present = present.into();
        let listed: Vec<_> = found.iter().map(|file| (file.id, file.print())).collect();
        if latest {
            self.links.iter_mut().for_each(|link| link.anew = false);
        }
        let out_of_order = self.out_of_order(&found, memory);
        self.recognize_denied(&found);
        let denied = self.places_of_denied(&found, memory);
        let mut changes = match self.start.take() {
            Some(start) => self.begin_and_note_gap(*start, &found, &strange, memory),
            None => self.follow(&found, latest, memory),
        };
        self.search(&found, latest, &mut changes);
        self.take_copies(&found, memory);
        self.note_strange(&strange, memory, &mut changes);
        self.note_out_of_order(&out_of_order, &mut changes);
        self.judge_denied(denied, &found, latest, &mut changes);
        seen.extend(self.denied_files().map(|file| file.id));
        if self.start.is_none() {
            // From now on, whatever was there before is known.
            self.copied_since_ns = self.copied_since_ns.map(|_| i64::MIN);
        }
        self.known.prune(&seen);
        let given_up = self.given_up.take();
        changes.gone.extend(given_up.gone);
        changes.let_go.extend(given_up.let_go);
        let doubtful = self.links.iter().any(|link| link.doubted || !link.is_proven());
        self.listed = if doubtful { listed.into() } else { Rare::default() };
        changes
    }

    /// Whether the chain has this file, has read it or waits for it. Required for a file whose name does not show that
    /// it belongs here: its inode number alone may be another file's by now.
    pub fn is_known(&self, file: &FoundFile, memory: Memory<'_>) -> bool {
        if self.in_hand().any(|link| link.is(file)) || self.known.of(file, &[], memory).is_some() {
            return true;
        }
        let Some(Start::Resume(cursor)) = self.start.as_deref() else { return false };
        let mut places = cursor.reached.iter().copied().chain([cursor.place()]);
        // A file rewritten in place is still the same file, as its birth time shows.
        places.any(|place| {
            let is_proven = file.compressed || known::is_it(file, &place.head);
            place.file.birth_ns != 0 && file.id == place.file
                || is_proven && is_same(file, place.file, &place.head)
        })
    }

    /// The directory was listed after every open file had been opened.
    pub fn trust_opened(&mut self) {
        let opened = self.links.iter_mut().filter(|link| matches!(link.handle, Handle::Open(_)));
        opened.for_each(|link| link.doubted = false);
    }

    fn begin(&mut self, start: Start, found: &[FoundFile], memory: Memory<'_>) -> Changes {
        let mut changes = Changes::default();
        if found.is_empty() {
            // The file does not exist yet. A saved position waits for its file; anything else begins with the first
            // byte to come.
            let start = if matches!(start, Start::Resume(_)) { start } else { Start::Oldest };
            self.start = Some(Box::new(start));
            return changes;
        }
        let last = found.len() - 1;
        let from = match &start {
            Start::Oldest | Start::After(_) => 0,
            Start::Live | Start::End => {
                let is_first = |file: &FoundFile| self.first.birth_ns != 0 && file.id == self.first;
                found.iter().position(is_first).unwrap_or(last)
            }
            Start::Since(ns) => {
                // An archive is made after its content. gzip gives it the time of the last line, so one that was packed of
                // an older file is not new.
                let is_new = |file: &&FoundFile| {
                    file.id.birth_ns >= *ns && (!file.compressed || file.modified_ns >= *ns)
                };
                last - found[..last].iter().rev().take_while(is_new).count()
            }
            Start::Resume(cursor) => self.resume(cursor, found, &mut changes),
        };
        let is_new = matches!(start, Start::Live | Start::Since(_));
        let from = if is_new { self.first_moved(found, from, memory) } else { from };
        let (is_resumed, is_by_time) = (matches!(start, Start::Resume(_)), matches!(start, Start::After(_)));
        for file in &found[..from] {
            match self.known.of(file, found, memory) {
                None if is_resumed && self.may_be_new_copy(file) => {}
                // It grew while nobody looked: the next listing shows it again.
                Some(place) if grew(file, &place) => changes.look_again = true,
                Some(_) => {}
                None => self.pass_over(file),
            }
        }
        // Usually it is one file; a queue would begin with room for four.
        self.links.reserve_exact(found.len() - from);
        for file in &found[from..] {
            if self.links.iter().any(|link| link.found.id == file.id) {
                continue;
            }
            // To resume behind a time, every line with exactly that time is counted, so files that were read are read
            // again.
            let known = if is_by_time { None } else { self.known.of(file, found, memory) };
            match known {
                Some(place) if file.rank == 0 || grew(file, &place) => {
                    self.links.push_back(link_at(file.clone(), &place));
                }
                Some(_) => {}
                None if self.take_moved(file, found, memory) => {}
                None if !self.is_to_be_ignored(&start, file) => self.links.push_back(link(file.clone())),
                None if file.rank > 0 => self.pass_over(file),
                None => {
                    self.ignored = Some(Box::new((file.id, file.len)));
                    self.links.push_back(Link { offset: file.len, ..link(file.clone()) });
                }
            }
        }
        if let (Start::End, Some(first)) = (&start, self.links.front_mut()) {
            first.offset = first.len;
        }
        self.settle();
        self.mark_front();
        changes
    }

    fn follow(&mut self, found: &[FoundFile], latest: bool, memory: Memory<'_>) -> Changes {
        let mut changes = Changes::default();
        // One whose descriptor works is there, though nobody may open it by its name.
        let is_denied = |link: &Link| link.handle != Handle::None && self.is_denied(link.found.id);
        let mut seen: Vec<bool> = self.links.iter().map(is_denied).collect();
        let (mut newest_known, mut place_of_doubted) = (None, None);
        let (mut grown, mut back, mut reached) = (Vec::new(), None, 0);
        // A file that the listing still shows has not become an archive or copy of it: those are beside it.
        let is_there = |link: &Link| {
            let is_it = |file: &FoundFile| !file.compressed && is_same(file, link.found.id, &link.head);
            !link.found.compressed && found.iter().any(is_it)
        };
        // Only dockerd may still write to a file whose archive exists: others are told to switch files before
        // compression.
        let may_be_packed = self.copied_since_ns.is_none();
        for (at, file) in found.iter().enumerate() {
            let same = |link: &Link| link.is(file) && !(file.compressed && is_there(link));
            // Nothing was read of a file known only by its number, so whatever file has the number now is read from its
            // beginning.
            let by_number = |(index, link): (usize, &Link)| index >= reached && link.has_number_of(file);
            let proven = self.links.iter().position(same);
            if let Some(index) = proven.or_else(|| self.links.iter().enumerate().position(by_number)) {
                seen[index] = true;
                reached = reached.max(index);
                self.links[index].meet(file);
                self.links[index].note_packed(file, may_be_packed);
                // The file that had the number may have been rotated, compressed and removed since.
                let is_doubted = self.links[index].doubted || proven.is_none();
                if is_doubted && place_of_doubted.is_none() {
                    place_of_doubted = Some((index, newest_known.map_or(0, |known| known + 1)..at));
                }
                newest_known = Some(at);
            } else if let Some(parked) = self.parked.iter().position(|parked| same(&parked.link)) {
                if self.parked[parked].link.is_rewritten_as(file) {
                    let link = self.parked.remove(parked).link;
                    changes.let_go.extend(link.open_file());
                    self.known.pass_over(file);
                } else if file.rank == 0 {
                    let mut link = self.parked.remove(parked).link;
                    link.meet(file);
                    link.is_live_again();
                    back = Some(link);
                } else {
                    self.parked[parked].link.meet(file);
                    self.parked[parked].link.note_packed(file, may_be_packed);
                }
                newest_known = Some(at);
            } else if let Some(place) = self.known.of(file, found, memory) {
                newest_known = Some(at);
                if file.rank == 0 {
                    // It has the live name again.
                    back = Some(link_at(file.clone(), &place));
                } else if grew(file, &place) {
                    grown.push(link_at(file.clone(), &place));
                }
            } else if let Some(index) = self
                .links
                .iter()
                .enumerate()
                .position(|(at, link)| !seen[at] && link.was_copied_to(file) && !is_there(link))
            {
                seen[index] = true;
                self.links[index].meet(file);
                self.links[index].copy = Copied::Yes;
                newest_known = Some(at);
            }
        }
        for (link, seen) in self.links.iter_mut().zip(&seen) {
            // Two listings must agree.
            link.deleted = !seen && (link.deleted || link.missing && latest) && !link.elsewhere;
            changes.look_again |= !seen && !link.deleted && !link.elsewhere;
            link.missing = !seen;
            if link.deleted && link.handle == Handle::None && link.idle && link.unread {
                // It was written to after it was closed, and is gone.
                let (name, file) = (link.found.name.clone(), link.found.id);
                changes.gone.push(Gone { name, bytes: 0, in_place: false, file });
            } else if link.deleted && link.handle == Handle::None {
                changes.lost.extend(link.lost_unopened());
            }
        }
        let is_lost = |link: &Link| link.deleted && link.handle == Handle::None;
        let front_lost = self.links.front().is_some_and(is_lost);
        if let Some(front) = self.links.front().filter(|_| front_lost) {
            // What follows begins where this file was left.
            self.base = self.base.wrapping_add(front.offset);
            self.delivered_to = [0; 2];
            self.front_marked = false;
        }
        if let Some((index, between)) = place_of_doubted {
            self.insert_made_meanwhile(index, &found[between]);
        }
        self.links.retain(|link| !is_lost(link));
        let new = newest_known.map_or_else(|| self.first_new(found), |at| at + 1);
        self.note_cut_off(&found[new..], found, latest, newest_known.is_none(), &mut changes);
        for file in &found[new..] {
            if !self.take_moved(file, found, memory) {
                self.links.push_back(link(file.clone()));
            }
        }
        self.links.extend(back);
        self.put_live_last(found);
        if front_lost {
            self.go_on_where_reached();
        }
        self.settle();
        if !self.front_marked {
            self.mark_front();
        }
        if !self.begin_left_out_anew() && self.is_rewritten() {
            let len = self.links.front().map_or(0, |front| front.found.len);
            self.begin_anew(len);
        }
        self.parked.extend(grown.into_iter().map(|link| Parked { link, due_ms: None }));
        changes
    }

    /// A file that a link leads to again grows from now on. Others keep their place in the order of rotation, because a
    /// listing during a rotation may show an older file under the live name.
    fn put_live_last(&mut self, found: &[FoundFile]) {
        let Some(live) = found.last().filter(|file| file.rank == 0) else { return };
        let before = 0..self.links.len().saturating_sub(1);
        let Some(at) = self.links.range(before).position(|link| link.elsewhere && link.found.id == live.id)
        else {
            return;
        };
        let position = self.position();
        let Some(mut link) = self.links.remove(at) else { return };
        link.is_live_again();
        self.links.push_back(link);
        if at == 0 {
            self.go_on_at(position);
        }
    }

    /// For a listing without any known file: files older than the last one read are not new.
    fn first_new(&self, found: &[FoundFile]) -> usize {
        self.stretches.back().map_or(0, |stretch| count_older(found, stretch.file, stretch.is_copy))
    }

    /// Everything was rotated away since the last listing, including our file, so files between it and the oldest
    /// remaining one may have come and gone. The next listing confirms that our file is gone. Whatever is cut off until
    /// then belongs to the same doubt.
    fn note_cut_off(
        &mut self,
        new: &[FoundFile],
        found: &[FoundFile],
        latest: bool,
        is_unknown: bool,
        changes: &mut Changes,
    ) {
        if self.doubts.cut_off.is_some() || !self.doubts.slipped.is_empty() {
            let is_gone = |gone: &Gone| found.iter().all(|found| found.id != gone.file);
            let cut_off = self.doubts.cut_off.take().filter(is_gone);
            let mut slipped = std::mem::take(&mut self.doubts.slipped);
            slipped.retain(is_gone);
            if latest {
                changes.cut_off.extend(cut_off);
                changes.lost.extend(slipped);
            } else {
                (self.doubts.cut_off, self.doubts.slipped) = (cut_off, slipped);
            }
        }
        if is_unknown && self.doubts.cut_off.is_none() && new.iter().any(|file| file.rank > 0) {
            let last = self.links.back().or(self.parked.last().map(|parked| &parked.link));
            // A file with our file's beginning is its copy or archive: nothing is missing in between.
            let last = last.filter(|last| !new.iter().any(|file| file.has_head(&last.head)));
            if let Some(last) = last.map(|last| last.gone(0)) {
                self.doubts.cut_off = Some(last);
                changes.look_again = true;
            }
        }
    }

    /// Files that had grown late could not be opened: they have other names by now, or are gone.
    pub fn drop_unopened(&mut self) {
        let dropped = self.parked.extract_if(.., |parked| parked.link.handle == Handle::None);
        let slipped: Vec<Gone> = dropped.filter_map(|parked| parked.link.lost_unopened()).collect();
        if !slipped.is_empty() {
            self.doubts.slipped.extend(slipped);
        }
    }

    /// A file that was read before is gone and was not opened again. Returns what is lost with it.
    pub fn drop_parked(&mut self, at: usize) -> Vec<Gone> {
        self.parked.remove(at).link.lost_unopened().into_iter().collect()
    }

    /// Before a doubted link: what is older than it and was not there when it was listed.
    fn insert_made_meanwhile(&mut self, index: usize, older: &[FoundFile]) {
        let was_there = |file: &&FoundFile| self.listed.iter().any(|(id, head)| is_same(file, *id, head));
        let new = older.iter().rev().take_while(|file| !was_there(file));
        let new: Vec<Link> = new.cloned().map(link).collect();
        if index == 0 && !new.is_empty() && self.front_marked {
            // Nothing of it was read: the stretch belongs to the new front.
            self.stretches.pop_back();
            self.front_marked = false;
        }
        for link in new {
            self.links.insert(index, link);
        }
    }

    /// All but the newest file are completely rotated, and so is the newest if it is not the live one. Each is read
    /// once more when that becomes known: inotify's events for the new name are dropped until a listing has shown it,
    /// so an earlier write was not noticed. file/late.rs handles a writer that still writes after that.
    fn settle(&mut self) {
        let last = self.links.len().saturating_sub(1);
        for (at, link) in self.links.iter_mut().enumerate() {
            let settled = at < last || link.deleted || link.found.rank > 0;
            link.unread |= settled && !link.settled;
            link.settled = settled;
        }
    }

    /// The first file was read to its end: continues with the next. Returns the finished file's number.
    pub fn finish_front(&mut self) -> Option<FileNo> {
        match self.take_front()?.handle {
            Handle::Open(file) => Some(file),
            Handle::None | Handle::Opening(_) => None,
        }
    }

    fn take_front(&mut self) -> Option<Link> {
        let position = self.position();
        self.renew_mark();
        let front = self.links.pop_front()?;
        self.known.put(front.place());
        self.ended = front.deleted && front.is_read();
        self.go_on_at(position);
        Some(front)
    }

    /// As [`Chain::finish_front`], but its writer may write to it until then.
    pub fn park_front(&mut self, due_ms: u64) {
        if let Some(link) = self.take_front() {
            self.parked.push(Parked { link, due_ms: Some(due_ms) });
        }
    }

    /// A parked file is read on, before the present one.
    pub fn unpark(&mut self, at: usize) {
        let Parked { mut link, due_ms } = self.parked.remove(at);
        (link.settled, link.late) = (true, true);
        link.waited_at = due_ms.map(|due_ms| (link.offset, due_ms));
        self.push_front(link);
        self.skip_delivered_of_denied();
    }

    fn push_front(&mut self, link: Link) {
        let position = self.position();
        self.renew_mark();
        self.links.push_front(link);
        self.go_on_at(position);
    }

    /// What was read ends at `position`, whatever file comes first now.
    fn go_on_at(&mut self, position: u64) {
        self.base = position.wrapping_sub(self.links.front().map_or(0, |front| front.offset));
        self.mark_front();
    }

    /// More is known of the front than when it was begun; it may even have continued in a copy before it was opened.
    fn renew_mark(&mut self) {
        let is_copy = self.front_is_copy();
        if let (Some(front), Some(stretch)) = (self.links.front(), self.stretches.back_mut())
            && self.front_marked
        {
            (stretch.file, stretch.head, stretch.tail) = (front.found.id, front.head, front.tail);
            stretch.is_copy = is_copy;
        }
    }

    /// Whether the front's lines may be older than its file: it is a copy or an archive, or was made after the file
    /// that follows it, like copytruncate's copies.
    fn front_is_copy(&self) -> bool {
        let Some(front) = self.links.front() else { return false };
        let is_older = |link: &Link| {
            let born_ns = link.found.id.birth_ns;
            born_ns != 0 && born_ns < front.found.id.birth_ns
        };
        front.is_copy() || front.found.compressed || self.links.iter().skip(1).any(is_older)
    }

    fn mark_front(&mut self) {
        self.front_marked = !self.links.is_empty();
        let position = self.position();
        if let Some(front) = self.links.front() {
            let (file, head, tail) = (front.found.id, front.head, front.tail);
            if self.stretches.len() > 1
                && self
                    .stretches
                    .back()
                    .is_some_and(|stretch| stretch.start == position && stretch.file == file)
            {
                self.stretches.pop_back();
            }
            let is_copy = self.front_is_copy();
            if self.stretches.is_empty() {
                // Usually it stays at one, as above.
                self.stretches.reserve_exact(1);
            }
            self.stretches.push_back(Stretch { start: position, base: self.base, file, head, tail, is_copy });
        }
    }

    /// Removes deleted files, oldest first but not the first `keep`, until they had this many unread bytes. Returns
    /// name, unread bytes and handle of each.
    pub fn give_up_deleted(&mut self, keep: usize, bytes: u64) -> Vec<(String, u64, Handle)> {
        let mut out = Vec::new();
        let (mut at, mut given_up) = (keep, 0);
        while given_up < bytes && at < self.links.len() {
            let link = &self.links[at];
            let unread = link.unread_bytes();
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
}

/// How many rotated files, oldest first, were made before the file of a place that is gone. They were delivered before
/// it, or never requested. A copy or an archive was made after its lines were written, maybe after the file that
/// follows it in the order of rotation, so its birth time proves nothing, and unknown files are new.
fn count_older(found: &[FoundFile], gone: FileId, is_copy: bool) -> usize {
    if is_copy {
        return 0;
    }
    let is_older =
        |file: &&FoundFile| file.rank > 0 && file.id.birth_ns != 0 && file.id.birth_ns < gone.birth_ns;
    found.iter().take_while(is_older).count()
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
