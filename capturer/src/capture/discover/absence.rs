//! When a container counts as removed. One answer of the Engine is not enough: an empty list, a 404 from something in
//! front of the Engine, or a daemon that is starting would end the streams of running containers, and their logs would
//! come again when the next answer names them.
//!
//! ```text
//! destroy event ─────────────────────────────────────────▶ removed
//! not in a list ─▶ inspected ─┬─ "no such container", and again after a second ▶ removed
//!                             ├─ found: the list was wrong
//!                             └─ no answer: not in a list 30 s later either ────▶ removed
//! ```

use std::collections::BTreeMap;

/// Time between the first list without a container and the one that counts.
pub(super) const LISTS_APART_MS: u64 = 30_000;
/// Time between two inspections that find no such container.
pub(super) const INSPECTS_APART_MS: u64 = 1_000;

/// Why a container may be gone.
#[derive(Debug, Default)]
struct Doubt {
    /// The first list without it.
    unlisted_ms: Option<u64>,
    /// The first inspection that did not find it.
    missing_ms: Option<u64>,
}

/// Containers that may be gone.
#[derive(Debug, Default)]
pub(super) struct Absence {
    doubts: BTreeMap<String, Doubt>,
}

impl Absence {
    /// A list does not name it. Returns whether it counts as removed.
    pub fn not_listed(&mut self, id: &str, now_ms: u64) -> bool {
        let doubt = self.doubts.entry(id.to_owned()).or_default();
        now_ms >= *doubt.unlisted_ms.get_or_insert(now_ms) + LISTS_APART_MS
    }

    /// An inspection did not find it. Returns whether it counts as removed.
    pub fn not_found(&mut self, id: &str, now_ms: u64) -> bool {
        let doubt = self.doubts.entry(id.to_owned()).or_default();
        now_ms >= *doubt.missing_ms.get_or_insert(now_ms) + INSPECTS_APART_MS
    }

    /// An inspection found it.
    pub fn found(&mut self, id: &str) {
        self.doubts.remove(id);
    }

    /// A list names it. This does not change what inspections found: a list may be older than a removal.
    pub fn listed(&mut self, id: &str) {
        if let Some(doubt) = self.doubts.get_mut(id) {
            doubt.unlisted_ms = None;
        }
    }

    /// No question about it is open any more.
    pub fn forget(&mut self, id: &str) {
        self.doubts.remove(id);
    }

    /// What to inspect again, and when.
    pub fn second_looks(&self) -> impl Iterator<Item = (&String, u64)> {
        self.doubts.iter().filter_map(|(id, doubt)| Some((id, doubt.missing_ms? + INSPECTS_APART_MS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_is_not_enough() {
        let mut absence = Absence::default();
        assert!(!absence.not_listed("a", 5_000));
        assert!(!absence.not_listed("a", 5_000 + LISTS_APART_MS - 1));
        assert!(absence.not_listed("a", 5_000 + LISTS_APART_MS));
        assert!(!absence.not_found("b", 10));
        assert_eq!(absence.second_looks().collect::<Vec<_>>(), [(&"b".to_owned(), 10 + INSPECTS_APART_MS)]);
        assert!(!absence.not_found("b", 20));
        assert!(absence.not_found("b", 10 + INSPECTS_APART_MS));
    }

    #[test]
    fn what_is_seen_again_is_doubted_from_the_beginning() {
        let mut absence = Absence::default();
        assert!(!absence.not_listed("a", 0) && !absence.not_found("a", 0));
        absence.found("a");
        assert!(!absence.not_listed("a", LISTS_APART_MS) && !absence.not_found("a", LISTS_APART_MS));
        absence.listed("a");
        assert!(!absence.not_listed("a", 3 * LISTS_APART_MS), "a list named it between");
        assert!(absence.not_found("a", 3 * LISTS_APART_MS), "but no inspection found it");
    }
}
