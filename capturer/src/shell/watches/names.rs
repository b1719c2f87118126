//! Which streams have a file with some name in a watched directory: one table of name hashes for all directories. A
//! table per directory would take a kilobyte even for one file, and tens of thousands of files may each have a
//! directory.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::model::packed::Pack;
use crate::model::record::StreamId;

/// How a name belongs to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Called {
    /// The name of its live file.
    Live,
    /// The live name without its ending: a rotated file may have its number before that.
    LiveStem,
    /// The name of a rotated file.
    Rotated,
}

/// The table; see the head of this file. With several outlets, several streams have the same name.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<(i32, Called, u32, StreamId)>);

fn hash(name: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as u32
}

impl Pack for Names {
    fn pack(&mut self) {
        self.0.pack();
    }
}

impl Names {
    pub(super) fn insert(&mut self, watch: i32, called: Called, name: &str, stream: StreamId) {
        self.0.insert((watch, called, hash(name), stream));
    }

    pub(super) fn remove(&mut self, watch: i32, called: Called, name: &str, stream: StreamId) {
        self.0.remove(&(watch, called, hash(name), stream));
    }

    /// Streams that may have a file of that name in the directory: all that do, and rarely another with the same hash.
    pub(super) fn candidates(
        &self,
        watch: i32,
        called: Called,
        name: &str,
    ) -> impl Iterator<Item = StreamId> + '_ {
        let hash = hash(name);
        let range = (watch, called, hash, StreamId(0))..=(watch, called, hash, StreamId(u32::MAX));
        self.0.range(range).map(|(.., stream)| *stream)
    }

    /// Streams with this directory.
    pub(super) fn of_watch(&self, watch: i32) -> impl Iterator<Item = StreamId> + '_ {
        let live = |hash, stream| (watch, Called::Live, hash, StreamId(stream));
        self.0.range(live(0, 0)..=live(u32::MAX, u32::MAX)).map(|(.., stream)| *stream)
    }

    /// Forgets a directory. Returns its streams.
    pub(super) fn remove_watch(&mut self, watch: i32) -> BTreeSet<StreamId> {
        let first = (watch, Called::Live, 0, StreamId(0));
        let last = (watch, Called::Rotated, u32::MAX, StreamId(u32::MAX));
        self.0.extract_if(first..=last, |_| true).map(|(.., stream)| stream).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_and_each_kind_of_name_is_apart() {
        let mut names = Names::default();
        let all = [
            (7, Called::Live, "a", 1),
            (7, Called::Live, "a", 2),
            (7, Called::Rotated, "a", 3),
            (8, Called::Live, "a", 4),
            (8, Called::LiveStem, "b", 4),
        ];
        all.iter().for_each(|(watch, called, name, stream)| {
            names.insert(*watch, *called, name, StreamId(*stream));
        });
        let found = |names: &Names, watch, called, name| {
            names.candidates(watch, called, name).map(|stream| stream.0).collect::<Vec<_>>()
        };
        assert_eq!(found(&names, 7, Called::Live, "a"), [1, 2]);
        assert_eq!(found(&names, 7, Called::Rotated, "a"), [3]);
        assert!(
            found(&names, 7, Called::Live, "b").is_empty() && found(&names, 8, Called::Live, "b").is_empty()
        );
        assert_eq!(names.of_watch(7).map(|stream| stream.0).collect::<Vec<_>>(), [1, 2]);
        names.remove(7, Called::Live, "a", StreamId(1));
        assert_eq!(names.remove_watch(7), [2, 3].map(StreamId).into());
        assert_eq!((names.0.len(), found(&names, 8, Called::LiveStem, "b")), (2, vec![4]));
    }
}
