//! New files that match a pattern, until a listing has shown them. One that goes before that was never opened, which is
//! a loss to be told.

use std::collections::{BTreeMap, BTreeSet};

/// At most this many are remembered.
const UNSEEN_MAX: usize = 4096;
/// The listing under way when a file was made may have missed it; the next one has not.
const LISTINGS_KEPT: u64 = 2;

/// A watch, and a name in its directory.
pub(super) type Place = (i32, Vec<u8>);

/// Files that nobody has seen yet.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    /// Where they are, and how many listings had ended when they were made.
    made: BTreeMap<Place, u64>,
    /// Those that were renamed to names that no pattern matches, with the entries that wanted them. A log of that name that
    /// comes soon finds them as its rotated files.
    moved_away: BTreeMap<Place, (u64, BTreeSet<usize>)>,
    /// How many listings of patterns have ended.
    listed: u64,
}

impl Unseen {
    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    pub(super) fn made(&mut self, place: Place) {
        if self.made.len() < UNSEEN_MAX {
            self.made.insert(place, self.listed);
        }
    }

    /// A file went from there. Returns whether it had not been seen.
    pub(super) fn went(&mut self, place: &Place) -> bool {
        self.made.remove(place).is_some()
    }

    /// One that had not been seen was renamed, which these entries wanted. Returns whether that is remembered.
    pub(super) fn moved_away(&mut self, place: Place, sets: BTreeSet<usize>) -> bool {
        let is_room = self.moved_away.len() < UNSEEN_MAX;
        if is_room {
            self.moved_away.insert(place, (self.listed, sets));
        }
        is_room
    }

    /// Whoever reads what has this place now reads that file, too.
    pub(super) fn is_found(&mut self, place: &Place) {
        self.moved_away.remove(place);
    }

    /// Keeps those whose names hold: others belong to a log that reads them.
    pub(super) fn retain_moved_away(&mut self, holds: impl Fn(&[u8]) -> bool) {
        self.moved_away.retain(|(_, name), _| holds(name));
    }

    /// Keeps those whose places hold: others were seen.
    pub(super) fn retain(&mut self, holds: impl Fn(i32, &[u8]) -> bool) {
        self.made.retain(|(watch, name), _| holds(*watch, name));
    }

    /// A listing of patterns has ended. Returns the files that were moved away before one could show them, with the entries
    /// that wanted them.
    pub(super) fn on_listed(&mut self) -> impl Iterator<Item = (Place, BTreeSet<usize>)> + use<> {
        self.listed += 1;
        let listed = self.listed;
        self.made.retain(|_, made_at| *made_at + LISTINGS_KEPT > listed);
        let old = self.moved_away.extract_if(.., |_, (moved_at, _)| *moved_at + LISTINGS_KEPT <= listed);
        let old: Vec<_> = old.map(|(place, (_, sets))| (place, sets)).collect();
        old.into_iter()
    }
}
