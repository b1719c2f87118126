//! Resumes at a saved position, and says what it means if the file of that position is missing.

use super::{Chain, Changes, Copied, Gone, Handle, Orphan, Start, count_older, file_of, is_same, link_at};
use crate::capture::io::FoundFile;
use crate::model::cursor::{FileCursor, FilePlace};

impl Chain {
    /// Puts the file to go on in at the chain's front, if it is found. Returns from where on all other files follow.
    pub(super) fn resume(
        &mut self,
        cursor: &FileCursor,
        found: &[FoundFile],
        changes: &mut Changes,
    ) -> usize {
        let place = cursor.place();
        self.reached = cursor.reached.clone();
        let mut orphan = Orphan {
            place,
            name: String::new(),
            len: cursor.len,
            in_place: false,
            is_copy: cursor.is_copy,
            tried: Vec::new(),
        };
        if let Some(at) = file_of(&place, found) {
            let mut link = link_at(found[at].clone(), &place);
            if found[at].id != place.file {
                // Its archive, which may be younger than the lines in it.
                link.copy = Copied::Yes;
            }
            self.links.push_back(link);
            self.delivered_to = place.skip.map(|skip| place.offset + skip);
            return at;
        }
        // It is there and can't be read: it waits beside those that can.
        let denied = self.rank_of_denied(place.file);
        let is_denied = denied.is_some() || self.denied_home(cursor, found).is_some();
        // Without a birth time it may as well be another file with the same number.
        let rewritten = found
            .iter()
            .position(|file| file.id == place.file && place.file.birth_ns != 0 && !file.compressed);
        let never_copied = self.copied_since_ns.is_none();
        let was_read = |file: &FoundFile| self.known.was_read(file);
        let candidate = orphan.candidate(found, &self.links, never_copied, was_read);
        if let Some(at) = candidate.filter(|_| denied.is_none()) {
            let mut link = link_at(found[at].clone(), &place);
            link.candidate = true;
            orphan.name.clone_from(&link.found.name);
            orphan.in_place = rewritten.is_some();
            self.links.push_back(link);
            self.orphan = Some(Box::new(orphan));
            self.delivered_to = place.skip.map(|skip| place.offset + skip);
            return at;
        }
        orphan.in_place = rewritten.is_some();
        if !orphan.in_place {
            self.note_gone(place);
        }
        for (number, place) in cursor.reached.iter().enumerate() {
            if let Some(at) = file_of(place, found) {
                self.links.push_back(link_at(found[at].clone(), place));
                self.delivered_to = place.skip.map(|skip| place.offset + skip);
                self.reached.drain(..=number);
                if !is_denied {
                    orphan.give_up(changes);
                }
                return at;
            }
        }
        self.reached = Default::default();
        if !cursor.ended && !is_denied && (place.offset > 0 || orphan.len > 0) {
            orphan.give_up(changes);
        }
        if let Some(at) = rewritten {
            return at;
        }
        if let Some(rank) = denied.filter(|rank| *rank < FoundFile::RANK_STRANGE) {
            return found.iter().position(|file| file.rank < rank).unwrap_or(found.len());
        }
        count_older(found, place.file, cursor.is_copy)
    }

    /// A file is not there. It may come back, as that of a folder does that is put in another's place for a while.
    pub(super) fn note_gone(&mut self, place: FilePlace) {
        let place = FilePlace { skip: [0; 2], ..place };
        self.known.put(place);
        self.done.push(place);
    }

    /// It was to be read on, and no listing ever showed it: what may be lost with it.
    pub fn never_found(&self, name: &str) -> Option<Gone> {
        let Some(Start::Resume(cursor)) = self.start.as_deref() else { return None };
        let had_lines = !cursor.ended && (cursor.offset > 0 || cursor.len > 0);
        let bytes = cursor.len.saturating_sub(cursor.offset);
        had_lines.then(|| Gone { name: name.to_owned(), bytes, in_place: false, file: cursor.file })
    }

    /// The first file is gone unread: goes on where an earlier run had gone on to, in the oldest file that it had reached.
    pub(super) fn go_on_where_reached(&mut self) {
        let is_there = |place: &FilePlace| {
            self.links.iter().position(|link| is_same(&link.found, place.file, &place.head))
        };
        let Some((at, place)) = self.reached.iter().find_map(|place| Some((is_there(place)?, *place))) else {
            return;
        };
        let is_open = self.links.range(..at).any(|link| link.handle != Handle::None);
        if is_open || self.links[at].offset > place.offset {
            return;
        }
        self.links.drain(..at);
        (self.links[0].offset, self.links[0].tail) = (place.offset, place.tail);
        self.delivered_to = place.skip.map(|skip| self.base.wrapping_add(place.offset).wrapping_add(skip));
    }
}
