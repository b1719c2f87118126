//! Rotated files that can't be read: the agent has no right to them, or the disk refuses. The files beside them are read on.
//! Each of these is remembered with its place, is read from there once that is possible, and is a loss of its own reason if
//! it goes before that. Positions have them too, so a restart changes nothing.
//!
//! Only files with bytes that nobody read and that are asked for count. An old rotated file that only root may read is no
//! trouble.

use super::link::{file_of, grew};
use super::{Chain, Changes, Gone, Handle, Link, Memory, Start, Undelivered};
use crate::capture::io::{DeniedFile, FileError, FoundFile};
use crate::limits::DENIED_MAX;
use crate::model::cursor::{DeniedPlace, FileCursor, FileId, FilePlace, HeadPrint, TailPrint};

/// A file with unread bytes that can't be read.
#[derive(Debug)]
pub struct Denied {
    /// Its last known name.
    pub name: String,
    /// Why it can't be read; `None` = no listing of this run has shown it yet.
    pub error: Option<FileError>,
    /// Where it was left.
    place: FilePlace,
    /// Its length; of an archive, packed.
    len: u64,
    rank: u32,
    /// The last listing did not show it.
    missing: bool,
}

impl Denied {
    fn gone(&self) -> Gone {
        // Nobody knows how much an archive had.
        let bytes = if is_archive(&self.name) { 0 } else { self.len.saturating_sub(self.place.offset) };
        Gone { name: self.name.clone(), bytes, in_place: false, file: self.place.file }
    }

    /// Whether this archive was made of it: while it was packed it may have been renamed, too.
    fn may_be_in(&self, archive: &FoundFile) -> bool {
        let is_named = archive.name.strip_suffix(".gz") == Some(self.name.as_str());
        let is_next = archive.rank == self.rank || archive.rank == self.rank.saturating_add(1);
        let is_ranked = self.rank < FoundFile::RANK_STRANGE;
        archive.compressed
            && archive.modified_ns >= self.place.file.birth_ns
            && !is_archive(&self.name)
            && (is_named || is_next && is_ranked)
    }
}

/// The denied files of a chain.
#[derive(Debug, Default)]
pub(super) struct DeniedFiles {
    /// All that the last listing named.
    listed: Vec<DeniedFile>,
    /// Those with something to read.
    unread: Vec<Denied>,
    /// They changed, or their places, or where the chain is read on: the position says something else.
    changed: bool,
}

impl DeniedFiles {
    /// There are none.
    pub(super) const NONE: DeniedFiles =
        DeniedFiles { listed: Vec::new(), unread: Vec::new(), changed: false };
}

fn is_archive(name: &str) -> bool {
    name.ends_with(".gz")
}

fn is_ranked(file: &FoundFile) -> bool {
    file.rank < FoundFile::RANK_STRANGE
}

impl Chain {
    /// The saved position had these.
    pub(super) fn resume_denied(&mut self, cursor: &FileCursor) {
        if cursor.denied.is_empty() {
            return;
        }
        for DeniedPlace { place, name, len } in cursor.denied.iter().cloned() {
            self.known.put(place);
            let rank = FoundFile::RANK_UNKNOWN;
            self.doubts.denied.unread.push(Denied { name, error: None, place, len, rank, missing: false });
        }
    }

    /// What the next listing shows and nobody could look into. Those being read stay in hand, for their descriptors still
    /// work. Those that wait to be opened would hold up all behind them. `open` are the lines that are not delivered. Returns
    /// whether they will be read again, with the first file.
    pub fn set_denied(&mut self, listed: Vec<DeniedFile>, open: &[Undelivered; 2]) -> bool {
        let mut are_read_again = false;
        if listed.is_empty() && self.doubts.denied.listed.is_empty() {
            return are_read_again;
        }
        for DeniedFile { found, .. } in &listed {
            let is_it = |link: &Link| link.found.id == found.id && !link.candidate;
            self.parked.retain(|parked| !is_it(&parked.link) || parked.link.handle != Handle::None);
            let parked = self.parked.iter_mut().map(|parked| &mut parked.link);
            for link in self.links.iter_mut().chain(parked).filter(|link| is_it(link)) {
                link.found.name.clone_from(&found.name);
                link.found.rank = found.rank;
            }
            let waits = |link: &Link| is_it(link) && link.handle == Handle::None;
            if let Some(at) = self.links.iter().position(waits) {
                are_read_again |= self.set_link_aside(at, open);
            }
        }
        self.doubts.denied.listed = listed;
        are_read_again
    }

    fn set_link_aside(&mut self, at: usize, open: &[Undelivered; 2]) -> bool {
        let mut are_read_again = false;
        if at == 0 {
            let position = self.position();
            let skip = self.delivered_to.map(|to| if to == 0 { 0 } else { to.saturating_sub(position) });
            let begun = self.where_open_lines_begin(open);
            let front = self.take_front().map(|front| {
                let begun = begun.filter(|begun| begun.file == front.found.id);
                are_read_again = begun.is_some();
                begun.unwrap_or(FilePlace { skip, ..front.place() })
            });
            front.into_iter().for_each(|place| self.known.put(place));
            self.delivered_to = [0; 2];
        } else if let Some(link) = self.links.remove(at) {
            self.known.put(link.place());
            self.done.push(link.place());
        }
        are_read_again
    }

    /// Where lines begin that were read and not delivered, if all of them did in the file that is read.
    fn where_open_lines_begin(&self, open: &[Undelivered; 2]) -> Option<FilePlace> {
        let at = self.stretches.len().checked_sub(1)?;
        let begun = self.stretches[at].start;
        let mut starts = open.iter().flat_map(|open| &open.starts).peekable();
        starts.peek()?;
        starts.all(|start| *start >= begun).then(|| self.place_in(at, open))
    }

    /// It is there, but can't be read.
    pub fn is_denied(&self, file: FileId) -> bool {
        self.doubts.denied.listed.iter().any(|denied| denied.found.id == file)
    }

    pub(super) fn denied_files(&self) -> impl Iterator<Item = &FoundFile> {
        self.doubts.denied.listed.iter().map(|denied| &denied.found)
    }

    /// Rank of a denied file, if it is certainly this one.
    pub(super) fn rank_of_denied(&self, file: FileId) -> Option<u32> {
        let denied = self.doubts.denied.listed.iter().find(|denied| denied.found.id == file)?;
        (file.birth_ns != 0).then_some(denied.found.rank)
    }

    /// Files that wait until they can be read.
    pub fn denied(&self) -> &[Denied] {
        &self.doubts.denied.unread
    }

    /// The position is another one though nothing was read: what was lost is not searched for again by the next run.
    pub fn note_position_changed(&mut self) {
        self.doubts.denied.changed = true;
    }

    /// Whether the position changed without a read since the last call, and there is one.
    pub fn take_position_changed(&mut self) -> bool {
        let is_told = self.doubts.denied.changed && !self.stretches.is_empty();
        if is_told {
            self.doubts.denied.changed = false;
        }
        is_told
    }

    /// They as a position has them: at most [`DENIED_MAX`], the newest.
    pub(super) fn denied_places(&self) -> Vec<DeniedPlace> {
        let unread = &self.doubts.denied.unread;
        let newest = &unread[unread.len().saturating_sub(DENIED_MAX)..];
        let place =
            |denied: &Denied| DeniedPlace { place: denied.place, name: denied.name.clone(), len: denied.len };
        // Of one that can be read again, and of which nothing was read yet, only this says how far a channel was delivered.
        let waits = |link: &Link| {
            let place = self.known.place_in(link.found.id)?;
            let is_to_skip = place.skip != [0; 2] && place.offset == link.offset;
            is_to_skip.then(|| DeniedPlace { place, name: link.found.name.clone(), len: link.len })
        };
        newest.iter().map(place).chain(self.in_hand().filter_map(waits)).collect()
    }

    /// The denied archive that seems to have what a saved position named.
    pub(super) fn denied_home(&self, cursor: &FileCursor, found: &[FoundFile]) -> Option<&FoundFile> {
        let born_ns = cursor.file.birth_ns;
        let is_there = file_of(&cursor.place(), found).is_some() || self.is_denied(cursor.file);
        // One that was empty when it was seen last may have been written to since.
        if is_there || cursor.ended || born_ns == 0 {
            return None;
        }
        let listed = self.denied_files();
        let may_be = |file: &&FoundFile| file.compressed && is_ranked(file) && file.modified_ns >= born_ns;
        listed.filter(may_be).max_by_key(|file| file.rank)
    }

    /// Files that can be read again are known by their numbers. Where numbers come back, as without birth times, what they
    /// begin with is taken for what they began with.
    pub(super) fn recognize_denied(&mut self, found: &[FoundFile]) {
        for denied in &self.doubts.denied.unread {
            let Denied { place, .. } = denied;
            let is_it = |file: &&FoundFile| file.id == place.file && file.has_head(&place.head);
            if place.file.birth_ns == 0
                && let Some(file) = found.iter().find(is_it)
            {
                self.known.put(FilePlace { head: file.print(), ..*place });
            }
        }
    }

    /// Of each denied file, where it is to be read on; `None` = nothing of it is asked for. `found` is sorted, oldest first.
    pub(super) fn places_of_denied(&self, found: &[FoundFile], memory: Memory<'_>) -> Vec<Option<FilePlace>> {
        let listed = &self.doubts.denied.listed;
        if listed.is_empty() {
            return Vec::new();
        }
        let newest_read = self.rank_read(found, memory);
        listed.iter().map(|denied| self.place_of_denied(&denied.found, found, newest_read, memory)).collect()
    }

    fn place_of_denied(
        &self,
        file: &FoundFile,
        found: &[FoundFile],
        newest_read: Option<u32>,
        memory: Memory<'_>,
    ) -> Option<FilePlace> {
        if self.in_hand().any(|link| link.found.id == file.id) {
            return None;
        }
        if let Some(Start::Resume(cursor)) = self.start.as_deref() {
            let is_home = |home: &FoundFile| home.id == file.id;
            if self.denied_home(cursor, found).is_some_and(is_home) {
                return Some(FilePlace { file: file.id, ..cursor.place() });
            }
            let mut places = [cursor.place()].into_iter().chain(cursor.reached.iter().copied());
            if let Some(place) = places.find(|place| place.file == file.id) {
                let is_unread = file.compressed || place.offset < file.len;
                return is_unread.then_some(place);
            }
        }
        let place = self.known.place_in(file.id).or_else(|| memory.place_of(file.id));
        // Without a birth time the number may have been another file's.
        let place = place.filter(|place| file.id.birth_ns != 0 || place.offset <= file.len);
        let is_held = self.doubts.denied.unread.iter().any(|denied| denied.place.file == file.id);
        match place {
            Some(place) if file.compressed => (is_held || place.offset == 0).then_some(place),
            Some(place) => grew(file, &place).then_some(place),
            None => self.is_denied_asked_for(file, newest_read).then(|| FilePlace {
                file: file.id,
                head: HeadPrint::default(),
                tail: TailPrint::default(),
                offset: 0,
                skip: [0; 2],
            }),
        }
    }

    /// Rank of the newest file of which something was read.
    fn rank_read(&self, found: &[FoundFile], memory: Memory<'_>) -> Option<u32> {
        if let Some(start) = self.start.as_deref() {
            let Start::Resume(cursor) = start else { return None };
            let itself = file_of(&cursor.place(), found).map(|at| found[at].rank);
            let denied = || self.rank_of_denied(cursor.file);
            let home = || self.denied_home(cursor, found).map(|home| home.rank);
            return itself.or_else(denied).or_else(home).filter(|rank| *rank < FoundFile::RANK_STRANGE);
        }
        let is_read = |file: &&FoundFile| {
            let is_in_hand = self.in_hand().any(|link| link.found.id == file.id);
            is_in_hand || self.known.of(file, found, memory).is_some()
        };
        let is_denied_read = |file: &&FoundFile| self.known.has(file.id);
        let listed = self.denied_files();
        let read = found.iter().filter(is_read).chain(listed.filter(is_denied_read));
        read.filter(|file| is_ranked(file)).map(|file| file.rank).min()
    }

    /// Of a file that nobody has read.
    fn is_denied_asked_for(&self, file: &FoundFile, newest_read: Option<u32>) -> bool {
        if !is_ranked(file) {
            return false;
        }
        let is_behind = |read: FileId| match newest_read {
            Some(rank) => file.rank < rank,
            None => !file.compressed && read.birth_ns != 0 && file.id.birth_ns > read.birth_ns,
        };
        match self.start.as_deref() {
            Some(start) if self.is_to_be_ignored(start, file) => false,
            Some(Start::Oldest) => true,
            Some(Start::Since(ns)) => {
                file.id.birth_ns >= *ns && (!file.compressed || file.modified_ns >= *ns)
            }
            Some(Start::Live) => self.first.birth_ns != 0 && file.id == self.first,
            Some(Start::End) => false,
            Some(Start::After(cursor)) => {
                cursor.channels.iter().all(|channel| file.modified_ns > channel.time_ns)
            }
            Some(Start::Resume(cursor)) => is_behind(cursor.file),
            // The archive of a file that is open, or was read, is as unknown as a new one.
            None => !file.compressed && self.stretches.back().is_some_and(|stretch| is_behind(stretch.file)),
        }
    }

    /// Remembers those that have something to read, and reports those that are gone. `places` are those of the listed ones.
    pub(super) fn judge_denied(
        &mut self,
        places: Vec<Option<FilePlace>>,
        found: &[FoundFile],
        latest: bool,
        changes: &mut Changes,
    ) {
        if self.doubts.denied.listed.is_empty() && self.doubts.denied.unread.is_empty() {
            return;
        }
        let listed = std::mem::take(&mut self.doubts.denied.listed);
        let before = std::mem::take(&mut self.doubts.denied.unread);
        let saved = |unread: &[Denied]| -> Vec<(FilePlace, u64)> {
            unread.iter().map(|denied| (denied.place, denied.len)).collect()
        };
        let saved_before = saved(&before);
        let mut unread: Vec<Denied> = Vec::new();
        for (DeniedFile { found: file, error }, place) in listed.iter().zip(places) {
            let Some(place) = place else { continue };
            self.known.put(place);
            let (name, error) = (file.name.clone(), Some(error.clone()));
            unread.push(Denied { name, error, place, len: file.len, rank: file.rank, missing: false });
        }
        for denied in before {
            let id = denied.place.file;
            let is_here =
                found.iter().any(|file| file.id == id) || listed.iter().any(|file| file.found.id == id);
            if is_here || self.in_hand().any(|link| link.found.id == id) {
                continue;
            }
            if !denied.missing || !latest {
                // Two listings must agree.
                changes.look_again = true;
                unread.push(Denied { missing: true, ..denied });
            } else if !self.was_packed(&denied, found, &listed, &mut unread, changes) {
                changes.unreadable.push(denied.gone());
            }
        }
        unread.sort_by_key(|denied| std::cmp::Reverse(denied.rank));
        let files = &mut self.doubts.denied;
        files.changed |= saved(&unread) != saved_before;
        (files.listed, files.unread) = (listed, unread);
    }

    /// The first file was just begun late. If it waited until it could be read, one channel may have been delivered further.
    pub(super) fn skip_delivered_of_denied(&mut self) {
        let Some(front) = self.links.front() else { return };
        let (id, offset, left) = (front.found.id, front.offset, front.unread_bytes());
        let place = self.known.place_in(id).filter(|place| place.offset == offset && place.skip != [0; 2]);
        if let Some(place) = place {
            let position = self.position();
            self.delivered_to = place.skip.map(|skip| position.wrapping_add(skip.min(left)));
        }
    }

    /// Its content may be in an archive by now, readable or not.
    fn was_packed(
        &mut self,
        denied: &Denied,
        found: &[FoundFile],
        listed: &[DeniedFile],
        unread: &mut Vec<Denied>,
        changes: &mut Changes,
    ) -> bool {
        // A readable one that begins as the file did is known as its archive already.
        if denied.place.head.len_bytes > 0
            && found.iter().any(|file| denied.may_be_in(file) && file.has_head(&denied.place.head))
        {
            return true;
        }
        let is_new =
            |file: FileId| !self.known.has(file) && !self.in_hand().any(|link| link.found.id == file);
        let heir = listed.iter().find(|heir| denied.may_be_in(&heir.found) && is_new(heir.found.id));
        if let Some(DeniedFile { found: file, error }) = heir {
            let place = FilePlace { file: file.id, ..denied.place };
            self.known.put(place);
            let (name, error) = (file.name.clone(), Some(error.clone()));
            unread.push(Denied { name, error, place, len: file.len, rank: file.rank, missing: false });
            return true;
        }
        // Nothing was read of it, so nobody knows how it began.
        let heir = found.iter().find(|file| denied.may_be_in(file) && is_new(file.id));
        let Some(heir) = heir.filter(|_| denied.place.head.len_bytes == 0) else { return false };
        self.known.put(FilePlace { file: heir.id, ..denied.place });
        changes.look_again = true;
        true
    }
}

#[cfg(test)]
#[path = "denied_tests.rs"]
mod tests;
