//! What is known of files that the chain does not have: read to their ends, or skipped.

use std::collections::{BTreeMap, BTreeSet};

use super::{HEAD_BYTES_PROOF, begins_as, is_same};
use crate::capture::io::FoundFile;
use crate::model::cursor::{FileId, FilePlace, HeadPrint, TailPrint};

/// How many files are searched for under any name.
const WANTED_MAX: usize = 32;
/// Beyond this many, files that no listing shows are forgotten here; the table of files read still has them.
const KNOWN_MAX: usize = 2048;

/// Remembers files that were read under any name, in this run or before.
pub trait Remembers {
    /// Where a file was left.
    fn place_of(&self, file: FileId) -> Option<FilePlace>;

    /// Whether a file of any log begins like this. It searches everything that is remembered, and is only called for
    /// archives and copies that nothing else explains.
    fn any_head(&self, is_it: &dyn Fn(&HeadPrint) -> bool) -> bool;

    /// The place where another file was left that began like this one and is gone or was rewritten. `is_here` says
    /// whether a file still has the content that was read; `None` = the caller does not see it.
    fn moved(&self, file: &FoundFile, is_here: &dyn Fn(&FilePlace) -> Option<bool>) -> Option<FilePlace>;

    /// As `moved`, for a live file. Two programs may write the same first lines, so more is required.
    fn moved_live(&self, file: &FoundFile, is_here: &dyn Fn(&FilePlace) -> Option<bool>)
    -> Option<FilePlace>;
}

impl<F: Fn(FileId) -> Option<FilePlace>> Remembers for F {
    fn place_of(&self, file: FileId) -> Option<FilePlace> {
        self(file)
    }

    fn any_head(&self, _: &dyn Fn(&HeadPrint) -> bool) -> bool {
        false
    }

    fn moved(&self, _: &FoundFile, _: &dyn Fn(&FilePlace) -> Option<bool>) -> Option<FilePlace> {
        None
    }

    fn moved_live(&self, _: &FoundFile, _: &dyn Fn(&FilePlace) -> Option<bool>) -> Option<FilePlace> {
        None
    }
}

/// The table of files read, as the chain sees it.
pub type Memory<'a> = &'a dyn Remembers;

/// Known files; see the head of this file.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// With the number of the entry: a higher one is newer.
    places: BTreeMap<FileId, (u64, FilePlace)>,
    last: u64,
}

impl Known {
    pub(super) fn put(&mut self, place: FilePlace) {
        self.last += 1;
        self.places.insert(place.file, (self.last, place));
    }

    /// Its content is skipped.
    pub(super) fn pass_over(&mut self, file: &FoundFile) {
        // Not 0, which would mean that everything is still to be read.
        let offset = file.unpacked_len.map_or(file.len, u64::from).max(1);
        let tail = TailPrint::default();
        self.put(FilePlace { file: file.id, head: file.print(), tail, offset, skip: [0; 2] });
    }

    /// Its existing content is skipped, but not what is added. Returns its place.
    pub(super) fn ignore(&mut self, file: &FoundFile) -> FilePlace {
        let tail = TailPrint { end: file.len, ..TailPrint::default() };
        let place = FilePlace { file: file.id, head: file.print(), tail, offset: file.len, skip: [0; 2] };
        self.put(place);
        place
    }

    /// The files that were left last.
    pub(super) fn newest(&self) -> Vec<FileId> {
        let mut all: Vec<(u64, FileId)> =
            self.places.iter().map(|(id, (number, _))| (*number, *id)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.into_iter().take(WANTED_MAX).map(|(_, id)| id).collect()
    }

    /// Whether its content was read, and not skipped.
    pub(super) fn was_read(&self, file: &FoundFile) -> bool {
        let place = self.places.get(&file.id).map(|(_, place)| place);
        place.is_some_and(|place| !place.tail.is_none() && file.has_head(&place.head))
    }

    /// Whether it was read here, or skipped.
    pub(super) fn has(&self, file: FileId) -> bool {
        self.places.contains_key(&file)
    }

    /// Where it was left here.
    pub(super) fn place_in(&self, file: FileId) -> Option<FilePlace> {
        self.places.get(&file).map(|(_, place)| *place)
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = FileId> {
        self.places.keys().copied()
    }

    /// Where a found file was left.
    pub(super) fn of(&self, file: &FoundFile, found: &[FoundFile], memory: Memory<'_>) -> Option<FilePlace> {
        let own = self.places.get(&file.id).map(|(_, place)| *place);
        let place = own.or_else(|| memory.place_of(file.id)).filter(|place| is_it(file, &place.head));
        place.or_else(|| self.archived(file, found))
    }

    /// Whether a known file begins like this one.
    pub(super) fn begins_as(&self, file: &FoundFile) -> bool {
        let mut heads = self.places.values().map(|(_, place)| place.head);
        heads.any(|head| begins_as(file, &head))
    }

    /// The file whose archive this is. If that file still exists, the archive has an earlier copy of it.
    fn archived(&self, file: &FoundFile, found: &[FoundFile]) -> Option<FilePlace> {
        if !file.compressed {
            return None;
        }
        let is_there = |place: &FilePlace| {
            found.iter().any(|other| !other.compressed && is_same(other, place.file, &place.head))
        };
        let places = self.places.values().map(|(_, place)| place);
        let proven = places.filter(|place| begins_as(file, &place.head) && !is_there(place));
        // The length distinguishes it from others with the same beginning.
        let fits = |place: &&FilePlace| file.unpacked_len.is_none_or(|len| len >= place.offset as u32);
        let best = proven.filter(fits).max_by_key(|place| place.offset)?;
        Some(FilePlace { file: file.id, ..*best })
    }

    /// A known file with the same beginning and length; only what follows its place is new here. `may_be` says of which
    /// files this may be a copy.
    pub(super) fn twin(
        &self,
        file: &FoundFile,
        len: u64,
        may_be: impl Fn(FileId) -> bool,
    ) -> Option<FilePlace> {
        // A file that begins with a hole has no head. Then its copy has none either, and the bytes before the place decide.
        let begins_so = |head: &HeadPrint| match file.head.len() {
            0 => head.len_bytes == 0,
            _ => begins_as(file, head),
        };
        let is_twin = |place: &&FilePlace| {
            !place.tail.is_none()
                && place.tail.end == place.offset
                && (1..=len).contains(&place.offset)
                && place.file != file.id
                && may_be(place.file)
                && begins_so(&place.head)
        };
        self.places.values().map(|(_, place)| place).filter(is_twin).max_by_key(|place| place.offset).copied()
    }

    pub(super) fn prune(&mut self, listed: &BTreeSet<FileId>) {
        if self.places.len() > KNOWN_MAX {
            let newest = self.last.saturating_sub(KNOWN_MAX as u64 / 2);
            self.places.retain(|id, (number, _)| *number > newest || listed.contains(id));
        }
    }
}

/// Without birth times a number alone is no proof.
pub(super) fn is_it(file: &FoundFile, head: &HeadPrint) -> bool {
    // An empty file looks like any other.
    let whole = head.len_bytes > 0 && head.len_bytes as usize == file.head.len();
    let proven = file.id.birth_ns != 0 || whole || head.len_bytes >= HEAD_BYTES_PROOF;
    proven && file.has_head(head)
}
