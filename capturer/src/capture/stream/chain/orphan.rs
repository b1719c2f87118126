//! Where the content of a rewritten or missing file went: into a copy (logrotate's copytruncate), an archive, a
//! restored directory. While it is searched for, nothing is read; content that is not found is reported.

use std::collections::VecDeque;

use super::{Chain, Changes, Copied, Doubt, Gone, Handle, Link, Parked, begins_as, link_at};
use crate::capture::io::{FileNo, FoundFile};
use crate::limits::HEAD_BYTES;
use crate::model::cursor::{FileCursor, FileId, FilePlace, HeadPrint, TailPrint};
use crate::model::rotated_name;

/// A place whose content is not where it was: the file was rewritten, or is missing.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) place: FilePlace,
    pub(super) name: String,
    /// The greatest length seen.
    pub(super) len: u64,
    /// Its file is still there, with other content.
    pub(super) in_place: bool,
    /// Its file may be younger than its lines.
    pub(super) is_copy: bool,
    /// Files that looked like it and were not.
    pub(super) tried: Vec<FileId>,
}

impl Orphan {
    /// The file that seems to have the content now. Not one of those that were read as files of their own. A log may
    /// have been copied more than once before it was emptied: the longest copy was made last. Of two with the same
    /// length it is the newer file. An archive that seems too short may have several members, of which only the last
    /// one's length is known. Those come last, and their opening decides. Of a log that is `never_copied`, many
    /// archives may begin alike, and each has one member.
    pub(super) fn candidate(
        &self,
        found: &[FoundFile],
        links: &VecDeque<Link>,
        never_copied: bool,
        was_read: impl Fn(&FoundFile) -> bool,
    ) -> Option<usize> {
        let len = |file: &FoundFile| match file.compressed {
            true => file.unpacked_len.map(u64::from),
            false => Some(file.len),
        };
        let fits =
            |file: &FoundFile| len(file).is_none_or(|len| len >= self.place.offset.max(self.place.tail.end));
        let may_have_members =
            |file: &FoundFile| !never_copied && file.compressed && file.head.len() == HEAD_BYTES;
        let seems_it = |file: &FoundFile| {
            let is_other = file.id != self.place.file && !self.tried.contains(&file.id);
            // A file that waits behind the first was listed before anybody knew that this content has to be found.
            let is_held =
                |(at, link): (usize, &Link)| link.found.id == file.id && (at == 0 || !link.is_queued());
            let is_held = links.iter().enumerate().any(is_held);
            // A file that begins with a hole has no head. Then its copy has none either, and the bytes before the place
            // decide.
            let is_told = self.place.head.len_bytes > 0 || file.head.is_empty() && !self.place.tail.is_none();
            (fits(file) || may_have_members(file))
                && file.has_head(&self.place.head)
                && is_other
                && is_told
                && !is_held
                && !was_read(file)
        };
        let all = found.iter().enumerate().filter(|(_, file)| seems_it(file));
        all.max_by_key(|(_, file)| (fits(file), len(file))).map(|(at, _)| at)
    }

    /// A cursor from which the search can start again. `reached` is where an earlier run had stopped in later files.
    pub(super) fn cursor(&self, reached: &[FilePlace]) -> FileCursor {
        FileCursor {
            len: self.len,
            is_copy: self.is_copy,
            reached: if self.in_place { Default::default() } else { reached.to_vec().into() },
            ..FileCursor::at(self.place)
        }
    }

    pub(super) fn give_up(self, changes: &mut Changes) {
        let name = if self.name.is_empty() { "the file of the saved position".to_owned() } else { self.name };
        let bytes = self.len.saturating_sub(self.place.offset);
        let file = self.place.file;
        changes.gone.push(Gone { name, bytes, in_place: self.in_place, file });
    }
}

impl Chain {
    /// Whether the file being read begins otherwise than before, because it was rewritten in place. Its first bytes
    /// never change otherwise, so a scan can tell, however old it is. A scan can't tell that it is shorter, because
    /// reading went on meanwhile.
    pub(super) fn is_rewritten(&self) -> bool {
        let Some(front) = self.links.front() else { return false };
        !front.deleted && !front.late && front.is_in(&front.found) && front.is_rewritten_as(&front.found)
    }

    /// The file being read has this length now, by its descriptor. If that is less than what was read of it, or than
    /// before anything was read, it was truncated. Returns whether it was.
    pub fn on_short(&mut self, len: u64) -> bool {
        let was_longer = |front: &Link| front.offset == 0 && front.is_as_listed() && len < front.len;
        let short = self.links.front().is_some_and(|front| len < front.offset || was_longer(front));
        if short {
            self.begin_anew(len);
        }
        short
    }

    /// The file being read was rewritten: it is read from its beginning once it is known where its content went. Or it
    /// is let go: a rotated file that was read is older than what was read since, and its present content is a copy.
    pub fn begin_anew(&mut self, len: u64) {
        if self.links.front().is_some_and(|front| front.late) {
            let link = &self.links[0];
            self.given_up.let_go.extend(link.open_file());
            self.known.pass_over(&link.found);
            return self.remove(0);
        }
        let position = self.position();
        self.renew_mark();
        let is_copy = self.front_is_copy();
        let Some(front) = self.links.front_mut() else { return };
        let orphan = Orphan {
            place: FilePlace {
                skip: self.delivered_to.map(|to| to.saturating_sub(position)),
                ..front.place()
            },
            name: front.found.name.clone(),
            len: front.known_len(),
            in_place: true,
            is_copy,
            tried: Vec::new(),
        };
        self.emptied = (front.offset > 0).then(|| Box::new(front.place()));
        self.base = self.base.wrapping_add(front.offset);
        let judged = front.found.head.len() >= front.head.len_bytes as usize && len > 0;
        front.head = if judged && !front.found.has_head(&front.head) {
            front.found.print()
        } else {
            // It was listed before that.
            front.found.head.clear();
            HeadPrint::default()
        };
        (front.offset, front.len, front.unread, front.tail) = (0, len, true, TailPrint::default());
        (front.room, front.nuls_to, front.hole) = (false, 0, false);
        (front.anew, front.rewritten) = (true, true);
        self.delivered_to = [0; 2];
        self.mark_front();
        if orphan.place.offset == 0 && orphan.len == 0 {
            return;
        }
        if let Some(before) = self.orphan.replace(Box::new(orphan)) {
            self.note_given_up(before.place);
            before.give_up(&mut self.given_up);
        }
    }

    /// Whether the content of a rewritten file is being searched for.
    pub fn is_searching(&self) -> bool {
        self.orphan.is_some()
    }

    /// Whether the first file may be read.
    pub fn may_read(&self) -> bool {
        let is_decided = !matches!(self.doubt, Doubt::Asked | Doubt::Shown);
        let may_read =
            |front: &Link| is_decided && self.orphan.is_none() && !front.candidate && !front.doubted;
        self.links.front().is_some_and(may_read) && !self.is_being_copied()
    }

    /// A first file that was skipped is another one by now, as the last listing shows: it is judged and read from its
    /// beginning. Losing its old content is no loss.
    pub(super) fn begin_left_out_anew(&mut self) -> bool {
        let position = self.position();
        let Some(front) = self.links.front_mut().filter(|front| front.left_out.is_some()) else {
            return false;
        };
        let is_shorter = front.found.len < front.offset;
        if !front.is_in(&front.found) || !is_shorter && !front.is_rewritten_as(&front.found) {
            return false;
        }
        (front.head, front.tail, front.left_out) = (front.found.print(), TailPrint::default(), None);
        (front.offset, front.len, front.unread) = (0, front.found.len, true);
        self.go_on_at(position);
        true
    }

    pub(super) fn search(&mut self, found: &[FoundFile], latest: bool, changes: &mut Changes) {
        if self.orphan.is_none() {
            return;
        }
        if let Some(at) = self.links.iter().position(|link| link.candidate) {
            if !self.links[at].deleted {
                return;
            }
            self.remove(at);
        }
        let Some(orphan) = &self.orphan else { return };
        let is_read = |link: &Link, file: &FoundFile| {
            link.found.id == file.id && link.offset > 0 && !link.is_rewritten_as(file)
        };
        let was_read = |file: &FoundFile| {
            self.parked.iter().any(|parked| is_read(&parked.link, file)) || self.known.was_read(file)
        };
        if let Some(at) = orphan.candidate(found, &self.links, self.copied_since_ns.is_none(), was_read) {
            // It may have been taken for another copy.
            let is_it = |parked: &mut Parked| parked.link.found.id == found[at].id && parked.link.offset == 0;
            let before = self.parked.extract_if(.., is_it);
            changes.let_go.extend(before.filter_map(|parked| parked.link.open_file()));
            let skip = orphan.place.skip;
            let mut link = link_at(found[at].clone(), &orphan.place);
            (link.candidate, link.settled, link.last_look) = (true, true, true);
            if let Some(queued) = self.links.iter().position(|link| link.found.id == found[at].id)
                && let Some(before) = self.links.remove(queued)
            {
                changes.let_go.extend(before.open_file());
                link.queued = true;
            }
            self.push_front(link);
            let position = self.position();
            self.delivered_to = skip.map(|skip| position.wrapping_add(skip));
        } else if latest {
            if let Some(orphan) = self.orphan.take() {
                self.note_given_up(orphan.place);
                if !orphan.in_place {
                    self.note_gone(orphan.place);
                }
                orphan.give_up(changes);
            }
        } else {
            changes.look_again = true;
        }
    }

    /// A file was opened; its length, and whether it has the bytes that were read of it before. Returns false if it is
    /// let go.
    pub fn on_opened(&mut self, file: FileNo, as_expected: bool, len: u64) -> bool {
        let is_it = |link: &Link| link.handle == Handle::Opening(file) || link.handle == Handle::Open(file);
        if let Some(at) = self.parked.iter().position(|parked| is_it(&parked.link)) {
            if !as_expected {
                // It was rewritten, and is older than what was read.
                let parked = self.parked.remove(at);
                self.known.pass_over(&parked.link.found);
            }
            return as_expected;
        }
        let Some(at) = self.links.iter().position(is_it) else { return false };
        match (self.links[at].candidate, as_expected) {
            (true, true) => {
                let link = &mut self.links[at];
                (link.candidate, link.copy) = (false, Copied::Yes);
                if let Some(mark) = self.stretches.back_mut().filter(|_| at == 0 && self.front_marked) {
                    mark.is_copy = true;
                }
                self.orphan = None;
            }
            (false, true) => {}
            // It begins like another file without being a copy of it: two of Docker's may both begin within one long
            // line.
            (false, false) if at == 0 && self.is_no_copy(true) => {}
            // Its earlier length says nothing about its present content.
            (false, false) if at == 0 => self.begin_anew(len),
            (false, false) => {
                let link = &mut self.links[at];
                (link.offset, link.tail, link.len) = (0, TailPrint::default(), len);
                if link.copy == Copied::Likely {
                    link.copy = Copied::No;
                }
            }
            (true, false) => return self.not_the_orphan(at),
        }
        true
    }

    /// The first file is about to be read for the first time. If it begins like a file that was read (a backup was
    /// restored, an editor saved its own copy, the log was copied before it was renamed), reading continues where that
    /// one was left, provided that the same bytes are before that place.
    pub fn assume_copy(&mut self) {
        let position = self.position();
        let live = self.links.iter().find(|link| link.found.rank == 0).map(|link| link.found.id);
        let Some(front) = self.links.front_mut() else { return };
        if front.offset > 0 || front.found.compressed || front.copy != Copied::Unknown {
            return;
        }
        // A live log may begin like the one before it. Docker only renames its files, so two that exist at once are
        // never copies: the middle of a line of hundreds of kilobytes fills whole files with the same bytes.
        let (is_rotated, is_ever_copied) = (front.found.rank > 0, self.copied_since_ns.is_some());
        let may_be = |file: FileId| {
            self.present.binary_search(&file).is_err() || is_rotated && (is_ever_copied || live == Some(file))
        };
        if self.parked.iter().any(|parked| front.is_older_copy_of(&parked.link)) {
            front.assume_read();
        } else if let Some(place) = self.known.twin(&front.found, front.len, may_be) {
            (front.offset, front.tail) = (place.offset, place.tail);
            front.copy = Copied::Likely;
        } else {
            return;
        }
        self.go_on_at(position);
    }

    /// The writer of a parked file is no longer waited for. If the first file is its copy and did not grow meanwhile,
    /// it is a copy from an earlier time.
    pub fn close_parked(&mut self, at: usize) {
        let Parked { link, .. } = self.parked.remove(at);
        let position = self.position();
        if let Some(front) = self.links.front_mut().filter(|front| front.is_older_copy_of(&link)) {
            front.assume_read();
            self.go_on_at(position);
        }
    }

    /// The first file was listed before it had much content, and is read for the first time: it begins with these
    /// bytes. Returns whether to drop them, because it is a copy.
    pub fn begins_as_copy(&mut self, bytes: &[u8]) -> bool {
        let Some(front) = self.links.front_mut() else { return false };
        let is_new = front.offset == 0 && front.copy == Copied::Unknown;
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        // A new live file may start with the same lines as the last one. That makes it no copy, unless it has the name
        // of one (logrotate's `olddir`).
        let is_live = front.found.rank == 0 && rotated_name::live_names(&front.found.name).next().is_none();
        if !is_new || is_live || front.found.compressed || front.found.head.len() >= head.len() {
            return false;
        }
        front.found.head = head.to_vec();
        front.head = front.found.print();
        front.len = front.len.max(bytes.len() as u64);
        self.assume_copy();
        let is_copy = self.links.front().is_some_and(|front| front.copy == Copied::Likely);
        let is_dropped = is_copy || self.is_being_copied();
        if let Some(front) = self.links.front_mut() {
            front.unread |= is_dropped;
        }
        is_dropped
    }

    /// Whether the first file begins like one that still exists, and is shorter than what was read of that: its writer
    /// copies it and then removes it (logrotate's renamecopy). What it is can be decided when it is complete. With too
    /// little content to decide, the other file's name does, which then has no place in the order of rotation.
    pub(super) fn is_being_copied(&self) -> bool {
        let Some(front) = self.links.front() else { return false };
        let is_new = front.offset == 0 && front.copy == Copied::Unknown && !front.deleted;
        let is_original = |link: &Link| {
            let is_short = front.found.head.len() < link.head.len_bytes as usize;
            let is_aside = link.found.rank == FoundFile::RANK_UNKNOWN;
            let may_be = begins_as(&front.found, &link.head) || is_short && is_aside;
            !link.missing && link.offset > front.len && may_be
        };
        is_new
            && front.found.rank > 0
            && !front.found.compressed
            && self.parked.iter().any(|parked| is_original(&parked.link))
    }

    /// What was read shows whether it is a copy. Returns whether it turned out not to be one: then it is read from its
    /// beginning.
    pub fn is_no_copy(&mut self, is_another: bool) -> bool {
        let position = self.position();
        let Some(front) = self.links.front_mut().filter(|front| front.copy == Copied::Likely) else {
            return false;
        };
        front.copy = if is_another { Copied::No } else { Copied::Yes };
        if is_another {
            self.doubt = Doubt::None;
            (front.offset, front.tail, front.unread) = (0, TailPrint::default(), true);
            self.go_on_at(position);
        }
        is_another
    }

    /// Whether it is kept as another file.
    fn not_the_orphan(&mut self, at: usize) -> bool {
        let Some(orphan) = &mut self.orphan else { return false };
        let link = &mut self.links[at];
        orphan.tried.push(link.found.id);
        let is_younger = link.found.id.birth_ns >= orphan.place.file.birth_ns && !link.found.compressed;
        let is_new = link.found.rank == 0 || !orphan.in_place && is_younger;
        if link.queued {
            self.requeue(at);
            return true;
        }
        if is_new {
            let position = self.base.wrapping_add(link.offset);
            (link.candidate, link.offset, link.tail) = (false, 0, TailPrint::default());
            link.head = link.found.print();
            self.delivered_to = [0; 2];
            if at == 0 {
                self.base = position;
                self.stretches.pop_back();
                self.mark_front();
            }
            return true;
        }
        self.known.pass_over(&self.links[at].found);
        self.remove(at);
        if at == 0 {
            self.delivered_to = [0; 2];
            self.go_on_where_reached();
        }
        false
    }

    /// It is read as a file of its own after all.
    fn requeue(&mut self, at: usize) {
        let Some(mut link) = self.take_out(at) else { return };
        (link.candidate, link.queued, link.last_look) = (false, false, false);
        (link.offset, link.tail, link.head, link.unread) =
            (0, TailPrint::default(), link.found.print(), true);
        if at == 0 {
            self.delivered_to = [0; 2];
        }
        // It goes behind the rewritten file, to its place in the order of rotation.
        let is_newer = |other: &Link| other.found.rank < link.found.rank;
        let at = self.links.iter().skip(1).position(is_newer).map_or(self.links.len(), |newer| newer + 1);
        self.links.insert(at, link);
        if !self.front_marked {
            self.mark_front();
        }
        self.settle();
    }

    fn remove(&mut self, at: usize) {
        self.take_out(at);
    }

    fn take_out(&mut self, at: usize) -> Option<Link> {
        let position = self.position();
        let link = self.links.remove(at);
        if at == 0 {
            if self.stretches.back().is_some_and(|stretch| stretch.start == position) {
                self.stretches.pop_back();
            }
            self.go_on_at(position);
        }
        link
    }
}
