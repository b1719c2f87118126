//! Who may read on a file system that may hang.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::capture::io::LaneId;
use crate::model::record::StreamId;

/// Turns to read on file systems that may hang: on each, one file is read at a time, so that a hung one holds only one
/// buffer.
#[derive(Debug, Default)]
pub struct ReadTurns {
    reading: BTreeSet<LaneId>,
    lines: BTreeMap<LaneId, VecDeque<StreamId>>,
    freed: BTreeSet<LaneId>,
}

impl ReadTurns {
    /// Takes the turn if it is free; otherwise the stream waits in line until [`ReadTurns::next_in_line`] names it. Call it
    /// once until then.
    pub fn take(&mut self, lane: LaneId, stream: StreamId) -> bool {
        let free = self.reading.insert(lane);
        if !free {
            self.lines.entry(lane).or_default().push_back(stream);
        }
        free
    }

    /// A read has ended or was not begun.
    pub fn release(&mut self, lane: LaneId) {
        self.reading.remove(&lane);
        if self.lines.contains_key(&lane) {
            self.freed.insert(lane);
        }
    }

    /// The next stream that may try. If it does not take the turn, the next one is named.
    pub fn next_in_line(&mut self) -> Option<StreamId> {
        while let Some(lane) = self.freed.first().copied() {
            let free = !self.reading.contains(&lane);
            if let Some(stream) = self.lines.get_mut(&lane).filter(|_| free).and_then(VecDeque::pop_front) {
                return Some(stream);
            }
            self.freed.remove(&lane);
            self.lines.retain(|_, line| !line.is_empty());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_one_reader_and_a_line() {
        let (mut lanes, [one, two, three]) = (ReadTurns::default(), [1, 2, 3].map(StreamId));
        assert!(lanes.take(LaneId(1), one) && lanes.take(LaneId(2), one));
        assert!(!lanes.take(LaneId(1), two) && !lanes.take(LaneId(1), three));
        assert_eq!(lanes.next_in_line(), None);
        lanes.release(LaneId(1));
        // The first does not want it any more, the second does.
        assert_eq!(lanes.next_in_line(), Some(two));
        assert_eq!(lanes.next_in_line(), Some(three));
        assert!(lanes.take(LaneId(1), three));
        assert_eq!(lanes.next_in_line(), None);
        lanes.release(LaneId(1));
        assert_eq!(lanes.next_in_line(), None);
        assert!(lanes.take(LaneId(1), two));
    }
}
