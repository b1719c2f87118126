//! What the next checkpoint saves: all, or what changed since the last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{BySink, Checkpoint, Removed, SinkCursor, StreamEntry};
use super::{Order, Positions, Tracker};
use crate::model::record::StreamKey;

/// A whole checkpoint replaces the changes once there are this many of them, and twice as many as streams.
const CHANGES_KEPT_MIN: usize = 4_000;

/// What is not on disk yet.
#[derive(Debug, Default)]
pub(super) struct Changed {
    streams: BTreeSet<StreamKey>,
    /// Outputs that changed, by sink.
    outputs: BTreeMap<String, BTreeSet<String>>,
}

impl Changed {
    pub(super) fn stream(&mut self, stream: &StreamKey) {
        if !self.streams.contains(stream) {
            self.streams.insert(stream.clone());
        }
    }

    pub(super) fn output(&mut self, sink: &str, path: &str) {
        if self.outputs.get(sink).is_none_or(|paths| !paths.contains(path)) {
            self.outputs.entry(sink.to_owned()).or_default().insert(path.to_owned());
        }
    }

    pub(super) fn absorb(&mut self, newer: Changed) {
        self.streams.extend(newer.streams);
        for (sink, paths) in newer.outputs {
            self.outputs.entry(sink).or_default().extend(paths);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len() + self.outputs.values().map(BTreeSet::len).sum::<usize>()
    }
}

impl Tracker {
    /// A stream's positions changed, or went.
    pub(super) fn touch(&mut self, stream: &StreamKey) {
        self.dirty_seq += 1;
        if !self.whole_due {
            self.changed.stream(stream);
        }
    }

    /// An output's mark changed, or went.
    pub(super) fn touch_output(&mut self, sink: &str, path: &str) {
        self.dirty_seq += 1;
        if !self.whole_due {
            self.changed.output(sink, path);
        }
    }

    /// What to save now: everything, or what changed.
    pub fn next_checkpoint(&mut self) -> Checkpoint {
        self.saves += 1;
        let is_small = self.streams.len() < self.changes_from;
        let is_long = self.since_whole > CHANGES_KEPT_MIN.max(2 * self.streams.len());
        let mut checkpoint = if self.whole_due || is_small || is_long {
            (self.changed, self.saving, self.since_whole) = Default::default();
            self.whole_due = is_small;
            Checkpoint { changes_follow: !is_small, ..self.whole() }
        } else {
            let changed = std::mem::take(&mut self.changed);
            self.since_whole += changed.len();
            self.saving.absorb(changed);
            self.changes()
        };
        (checkpoint.seq, checkpoint.remember) = (self.saves, self.memory.bounds());
        checkpoint.saved_s = self.memory.now_s();
        checkpoint.memory = self.memory.take_unsaved();
        checkpoint
    }

    pub(super) fn whole(&self) -> Checkpoint {
        let streams =
            self.streams.iter().map(|(key, positions)| (key.clone(), self.entry_of(key, positions)));
        let outputs = self.outputs.iter().map(|(sink, outputs)| {
            let marks = outputs.iter().map(|(path, output)| (path.clone(), output.mark.clone()));
            (sink.clone(), marks.collect())
        });
        Checkpoint { streams: streams.collect(), outputs: outputs.collect(), ..Checkpoint::default() }
    }

    fn entry_of(&self, key: &StreamKey, positions: &Positions) -> StreamEntry {
        let mut sinks = sinks_of(positions);
        if let Some(looked_s) = self.unlooked.get(key) {
            sinks.values_mut().for_each(|sink| sink.looked_s = Some(*looked_s).filter(|at_s| *at_s > 0));
        }
        StreamEntry { sinks }
    }

    fn changes(&self) -> Checkpoint {
        let (mut checkpoint, mut gone) = (Checkpoint::default(), Removed::default());
        for key in &self.saving.streams {
            match self.streams.get(key) {
                Some(positions) => {
                    checkpoint.streams.insert(key.clone(), self.entry_of(key, positions));
                }
                None => drop(gone.streams.insert(key.clone())),
            }
        }
        for (sink, paths) in &self.saving.outputs {
            let outputs = self.outputs.get(sink);
            for path in paths {
                match outputs.and_then(|outputs| outputs.get(path.as_str())) {
                    Some(output) => {
                        let marks = checkpoint.outputs.entry(sink.clone()).or_default();
                        marks.insert(output.mark.path.clone(), output.mark.clone());
                    }
                    None => drop(gone.outputs.entry(sink.clone()).or_default().insert(path.clone())),
                }
            }
        }
        checkpoint.changes = Some(gone);
        checkpoint
    }
}

pub(super) fn sinks_of(positions: &Positions) -> BySink<SinkCursor> {
    let mut orders: Vec<Order> = positions.values().map(|position| position.order).collect();
    orders.sort_unstable();
    orders.dedup();
    let rank = |order| orders.iter().position(|other| *other == order).unwrap_or(0) as u32;
    let sinks = positions.iter().map(|(name, position)| {
        let cursor = position.cursor.clone();
        let (rank, output) = (rank(position.order), position.output.clone());
        (Arc::clone(name), SinkCursor { rank, cursor, output, looked_s: None })
    });
    sinks.collect()
}
