//! How a stream begins and ends.
//!
//! ```text
//! new ─▶ each sink prepares its output ─▶ both are in a checkpoint ─▶ saved: it begins … closed: all that was kept for it goes
//! ```
//! If it read any earlier, a crash could leave lines in an output that no checkpoint names.

use std::sync::Arc;

use super::{Capture, containers};
use crate::capture::io::Action;
use crate::capture::stream::{Kind, Stream};
use crate::model::clock::Now;
use crate::model::cursor::Cursor;
use crate::model::record::{OutputMark, SinkId, Source, StreamId, StreamKey};

/// A stream whose outputs are being prepared.
#[derive(Debug)]
pub(super) struct Attaching {
    /// Where it begins; `None` = its files must be listed first, so that the checkpoint names them.
    initial: Option<Cursor>,
    /// What the sinks answered.
    marks: Vec<(SinkId, Option<OutputMark>)>,
    sinks_missing: usize,
    /// The tracker's state that must be saved; set when all sinks have answered.
    saved_at: Option<u64>,
    /// The container was renamed meanwhile.
    pub(super) renamed: Option<Box<containers::ContainerFacts>>,
}

impl Attaching {
    /// Whether all sinks have answered, and no checkpoint has it yet.
    pub(super) fn is_prepared(&self) -> bool {
        self.sinks_missing == 0 && self.saved_at.is_none()
    }
}

impl Capture {
    pub(super) fn next_stream_id(&mut self) -> StreamId {
        self.last_stream += 1;
        StreamId(self.last_stream)
    }

    pub(super) fn ids_of(&self, key: &StreamKey) -> Vec<StreamId> {
        self.ids.get(key).cloned().unwrap_or_default()
    }

    /// Outlets without a stream of this key: all, or those that reached its end before others.
    pub(super) fn outlets_without(&self, key: &StreamKey) -> Vec<usize> {
        let ids = self.ids_of(key);
        let has = |outlet: &usize| {
            let streams = ids.iter().filter_map(|id| self.streams.get(id));
            streams.into_iter().any(|stream| usize::from(stream.source.outlet.index) == *outlet)
        };
        (0..self.outlets.len()).filter(|outlet| !has(outlet)).collect()
    }

    pub(super) fn new_stream(
        &mut self,
        now: Now,
        source: Arc<Source>,
        kind: Kind,
        reason: Arc<str>,
        acked: Cursor,
    ) -> Stream {
        let outlet = usize::from(source.outlet.index);
        Stream::new(source, kind, reason, acked, &mut self.context(now, outlet))
    }

    pub(super) fn add_stream(&mut self, stream: Stream) {
        let source = Arc::clone(&stream.source);
        let tracked = &self.outlets[usize::from(source.outlet.index)].tracked;
        let resume =
            self.tracker.resume_for(&source.key, tracked).filter(|cursor| *cursor != Cursor::Beginning);
        self.ids.entry(source.key.clone()).or_default().push(source.id);
        self.sums.added(&stream);
        self.note_pipeline(&source);
        self.streams.insert(source.id, Box::new(stream));
        self.attach(source, resume);
    }

    pub(super) fn attach(&mut self, source: Arc<Source>, initial: Option<Cursor>) {
        let sinks_missing = self.outlets[usize::from(source.outlet.index)].names.len();
        // No room beyond what comes: ten thousands of sources may attach at once.
        let marks = Vec::with_capacity(sinks_missing);
        let attaching = Attaching { initial, marks, sinks_missing, saved_at: None, renamed: None };
        self.attaching.insert(source.id, attaching);
        self.shared.actions.push(Action::Attach(source));
    }

    pub(super) fn on_attached(&mut self, sink: SinkId, stream: StreamId, mark: Option<OutputMark>) {
        let Some(attaching) = self.attaching.get_mut(&stream) else { return };
        if let (Some(mark), Some(stream)) = (&mark, self.streams.get(&stream)) {
            self.tracker.on_prepared(&stream.source.key, &self.sinks[usize::from(sink.0)], mark);
        }
        attaching.marks.push((sink, mark));
        attaching.sinks_missing -= 1;
        if attaching.is_prepared() {
            self.to_place.insert(stream);
        }
    }

    /// Puts streams into the checkpoint once all sinks have prepared their outputs and they know where they begin.
    pub(super) fn place_attached(&mut self) {
        for id in std::mem::take(&mut self.to_place) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let attaching = self.attaching.get_mut(&id).filter(|attaching| attaching.is_prepared());
            let Some(attaching) = attaching else { continue };
            let Some(initial) = attaching.initial.clone().or_else(|| stream.initial_cursor()) else {
                continue;
            };
            for (sink, mark) in std::mem::take(&mut attaching.marks) {
                let name = &self.sinks[usize::from(sink.0)];
                if self.outlets.iter().any(|outlet| outlet.tracked.contains(name)) {
                    self.tracker.attach(&stream.source.key, name, initial.clone(), mark);
                }
            }
            let seq = self.tracker.dirty_seq();
            attaching.saved_at = Some(seq);
            self.to_begin.entry(seq).or_default().push(id);
        }
    }

    /// Begins streams whose outputs are in a checkpoint on disk. That can be as soon as the last sink has answered: a stream
    /// whose position is not kept needs no save.
    pub(super) fn begin_attached(&mut self, now: Now) {
        let saved = self.tracker.saved_seq();
        while let Some(entry) = self.to_begin.first_entry().filter(|entry| *entry.key() <= saved) {
            let (seq, ids) = entry.remove_entry();
            ids.into_iter().for_each(|id| self.begin(now, id, seq));
        }
    }

    fn begin(&mut self, now: Now, id: StreamId, seq: u64) {
        // If it was renamed since, another output is being prepared for it.
        if self.attaching.get(&id).is_some_and(|attaching| attaching.saved_at == Some(seq)) {
            let renamed = self.attaching.remove(&id).and_then(|attaching| attaching.renamed);
            if self.stopping.is_some() {
                return;
            }
            self.with_stream(now, id, |stream, cx| {
                stream.begin(cx);
                stream.release(cx);
            });
            let name = self.streams.get(&id).and_then(|stream| stream.source.container.as_ref());
            if let Some(facts) = renamed.filter(|facts| name.is_some_and(|name| **name != facts.meta)) {
                self.rename(id, *facts);
            }
        }
    }

    pub(super) fn drop_closed(&mut self, now: Now) {
        for id in std::mem::take(&mut self.closed) {
            let Some(stream) = self.streams.remove(&id) else { continue };
            self.sums.removed(&stream);
            self.shared.open_files.forget(id);
            let key = &stream.source.key;
            if let Some(ids) = self.ids.get_mut(key) {
                ids.retain(|other| *other != id);
            }
            if self.ids_of(key).is_empty() {
                self.ids.remove(key);
                self.shared.counted.forget(key);
            }
            let key = key.clone();
            let prepared = self.attaching.remove(&id).into_iter().flat_map(|attaching| attaching.marks);
            for (sink, mark) in prepared {
                if let Some(mark) = mark {
                    self.tracker.abandon_prepared(&key, &self.sinks[usize::from(sink.0)], &mark.path);
                }
            }
            self.held.forget(id);
            self.note_never_opened(now, &stream);
            let tracked = &self.outlets[usize::from(stream.source.outlet.index)].tracked;
            self.tracker.leave_sinks(&key, tracked);
            self.unreadable.end_all(id);
            self.archives.remove(&id);
            self.progress.forget(id);
            self.no_logs.forget_stream(id);
            self.log_facts.forget(id);
            self.take_up_again(now, &key);
            self.shared.timers.cancel_all(id);
            self.plan_save(now);
            if let Kind::File(file) = &stream.kind {
                file.let_go(&mut self.shared.owners);
                for file in file.open_files() {
                    self.shared.actions.push(Action::CloseFile { file });
                }
            }
            if stream.source.path.is_some() {
                self.paths.unsettle();
                // Its file may go on under another path.
                self.find_all_paths(now);
            }
            if let Some(container) = &stream.source.container {
                self.metrics.forget_container(&container.id);
            }
            self.shared.actions.push(Action::Unwatch { stream: id });
            self.shared.actions.push(Action::Detach(id));
        }
    }
}
