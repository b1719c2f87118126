//! Carries actions out on the simulated host and turns what comes of them back into events, as shell.rs and the files
//! thread of the agent do; everything takes its time, and what is under way overtakes each other where the real one
//! can. Requests to the files thread are worked on one after the other, but their answers show the past.

mod files;
mod inotify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capturer::testing::{
    Action, BodyOutcome, Capture, Event, FileNo, FromSink, LossReason, Metrics, StreamId, StreamKey,
};

use super::disk::Node;
use super::engine::Conn;
use super::sinks::Message;
use super::{Happening, World};
use crate::checker::Flow;
pub(super) use files::{FileRead, Work};
pub(super) use inotify::Change;
use inotify::{Pending, Watch};

/// Without inotify every file is looked at so often.
const LOOK_US: u64 = 2_000_000;

/// A running agent.
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) capture: Capture,
    pub(super) metrics: Arc<Metrics>,
    pub(super) flow: Flow,
    pub(super) tick_at_us: Option<u64>,
    pub(super) stopping: bool,
    pub(super) open_files: BTreeMap<FileNo, Node>,
    /// The directory each was opened in.
    opened_in: BTreeMap<FileNo, String>,
    /// Streams that are looked at because something of them hangs.
    pub(super) told_hung: BTreeSet<StreamId>,
    pub(super) file_reads_total: u64,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) requests: BTreeSet<u64>,
    watches: BTreeMap<StreamId, Watch>,
    watched_sets: BTreeSet<usize>,
    inotify: Pending,
    /// The files thread is busy until then, and its answers come not before that.
    files_us: (u64, u64),
    /// Openings that wait for a descriptor, and when the core was told last.
    without_room: BTreeSet<FileNo>,
    told_short_us: u64,
    /// Of streams that are attached.
    keys: BTreeMap<StreamId, StreamKey>,
}

impl Run {
    pub(super) fn new(number: u64, capture: Capture, metrics: Arc<Metrics>, flow: Flow) -> Run {
        Run {
            number,
            capture,
            metrics,
            flow,
            tick_at_us: None,
            stopping: false,
            open_files: BTreeMap::new(),
            opened_in: BTreeMap::new(),
            told_hung: BTreeSet::new(),
            file_reads_total: 0,
            conns: BTreeMap::new(),
            requests: BTreeSet::new(),
            watches: BTreeMap::new(),
            watched_sets: BTreeSet::new(),
            inotify: Pending::default(),
            files_us: (0, 0),
            without_room: BTreeSet::new(),
            told_short_us: 0,
            keys: BTreeMap::new(),
        }
    }

    /// Some stream has listed this path's directory and keeps an eye on it.
    pub(super) fn watches(&self, path: &str) -> bool {
        let is_it = |watch: &Watch| watch.set && format!("{}/{}", watch.directory, watch.live_name) == path;
        self.watches.values().any(is_it)
    }
}

/// Bytes of source that the core has declared lost.
pub(super) fn declared_losses(metrics: &Metrics) -> u64 {
    let of = |reason: &LossReason| metrics.lost_bytes_total.with_label_values(&[reason.as_str()]).get();
    LossReason::ALL.iter().map(of).sum()
}

impl World {
    fn run_mut(&mut self) -> &mut Run {
        self.run.as_mut().expect("actions come from a running agent")
    }

    pub(super) fn carry_out(&mut self, action: Action) {
        let Some(number) = self.run.as_ref().map(|run| run.number) else { return };
        match action {
            Action::Get { request, path } => self.on_get(request, path),
            Action::OpenConn { conn, path, stream: _ } => self.on_open_conn(conn, path),
            Action::ReadConn { conn, buffer } => self.on_read_conn(conn, buffer),
            Action::CloseConn { conn } => self.on_close_conn(conn),
            Action::Scan { stream, directory, live_name, wanted, apart: _, olddirs: _, before: _, still } => {
                let directory = directory.to_string();
                let watch = Watch { directory: directory.clone(), live_name: live_name.clone(), set: false };
                self.run_mut().watches.entry(stream).or_insert(watch);
                self.ask_files(Work::Scan { stream, directory, live_name, wanted, still });
            }
            Action::Unwatch { stream } => drop(self.run_mut().watches.remove(&stream)),
            Action::OpenFile { stream, file, directory, found, expected } => {
                let directory = directory.to_string();
                self.ask_files(Work::Open { stream, file, directory, found: Box::new(found), expected });
            }
            Action::ReadFile { stream, file, offset, buffer } => {
                let run = self.run_mut();
                run.flow.on_file_read(buffer.capacity());
                run.file_reads_total += 1;
                assert!(
                    run.open_files.contains_key(&file),
                    "invariant broken: no_action_for_the_unknown: a read of file {}",
                    file.0
                );
                let delay = self.delay(300, self.faults.reads_slow_us);
                let read = FileRead { stream, file, offset, buffer, failed: false };
                self.later(delay, Happening::ReadFile { run: number, read });
            }
            Action::CloseFile { file } => {
                let Some(node) = self.run_mut().open_files.remove(&file) else {
                    panic!("invariant broken: no_action_for_the_unknown: closing file {}", file.0)
                };
                let gone = self.disk.close(node);
                self.checker.lines_gone(gone);
            }
            Action::FindPaths { set } => self.ask_files(Work::FindPaths { set }),
            Action::Attach(source) => {
                self.run_mut().keys.insert(source.id, source.key.clone());
                self.send_to_sinks(|| Message::Attach(Arc::clone(&source)));
            }
            Action::Send(batch) => {
                self.run_mut().flow.on_send(&batch);
                self.send_to_sinks(|| Message::Batch(Arc::clone(&batch)));
            }
            // Outputs of the simulation are no files.
            Action::Withdraw(_) => {}
            Action::Detach(stream) => {
                self.run_mut().keys.remove(&stream);
                self.send_to_sinks(|| Message::Detach(stream));
            }
            // What a sink does with it is the sink's own test.
            Action::Saved(_) => {}
            Action::StopSinks => self.send_to_sinks(|| Message::Stop),
            Action::SaveCheckpoint { seq, checkpoint } => {
                let snapshot = self.checker.checkpoint_is_not_ahead_of_acks(&checkpoint);
                self.ask_files(Work::Save { seq, checkpoint: Box::new(checkpoint), snapshot });
            }
            Action::Finished { left } => self.finished(&left),
        }
    }

    /// What the checker wants to know before the core does.
    pub(super) fn before_event(&mut self, event: &Event) {
        let Some(run) = &mut self.run else { return };
        match event {
            Event::Sink(FromSink::Ack(ack)) => {
                run.flow.on_acked(&ack.batch);
                self.checker.on_acked(usize::from(ack.sink.0), &ack.batch);
            }
            Event::FileRead { buffer, .. } => run.flow.on_file_read_done(buffer.capacity()),
            _ => {}
        }
    }

    // ---- the files thread

    // ---- reads

    // ---- inotify

    /// At a clean end the shell has nothing left to end itself.
    pub(super) fn nothing_is_left(&mut self) {
        let Some(run) = &self.run else { return };
        assert!(run.flow.is_empty(), "invariant broken: operations_are_balanced: {:?}", run.flow);
        assert!(
            run.conns.is_empty(),
            "invariant broken: operations_are_balanced: connections {:?} are left",
            run.conns.keys()
        );
        let queued: usize = self.sinks.iter().map(super::sinks::SinkModel::batches_left).sum();
        assert!(queued == 0, "invariant broken: operations_are_balanced: {queued} batches are left in sinks");
    }
}

/// An event in a line.
pub(super) fn brief_event(event: &Event) -> String {
    match event {
        Event::Sink(FromSink::Ack(ack)) => {
            format!("Ack {:?} {} {:?}", ack.batch.source.key, ack.batch.seq, ack.batch.end)
        }
        Event::ConnRead { conn, outcome, buffer } => {
            let outcome = match outcome {
                BodyOutcome::Bytes => "Bytes",
                BodyOutcome::End => "End",
                BodyOutcome::TimedOut => "TimedOut",
                BodyOutcome::Broken(_) => "Broken",
            };
            format!("ConnRead {} {outcome} {}", conn.0, buffer.len())
        }
        Event::Scanned { stream, result: Ok(found), .. } => {
            let files = found.iter().map(|file| format!(" {}:{}:{}", file.name, file.id.inode, file.len));
            format!("Scanned {}{}", stream.0, files.collect::<String>())
        }
        Event::Answered { request, result } => {
            format!("Answered {} {:?}", request.0, result.as_ref().map(|(status, _)| *status))
        }
        Event::FileRead { .. } => "FileRead".to_owned(),
        other => format!("{other:?}").chars().take(200).collect(),
    }
}
