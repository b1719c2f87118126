//! Files that hold what another log held: a log was renamed, or its directory was, and then it was rotated with a copy or an
//! archive; or it was copied or restored under another name, and the original removed. All while nobody looked. Nothing in
//! this directory is known of them, but the table of files read knows how each file began and what stood before the place
//! where it was left.
//!
//! A file that begins alike is taken for one only until its opening or its first read has shown that the same bytes stand
//! before the place. If they do not, it is read from its beginning. Two programs may write the same first lines, each into a
//! log of its own, so a live file is compared only if more says that it is a copy (checkpoint/memory/live.rs).

use super::{Chain, Copied, HEAD_BYTES_PROOF, Link, Memory, link_at};
use crate::capture::io::FoundFile;
use crate::model::cursor::FilePlace;

impl Chain {
    /// Where a file that is not known here is to be read on, because it holds what another log held.
    pub(super) fn moved_here(
        &self,
        file: &FoundFile,
        found: &[FoundFile],
        memory: Memory<'_>,
    ) -> Option<FilePlace> {
        let is_named = file.rank < FoundFile::RANK_UNKNOWN;
        // Docker moves no log, and copies none.
        if !is_named || self.copied_since_ns.is_none() || file.head.len() < HEAD_BYTES_PROOF as usize {
            return None;
        }
        // What is still here as it was read was not moved. What this log has or had, it knows better itself.
        let is_own = |place: &FilePlace| {
            self.known.has(place.file) || self.in_hand().any(|link| link.found.id == place.file)
        };
        let is_here = |place: &FilePlace| {
            let is_it = |other: &&FoundFile| other.id == place.file && !other.compressed;
            let here = found.iter().find(is_it);
            let as_read = here.map(|other| other.has_head(&place.head) && other.len >= place.offset);
            if is_own(place) { Some(true) } else { as_read }
        };
        let place = match file.rank {
            0 => memory.moved_live(file, &is_here)?,
            _ => memory.moved(file, &is_here)?,
        };
        Some(FilePlace { file: file.id, ..place })
    }

    /// Whether a file holds what another log held. What is left of it is read before all that follows.
    pub(super) fn take_moved(&mut self, file: &FoundFile, found: &[FoundFile], memory: Memory<'_>) -> bool {
        let Some(place) = self.moved_here(file, found, memory) else { return false };
        match moved_link(file, &place) {
            Some(link) => self.links.push_back(link),
            None => self.known.put(place),
        }
        true
    }

    /// The first file is a live one and about to be read for the first time. Since it was listed, the log of which it is a copy
    /// may have been missed.
    pub fn assume_moved(&mut self, memory: Memory<'_>) {
        let is_new =
            |front: &&Link| front.found.rank == 0 && front.offset == 0 && front.copy == Copied::Unknown;
        let Some(front) = self.links.front().filter(is_new) else { return };
        let Some(place) = self.moved_here(&front.found, &[], memory) else { return };
        let position = self.position();
        if let Some(front) = self.links.front_mut() {
            (front.offset, front.tail, front.copy) = (place.offset, place.tail, Copied::Likely);
        }
        self.go_on_at(position);
    }

    /// The oldest file of those before `from` that holds what another log held: what comes after it is new.
    pub(super) fn first_moved(&self, found: &[FoundFile], from: usize, memory: Memory<'_>) -> usize {
        let is_moved = |file: &FoundFile| {
            self.known.of(file, found, memory).is_none() && self.moved_here(file, found, memory).is_some()
        };
        found[..from].iter().position(is_moved).unwrap_or(from)
    }
}

/// The file, to be read on at the place of another. `None` = all of it was read, and it does not grow.
fn moved_link(file: &FoundFile, place: &FilePlace) -> Option<Link> {
    let is_read = if file.compressed {
        file.unpacked_len == Some(place.offset as u32)
    } else {
        file.len == place.offset
    };
    (!is_read || file.rank == 0).then(|| Link { copy: Copied::Likely, ..link_at(file.clone(), place) })
}
