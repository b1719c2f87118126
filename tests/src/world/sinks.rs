//! Simulated sinks: they take messages in order, slowly at times, and acknowledge in order. `local_file` keeps outputs
//! whose length goes into the checkpoint and which a restart cuts to it; a sink without outputs keeps nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use capturer::testing::checkpoint::Checkpoint;
use capturer::testing::{Ack, Batch, Event, FileId, FromSink, OutputMark, SinkId, Source, StreamId};

use super::{Happening, World};
use crate::checker::LineId;

/// What a sink is sent.
#[derive(Debug)]
pub(super) enum Message {
    Attach(Arc<Source>),
    Batch(Arc<Batch>),
    Detach(StreamId),
    Stop,
}

#[derive(Debug, Default)]
struct Output {
    /// Lines and the output's length behind each.
    lines: Vec<(LineId, u64)>,
}

#[derive(Debug)]
pub(super) struct SinkModel {
    pub(super) name: String,
    queue: VecDeque<Message>,
    busy: bool,
    /// Answers reach the core in order: not before this time.
    answers_us: u64,
    /// On disk, by path; only of local_file.
    outputs: BTreeMap<String, Output>,
    /// Where each stream's lines go.
    paths: BTreeMap<StreamId, String>,
}

impl SinkModel {
    pub(super) fn new(name: &str) -> SinkModel {
        SinkModel {
            name: name.to_owned(),
            queue: VecDeque::new(),
            busy: false,
            answers_us: 0,
            outputs: BTreeMap::new(),
            paths: BTreeMap::new(),
        }
    }

    pub(super) fn keeps_outputs(&self) -> bool {
        self.name == "local_file"
    }

    /// The process is gone; outputs stay.
    pub(super) fn die(&mut self) {
        self.queue.clear();
        self.paths.clear();
        self.busy = false;
        self.answers_us = 0;
    }

    /// Batches that it has not written.
    pub(super) fn batches_left(&self) -> usize {
        self.queue.iter().filter(|message| matches!(message, Message::Batch(_))).count()
    }

    /// Cuts outputs to what the checkpoint says; returns the lines cut off. (Simpler than the real sink, which keeps
    /// them and skips their repetition.)
    pub(super) fn restore(&mut self, loaded: &mut Checkpoint) -> Vec<LineId> {
        let mut cut = Vec::new();
        for mark in loaded.outputs.get(&self.name).into_iter().flat_map(BTreeMap::values) {
            let Some(output) = self.outputs.get_mut(&*mark.path) else { continue };
            let keep = output.lines.partition_point(|(_, len)| *len <= mark.len_bytes);
            cut.extend(output.lines.drain(keep..).map(|(line, _)| line));
        }
        cut
    }

    fn mark(&self, stream: StreamId) -> Option<OutputMark> {
        let path = self.paths.get(&stream).filter(|_| self.keeps_outputs())?;
        let len_bytes =
            self.outputs.get(path).and_then(|output| output.lines.last()).map_or(0, |(_, len)| *len);
        let file = FileId { device: 1, inode: 1, birth_ns: 1 };
        Some(OutputMark { path: path.as_str().into(), file, len_bytes, ..OutputMark::default() })
    }

    fn attach(&mut self, source: &Source) {
        let name = match (&source.container, &source.path) {
            (Some(container), _) => container.name.clone(),
            (None, path) => path.clone().unwrap_or_default().replace('/', "_"),
        };
        self.outputs.entry(name.clone()).or_default();
        self.paths.insert(source.id, name);
    }
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
                let written = self.checker.on_written(sink, &batch);
                let model = &mut self.sinks[sink];
                let Some(path) = model.paths.get(&batch.source.id) else {
                    panic!(
                        "invariant broken: no_action_for_the_unknown: a batch before its attach: {batch:?}"
                    )
                };
                let output = model.outputs.entry(path.clone()).or_default();
                if model.name == "local_file" {
                    let mut len = output.lines.last().map_or(0, |(_, len)| *len);
                    for (line, bytes) in written {
                        len += bytes;
                        output.lines.push((line, len));
                    }
                }
                let mark = model.mark(batch.source.id);
                Some(FromSink::Ack(Ack { sink: id, batch, mark, delivered: None }))
            }
            Some(Message::Detach(stream)) => {
                self.sinks[sink].paths.remove(&stream);
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
