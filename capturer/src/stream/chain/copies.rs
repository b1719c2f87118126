//! Copies of a log that were made and not seen being made: its writer (logrotate's copytruncate) copied and emptied it, maybe
//! several times, while it was empty for us or we were late. Then nothing that was read says where its content went, and
//! no position leads there: a copy is told by its name, by its birth and by its first bytes, which nothing else has.

use super::{Chain, HEAD_BYTES_PROOF, Memory, Parked, link};
use crate::capture::io::FoundFile;

impl Chain {
    /// Whether a file that nobody knows may have been made by copying since the log was looked at last.
    pub(super) fn may_be_new_copy(&self, file: &FoundFile) -> bool {
        let is_named = file.rank > 0 && file.rank < FoundFile::RANK_UNKNOWN;
        // Older archives are made of files that an earlier run may have passed over.
        let is_whole = !file.compressed || file.rank == 1 && file.head.len() >= HEAD_BYTES_PROOF as usize;
        let since_ns = self.copied_since_ns.unwrap_or(i64::MAX);
        is_named && is_whole && !file.head.is_empty() && file.id.birth_ns > since_ns
    }

    /// Reads what new copies hold, before what came after them if that was not begun.
    pub(super) fn take_copies(&mut self, found: &[FoundFile], memory: Memory<'_>) {
        let Some(live) = found.last().filter(|file| file.rank == 0 && file.id.birth_ns != 0) else { return };
        let is_live = |link: &super::Link| link.found.id == live.id && !link.elsewhere;
        if self.copied_since_ns.is_none() || !self.links.back().is_some_and(is_live) {
            return;
        }
        // What was read of the log goes on in a copy that is older than those.
        let candidate = self.links.iter().find(|link| link.candidate).map(|link| link.found.id);
        if self.orphan.is_some() && candidate.is_none() {
            return;
        }
        let from =
            candidate.and_then(|id| found.iter().position(|file| file.id == id)).map_or(0, |at| at + 1);
        let is_begun = self.links.back().is_some_and(|live| live.offset > 0) || self.is_within_delivered();
        for file in &found[from..found.len() - 1] {
            let is_new = file.id.birth_ns >= live.id.birth_ns && self.may_be_new_copy(file);
            if !is_new || self.has_in_hand(file) || self.known.of(file, memory).is_some() {
                continue;
            }
            if self.holds_the_same(file, live) {
                if is_begun {
                    // It was copied and goes on (logrotate's `copy`).
                    self.known.pass_over(file);
                }
                continue;
            }
            if is_begun {
                self.parked.push(Parked { link: link(file.clone()), due_ms: None });
            } else {
                self.insert_before_live(file);
            }
        }
    }

    fn has_in_hand(&self, file: &FoundFile) -> bool {
        let mut links = self.links.iter().chain(self.parked.iter().map(|parked| &parked.link));
        links.any(|link| link.found.id == file.id || link.is(file))
    }

    /// It begins as a file does that is read or was read.
    fn holds_the_same(&self, file: &FoundFile, live: &FoundFile) -> bool {
        let common = file.head.len().min(live.head.len());
        let is_live = common > 0 && file.head[..common] == live.head[..common];
        let mut links = self.links.iter().chain(self.parked.iter().map(|parked| &parked.link));
        let is_link =
            |link: &super::Link| link.head.len_bytes >= HEAD_BYTES_PROOF && file.has_head(&link.head);
        is_live || links.any(is_link) || self.known.begins_as(file)
    }

    fn insert_before_live(&mut self, file: &FoundFile) {
        let at = self.links.len().saturating_sub(1);
        if at == 0 && self.front_marked {
            // Nothing of the live file was read: the mark is the new front's.
            self.marks.pop_back();
            self.front_marked = false;
        }
        let mut copy = link(file.clone());
        copy.settled = true;
        self.links.insert(at, copy);
        if let Some(live) = self.links.back_mut() {
            // A read under way does not count.
            live.unread = true;
        }
        if !self.front_marked {
            self.mark_front();
        }
    }
}
