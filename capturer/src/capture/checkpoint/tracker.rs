//! What the sinks acknowledged, and from it the next checkpoint. Pure: no file, no clock.
//!
//! ```text
//! stream, sink ──▶ Joined { seq }      has everything up to its cursor; seq orders it among the stream's sinks
//!            └───▶ Ahead  { rank }     loaded from a checkpoint in which this sink had more than the slowest one
//! ```
//! With one sink the stream resumes at that sink's cursor. With several each keeps its own. Two cursors can't be
//! compared by themselves (they may lie in two files of a rotation chain), but within a run the batches of a stream
//! are numbered, and the number that comes back with an acknowledgement says which sink is behind. Only the order is
//! saved, as a small rank, because numbers of two runs do not compare: after a restart the same bytes are cut into
//! other batches.
//!
//! After a restart reading begins at the lowest rank. A sink of a higher rank is *ahead*: it has the records up to
//! its own cursor already. [`Resume::ahead`] names those sinks and cursors, lowest first. It is sent everything all the
//! same; its first acknowledgement joins it, and what lay between reaches it twice. Nothing is lost: a sink that is ahead
//! never counts as behind one that is not.
//!
//! Sinks with outlets of their own ([`crate::model::record::Outlet`]) do not share batches. Each resumes at its own cursor
//! ([`Tracker::resume_for`]), and their order among each other means nothing.
//!
//! A sink added to the config joins at the resume cursor of known streams (their past is not fetched again); one
//! removed from it is forgotten with its outputs, so that it can't hold a stream back for ever.

mod outputs;
mod unsaved;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::memory::{Table, beginning_of};
use super::{BySink, Checkpoint};
use crate::model::cursor::{Cursor, FileCursor, FileId, FilePlace};
use crate::model::packed::Pack;
use crate::model::record::{OutputMark, StreamKey};
use outputs::{Output, keep_uncovered, use_output};
use unsaved::{Changed, sinks_of};

/// With fewer streams it costs little to save all of them, and one file is simpler than two.
const CHANGES_FROM: usize = 500;
/// Where a stream goes on after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Read from here.
    pub cursor: Cursor,
    /// Sinks that already have more, with the cursor up to which they have it; the lowest first.
    pub ahead: Vec<(String, Cursor)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    /// Number of the last batch acknowledged in this run; 0 = none yet.
    Joined(u64),
    /// Rank in the loaded checkpoint. Later than every `Joined`.
    Ahead(u32),
}

#[derive(Debug)]
struct Position {
    order: Order,
    cursor: Cursor,
    output: Option<Arc<str>>,
    /// When it was acknowledged, seconds since 1970; 0 = in an earlier run, or never.
    acked_s: u64,
    /// Places that were acknowledged one second ago or more, and since then, with their times. Of logs that are written to.
    earlier: Option<Box<[(u64, FilePlace); 2]>>,
}

impl Position {
    /// Notes where it stands, before it moves on. At most once a second.
    fn note_earlier(&mut self, now_s: u64) {
        let Cursor::File(cursor) = &self.cursor else { return };
        let entry = |cursor: &FileCursor| (now_s, FilePlace { skip: [0; 2], ..cursor.place() });
        match &mut self.earlier {
            Some(earlier) if now_s <= earlier[1].0 => {}
            Some(earlier) => **earlier = [earlier[1], entry(cursor)],
            None => self.earlier = Some(Box::new([entry(cursor); 2])),
        }
    }
}

type Positions = BySink<Position>;

/// The positions of all streams, by sink, and what is saved of them.
#[derive(Debug)]
pub struct Tracker {
    sinks: BTreeSet<Arc<str>>,
    streams: BTreeMap<StreamKey, Positions>,
    outputs: BTreeMap<String, BTreeMap<Arc<str>, Output>>,
    memory: Table,
    /// The number of the last save that was ordered, counted over all runs.
    saves: u64,
    /// When the run before this one saved last, seconds since 1970; 0 = nobody knows.
    loaded_s: u64,
    /// Streams from earlier runs whose logs this run has not looked at yet, and when an earlier run did, seconds since 1970.
    /// What happened to them since then is unseen, however often this run has saved.
    unlooked: BTreeMap<StreamKey, u64>,
    /// What changed since the last save was ordered, and what that save contains; empty if the next one is whole anyway.
    changed: Changed,
    saving: Changed,
    /// The next save is of everything.
    whole_due: bool,
    /// Streams and outputs in the saves of changes since the last that was whole.
    since_whole: usize,
    /// With fewer streams every save is of everything.
    changes_from: usize,
    dirty_seq: u64,
    saved_seq: u64,
}

fn ns(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000)
}

impl Pack for Tracker {
    fn pack(&mut self) {
        self.streams.pack();
        self.outputs.values_mut().for_each(Pack::pack);
    }
}

impl Tracker {
    /// Begins with what was loaded; `sink_names` are the sinks of this run.
    pub fn new<'a>(loaded: Checkpoint, sink_names: impl IntoIterator<Item = &'a str>) -> Tracker {
        let mut tracker = Tracker {
            sinks: sink_names.into_iter().map(Arc::from).collect(),
            streams: BTreeMap::new(),
            outputs: BTreeMap::new(),
            memory: Table::new(loaded.memory),
            saves: loaded.seq,
            loaded_s: loaded.saved_s,
            unlooked: BTreeMap::new(),
            changed: Changed::default(),
            saving: Changed::default(),
            whole_due: true,
            since_whole: 0,
            changes_from: CHANGES_FROM,
            dirty_seq: 0,
            saved_seq: 0,
        };
        for name in &tracker.sinks {
            let has = |key: &StreamKey| {
                loaded.streams.get(key).is_some_and(|entry| entry.sinks.get(name).is_some())
            };
            tracker.memory.add_sink(name, has);
        }
        for (key, entry) in loaded.streams {
            let looked_s = entry.sinks.values().filter_map(|sink| sink.looked_s).min();
            tracker.unlooked.insert(key.clone(), looked_s.unwrap_or(loaded.saved_s));
            // A stream that only removed sinks know is still known: without its cursor it would start from the beginning.
            let known = entry.sinks.names().any(|name| tracker.sinks.contains(name));
            let fallback = entry.lowest().map(|sink| (sink.rank, sink.cursor.clone()));
            let mut positions = Positions::default();
            let kept = entry.sinks.into_iter();
            let kept = kept.filter_map(|(name, sink)| Some((tracker.sinks.get(&name).cloned()?, sink)));
            for (name, sink) in kept {
                if let Some(path) = &sink.output
                    && let Some(mark) = loaded.outputs.get(&*name).and_then(|marks| marks.get(path))
                {
                    use_output(&mut tracker.outputs, &name, mark.clone(), &key);
                }
                let order = Order::Ahead(sink.rank);
                let (cursor, output) = (sink.cursor, sink.output);
                positions.or_insert(&name, || Position { order, cursor, output, acked_s: 0, earlier: None });
            }
            if let Some((rank, cursor)) = fallback {
                let order = if known { Order::Ahead(rank) } else { Order::Joined(0) };
                for name in &tracker.sinks {
                    let cursor = cursor.clone();
                    positions.or_insert(name, || Position {
                        order,
                        cursor,
                        output: None,
                        acked_s: 0,
                        earlier: None,
                    });
                }
            }
            join_lowest(&mut positions);
            for (name, position) in positions.iter() {
                tracker.memory.know(&key, name, &position.cursor, loaded.saved_s);
                if let Some((_, sum)) = beginning_of(&position.cursor) {
                    tracker.memory.note_begun(sum, &key);
                }
            }
            tracker.streams.insert(key, positions);
        }
        for (name, marks) in
            loaded.outputs.into_iter().filter(|(name, _)| tracker.sinks.contains(name.as_str()))
        {
            marks.into_values().for_each(|mark| keep_uncovered(&mut tracker.outputs, &name, mark));
        }
        tracker
    }

    /// Where a stream known from before goes on; `None` = never seen.
    pub fn resume(&self, stream: &StreamKey) -> Option<Resume> {
        let positions = self.streams.get(stream)?;
        let lowest = positions.values().min_by_key(|position| position.order)?;
        let mut ahead: Vec<_> =
            positions.iter().filter(|(_, position)| position.order > lowest.order).collect();
        ahead.sort_by_key(|(_, position)| position.order);
        Some(Resume {
            cursor: lowest.cursor.clone(),
            ahead: ahead
                .into_iter()
                .map(|(name, position)| (name.to_string(), position.cursor.clone()))
                .collect(),
        })
    }

    /// Where these sinks go on with a stream, whether it runs or was left long ago.
    pub fn resume_for(&self, stream: &StreamKey, sinks: &[String]) -> Option<Cursor> {
        let positions = self.streams.get(stream).into_iter().flat_map(Positions::iter);
        let is_asked = |name: &str| sinks.iter().any(|sink| sink == name);
        let own = positions.filter(|(name, _)| is_asked(name)).map(|(_, position)| position);
        let lowest = own.min_by_key(|position| position.order).map(|position| &position.cursor);
        lowest.or_else(|| self.memory.left(stream, sinks)).cloned()
    }

    /// Where the last run left these sinks with a stream, and the output of one of them that has such; `None` = one of them got
    /// something of it since.
    pub fn loaded(&self, stream: &StreamKey, sinks: &[String]) -> Option<(&Cursor, Option<&Arc<str>>)> {
        let positions = self.streams.get(stream)?;
        let own = sinks.iter().filter_map(|sink| positions.get(sink));
        let is_loaded = |position: &Position| matches!(position.order, Order::Joined(0) | Order::Ahead(_));
        let lowest = own.clone().min_by_key(|position| position.order)?;
        let output = own.clone().find_map(|position| position.output.as_ref());
        own.clone().all(is_loaded).then_some((&lowest.cursor, output))
    }

    /// When the run before this one was alive last, nanoseconds since 1970; `None` = there was none, or nobody knows.
    fn ran_until_ns(&self) -> Option<i64> {
        (self.loaded_s > 0).then_some(ns(self.loaded_s))
    }

    /// When the last run ended, nanoseconds since 1970, if something that was made at `made_ns` was made after that, so that
    /// nobody has seen it.
    pub fn unseen_since_ns(&self, made_ns: i64) -> Option<i64> {
        self.ran_until_ns().filter(|until| made_ns > *until)
    }

    /// When a log was looked at last, by this run or an earlier one, nanoseconds since 1970; `None` = nobody knows.
    pub fn looked_ns(&self, stream: &StreamKey) -> Option<i64> {
        let before_s = self.unlooked.get(stream).copied();
        let left_s = || self.memory.left_at_s(stream).filter(|_| !self.streams.contains_key(stream));
        let looked_s = before_s.or_else(left_s).unwrap_or(self.loaded_s);
        (looked_s > 0).then_some(ns(looked_s))
    }

    /// Notes how long the files are that hold a stream's positions.
    pub fn note_lengths(&mut self, stream: &StreamKey, len_of: impl Fn(FileId) -> Option<u64>) {
        let Some(positions) = self.streams.get_mut(stream) else { return };
        for position in positions.values_mut() {
            if let Cursor::File(cursor) = &mut position.cursor
                && let Some(len) = len_of(cursor.file)
                && len > cursor.len
            {
                Arc::make_mut(cursor).len = len;
            }
        }
    }

    /// A listing shows the log of a stream.
    pub fn note_looked(&mut self, stream: &StreamKey) {
        self.unlooked.remove(stream);
    }

    /// All patterns were looked at for the first time in this run.
    pub fn all_seen(&mut self, unix_ns: i64) {
        // Without a run before there is nothing that it left.
        self.memory.all_seen(self.ran_until_ns().unwrap_or(i64::MAX), unix_ns);
    }

    /// A stream's path is not there any more, and its file only if it is shown elsewhere. So its content may be found in a copy.
    pub fn miss(&mut self, stream: &StreamKey, is_shown: impl Fn(FileId) -> bool) {
        let Some(positions) = self.streams.get(stream) else { return };
        for (name, position) in positions.iter() {
            match &position.cursor {
                Cursor::File(cursor) if !is_shown(cursor.file) => {
                    let place = FilePlace { skip: [0; 2], ..cursor.place() };
                    self.memory.miss_log(stream, name, place, position.acked_s);
                }
                _ => {}
            }
        }
        self.touch(stream);
    }

    /// The table of files read.
    pub fn memory(&self) -> &Table {
        &self.memory
    }

    /// The table of files read, to set its time and bounds.
    pub fn memory_mut(&mut self) -> &mut Table {
        &mut self.memory
    }

    /// A sink is ready for a stream. `initial` is where reading begins ([`Tracker::resume`], or the stream's own
    /// choice if it was never seen); a sink that has a position from before keeps it.
    pub fn attach(&mut self, stream: &StreamKey, sink: &str, mut initial: Cursor, mark: Option<OutputMark>) {
        for place in initial.take_done() {
            self.memory.note(stream, sink, place);
        }
        let begun = beginning_of(&initial);
        let name = self.sinks.get(sink).cloned().unwrap_or_else(|| sink.into());
        self.streams.entry(stream.clone()).or_default().or_insert(&name, || Position {
            order: Order::Joined(0),
            cursor: initial,
            output: None,
            acked_s: 0,
            earlier: None,
        });
        if let Some((_, sum)) = begun {
            self.note_begun(sum, stream);
        }
        // Others may have written to that output since this mark was taken.
        let known = mark.as_ref().and_then(|mark| self.outputs.get(sink)?.get(&mark.path));
        let mark = known.map(|output| output.mark.clone()).or(mark);
        self.set_output(stream, sink, mark);
        self.touch(stream);
    }

    /// A sink has everything up to and including batch `seq` of the stream. Batches of a stream are numbered from 1
    /// in each run, in the order they are sent; each sink acknowledges in that order. An acknowledgement for a
    /// stream already forgotten is ignored.
    pub fn on_ack(
        &mut self,
        stream: &StreamKey,
        sink: &str,
        seq: u64,
        cursor: &Cursor,
        mark: Option<OutputMark>,
    ) {
        let acked_s = self.memory.now_s();
        let Some(position) = self.position(stream, sink) else { return };
        if let Order::Joined(before) = position.order {
            assert!(seq > before, "{sink} acknowledged batch {seq} of {stream:?} after batch {before}");
        }
        position.order = Order::Joined(seq);
        position.acked_s = acked_s;
        let begun_before = beginning_of(&position.cursor);
        // A copy of a shorter log can't be known, so nobody asks for its earlier places.
        if begun_before.is_some() {
            position.note_earlier(acked_s);
        }
        position.cursor.clone_from(cursor);
        let begun = beginning_of(cursor).filter(|begun| Some(*begun) != begun_before);
        for place in position.cursor.take_done() {
            self.memory.note(stream, sink, place);
        }
        if let Some((_, sum)) = begun {
            self.note_begun(sum, stream);
        }
        self.set_output(stream, sink, mark);
        self.touch(stream);
    }

    /// A stream stands in a file that begins so.
    fn note_begun(&mut self, sum: u32, stream: &StreamKey) {
        self.memory.note_begun(sum, stream);
        if self.memory.has_many_begun(self.streams.len()) {
            let streams = &self.streams;
            let has =
                |position: &Position, sum| beginning_of(&position.cursor).is_some_and(|begun| begun.1 == sum);
            self.memory.retain_begun(|sum, log| {
                streams
                    .get(log)
                    .is_some_and(|positions| positions.values().any(|position| has(position, sum)))
            });
        }
    }

    /// Where these sinks stood with a stream a second ago or longer, the latest first.
    pub fn earlier(&self, stream: &StreamKey, sinks: &[String]) -> impl Iterator<Item = FilePlace> {
        let positions = self.streams.get(stream).into_iter();
        let own = positions.flat_map(|positions| sinks.iter().filter_map(|sink| positions.get(sink)));
        own.filter_map(|position| position.earlier.as_deref()).flat_map(|[older, newer]| [newer.1, older.1])
    }

    /// When a sink acknowledged something of a stream last in this run, seconds since 1970; 0 = it did not.
    pub fn acked_s(&self, stream: &StreamKey) -> u64 {
        let positions = self.streams.get(stream).into_iter().flat_map(Positions::values);
        positions.map(|position| position.acked_s).max().unwrap_or(0)
    }

    /// The stream is not read any more. Its positions are remembered in case it comes back; outputs that no other stream uses
    /// are forgotten, but for those with records that these positions do not cover.
    pub fn leave(&mut self, stream: &StreamKey) {
        let Some(positions) = self.streams.remove(stream) else { return };
        let ranks = sinks_of(&positions);
        for (sink, position) in positions {
            self.leave_output(stream, &sink, position.output.as_deref());
            let rank = ranks.get(&sink).map_or(0, |sink| sink.rank);
            self.memory.leave(stream, &sink, rank, position.cursor, position.acked_s);
        }
        self.touch(stream);
    }

    /// As [`Tracker::leave`], for some sinks: the others have not reached the end of the stream.
    pub fn leave_sinks(&mut self, stream: &StreamKey, sinks: &[String]) {
        let Some(positions) = self.streams.get_mut(stream) else { return };
        let ranks = sinks_of(positions);
        let mut gone = Vec::new();
        for sink in sinks {
            let Some(position) = positions.remove(sink) else { continue };
            let rank = ranks.get(sink).map_or(0, |sink| sink.rank);
            self.memory.leave(stream, sink, rank, position.cursor, position.acked_s);
            gone.push((sink, position.output));
        }
        if positions.is_empty() {
            self.streams.remove(stream);
        }
        for (sink, output) in gone {
            self.leave_output(stream, sink, output.as_deref());
        }
        self.touch(stream);
    }

    /// With fewer streams than this, every save is of everything.
    pub fn save_changes_from(&mut self, streams: usize) {
        self.changes_from = streams;
    }

    /// Streams known, from this run or before.
    pub fn streams(&self) -> impl Iterator<Item = &StreamKey> {
        self.streams.keys()
    }

    /// Whether a stream is known, from this run or an earlier one.
    pub fn knows(&self, stream: &StreamKey) -> bool {
        self.streams.contains_key(stream)
    }

    /// Grows with every change. Remember it with the checkpoint that is being saved.
    pub fn dirty_seq(&self) -> u64 {
        self.dirty_seq
    }

    /// A checkpoint taken at `seq` is safe on disk.
    pub fn on_saved(&mut self, seq: u64) {
        assert!(seq <= self.dirty_seq, "saved {seq}, but only {} changes were made", self.dirty_seq);
        self.saved_seq = self.saved_seq.max(seq);
        self.saving = Changed::default();
        self.memory.on_saved();
    }

    /// Asks for one more save.
    pub fn save_again(&mut self) {
        self.dirty_seq += 1;
    }

    /// The next save is of everything.
    pub fn save_whole(&mut self) {
        self.whole_due = true;
    }

    /// The last save that was ordered failed. Nobody knows how much of it is on disk.
    pub fn on_save_failed(&mut self) {
        self.whole_due = true;
    }

    /// Changes up to this one are on disk; equal to [`Tracker::dirty_seq`] = nothing to save.
    pub fn saved_seq(&self) -> u64 {
        self.saved_seq
    }

    fn position(&mut self, stream: &StreamKey, sink: &str) -> Option<&mut Position> {
        self.streams.get_mut(stream)?.get_mut(sink)
    }
}

/// The sinks at the lowest loaded rank are where reading begins: they are not ahead.
fn join_lowest(positions: &mut Positions) {
    let Some(lowest) = positions.values().map(|position| position.order).min() else { return };
    for position in positions.values_mut().filter(|position| position.order == lowest) {
        position.order = Order::Joined(0);
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
