//! Which stream reads a file. Two paths may lead to the same file (a hard link; a log renamed to a name that is
//! followed, too), but its lines are delivered once. The second stream waits until the first lets the file go, and then
//! continues where that one stopped.

use std::collections::{BTreeMap, BTreeSet};

use super::io::FoundFile;
use crate::model::cursor::FileId;
use crate::model::packed::Pack;
use crate::model::record::StreamId;

/// The streams among which a file has one reader: those of an outlet, followed paths and containers separately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Number of the outlet.
    pub outlet: u8,
    /// Whether it is a group of followed paths.
    pub of_paths: bool,
}

/// Readers of files; see the head of this file.
#[derive(Debug, Default)]
pub struct Owners {
    of: BTreeMap<(Group, FileId), StreamId>,
    waiting: BTreeMap<(Group, FileId), BTreeSet<StreamId>>,
    released: BTreeSet<StreamId>,
    /// Files of paths that nobody follows, because another stream reads them.
    paths: BTreeSet<(Group, FileId)>,
    paths_released: bool,
}

impl Pack for Owners {
    fn pack(&mut self) {
        self.of.pack();
    }
}

impl Owners {
    /// The files that the stream may read, without those that another stream reads; it is told when these are free.
    /// Without a birth time a number is no identity.
    pub fn without_others(
        &mut self,
        stream: StreamId,
        group: Group,
        found: Vec<FoundFile>,
    ) -> (Vec<FoundFile>, Vec<FoundFile>) {
        let is_own = |file: &FoundFile| {
            file.id.birth_ns == 0 || self.of.get(&(group, file.id)).is_none_or(|owner| *owner == stream)
        };
        let (own, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_own);
        for file in &others {
            self.waiting.entry((group, file.id)).or_default().insert(stream);
        }
        (own, others)
    }

    /// A stream has other files now. Both lists are sorted.
    pub fn change(&mut self, stream: StreamId, group: Group, before: &[FileId], now: &[FileId]) {
        for id in before.iter().filter(|id| now.binary_search(id).is_err()) {
            if self.of.get(&(group, *id)) == Some(&stream) {
                self.of.remove(&(group, *id));
                self.paths_released |= self.paths.remove(&(group, *id));
                self.released.extend(self.waiting.remove(&(group, *id)).unwrap_or_default());
            }
        }
        for id in now.iter().filter(|id| before.binary_search(id).is_err()) {
            self.of.entry((group, *id)).or_insert(stream);
        }
    }

    /// The stream that reads a file.
    pub fn owner(&self, group: Group, id: FileId) -> Option<StreamId> {
        self.of.get(&(group, id)).copied().filter(|_| id.birth_ns != 0)
    }

    /// The streams that read files this stream waits for.
    pub fn readers_for(&self, stream: StreamId) -> BTreeSet<StreamId> {
        let waited_for = self.waiting.iter().filter(|(_, streams)| streams.contains(&stream));
        waited_for.filter_map(|(key, _)| self.of.get(key)).copied().collect()
    }

    /// The stream that reads the file of a path that nobody follows. The caller is told when the file is free.
    pub fn reader_of_path(&mut self, group: Group, id: FileId) -> Option<StreamId> {
        let owner = self.owner(group, id)?;
        self.paths.insert((group, id));
        Some(owner)
    }

    /// Whether the file of such a path has become free.
    pub fn take_paths_released(&mut self) -> bool {
        std::mem::take(&mut self.paths_released)
    }

    /// Streams that waited for a file that is free now.
    pub fn take_released(&mut self) -> BTreeSet<StreamId> {
        std::mem::take(&mut self.released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_reader_and_the_next_is_told() {
        let (one, two) = (StreamId(1), StreamId(2));
        let group = Group { outlet: 0, of_paths: true };
        let id = FileId { device: 1, inode: 2, birth_ns: 3 };
        let file = || FoundFile {
            name: "l".to_owned(),
            rank: 0,
            compressed: false,
            id,
            len: 0,
            head: Vec::new(),
            unpacked_len: None,
            modified_ns: 0,
        };
        let (none, it) = ([], [id]);
        let mut owners = Owners::default();
        owners.change(one, group, &none, &it);
        assert_eq!(owners.without_others(one, group, vec![file()]).0.len(), 1);
        assert_eq!(owners.without_others(two, group, vec![file()]).0.len(), 0);
        let other = Group { of_paths: false, ..group };
        assert_eq!(owners.without_others(two, other, vec![file()]).0.len(), 1);
        owners.change(one, group, &it, &none);
        assert_eq!(owners.take_released(), BTreeSet::from([two]));
        assert_eq!(owners.without_others(two, group, vec![file()]).0.len(), 1);
    }
}
