//! The table of files read ([`super::memory`]) on disk: `data_dir/files.log`, one change a line, appended. So a save costs
//! what changed.
//!
//! ```text
//! 0f1e2d3c 4711 {"file:/var/log/a.log":{"local_file":{"files":[[2049,77,…]]}}}
//! sum      number of the save: a checkpoint counts only with lines of its own number and before
//! ```
//! The lines of a save are on disk before its checkpoint is. After a crash between the two they are later than the
//! checkpoint, and are not believed: the outputs may lack what they say was delivered. A damaged line only costs
//! itself. Superseded lines are dropped when they are most of the file.

use super::lines;
use super::memory::{Logs, absorb};

/// A save's line.
pub fn encode(seq: u64, changed: &Logs) -> Vec<u8> {
    lines::encode(seq, changed)
}

/// The content of the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Everything up to the number asked for.
    pub logs: Logs,
    /// Lines that are later than that.
    pub later: usize,
    /// Lines that are not whole.
    pub damaged: usize,
}

/// Reads what [`encode`] wrote, up to a save.
pub fn decode(bytes: &[u8], up_to: u64) -> Decoded {
    let mut decoded = Decoded::default();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match lines::decode::<Logs>(line) {
            Some((seq, logs)) if seq <= up_to => absorb(&mut decoded.logs, logs),
            Some(_) => decoded.later += 1,
            None => decoded.damaged += 1,
        }
    }
    decoded
}

/// The file without superseded lines: everything up to a number in one line, and later lines unchanged, since that
/// number's checkpoint must not believe them.
pub fn compact(bytes: &[u8], up_to: u64, keep: impl FnOnce(&mut Logs)) -> Vec<u8> {
    let mut all = decode(bytes, up_to).logs;
    keep(&mut all);
    let mut compacted = encode(up_to, &all);
    let is_later = |line: &&[u8]| lines::decode::<Logs>(line).is_some_and(|(seq, _)| seq > up_to);
    bytes.split_inclusive(|byte| *byte == b'\n').filter(is_later).for_each(|line| compacted.extend(line));
    compacted
}

#[cfg(test)]
mod tests {
    use super::super::memory::{LogMemory, SinkMemory};
    use super::*;
    use crate::model::cursor::Cursor;
    use crate::model::record::StreamKey;

    fn left(name: &str, rank: u32) -> Logs {
        let sink = SinkMemory { left: Some((1, rank, Cursor::Beginning)), ..SinkMemory::default() };
        let log = LogMemory { sinks: [("local_file".to_owned(), sink)].into() };
        Logs::from([(StreamKey::file(name), log)])
    }

    #[test]
    fn what_was_saved_is_read_up_to_the_checkpoint() {
        let lines = [encode(1, &left("/a", 0)), encode(2, &left("/b", 0)), encode(3, &left("/a", 7))];
        let all = decode(&lines.concat(), 3);
        assert_eq!((all.logs.len(), all.later, all.damaged), (2, 0, 0));
        assert_eq!(all.logs[&StreamKey::file("/a")], left("/a", 7)[&StreamKey::file("/a")]);
        let some = decode(&lines.concat(), 2);
        assert_eq!((some.logs.len(), some.later), (2, 1));
        assert_eq!(some.logs[&StreamKey::file("/a")], left("/a", 0)[&StreamKey::file("/a")]);
        let compacted = compact(&lines.concat(), 2, |_| {});
        assert_eq!(compacted.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(decode(&compacted, 3), all);
        assert_eq!(decode(&compacted, 2), some);
    }

    /// A power cut tears the last line; a bad sector costs the line it is in.
    #[test]
    fn damage_costs_the_line_it_hits() {
        let lines = [encode(1, &left("/a", 0)), encode(2, &left("/b", 0))];
        let bytes = lines.concat();
        for len in 0..bytes.len() {
            let decoded = decode(&bytes[..len], 9);
            assert_eq!(decoded.logs.len(), usize::from(len >= lines[0].len()), "cut to {len}");
        }
        for at in 0..lines[0].len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(!decode(&flipped, 9).logs.contains_key(&StreamKey::file("/a")), "byte {at}");
        }
    }
}
