//! Files that may have lines of the log and are not read, because nothing shows their place among the others. They are
//! reported.

use super::{Chain, Changes, Gone, Memory, Start};
use crate::capture::io::FoundFile;

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

    fn tell(&mut self, file: &FoundFile, changes: &mut Changes) {
        self.known.pass_over(file);
        changes.cut_off.push(Gone { name: file.name.clone(), bytes: 0, in_place: false, file: file.id });
    }
}
