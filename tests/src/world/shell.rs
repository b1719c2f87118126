//! Carries actions out on the simulated host and turns what comes of them back into events, as shell.rs and the files
//! thread of the agent do; everything takes its time, and what is under way overtakes each other where the real one
//! can. Requests to the files thread are worked on one after the other, but their answers show the past.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use capturer::testing::checkpoint::Checkpoint;
use capturer::testing::{
    Action, BodyOutcome, Capture, Event, FileError, FileId, FileNo, FoundFile, FromSink, LaneId, LossReason,
    Metrics, OpenedFile, StreamId, StreamKey, TailPrint,
};

use super::disk::Node;
use super::engine::Conn;
use super::sinks::Message;
use super::{Happening, World};
use crate::checker::{Flow, Snapshot};

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
    /// Of streams that are attached.
    keys: BTreeMap<StreamId, StreamKey>,
}

#[derive(Debug)]
struct Watch {
    directory: String,
    live_name: String,
    /// The scan that sets it was carried out, and the directory was there.
    set: bool,
}

/// What inotify holds and has not told.
#[derive(Debug, Default)]
struct Pending {
    planned: bool,
    overflow: bool,
    grew: BTreeSet<StreamId>,
    rotated_grew: BTreeSet<StreamId>,
    changed: BTreeSet<StreamId>,
    sets: BTreeSet<usize>,
}

/// A request to the files thread.
#[derive(Debug)]
pub(super) enum Work {
    Scan {
        stream: StreamId,
        directory: String,
        live_name: String,
        wanted: Vec<FileId>,
    },
    Open {
        stream: StreamId,
        file: FileNo,
        directory: String,
        found: Box<FoundFile>,
        expected: TailPrint,
    },
    FindPaths {
        set: usize,
    },
    /// The part of it on a file system that may hang.
    FindRest {
        set: usize,
        lane: LaneId,
    },
    Save {
        seq: u64,
        checkpoint: Box<Checkpoint>,
        snapshot: Snapshot,
    },
}

impl Work {
    /// Where it is done, if that may be on a file system of its own.
    fn directory(&self) -> Option<String> {
        match self {
            Work::Scan { directory, .. } | Work::Open { directory, .. } => Some(directory.clone()),
            Work::FindRest { set, .. } => Some(format!("/logs/{set}")),
            Work::FindPaths { .. } | Work::Save { .. } => None,
        }
    }

    fn stream(&self) -> Option<StreamId> {
        match self {
            Work::Scan { stream, .. } | Work::Open { stream, .. } => Some(*stream),
            Work::FindPaths { .. } | Work::FindRest { .. } | Work::Save { .. } => None,
        }
    }
}

/// A read of a file.
#[derive(Debug)]
pub(super) struct FileRead {
    stream: StreamId,
    pub(super) file: FileNo,
    pub(super) offset: u64,
    pub(super) buffer: Vec<u8>,
    failed: bool,
}

/// What a file's event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Written,
    Made,
    Gone,
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
            Action::Scan { stream, directory, live_name, wanted, apart: _ } => {
                let watch = Watch { directory: directory.clone(), live_name: live_name.clone(), set: false };
                self.run_mut().watches.entry(stream).or_insert(watch);
                self.ask_files(Work::Scan { stream, directory, live_name, wanted });
            }
            Action::Unwatch { stream } => drop(self.run_mut().watches.remove(&stream)),
            Action::OpenFile { stream, file, directory, found, expected } => {
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

    fn ask_files(&mut self, work: Work) {
        let delay = self.delay(200, self.faults.files_slow_us);
        let now = self.now_us;
        let directory = work.directory().filter(|directory| self.lane_of(directory).is_some());
        let run = self.run_mut();
        let number = run.number;
        let at = if let Some(directory) = directory {
            self.lane_turn_us(&directory, delay)
        } else {
            run.files_us.0 = run.files_us.0.max(now) + delay;
            run.files_us.0
        };
        self.at(at, Happening::Files { run: number, work });
    }

    pub(super) fn work_on_files(&mut self, number: u64, work: Work) {
        let happening = Happening::Files { run: number, work };
        let Happening::Files { work, .. } = &happening else { return };
        let (directory, stream) = (work.directory(), work.stream());
        let happening = match &directory {
            Some(directory) => self.put_off(directory, stream, happening),
            None => Some(happening),
        };
        let Some(Happening::Files { work, .. }) = happening else { return };
        let lane = directory.filter(|directory| self.lane_of(directory).is_some());
        let event = match work {
            Work::Scan { stream, directory, live_name, wanted } => {
                self.scan(stream, &directory, &live_name, &wanted)
            }
            Work::Open { stream, file, directory, found, expected } => {
                let result = self.open(file, &directory, &found, &expected);
                self.run_mut().opened_in.insert(file, directory);
                Event::FileOpened { stream, file, result }
            }
            Work::FindPaths { set } if self.lane_of(&format!("/logs/{set}")).is_some() => {
                let lanes: Vec<LaneId> = self.lane_of(&format!("/logs/{set}")).into_iter().collect();
                self.ask_files(Work::FindRest { set, lane: lanes[0] });
                Event::PathsFound { set, lane: None, lanes, paths: Vec::new() }
            }
            Work::FindRest { set, lane } => {
                let paths = self.disk.matching(&format!("/logs/{set}"), ".log");
                Event::PathsFound { set, lane: Some(lane), lanes: Vec::new(), paths }
            }
            Work::FindPaths { set } => {
                self.run_mut().watched_sets.insert(set);
                Event::PathsFound {
                    set,
                    lane: None,
                    lanes: Vec::new(),
                    paths: self.disk.matching(&format!("/logs/{set}"), ".log"),
                }
            }
            Work::Save { seq, checkpoint, snapshot } => {
                let result = if self.strikes(self.faults.save_fails) {
                    Err("the disk is full".to_owned())
                } else {
                    let mut checkpoint = *checkpoint;
                    checkpoint.follow(std::mem::take(&mut self.saved.0));
                    self.saved = (checkpoint, snapshot);
                    Ok(())
                };
                Event::CheckpointSaved { seq, result }
            }
        };
        let delay = self.delay(50, self.faults.files_slow_us / 4);
        let now = self.now_us;
        let at = if let Some(directory) = lane {
            self.lane_turn_us(&directory, delay)
        } else {
            let run = self.run_mut();
            run.files_us.1 = run.files_us.1.max(now + delay);
            run.files_us.1
        };
        self.at(at, Happening::Deliver { run: number, event: Box::new(event) });
    }

    fn scan(&mut self, stream: StreamId, directory: &str, live_name: &str, wanted: &[FileId]) -> Event {
        if self.engine.denied.contains(directory) {
            return Event::Scanned { stream, result: Err(FileError::Denied(directory.to_owned())) };
        }
        let there = self.disk.has_directory(directory);
        let may_hang = self.lane_of(directory).is_some();
        if let Some(watch) = self.run_mut().watches.get_mut(&stream) {
            watch.set = there && !may_hang;
        }
        let result = if there {
            let mut found = self.disk.scan(directory, live_name, wanted);
            self.rand.shuffle(&mut found);
            Ok(found)
        } else {
            Err(FileError::NoDirectory(directory.to_owned()))
        };
        Event::Scanned { stream, result }
    }

    fn open(
        &mut self,
        file: FileNo,
        directory: &str,
        found: &FoundFile,
        expected: &TailPrint,
    ) -> Result<OpenedFile, FileError> {
        let path = format!("{directory}/{}", found.name);
        if !self.disk.has_directory(directory) {
            return Err(FileError::NoDirectory(directory.to_owned()));
        }
        let same = self
            .disk
            .found(&path, found.rank, found.compressed)
            .is_some_and(|now| now.id == found.id && now.head.starts_with(&found.head));
        let Some(node) = self.disk.node(&path).filter(|_| same) else { return Err(FileError::Changed(path)) };
        self.disk.open(node);
        let content = &self.disk.file(node).content;
        let len = content.len() as u64;
        let tail = content.get(expected.begin() as usize..expected.end as usize);
        let as_expected = expected.is_none() || tail.is_some_and(|tail| expected.is_of(tail));
        self.run_mut().open_files.insert(file, node);
        Ok(OpenedFile { len, damaged: false, lane: self.lane_of(directory), as_expected })
    }

    // ---- reads

    pub(super) fn read_file(&mut self, number: u64, read: FileRead) {
        let directory = self.run_mut().opened_in.get(&read.file).cloned().unwrap_or_default();
        let stream = read.stream;
        let happening = self.put_off(&directory, Some(stream), Happening::ReadFile { run: number, read });
        let Some(Happening::ReadFile { mut read, .. }) = happening else { return };
        let node = self.run_mut().open_files.get(&read.file).copied();
        if self.strikes(self.faults.read_errors) || node.is_none() {
            read.failed = true;
        } else if let Some(node) = node {
            let content = &self.disk.file(node).content;
            let start = (read.offset as usize).min(content.len());
            let room = read.buffer.capacity() - read.buffer.len();
            let mut len = (content.len() - start).min(room);
            if len > 1 && self.faults.short_reads > 0 && self.rand.chance(self.faults.short_reads, 1000) {
                len = self.rand.index(1..len);
            }
            read.buffer.extend_from_slice(&self.disk.file(node).content[start..start + len]);
        }
        let number = self.run_mut().number;
        let delay = self.delay(100, self.faults.reads_slow_us / 4);
        self.later(delay, Happening::ReadFileDone { run: number, read });
    }

    pub(super) fn read_file_done(&mut self, read: FileRead) {
        let FileRead { stream, file, offset, buffer, failed } = read;
        let result = if failed {
            Err(FileError::Other { what: "reading a log file".to_owned(), cause: "I/O error".to_owned() })
        } else {
            Ok(buffer.len())
        };
        let node = self.run_mut().open_files.get(&file).copied();
        let file_len = match (&result, node) {
            (Ok(_), Some(node)) if buffer.len() < buffer.capacity() => {
                Some(self.disk.file(node).content.len() as u64)
            }
            _ => None,
        };
        let hole = buffer.len() == buffer.capacity() && buffer.iter().all(|byte| *byte == 0);
        let data_at = node.filter(|_| hole && result.is_ok()).and_then(|node| {
            let behind = offset as usize + buffer.len();
            let content = self.disk.file(node).content.get(behind..)?;
            Some((behind + content.iter().position(|byte| *byte != 0)?) as u64)
        });
        self.deliver(Event::FileRead { stream, file, result, buffer, file_len, data_at });
    }

    // ---- inotify

    /// A file was written, made or removed.
    pub(super) fn notify(&mut self, path: &str, change: Change) {
        let Some(run) = &mut self.run else { return };
        let Some((directory, name)) = path.rsplit_once('/') else { return };
        if self.engine.no_inotify {
            return;
        }
        for (stream, watch) in
            run.watches.iter().filter(|(_, watch)| watch.set && watch.directory == directory)
        {
            let Some(ending) = name.strip_prefix(watch.live_name.as_str()) else { continue };
            match change {
                Change::Written if ending.is_empty() => drop(run.inotify.grew.insert(*stream)),
                Change::Written if is_kin(ending) => drop(run.inotify.rotated_grew.insert(*stream)),
                Change::Made | Change::Gone if ending.is_empty() || is_kin(ending) => {
                    run.inotify.changed.insert(*stream);
                }
                _ => {}
            }
        }
        if change == Change::Made
            && let Some(set) = directory.strip_prefix("/logs/").and_then(|set| set.parse().ok())
            && run.watched_sets.contains(&set)
        {
            run.inotify.sets.insert(set);
        }
        self.plan_inotify();
    }

    /// A directory is gone, and its watches with it.
    pub(super) fn notify_directory_gone(&mut self, directory: &str) {
        let Some(run) = &mut self.run else { return };
        for (stream, watch) in run.watches.iter_mut().filter(|(_, watch)| watch.directory == directory) {
            if std::mem::take(&mut watch.set) && !self.engine.no_inotify {
                run.inotify.changed.insert(*stream);
            }
        }
        self.plan_inotify();
    }

    fn plan_inotify(&mut self) {
        let Some(run) = &mut self.run else { return };
        let pending = &mut run.inotify;
        let empty = pending.grew.is_empty()
            && pending.rotated_grew.is_empty()
            && pending.changed.is_empty()
            && pending.sets.is_empty();
        if pending.planned || (empty && !pending.overflow) {
            return;
        }
        pending.planned = true;
        let number = run.number;
        let delay = self.delay(10_000, self.faults.inotify_late_us);
        self.later(delay, Happening::Inotify { run: number });
    }

    pub(super) fn tell_inotify(&mut self) {
        if self.strikes(self.faults.inotify_overflow) {
            self.run_mut().inotify = Pending { overflow: true, planned: true, ..Pending::default() };
        }
        let Pending { overflow, grew, rotated_grew, changed, sets, .. } =
            std::mem::take(&mut self.run_mut().inotify);
        let mut events: Vec<Event> = Vec::new();
        if overflow {
            events.push(Event::LookAtAll);
        }
        events.extend(changed.into_iter().map(|stream| Event::ChainChanged { stream }));
        events.extend(rotated_grew.into_iter().map(|stream| Event::RotatedGrew { stream }));
        events.extend(grew.into_iter().map(|stream| Event::FileGrew { stream }));
        events.extend(sets.into_iter().map(|set| Event::PathsChanged { set }));
        for event in events {
            self.note(brief_event(&event));
            self.deliver(event);
        }
        self.watch_without_inotify();
    }

    /// Plans the next look at everything, where there is no inotify.
    pub(super) fn watch_without_inotify(&mut self) {
        if self.engine.no_inotify
            && let Some(run) = &mut self.run
        {
            let number = run.number;
            (run.inotify.overflow, run.inotify.planned) = (true, true);
            self.later(LOOK_US, Happening::Inotify { run: number });
        }
    }

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

fn is_kin(ending: &str) -> bool {
    let digits = ending.strip_prefix('.').map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
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
        Event::Scanned { stream, result: Ok(found) } => {
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
