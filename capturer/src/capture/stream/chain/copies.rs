//! Copies of a log that were made unseen: its writer (logrotate's copytruncate) copied and emptied it, maybe several
//! times, while it was empty for us or we were late. Then no position leads to its content. Such a copy is recognized
//! by its name, its birth time, and first bytes that no other file has.

use super::{Chain, Copied, HEAD_BYTES_PROOF, Link, Memory, Parked, begins_as, link, link_at};
use crate::capture::io::FoundFile;
use crate::model::cursor::{FileId, FilePlace};

/// How many places are remembered whose content was not found.
const GIVEN_UP_MAX: usize = 8;
/// How many files of other streams are remembered.
const OTHERS_MAX: usize = 64;

impl Chain {
    /// Another stream reads this file in its directory. The file's archive will have nothing new.
    pub fn note_read_by_another(&mut self, file: &FoundFile) {
        let head = file.print();
        if head.len_bytes < HEAD_BYTES_PROOF || self.heads_of_others.contains(&head) {
            return;
        }
        if self.heads_of_others.len() == OTHERS_MAX {
            self.heads_of_others.pop_front();
        }
        self.heads_of_others.push_back(head);
    }

    /// Whether an unknown file may have been made by copying since the last look at the log.
    pub(super) fn may_be_new_copy(&self, file: &FoundFile) -> bool {
        let is_named = file.rank > 0 && file.rank < FoundFile::RANK_UNKNOWN;
        // Older archives are made of files that an earlier run may have skipped.
        let is_whole = !file.compressed || file.rank == 1 && file.head.len() >= HEAD_BYTES_PROOF as usize;
        let since_ns = self.copied_since_ns.unwrap_or(i64::MAX);
        is_named && is_whole && !file.head.is_empty() && file.id.birth_ns > since_ns
    }

    /// Reads new copies, before later content if that was not begun.
    pub(super) fn take_copies(&mut self, found: &[FoundFile], memory: Memory<'_>) {
        let Some(live) = found.last().filter(|file| file.rank == 0 && file.id.birth_ns != 0) else { return };
        let is_live = |link: &Link| link.found.id == live.id && !link.elsewhere;
        if self.copied_since_ns.is_none() || !self.links.back().is_some_and(is_live) {
            return;
        }
        // It was emptied: the next read shows it, and its earlier content is searched for first.
        if self.links.back().is_some_and(|link| live.len < link.offset) {
            return;
        }
        // The log's earlier content continues in a copy that is older than these.
        let candidate = self.links.iter().find(|link| link.candidate).map(|link| link.found.id);
        if self.orphan.is_some() && candidate.is_none() {
            return;
        }
        let from =
            candidate.and_then(|id| found.iter().position(|file| file.id == id)).map_or(0, |at| at + 1);
        let is_begun = self.links.back().is_some_and(|live| live.offset > 0) || self.is_within_delivered();
        // A copy that was made, written and renamed between two listings may be older than the live file.
        let since_ns =
            self.newest_birth_but(live.id).map_or(live.id.birth_ns, |ns| live.id.birth_ns.min(ns + 1));
        for file in found[..found.len() - 1].iter().skip(from) {
            let is_new = file.id.birth_ns >= since_ns && self.may_be_new_copy(file);
            if !is_new || self.has_in_hand(file) || self.known.of(file, found, memory).is_some() {
                continue;
            }
            if let Some(place) = self.given_up_in(file) {
                self.parked.push(Parked { link: link_at(file.clone(), &place), due_ms: None });
                continue;
            }
            if self.holds_the_same(file, found, memory) {
                if is_begun {
                    // It was copied, and the log continues (logrotate's `copy`).
                    self.known.pass_over(file);
                    self.note_copy(file);
                }
                continue;
            }
            if is_begun {
                self.parked.push(Parked { link: new_copy(file), due_ms: None });
            } else {
                self.insert_before_live(file);
            }
        }
    }

    /// The table of files has a copy too that is passed over: a later run may find it after its log is gone. Of a longer one
    /// nobody knows whether it was whole when it was listed, and its rest would begin within a line.
    fn note_copy(&mut self, file: &FoundFile) {
        let is_whole = file.len == file.head.len() as u64 && file.head.ends_with(b"\n");
        if let Some(place) = self.known.place_in(file.id).filter(|_| is_whole && !file.compressed) {
            self.done.push(place);
        }
    }

    /// When the newest file was made, of those being read or read before, except `live`.
    fn newest_birth_but(&self, live: FileId) -> Option<i64> {
        let ids = self.in_hand().map(|link| link.found.id).chain(self.known.ids());
        ids.filter(|id| *id != live).map(|id| id.birth_ns).max()
    }

    pub(super) fn note_given_up(&mut self, place: FilePlace) {
        if self.given_up_at.len() == GIVEN_UP_MAX {
            self.given_up_at.pop_front();
        }
        self.given_up_at.push_back(place);
    }

    /// The place to continue in a file that seems to have content that was searched for in vain.
    fn given_up_in(&mut self, file: &FoundFile) -> Option<FilePlace> {
        let holds = |place: &FilePlace| {
            place.head.len_bytes > 0
                && file.has_head(&place.head)
                && !file.compressed
                && file.len >= place.offset
        };
        let at = self.given_up_at.iter().position(holds)?;
        self.given_up_at.remove(at)
    }

    fn has_in_hand(&self, file: &FoundFile) -> bool {
        self.in_hand().any(|link| link.found.id == file.id || link.is(file))
    }

    /// Whether it begins like a file that is being read or was read.
    fn holds_the_same(&self, file: &FoundFile, found: &[FoundFile], memory: Memory<'_>) -> bool {
        let is_as_live = |live: &FoundFile| {
            let common = file.head.len().min(live.head.len());
            common > 0 && file.head[..common] == live.head[..common]
        };
        // If a file grew since it was copied, its print covers more than the copy has.
        let is_older_copy_of = |other: &FoundFile| {
            let is_proof = file.head.len() >= HEAD_BYTES_PROOF as usize && other.id != file.id;
            let is_read = || self.has_in_hand(other) || self.known.of(other, found, memory).is_some();
            is_proof && other.head.starts_with(&file.head) && is_read()
        };
        found.last().is_some_and(is_as_live)
            || found.iter().any(is_older_copy_of)
            || self.in_hand().any(|link| begins_as(file, &link.head) || link.was_as(file))
            || self.heads_of_others.iter().any(|head| begins_as(file, head))
            || self.known.begins_as(file)
            || memory.any_head(&|head| begins_as(file, head))
    }

    fn insert_before_live(&mut self, file: &FoundFile) {
        let at = self.links.len().saturating_sub(1);
        if at == 0 && self.front_marked {
            // Nothing of the live file was read: the mark belongs to the new front.
            self.stretches.pop_back();
            self.front_marked = false;
        }
        let copy = Link { settled: true, ..new_copy(file) };
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

/// Its lines may be older than the file: an output may have them already.
fn new_copy(file: &FoundFile) -> Link {
    Link { copy: Copied::Yes, ..link(file.clone()) }
}
