//! What the threads for files answer: listings, openings and reads, at their own times and with their faults.

use capturer::testing::checkpoint::Checkpoint;
use capturer::testing::limits::HEAD_BYTES;
use capturer::testing::{
    Beside, Event, FileError, FileId, FileNo, FoundFile, LaneId, OpenedFile, StreamId, TailPrint,
};

use super::super::disk::Node;
use super::super::{Happening, World};
use crate::checker::Snapshot;

/// A request to the files thread.
#[derive(Debug)]
pub(in crate::world) enum Work {
    Scan {
        stream: StreamId,
        directory: String,
        live_name: String,
        wanted: Vec<FileId>,
        still: Option<FileId>,
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
    pub(super) fn directory(&self) -> Option<String> {
        match self {
            Work::Scan { directory, .. } | Work::Open { directory, .. } => Some(directory.clone()),
            Work::FindRest { set, .. } => Some(format!("/logs/{set}")),
            Work::FindPaths { .. } | Work::Save { .. } => None,
        }
    }

    pub(super) fn stream(&self) -> Option<StreamId> {
        match self {
            Work::Scan { stream, .. } | Work::Open { stream, .. } => Some(*stream),
            Work::FindPaths { .. } | Work::FindRest { .. } | Work::Save { .. } => None,
        }
    }
}

/// A read of a file.
#[derive(Debug)]
pub(in crate::world) struct FileRead {
    pub(super) stream: StreamId,
    pub(in crate::world) file: FileNo,
    pub(in crate::world) offset: u64,
    pub(in crate::world) buffer: Vec<u8>,
    pub(super) failed: bool,
}

impl World {
    pub(super) fn ask_files(&mut self, work: Work) {
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

    pub(in crate::world) fn work_on_files(&mut self, number: u64, work: Work) {
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
            Work::Scan { stream, directory, live_name, wanted, still } => {
                match self.still_live(&directory, &live_name, still) {
                    Some(found) => Event::StillLive { stream, found },
                    None => self.scan(stream, &directory, &live_name, &wanted),
                }
            }
            Work::Open { stream, file, directory, found, expected } => {
                let result = self.open(file, &directory, &found, &expected);
                self.run_mut().opened_in.insert(file, directory.clone());
                if result.is_ok() && !self.has_room() {
                    self.close_at_once(file);
                    let work = Work::Open { stream, file, directory, found, expected };
                    return self.wait_for_descriptor(file, work);
                }
                self.run_mut().without_room.remove(&file);
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

    fn still_live(&self, directory: &str, live_name: &str, id: Option<FileId>) -> Option<FoundFile> {
        if self.engine.denied.contains(directory) {
            return None;
        }
        self.disk.found(&format!("{directory}/{live_name}"), 0, false).filter(|found| Some(found.id) == id)
    }

    fn scan(&mut self, stream: StreamId, directory: &str, live_name: &str, wanted: &[FileId]) -> Event {
        if self.engine.denied.contains(directory) {
            let result = Err(FileError::Denied(directory.to_owned()));
            return Event::Scanned { stream, result, beside: Beside::default() };
        }
        let there = self.disk.has_directory(directory);
        let may_hang = self.lane_of(directory).is_some();
        if let Some(watch) = self.run_mut().watches.get_mut(&stream) {
            watch.set = there && !may_hang;
        }
        let mut beside = Beside::default();
        let result = if there {
            let mut found = self.disk.scan(directory, live_name, wanted);
            self.rand.shuffle(&mut found);
            beside.denied = self.disk.take_denied(directory, &mut found);
            Ok(found)
        } else {
            Err(FileError::NoDirectory(directory.to_owned()))
        };
        Event::Scanned { stream, result, beside }
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
        if self.disk.denied.contains(&node) {
            return Err(FileError::Denied(path));
        }
        self.disk.open(node);
        let content = &self.disk.file(node).content;
        let len = content.len() as u64;
        let tail = content.get(expected.begin() as usize..expected.end as usize);
        let as_expected = expected.is_none() || tail.is_some_and(|tail| expected.is_of(tail));
        let is_to_be_shown = !found.compressed && found.id.birth_ns == 0;
        let head =
            if is_to_be_shown { content[..content.len().min(HEAD_BYTES)].to_vec() } else { Vec::new() };
        self.run_mut().open_files.insert(file, node);
        Ok(OpenedFile { len, damaged: false, lane: self.lane_of(directory), as_expected, head })
    }

    /// What was just opened is not more than may be open. Only such files count as may be closed before their end: deleted and
    /// empty ones, those of a file system that may hang, and those without birth times are held, and would take the place
    /// of others for good.
    fn has_room(&mut self) -> bool {
        let most = self.faults.descriptors as usize;
        if most == 0 || self.disk.no_birth_times || self.engine.no_inotify {
            return true;
        }
        let run = self.run_mut();
        let directory_of = |file| run.opened_in.get(file).cloned().unwrap_or_default();
        let open: Vec<(String, Node)> =
            run.open_files.iter().map(|(file, node)| (directory_of(file), *node)).collect();
        let may_be_closed = |(directory, node): &&(String, Node)| {
            let is_held = self.disk.path(*node).is_none() || self.disk.file(*node).content.is_empty();
            !is_held && self.lane_of(directory).is_none()
        };
        open.iter().filter(may_be_closed).count() <= most
    }

    fn close_at_once(&mut self, file: FileNo) {
        let Some(node) = self.run_mut().open_files.remove(&file) else { return };
        let gone = self.disk.close(node);
        self.checker.lines_gone(gone);
    }

    /// As shell/files/waiting.rs: it is tried again, and the core is told each second.
    fn wait_for_descriptor(&mut self, file: FileNo, work: Work) {
        const TRY_EVERY_US: u64 = 500_000;
        const TELL_EVERY_US: u64 = 1_000_000;
        let now_us = self.now_us;
        let Work::Open { stream, directory, found, .. } = &work else { return };
        let node = self.disk.node(&format!("{directory}/{}", found.name)).filter(|_| !found.compressed);
        let len = node.map(|node| self.disk.file(node).content.len() as u64);
        let waits = Event::FileWaits { stream: *stream, file, len };
        let run = self.run_mut();
        let begins_to_wait = run.without_room.insert(file);
        let (number, files) = (run.number, run.without_room.len());
        if begins_to_wait {
            self.later(0, Happening::Deliver { run: number, event: Box::new(waits) });
        }
        let run = self.run_mut();
        if now_us >= run.told_short_us + TELL_EVERY_US {
            run.told_short_us = now_us;
            let event = Box::new(Event::DescriptorsRanOut { files });
            self.later(0, Happening::Deliver { run: number, event });
        }
        self.later(TRY_EVERY_US, Happening::Files { run: number, work });
    }

    pub(in crate::world) fn read_file(&mut self, number: u64, read: FileRead) {
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

    pub(in crate::world) fn read_file_done(&mut self, read: FileRead) {
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
}
