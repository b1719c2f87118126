//! Lines that were read of each source, each once, for the counters of the whole agent (metrics/furthest.rs has the rule).

use std::collections::BTreeMap;

use crate::model::record::StreamKey;
use crate::telemetry::metrics::furthest::{Furthest, Read};

/// See the module's head.
#[derive(Debug)]
pub struct ReadCounts {
    outlets: usize,
    by_source: BTreeMap<StreamKey, Furthest>,
}

impl ReadCounts {
    /// For this many groups of sinks.
    pub fn new(outlets: usize) -> ReadCounts {
        ReadCounts { outlets, by_source: BTreeMap::new() }
    }

    /// A group has read so much more. Returns what of it nobody had read before.
    pub fn read(&mut self, source: &StreamKey, outlet: u8, more: Read) -> Read {
        if self.outlets <= 1 {
            return more;
        }
        if let Some(known) = self.by_source.get_mut(source) {
            return known.read(outlet, more);
        }
        self.by_source.entry(source.clone()).or_default().read(outlet, more)
    }

    /// Nobody reads it any more.
    pub fn forget(&mut self, source: &StreamKey) {
        self.by_source.remove(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_group_all_counts() {
        let mut counted = ReadCounts::new(1);
        let key = StreamKey("a".to_owned());
        assert_eq!(counted.read(&key, 0, Read { lines: 5, ..Read::default() }).lines, 5);
        assert!(counted.by_source.is_empty());
    }
}
