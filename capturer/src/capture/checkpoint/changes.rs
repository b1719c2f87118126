//! Changes since the last whole checkpoint, on disk: `data_dir/checkpoint.changes`, one appended line per save. If only
//! a few of thousands of streams deliver, a save costs only what changed. With few streams nothing is written here.
//!
//! ```text
//! 0f1e2d3c 4712 {"streams":{"file:/var/log/a.log":{…}},"outputs":{"local_file":{"a.ndjson":{…}}}}
//! sum      number of the save: it follows the checkpoint, or the line, of the number before
//! ```
//! The lines after a checkpoint are applied in order, up to the first that is damaged or missing. The result is the
//! checkpoint of an earlier save, as good as any. A line that must not be lost to one damaged sector is written twice.
//! Now and then a whole checkpoint replaces all of them (tracker.rs says when).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Checkpoint, StreamEntry, lines};
use crate::model::record::{OutputMarks, StreamKey};

/// What a save removes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Streams that are not read any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub streams: BTreeSet<StreamKey>,
    /// Outputs that no stream uses, by sink.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, BTreeSet<String>>,
}

/// A line as it is written.
#[derive(Serialize)]
struct NewLine<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    streams: &'a BTreeMap<StreamKey, StreamEntry>,
    #[serde(skip_serializing_if = "is_empty")]
    outputs: &'a OutputMarks,
    gone: &'a Removed,
    saved_s: u64,
}

fn is_empty<K, V>(map: &&BTreeMap<K, V>) -> bool {
    map.is_empty()
}

/// A line as it is read.
#[derive(Deserialize)]
struct ChangeLine {
    #[serde(default)]
    streams: BTreeMap<StreamKey, StreamEntry>,
    #[serde(default)]
    outputs: OutputMarks,
    #[serde(default)]
    gone: Removed,
    #[serde(default)]
    saved_s: u64,
}

impl Checkpoint {
    /// Replaces `before` and keeps what it remembers. A checkpoint that holds only changes is applied to `before`.
    pub fn follow(&mut self, mut before: Checkpoint) {
        super::memory::absorb(&mut before.memory, std::mem::take(&mut self.memory));
        if self.changes.is_some() {
            before.apply(std::mem::take(self));
            *self = before;
        } else {
            self.memory = before.memory;
        }
    }

    /// Takes a later save's changes.
    fn apply(&mut self, newer: Checkpoint) {
        let gone = newer.changes.unwrap_or_default();
        gone.streams.iter().for_each(|stream| drop(self.streams.remove(stream)));
        for (sink, paths) in &gone.outputs {
            let Some(outputs) = self.outputs.get_mut(sink) else { continue };
            paths.iter().for_each(|path| drop(outputs.remove(path.as_str())));
            if outputs.is_empty() {
                self.outputs.remove(sink);
            }
        }
        self.streams.extend(newer.streams);
        for (sink, outputs) in newer.outputs {
            self.outputs.entry(sink).or_default().extend(outputs);
        }
        (self.seq, self.clean, self.remember) = (newer.seq, newer.clean, newer.remember);
        self.saved_s = newer.saved_s;
    }
}

/// A save's line; empty for a whole checkpoint.
pub fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let Some(gone) = &checkpoint.changes else { return Vec::new() };
    let Checkpoint { streams, outputs, saved_s, .. } = checkpoint;
    let line = NewLine { streams, outputs, gone, saved_s: *saved_s };
    lines::encode(checkpoint.seq, &line)
}

/// The result of applying the lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many lines had a wrong checksum or no end.
    pub damaged: usize,
    /// Intact lines of later saves that could not be used because an earlier line is missing.
    pub unused: usize,
    /// Where the first line ends that could not be used: all before it may stay.
    pub good_bytes: usize,
}

/// Brings a checkpoint up to what [`encode`] wrote of the saves after it.
pub fn apply(bytes: &[u8], checkpoint: &mut Checkpoint) -> Applied {
    let mut applied = Applied::default();
    let mut at = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        at += line.len();
        match lines::decode::<ChangeLine>(line) {
            None => applied.damaged += 1,
            Some((seq, _)) if seq > checkpoint.seq + 1 => applied.unused += 1,
            Some((seq, line)) => {
                if seq == checkpoint.seq + 1 {
                    let ChangeLine { streams, outputs, gone, saved_s } = line;
                    let changes = Some(gone);
                    let remember = checkpoint.remember;
                    checkpoint.apply(Checkpoint {
                        seq,
                        streams,
                        outputs,
                        changes,
                        remember,
                        saved_s,
                        ..Checkpoint::default()
                    });
                }
                if applied.damaged + applied.unused == 0 {
                    applied.good_bytes = at;
                }
            }
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file_cursor, mark, sample};
    use super::*;
    use crate::capture::checkpoint::SinkCursor;

    fn entry(offset: u64, output: &str) -> StreamEntry {
        let cursor =
            SinkCursor { rank: 0, cursor: file_cursor(offset), output: Some(output.into()), looked_s: None };
        StreamEntry { sinks: [("local_file".into(), cursor)].into_iter().collect() }
    }

    /// The whole checkpoint before all changes.
    fn first() -> Checkpoint {
        Checkpoint { seq: 0, clean: false, ..sample() }
    }

    /// Save `seq` of a stream that is at `offset`, and before which another went.
    fn save(seq: u64, stream: &str, offset: u64, gone: &[&str]) -> Checkpoint {
        let path = format!("{stream}.ndjson");
        let gone = Removed {
            streams: gone.iter().map(|name| StreamKey::file(name)).collect(),
            outputs: [("local_file".to_owned(), gone.iter().map(|name| format!("{name}.ndjson")).collect())]
                .into(),
        };
        Checkpoint {
            seq,
            streams: [(StreamKey::file(stream), entry(offset, &path))].into(),
            outputs: [("local_file".to_owned(), [(path.as_str().into(), mark(&path, offset))].into())].into(),
            changes: Some(gone),
            ..Checkpoint::default()
        }
    }

    fn saves() -> [Checkpoint; 3] {
        [save(1, "a", 10, &[]), save(2, "b", 20, &["a"]), save(3, "b", 30, &["never was"])]
    }

    fn after(saves: &[Checkpoint]) -> Checkpoint {
        let mut checkpoint = first();
        saves.iter().for_each(|save| checkpoint.apply(save.clone()));
        checkpoint
    }

    #[test]
    fn changes_lead_to_what_a_whole_checkpoint_would_hold() {
        let bytes: Vec<u8> = saves().iter().flat_map(encode).collect();
        let mut checkpoint = first();
        let applied = apply(&bytes, &mut checkpoint);
        assert_eq!(applied, Applied { good_bytes: bytes.len(), ..Applied::default() });
        assert_eq!(checkpoint, after(&saves()));
        assert!(!checkpoint.streams.contains_key(&StreamKey::file("a")) && checkpoint.seq == 3);
        // Older lines say nothing that it does not know.
        assert_eq!(apply(&bytes, &mut checkpoint).unused, 0);
        assert_eq!(checkpoint, after(&saves()));
    }

    /// A power cut tears the last line; a bad sector costs one. The rest is an earlier checkpoint, never a mixture.
    #[test]
    fn damage_leads_to_an_earlier_save() {
        let lines = saves().map(|save| encode(&save));
        let bytes = lines.concat();
        let mut ends = vec![0];
        lines.iter().for_each(|line| ends.push(ends.last().unwrap() + line.len()));
        for len in 0..bytes.len() {
            let mut checkpoint = first();
            let applied = apply(&bytes[..len], &mut checkpoint);
            let whole = ends.iter().filter(|end| **end <= len).count() - 1;
            assert_eq!(
                (checkpoint, applied.good_bytes),
                (after(&saves()[..whole]), ends[whole]),
                "cut to {len}"
            );
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let mut checkpoint = first();
            apply(&flipped, &mut checkpoint);
            let whole = ends.iter().filter(|end| **end <= at).count() - 1;
            // A line end that is lost takes two lines with it.
            assert_eq!(checkpoint, after(&saves()[..whole]), "byte {at}");
        }
    }

    #[test]
    fn a_line_that_stands_there_twice_survives_the_loss_of_one() {
        let lines = saves().map(|save| encode(&save));
        let mut damaged = lines[1].clone();
        damaged[3] ^= 1;
        for twice in [[&damaged, &lines[1]], [&lines[1], &damaged]] {
            let bytes = [&lines[0], twice[0], twice[1], &lines[2]].map(Vec::as_slice).concat();
            let mut checkpoint = first();
            let applied = apply(&bytes, &mut checkpoint);
            assert_eq!((checkpoint, applied.damaged, applied.unused), (after(&saves()), 1, 0));
        }
    }
}
