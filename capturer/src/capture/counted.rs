//! Counts lines read of each source, each once, for the counters of the whole agent (telemetry/metrics/furthest.rs has
//! the rule).

use std::collections::BTreeMap;

use crate::model::record::StreamKey;
use crate::telemetry::metrics::furthest::{Furthest, Read};

/// The counts; see the head of this file.
#[derive(Debug, Default)]
pub struct ReadCounts {
    /// Names of the sinks of each outlet.
    outlets: Vec<Vec<String>>,
    by_source: BTreeMap<StreamKey, Furthest<u8>>,
}

impl ReadCounts {
    /// For outlets of these sinks.
    pub fn new(outlets: Vec<Vec<String>>) -> ReadCounts {
        ReadCounts { outlets, by_source: BTreeMap::new() }
    }

    /// An outlet has read `more`. Returns the part that no outlet had read before.
    pub fn read(&mut self, source: &StreamKey, outlet: u8, more: Read) -> Read {
        if let Some(known) = self.by_source.get_mut(source) {
            return known.read(outlet, more);
        }
        if self.outlets.len() <= 1 {
            return more;
        }
        self.by_source.entry(source.clone()).or_default().read(outlet, more)
    }

    /// No stream reads the source any more.
    pub fn forget(&mut self, source: &StreamKey) {
        self.by_source.remove(source);
    }

    /// Continues from the previous run. An outlet that was behind reads lines that were counted already, and may have
    /// another number.
    pub fn go_on_from(&mut self, before: &ReadCounts) {
        let now = |old: &u8| {
            let old = before.outlets.get(usize::from(*old))?;
            let same = |names: &Vec<String>| names.iter().any(|name| old.contains(name));
            self.outlets.iter().position(same).map(|index| index as u8)
        };
        let by_source = before.by_source.iter();
        self.by_source = by_source.map(|(key, known)| (key.clone(), known.renamed(now))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(outlets: &[&[&str]]) -> ReadCounts {
        let names = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ReadCounts::new(outlets.iter().map(names).collect())
    }

    fn lines(counted: &mut ReadCounts, outlet: u8, lines: u64) -> u64 {
        counted.read(&StreamKey("a".into()), outlet, Read { lines, ..Read::default() }).lines
    }

    #[test]
    fn of_one_outlet_all_counts() {
        let mut counted = counts(&[&["local_file"]]);
        assert_eq!(lines(&mut counted, 0, 5), 5);
        assert!(counted.by_source.is_empty());
    }

    /// Otherwise a reload would count again what the slower outlet had still to read.
    #[test]
    fn an_outlet_that_was_behind_counts_nothing_twice_after_a_reload() {
        let mut first = counts(&[&["local_file"], &["loki"]]);
        assert_eq!([lines(&mut first, 0, 100), lines(&mut first, 1, 80)], [100, 0]);
        let mut second = counts(&[&["local_file", "stdout"], &["loki"]]);
        second.go_on_from(&first);
        assert_eq!([lines(&mut second, 1, 25), lines(&mut second, 0, 7)], [5, 2]);
        // Only Loki is left, under another number: it still has to read two lines that were counted.
        let mut third = counts(&[&["loki"]]);
        third.go_on_from(&second);
        assert_eq!([lines(&mut third, 0, 2), lines(&mut third, 0, 3)], [0, 3]);
    }
}
