//! What is known of files that are not in hand: read to their ends, or passed over.

use std::collections::{BTreeMap, BTreeSet};

use super::{HEAD_BYTES_PROOF, begins_as, is_same};
use crate::capture::io::FoundFile;
use crate::model::cursor::{FileId, FilePlace, HeadPrint, TailPrint};

/// Files that are looked for under any name.
const WANTED_MAX: usize = 32;
/// Beyond so many, those that no listing shows are forgotten here; the table of files read still has them.
const KNOWN_MAX: usize = 2048;

/// What is remembered of files that were read under whatever name, in this run or before.
pub trait Remembers {
    /// Where a file was left.
    fn place_of(&self, file: FileId) -> Option<FilePlace>;

    /// Whether a file of any log begins so. It takes a look at all that is remembered, and is asked only of archives and
    /// copies that nothing else explains.
    fn any_head(&self, is_it: &dyn Fn(&HeadPrint) -> bool) -> bool;

    /// Another file that began as this one does, and that is gone or was rewritten: the place where it was left. `is_here` says
    /// whether a file still has the content that was read; `None` = the caller does not see it.
    fn moved(&self, file: &FoundFile, is_here: &dyn Fn(&FilePlace) -> Option<bool>) -> Option<FilePlace>;

    /// The same for a live file. Two programs may write the same first lines, so it takes more to believe it.
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

/// See [`Remembers`].
pub type Memory<'a> = &'a dyn Remembers;

/// See the module's head.
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

    /// Nothing of it is asked for.
    pub(super) fn pass_over(&mut self, file: &FoundFile) {
        // Not 0, which would mean that all of it is to come.
        let offset = file.unpacked_len.map_or(file.len, u64::from).max(1);
        let tail = TailPrint::default();
        self.put(FilePlace { file: file.id, head: file.print(), tail, offset, skip: [0; 2] });
    }

    /// Nothing of it is asked for but what is added to it. Returns its place.
    pub(super) fn ignore(&mut self, file: &FoundFile) -> FilePlace {
        let tail = TailPrint { end: file.len, ..TailPrint::default() };
        let place = FilePlace { file: file.id, head: file.print(), tail, offset: file.len, skip: [0; 2] };
        self.put(place);
        place
    }

    /// Those that were left last.
    pub(super) fn newest(&self) -> Vec<FileId> {
        let mut all: Vec<(u64, FileId)> =
            self.places.iter().map(|(id, (number, _))| (*number, *id)).collect();
        all.sort_unstable_by(|one, other| other.cmp(one));
        all.into_iter().take(WANTED_MAX).map(|(_, id)| id).collect()
    }

    /// What it holds was read, not passed over.
    pub(super) fn was_read(&self, file: &FoundFile) -> bool {
        let place = self.places.get(&file.id).map(|(_, place)| place);
        place.is_some_and(|place| !place.tail.is_none() && file.has_head(&place.head))
    }

    /// It was read here, or passed over.
    pub(super) fn has(&self, file: FileId) -> bool {
        self.places.contains_key(&file)
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = FileId> {
        self.places.keys().copied()
    }

    /// Where a file was left that was found, among others.
    pub(super) fn of(&self, file: &FoundFile, found: &[FoundFile], memory: Memory<'_>) -> Option<FilePlace> {
        let own = self.places.get(&file.id).map(|(_, place)| *place);
        let place = own.or_else(|| memory.place_of(file.id)).filter(|place| is_it(file, &place.head));
        place.or_else(|| self.archived(file, found))
    }

    /// A file that is known begins as this one does.
    pub(super) fn begins_as(&self, file: &FoundFile) -> bool {
        let mut heads = self.places.values().map(|(_, place)| place.head);
        heads.any(|head| begins_as(file, &head))
    }

    /// The file whose archive this is. Of one that is still there it holds an earlier copy.
    fn archived(&self, file: &FoundFile, found: &[FoundFile]) -> Option<FilePlace> {
        if !file.compressed {
            return None;
        }
        let is_there = |place: &FilePlace| {
            found.iter().any(|other| !other.compressed && is_same(other, place.file, &place.head))
        };
        let places = self.places.values().map(|(_, place)| place);
        let proven = places.filter(|place| begins_as(file, &place.head) && !is_there(place));
        // The length tells it from others that begin alike.
        let fits = |place: &&FilePlace| file.unpacked_len.is_none_or(|len| len >= place.offset as u32);
        let best = proven.filter(fits).max_by_key(|place| place.offset)?;
        Some(FilePlace { file: file.id, ..*best })
    }

    /// A file that begins as this one does, of this length; nothing but what follows its place is new here. `may_be` says
    /// of which files this may be a copy.
    pub(super) fn twin(
        &self,
        file: &FoundFile,
        len: u64,
        may_be: impl Fn(FileId) -> bool,
    ) -> Option<FilePlace> {
        if file.head.len() < HEAD_BYTES_PROOF as usize {
            return None;
        }
        let is_twin = |place: &&FilePlace| {
            !place.tail.is_none()
                && place.tail.end == place.offset
                && place.offset <= len
                && place.file != file.id
                && may_be(place.file)
                && begins_as(file, &place.head)
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

/// A number alone is no proof, where there are no birth times.
pub(super) fn is_it(file: &FoundFile, head: &HeadPrint) -> bool {
    // An empty file looks like any other.
    let whole = head.len_bytes > 0 && head.len_bytes as usize == file.head.len();
    let proven = file.id.birth_ns != 0 || whole || head.len_bytes >= HEAD_BYTES_PROOF;
    proven && file.has_head(head)
}
