//! Files that may have lines of the log and are not read, because nothing shows their place among the others. They are
//! reported.

use super::{Chain, Changes, Gone, Memory, Start};
use crate::capture::io::FoundFile;
use crate::model::cursor::{FileCursor, FileId};

/// A rotation makes the next file within this time: programs rename and open in one go. Clocks of file systems are coarser
/// than that by far.
const ROTATION_NS: i64 = 2_000_000_000;

impl Chain {
    /// The file that was read has a name that is not known as a rotated one, and these were made after it: they may
    /// have the next lines. They are reported once.
    pub(super) fn note_strange(&mut self, strange: &[FoundFile], memory: Memory<'_>, changes: &mut Changes) {
        for file in strange {
            if !self.is_known(file, memory) {
                self.tell(file, changes);
            }
        }
    }

    /// Unknown archives that were made later than one that was read, although their names make them older: their
    /// numbers may grow with each rotation.
    pub(super) fn out_of_order(&self, found: &[FoundFile], memory: Memory<'_>) -> Vec<FoundFile> {
        let Some(since_ns) = self.copied_since_ns else { return Vec::new() };
        if matches!(self.start.as_deref(), Some(start) if !matches!(start, Start::Resume(_))) {
            return Vec::new();
        }
        let is_named = |file: &&FoundFile| file.compressed && file.rank < FoundFile::RANK_BY_BIRTH;
        let archives: Vec<&FoundFile> = found.iter().filter(is_named).collect();
        let mut out_of_order = Vec::new();
        for (at, file) in archives.iter().enumerate() {
            let is_earlier = |newer: &&&FoundFile| newer.modified_ns < file.modified_ns;
            let mut before = archives[at + 1..].iter().filter(is_earlier).peekable();
            if file.modified_ns > since_ns
                && before.peek().is_some()
                && !self.is_known(file, memory)
                && before.any(|newer| self.is_known(newer, memory))
            {
                out_of_order.push((*file).clone());
            }
        }
        out_of_order
    }

    /// Reports those that are not read.
    pub(super) fn note_out_of_order(&mut self, out_of_order: &[FoundFile], changes: &mut Changes) {
        for file in out_of_order {
            if !self.in_hand().any(|link| link.found.id == file.id) {
                self.tell(file, changes);
            }
        }
    }

    /// Wanted files have other names, since these times.
    pub fn note_renamed(&mut self, renamed: &[(FileId, i64)]) {
        let Some(Start::Resume(cursor)) = self.start.as_deref() else { return };
        if let Some((_, at_ns)) = renamed.iter().find(|(file, _)| *file == cursor.file) {
            self.doubts.renamed_ns = *at_ns;
        }
    }

    /// As [`Chain::begin`]; also finds out whether files may have come and gone while the agent did not run, if they would be
    /// neither read nor told.
    pub(super) fn begin_and_note_gap(
        &mut self,
        start: Start,
        found: &[FoundFile],
        strange: &[FoundFile],
        memory: Memory<'_>,
    ) -> Changes {
        let resumed = if let Start::Resume(cursor) = &start { Some(cursor.clone()) } else { None };
        let mut changes = self.begin(start, found, memory);
        if let Some(cursor) = resumed.filter(|_| strange.is_empty()) {
            changes.gap = self.gap_behind(&cursor, found, memory);
        }
        changes
    }

    /// The file to resume in has a name that does not show how many others were rotated since, and the next file was made
    /// well after this one was written to or renamed last. One rotation would have done both at once.
    fn gap_behind(
        &self,
        cursor: &FileCursor,
        found: &[FoundFile],
        memory: Memory<'_>,
    ) -> Option<(String, String)> {
        let is_it = |file: &FoundFile| {
            file.id == cursor.file && file.rank == FoundFile::RANK_UNKNOWN && file.id.birth_ns != 0
        };
        let at = found.iter().position(|file| is_it(file) && !file.compressed)?;
        let (read, next) = (&found[at], found.get(at + 1)?);
        let was_reached = cursor.reached.iter().any(|place| place.file == next.id);
        let is_told = self.denied_files().any(|file| file.id.birth_ns > read.id.birth_ns);
        if next.compressed || was_reached || is_told || self.known.of(next, found, memory).is_some() {
            return None;
        }
        let made_ns = next.id.birth_ns;
        let is_before = |ns: i64| made_ns > ns.saturating_add(ROTATION_NS);
        let renamed_ns = self.doubts.renamed_ns;
        // If it was renamed again after that, the time says nothing of the rotation. Nor does it if the rotation gives other
        // names, as a file beside it shows: then somebody else renamed this one.
        let is_only = found.iter().all(|file| file.rank == 0 || file.rank >= FoundFile::RANK_STRANGE);
        let at_once = renamed_ns != 0 && made_ns.abs_diff(renamed_ns) <= ROTATION_NS.unsigned_abs();
        let is_gap = is_before(read.modified_ns) && !(is_only && at_once);
        is_gap.then(|| (read.name.clone(), next.name.clone()))
    }

    fn tell(&mut self, file: &FoundFile, changes: &mut Changes) {
        self.known.pass_over(file);
        changes.cut_off.push(Gone { name: file.name.clone(), bytes: 0, in_place: false, file: file.id });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::cursor::{FilePlace, TailPrint};

    const S: i64 = 1_000_000_000;

    fn file(rank: u32, name: &str, born_s: i64, modified_s: i64) -> FoundFile {
        FoundFile {
            name: name.to_owned(),
            rank,
            compressed: false,
            id: FileId { device: 1, inode: born_s as u64, birth_ns: born_s * S },
            len: 100,
            head: vec![born_s as u8; 100],
            unpacked_len: None,
            modified_ns: modified_s * S,
        }
    }

    fn saved(modified_s: i64) -> FoundFile {
        file(FoundFile::RANK_UNKNOWN, "saved", 10, modified_s)
    }

    fn place(file: &FoundFile) -> FilePlace {
        let tail = TailPrint::of(&file.head, 100);
        FilePlace { file: file.id, head: file.print(), tail, offset: 100, skip: [0; 2] }
    }

    /// Begins in `saved`, which was renamed at that time. Returns the two files with a gap between them.
    fn begun(found: &[FoundFile], renamed_s: i64, reached: &[FilePlace]) -> Option<(String, String)> {
        let mut cursor = FileCursor::at(place(&saved(0)));
        cursor.reached = reached.to_vec().into();
        let mut chain = Chain::new(Start::Resume(Arc::new(cursor)));
        chain.note_renamed(&[(file(0, "other", 9, 0).id, S), (saved(0).id, renamed_s * S)]);
        let changes = chain.on_listing(found.to_vec(), true, &|_| None);
        assert_eq!((changes.cut_off, changes.gone, changes.lost), (vec![], vec![], vec![]));
        let second = chain.on_listing(found.to_vec(), true, &|_| None);
        assert_eq!(second.gap, None, "it is told once");
        changes.gap
    }

    fn gap(next: &str) -> Option<(String, String)> {
        Some(("saved".to_owned(), next.to_owned()))
    }

    /// The generation between the file that was read and the live one was deleted while the agent was down, and nothing was told.
    #[test]
    fn a_generation_that_is_gone_behind_an_unknown_name_is_told() {
        let live = |born_s| file(0, "l", born_s, born_s + 5);
        assert_eq!(begun(&[saved(20), live(40)], 20, &[]), gap("l"));
        assert_eq!(begun(&[saved(20), live(40)], 0, &[]), gap("l"), "nobody knows when it was renamed");
        assert_eq!(begun(&[saved(20), live(40)], 60, &[]), gap("l"), "it was renamed once more");
        let rotated = file(1, "l.1", 30, 40);
        assert_eq!(begun(&[saved(20), rotated.clone(), live(40)], 20, &[]), gap("l.1"));
        // Whoever saved it did so as the next rotation began.
        assert_eq!(begun(&[saved(20), rotated, live(40)], 30, &[]), gap("l.1"));
        let by_birth = file(FoundFile::RANK_BY_BIRTH, "saved-2", 30, 40);
        assert_eq!(begun(&[saved(20), by_birth, live(40)], 20, &[]), gap("saved-2"));
    }

    #[test]
    fn what_one_rotation_explains_is_no_gap() {
        let live = |born_s| file(0, "l", born_s, born_s + 5);
        assert_eq!(begun(&[saved(39), live(40)], 39, &[]), None, "a busy log");
        assert_eq!(begun(&[saved(50), live(40)], 40, &[]), None, "its writer went on for a while");
        assert_eq!(begun(&[saved(20), live(40)], 40, &[]), None, "a quiet log");
        let rotated = file(1, "l.1", 20, 40);
        assert_eq!(begun(&[saved(20), rotated, live(40)], 40, &[]), None, "what is between is read");
        assert_eq!(begun(&[saved(20), live(40)], 20, &[place(&live(40))]), None, "it was read");
        // What is told itself may have been all.
        let strange = file(FoundFile::RANK_STRANGE, "saved-x", 30, 40);
        let mut chain = Chain::new(Start::Resume(Arc::new(FileCursor::at(place(&saved(0))))));
        let changes = chain.on_listing(vec![saved(20), strange, live(40)], true, &|_| None);
        assert_eq!((changes.gap, changes.cut_off.len()), (None, 1));
    }

    #[test]
    fn without_birth_times_nothing_speaks_for_a_gap() {
        let unborn = |file: FoundFile| FoundFile { id: FileId { birth_ns: 0, ..file.id }, ..file };
        let (saved, live) = (unborn(saved(20)), unborn(file(0, "l", 40, 45)));
        let mut chain = Chain::new(Start::Resume(Arc::new(FileCursor::at(place(&saved)))));
        assert_eq!(chain.on_listing(vec![saved, live], true, &|_| None).gap, None);
    }

    /// A file under a known name has the others between them under their names.
    #[test]
    fn a_rotated_name_shows_what_is_missing() {
        let read = FoundFile { rank: 1, name: "l.1".to_owned(), ..saved(20) };
        assert_eq!(begun(&[read, file(0, "l", 40, 45)], 20, &[]), None);
    }
}
