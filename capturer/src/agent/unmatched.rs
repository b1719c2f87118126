//! Patterns of file_monitor that match nothing: since when, and what they find instead. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::settings::FileSet;
use crate::shell::files::Walked;
use crate::shell::files::report::PatternReport;
use crate::telemetry::metrics::PassedOver;

/// A pattern that matches nothing for this long is a fault. Until then it is a note, since files are created one after
/// the other.
const PATIENCE_MS: u64 = 60_000;

/// Since when patterns match nothing.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    empty_since_ms: BTreeMap<(usize, usize), u64>,
}

/// What one look at all patterns found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Patterns that have matched nothing for a minute, each with a sentence.
    pub unmatched: BTreeMap<String, String>,
    /// Patterns that have matched nothing for less than a minute.
    pub unmatched_yet: BTreeMap<String, String>,
    /// Directories that can't be listed, with the reason.
    pub unlistable: BTreeSet<String>,
    /// Directories and names that the system answers with an error for, with the error.
    pub failing: BTreeSet<String>,
    /// Directories that inotify does not watch, by their hashes: several entries may walk through one.
    pub unwatched: BTreeSet<u64>,
    /// Paths that matched and are not followed, counted by reason.
    pub passed: BTreeMap<PassedOver, usize>,
}

impl Patterns {
    pub(super) fn look(
        &mut self,
        now_ms: u64,
        sets: &[FileSet],
        walks: &BTreeMap<usize, Vec<Arc<Walked>>>,
    ) -> Look {
        let mut look = Look::default();
        for (set, walks) in walks {
            let Some(entry) = sets.get(*set) else { continue };
            for walked in walks {
                look.unlistable.extend(walked.unlistable.iter().cloned());
                look.failing.extend(walked.failing.iter().cloned());
                look.unwatched.extend(&walked.unwatched);
                for (why, named) in walked.reports.iter().flat_map(|report| &report.passed) {
                    *look.passed.entry(*why).or_default() += named.count;
                }
            }
            for index in 0..entry.paths.len() {
                let of_pattern = walks.iter().filter_map(|walked| walked.reports.get(index));
                if of_pattern.clone().any(|report| report.matched > 0) {
                    self.empty_since_ms.remove(&(*set, index));
                    continue;
                }
                let since_ms = *self.empty_since_ms.entry((*set, index)).or_insert(now_ms);
                if entry.may_be_empty {
                    continue;
                }
                let is_walked = of_pattern.clone().next().is_some();
                let pattern = entry.paths[index].as_str();
                let mut all = PatternReport { pattern: pattern.to_owned(), ..PatternReport::default() };
                of_pattern.for_each(|report| all.extend(report));
                // What stands there does not become a file by waiting.
                let is_late = now_ms >= since_ms + PATIENCE_MS || all.is_of_named(pattern);
                let unmatched = if is_late { &mut look.unmatched } else { &mut look.unmatched_yet };
                if is_late || is_walked {
                    unmatched.insert(pattern.to_owned(), all.explain(pattern));
                }
            }
        }
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::PathPattern;

    fn walks(matched: usize, links: &[&str]) -> BTreeMap<usize, Vec<Arc<Walked>>> {
        let mut report = PatternReport { pattern: "/a/*".to_owned(), matched, ..PatternReport::default() };
        links.iter().for_each(|link| report.pass(PassedOver::Link, (*link).to_owned()));
        [(0, vec![Arc::new(Walked { reports: vec![report], ..Walked::default() })])].into()
    }

    #[test]
    fn a_pattern_without_a_file_is_told_after_a_minute_and_with_what_it_passes_over() {
        let mut patterns = Patterns::default();
        let mut sets = [FileSet { paths: vec![PathPattern::new("/a/*").unwrap()], ..FileSet::default() }];
        let mut unmatched = |now_ms, sets: &[FileSet], walks| patterns.look(now_ms, sets, &walks).unmatched;
        assert!(unmatched(1_000, &sets, walks(0, &[])).is_empty());
        assert!(unmatched(60_999, &sets, walks(0, &[])).is_empty());
        let told = unmatched(61_000, &sets, walks(0, &["/a/x"]));
        let text = &told["/a/*"];
        assert!(text.starts_with("/a/* (/a/x is a symbolic link") && text.contains("follow_links"), "{text}");
        assert!(unmatched(62_000, &sets, walks(1, &[])).is_empty());
        assert!(unmatched(63_000, &sets, walks(0, &[])).is_empty(), "it has a minute again");
        sets[0].may_be_empty = true;
        assert!(unmatched(999_000, &sets, walks(0, &[])).is_empty());
    }

    /// For a minute the page said that all was well, while `capturer check` named the same patterns at once.
    #[test]
    fn what_matches_nothing_yet_is_a_note_and_a_directory_is_a_fault_at_once() {
        let sets = [FileSet { paths: vec![PathPattern::new("/a/d").unwrap()], ..FileSet::default() }];
        let mut report = PatternReport { pattern: "/a/d".to_owned(), ..PatternReport::default() };
        let walk = |report: &PatternReport| {
            [(0, vec![Arc::new(Walked { reports: vec![report.clone()], ..Walked::default() })])].into()
        };
        let look = Patterns::default().look(1_000, &sets, &walk(&report));
        assert!(look.unmatched.is_empty() && look.unmatched_yet.contains_key("/a/d"), "{look:?}");
        report.pass(PassedOver::Directory, "/a/d".to_owned());
        let look = Patterns::default().look(1_000, &sets, &walk(&report));
        let expected = "/a/d is a directory: write /a/d/* for its files, or /a/d/** for all below it";
        assert_eq!(look.unmatched.get("/a/d").map(String::as_str), Some(expected));
    }
}
