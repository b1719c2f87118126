//! Simulated sinks: they take messages in order, slowly at times, and acknowledge in order. `local_file` keeps outputs
//! whose length goes into the checkpoint. What stands behind it when the agent starts stays, and is skipped when it is read
//! again; which records that are, the agent's own code says ([`Skipping`]). A sink without outputs keeps nothing.
//!
//! Not here: files that are torn, rotated or changed by others, several sources in one output, formats that do not name
//! the source, and that after ten minutes a checkpoint no longer tells of records that no source came back for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use capturer::testing::checkpoint::Checkpoint;
use capturer::testing::{
    Ack, Batch, Event, FileId, FromSink, Looks, OutputFormat, OutputMark, SinkId, Skipping, Source, StreamId,
};

use super::{Happening, World};

/// What a sink is sent.
#[derive(Debug)]
pub(super) enum Message {
    Attach(Arc<Source>),
    Batch(Arc<Batch>),
    Detach(StreamId),
    Stop,
}

const OUTPUT_FILE: FileId = FileId { device: 1, inode: 1, birth_ns: 1 };

pub(super) struct SinkModel {
    pub(super) name: String,
    queue: VecDeque<Message>,
    busy: bool,
    /// Answers reach the core in order: not before this time.
    answers_us: u64,
    /// On disk, by path; only of local_file.
    outputs: BTreeMap<Arc<str>, Vec<u8>>,
    /// Where each stream's lines go, and what they look like there.
    streams: BTreeMap<StreamId, (Arc<str>, Looks)>,
    /// What the last run wrote and did not save.
    skipping: Skipping,
}

impl SinkModel {
    pub(super) fn new(name: &str) -> SinkModel {
        SinkModel {
            name: name.to_owned(),
            queue: VecDeque::new(),
            busy: false,
            answers_us: 0,
            outputs: BTreeMap::new(),
            streams: BTreeMap::new(),
            skipping: Skipping::new(OutputFormat::Ndjson),
        }
    }

    pub(super) fn keeps_outputs(&self) -> bool {
        self.name == "local_file"
    }

    /// The process is gone; outputs stay.
    pub(super) fn die(&mut self) {
        self.queue.clear();
        self.streams.clear();
        self.busy = false;
        self.answers_us = 0;
    }

    /// Batches that it has not written.
    pub(super) fn batches_left(&self) -> usize {
        self.queue.iter().filter(|message| matches!(message, Message::Batch(_))).count()
    }

    /// Outputs stay as they are. The marks then say how long they are and which records no source came back for.
    pub(super) fn restore(&mut self, loaded: &mut Checkpoint, now_s: u64) {
        self.skipping = Skipping::new(OutputFormat::Ndjson);
        let Some(marks) = loaded.outputs.get_mut(&self.name) else { return };
        for mark in marks.values() {
            let Some(text) = self.outputs.get(&mark.path) else { continue };
            for part in &mark.uncovered {
                let held = (part.from, &text[part.from as usize..part.to as usize]);
                self.skipping.take_up(&mark.path, OUTPUT_FILE, held, Some(part), now_s);
            }
        }
        for mark in marks.values() {
            let Some(text) = self.outputs.get(&mark.path) else { continue };
            let behind = (mark.len_bytes, &text[mark.len_bytes as usize..]);
            self.skipping.take_up(&mark.path, OUTPUT_FILE, behind, None, now_s);
        }
        for mark in marks.values_mut() {
            mark.len_bytes = self.outputs.get(&mark.path).map_or(0, |text| text.len() as u64);
            mark.uncovered = self.skipping.uncovered(&mark.path);
        }
    }

    fn mark(&mut self, stream: StreamId) -> Option<OutputMark> {
        let (path, _) = self.streams.get(&stream).filter(|_| self.keeps_outputs())?;
        let len_bytes = self.outputs.get(path).map_or(0, |text| text.len() as u64);
        let uncovered = self.skipping.uncovered(path);
        Some(OutputMark { path: Arc::clone(path), file: OUTPUT_FILE, len_bytes, uncovered, print: None })
    }

    fn attach(&mut self, source: &Source) {
        let path = path_of(source);
        let looks = self.skipping.looks(source, &path, path_of);
        self.outputs.entry(Arc::clone(&path)).or_default();
        self.streams.insert(source.id, (path, looks));
    }

    /// Writes a batch. Returns the records that were written; `None` = all.
    fn write(&mut self, batch: &Batch) -> Option<Vec<usize>> {
        let Some((path, looks)) = self.streams.get(&batch.source.id) else {
            panic!("invariant broken: no_action_for_the_unknown: a batch before its attach: {batch:?}")
        };
        if !self.keeps_outputs() {
            return None;
        }
        let plan = self.skipping.plan(looks, batch);
        let text = self.outputs.entry(Arc::clone(path)).or_default();
        self.skipping.encode(looks, batch, plan.as_ref(), text).expect("memory takes every byte");
        let kept = plan.as_ref().map(|plan| plan.kept().to_vec());
        plan.into_iter().for_each(|plan| self.skipping.apply(plan));
        kept
    }
}

fn path_of(source: &Source) -> Arc<str> {
    let name = match (&source.container, &source.path) {
        (Some(container), _) => container.name.clone(),
        (None, path) => path.as_deref().unwrap_or_default().replace('/', "_"),
    };
    name.into()
}

impl World {
    pub(super) fn send_to_sinks(&mut self, message: impl Fn() -> Message) {
        for sink in 0..self.sinks.len() {
            self.sinks[sink].queue.push_back(message());
            self.wake_sink(sink);
        }
    }

    fn wake_sink(&mut self, sink: usize) {
        let Some(run) = self.run.as_ref().map(|run| run.number) else { return };
        if !self.sinks[sink].busy && !self.sinks[sink].queue.is_empty() {
            self.sinks[sink].busy = true;
            let delay = self.delay(500, self.faults.sinks_slow_us);
            self.later(delay, Happening::Sink { run, sink });
        }
    }

    pub(super) fn step_sink(&mut self, sink: usize) {
        self.sinks[sink].busy = false;
        let id = SinkId(sink as u8);
        let from = match self.sinks[sink].queue.pop_front() {
            Some(Message::Attach(source)) => {
                self.sinks[sink].attach(&source);
                Some(FromSink::Attached {
                    sink: id,
                    stream: source.id,
                    mark: self.sinks[sink].mark(source.id),
                })
            }
            Some(Message::Batch(batch)) => {
                let model = &mut self.sinks[sink];
                let kept = model.write(&batch);
                self.checker.on_written(sink, &batch, kept.as_deref());
                let skipped = kept.map_or(0, |kept| batch.records.len() - kept.len());
                if skipped > 0 {
                    self.note(|| format!("-- {skipped} records are in the output already"));
                }
                let model = &mut self.sinks[sink];
                let mark = model.mark(batch.source.id);
                Some(FromSink::Ack(Ack { sink: id, batch, mark, delivered: None }))
            }
            Some(Message::Detach(stream)) => {
                self.sinks[sink].streams.remove(&stream);
                None
            }
            Some(Message::Stop) => Some(FromSink::Stopped(id)),
            None => None,
        };
        if let (Some(from), Some(run)) = (from, self.run.as_ref().map(|run| run.number)) {
            let delay = self.delay(300, self.faults.sinks_slow_us / 4);
            let at = (self.now_us + delay).max(self.sinks[sink].answers_us);
            self.sinks[sink].answers_us = at;
            self.at(at, Happening::Deliver { run, event: Box::new(Event::Sink(from)) });
        }
        self.wake_sink(sink);
    }
}
