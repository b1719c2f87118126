//! How much of a spool label sets may take that are held back while others continue. Half of it is theirs, in equal
//! shares; one that has used its share waits, and what is free of the half goes to whoever comes first. The other half
//! stays for those that continue. A burst is faster than the answer that holds it back, so no label set has more than
//! half as long as Loki answers. In an outage nobody is held back more than others, so there are no shares and
//! everybody may use the whole spool. Pure.

use std::collections::BTreeMap;

/// The shares; see the head of this file. The default bounds nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Bytes left of its share, for each label set that is held back.
    left: BTreeMap<u64, u64>,
    /// Bytes left of the half.
    free: u64,
    /// How much each of the others may have, half of the spool; `None` = all of it.
    each_max: Option<u64>,
    /// How much each of the others has in the spool.
    others: BTreeMap<u64, u64>,
}

/// What a held back label set has in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Records of it in the spool.
    pub records: u64,
    /// Bytes of them on disk.
    pub bytes: u64,
}

impl Shares {
    /// Shares for these label sets in a spool of `bytes_max`, of which `records_max` records can be known at once.
    pub fn new(waiting: &BTreeMap<u64, Waits>, bytes_max: u64, records_max: u64) -> Shares {
        let count = waiting.len().max(1) as u64;
        let share = bytes_max / 2 / count;
        let all = waiting.values().fold(Waits::default(), |all, waits| Waits {
            records: all.records + waits.records,
            bytes: all.bytes + waits.bytes,
        });
        let many = all.records >= records_max / 2;
        let left = |waits: &Waits| {
            let too_many = many && waits.records >= records_max / 2 / count;
            if too_many { 0 } else { share.saturating_sub(waits.bytes) }
        };
        Shares {
            left: waiting.iter().map(|(label_set, waits)| (*label_set, left(waits))).collect(),
            free: if many { 0 } else { (bytes_max / 2).saturating_sub(all.bytes) },
            ..Shares::default()
        }
    }

    /// Also bounds each other label set to half of the spool; `others` is what they have now.
    pub fn and_half_for_each(self, bytes_max: u64, others: BTreeMap<u64, u64>) -> Shares {
        Shares { each_max: Some(bytes_max / 2), others, ..self }
    }

    /// Whether everybody may use the whole spool.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty() && self.each_max.is_none()
    }

    /// Whether a record of a label set may be put in; it counts as put in then.
    pub fn take(&mut self, label_set: u64, bytes: u64) -> bool {
        let Some(left) = self.left.get_mut(&label_set) else {
            let Some(each_max) = self.each_max else { return true };
            let has = self.others.entry(label_set).or_default();
            let may = *has == 0 || *has + bytes <= each_max;
            *has += if may { bytes } else { 0 };
            return may;
        };
        let (within, free) = (*left >= bytes, self.free >= bytes);
        if within {
            *left -= bytes;
        }
        if within || free {
            self.free = self.free.saturating_sub(bytes);
        }
        within || free
    }

    /// How many bytes label sets are over their share while nothing is free.
    pub fn excess(waiting: &BTreeMap<u64, Waits>, bytes_max: u64) -> BTreeMap<u64, u64> {
        let share = bytes_max / 2 / waiting.len().max(1) as u64;
        let all: u64 = waiting.values().map(|waits| waits.bytes).sum();
        let over = waiting.iter().filter(|(_, waits)| all > bytes_max / 2 && waits.bytes > share);
        over.map(|(label_set, waits)| (*label_set, waits.bytes - share)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(bytes: &[u64]) -> BTreeMap<u64, Waits> {
        let waits = |bytes: &u64| Waits { records: 1, bytes: *bytes };
        bytes.iter().enumerate().map(|(label_set, bytes)| (label_set as u64, waits(bytes))).collect()
    }

    #[test]
    fn half_is_for_those_that_are_held_back() {
        let mut shares = Shares::new(&waiting(&[300]), 1_000, 100);
        assert!(shares.take(7, 5_000), "it is not held back");
        assert!(shares.take(0, 200) && !shares.take(0, 1), "half of it is full");
    }

    #[test]
    fn who_is_over_his_share_leaves_others_theirs() {
        // 500 of 1,000 for three: 166 each.
        let mut shares = Shares::new(&waiting(&[450, 0, 10]), 1_000, 100);
        assert!(shares.take(0, 40) && !shares.take(0, 1), "40 were free");
        assert!(shares.take(1, 166) && !shares.take(1, 1));
        assert!(shares.take(2, 156) && !shares.take(2, 1));
        assert_eq!(Shares::excess(&waiting(&[450, 0, 10]), 1_000), BTreeMap::new());
        assert_eq!(Shares::excess(&waiting(&[600, 0, 10]), 1_000), BTreeMap::from([(0, 434)]));
    }

    #[test]
    fn a_burst_leaves_half_to_others_as_long_as_loki_answers() {
        let mut shares = Shares::default().and_half_for_each(1_000, BTreeMap::from([(1, 400)]));
        assert!(shares.take(1, 100) && !shares.take(1, 1), "it has half");
        assert!(shares.take(2, 600) && !shares.take(2, 1), "what comes in one piece is taken");
        assert!(Shares::default().take(1, 5_000), "in an outage all is for everybody");
    }

    /// The number of records is bounded as well: a label set that trickles for hours must not take the places of
    /// others.
    #[test]
    fn places_are_shared_as_bytes_are() {
        let mut all = waiting(&[10, 10]);
        all.insert(0, Waits { records: 60, bytes: 10 });
        let mut shares = Shares::new(&all, 1_000_000, 100);
        assert!(!shares.take(0, 1) && shares.take(1, 1));
    }
}
