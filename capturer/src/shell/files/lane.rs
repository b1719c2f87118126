//! A lane: one thread that works on files one after the other, and reports what it is doing. Nothing in the kernel can
//! end a call on a hung file system. So each file system that may hang has a thread of its own, and only its own files
//! wait for it.
//!
//! A lane keeps the files it opened, because reading and closing them may hang as well. It is always one thread, and no
//! request is lost: when the file system answers again, all are answered in order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{WatchFlags, add_watch};
use rustix::io::Errno;

use super::led;
use super::listings::Listings;
use super::look;
use super::own::Own;
use super::patterns::{self, Start};
use super::report::PatternReport;
use super::unpack::Unpacker;
use super::waiting::Waiting;
use super::{Alive, Answers, FilesAnswer, OpenFile, Request, Unwatched};
use crate::capture::io::{FileError, FileNo, LaneId};
use crate::ledger::claims::{Claimed, Claims};
use crate::model::record::StreamId;
use crate::settings::FileSet;
use crate::shell::descriptors;
use crate::shell::watches::{Interest, hash_of_directory};
use crate::text::disk_room;
use crate::text::path_text::{name_of, text_of_path};

/// Listings are kept for this long after the last request.
const LISTINGS_KEPT: Duration = Duration::from_secs(2);

/// What a thread is doing, for those who watch it.
#[derive(Debug)]
pub struct Progress {
    /// What it works on, for people.
    place: String,
    /// What to do if it hangs.
    cure: String,
    /// A step may take this long.
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    doing: Option<(String, Instant)>,
    /// Number of unanswered requests by stream.
    waiting: BTreeMap<StreamId, u32>,
    /// Entries whose patterns are being walked.
    finding: BTreeSet<usize>,
    /// Result of the last walk of each entry's patterns.
    walks: BTreeMap<usize, Arc<Walked>>,
    /// Openings that wait for a descriptor.
    without_room: usize,
}

/// What a walk of an entry's patterns found.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// One report per pattern.
    pub reports: Vec<PatternReport>,
    /// Directories that can't be listed, with the reason.
    pub unlistable: BTreeSet<String>,
    /// Directories and names that the system answers with an error for, with the error.
    pub failing: BTreeSet<String>,
    /// Directories that inotify does not watch, by `hash_of_directory`.
    pub unwatched: Vec<u64>,
}

/// Watches that a walk requested.
#[derive(Default)]
pub(super) struct Watching {
    pub(super) watches: Vec<(i32, Interest)>,
    /// Which directory each watches, as a hash.
    pub(super) directories: Vec<(i32, u64)>,
    pub(super) unwatched: BTreeSet<PathBuf>,
}

/// A thread whose step takes longer than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hung {
    /// What it works on.
    pub place: String,
    /// The step that takes long.
    pub operation: String,
    /// For how long.
    pub age: Duration,
    /// What to do about it.
    pub cure: String,
    /// Streams that wait for an answer.
    pub streams: Vec<StreamId>,
}

impl Progress {
    /// For a thread that has nothing to do yet.
    pub fn new(place: String, cure: String, patience: Duration) -> Arc<Progress> {
        Arc::new(Progress { place, cure, patience, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step begins.
    pub fn begin(&self, what: String) {
        self.state().doing = Some((what, Instant::now()));
    }

    /// The step is still making progress: it is long but does not hang.
    pub fn beat(&self) {
        if let Some((_, since)) = &mut self.state().doing {
            *since = Instant::now();
        }
    }

    /// The step has ended.
    pub fn end(&self) {
        self.state().doing = None;
    }

    /// The patterns of an entry were walked.
    pub fn set_walked(&self, set: usize, walked: Walked) {
        self.state().walks.insert(set, Arc::new(walked));
    }

    /// Results of the last walks, by entry.
    pub fn walks(&self) -> BTreeMap<usize, Arc<Walked>> {
        self.state().walks.clone()
    }

    /// Openings that wait for a descriptor.
    pub fn without_room(&self) -> usize {
        self.state().without_room
    }

    /// The step, if it takes longer than it may.
    pub fn hung(&self) -> Option<Hung> {
        let state = self.state();
        let (operation, since) = state.doing.as_ref()?;
        let age = since.elapsed();
        (age >= self.patience).then(|| Hung {
            place: self.place.clone(),
            operation: operation.clone(),
            age,
            cure: self.cure.clone(),
            streams: state.waiting.keys().copied().collect(),
        })
    }

    /// A stream has sent a request.
    pub fn waits(&self, stream: Option<StreamId>) {
        if let Some(stream) = stream {
            *self.state().waiting.entry(stream).or_default() += 1;
        }
    }

    /// A stream's request was answered or passed on.
    pub fn waits_no_more(&self, stream: Option<StreamId>) {
        let Some(stream) = stream else { return };
        let mut state = self.state();
        if let Some(count) = state.waiting.get_mut(&stream) {
            *count -= 1;
            if *count == 0 {
                state.waiting.remove(&stream);
            }
        }
    }

    /// Notes that an entry's patterns will be walked here. Returns false if they already will.
    pub fn begin_finding(&self, set: usize) -> bool {
        self.state().finding.insert(set)
    }
}

/// Sends requests to a lane. Its thread ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The lane.
    pub id: LaneId,
    requests: Sender<Request>,
    progress: Arc<Progress>,
}

impl Lane {
    /// Starts the lane's thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(id: LaneId, worker: Worker, progress: Arc<Progress>) -> io::Result<Lane> {
        let (requests, inbox) = channel();
        let minor = rustix::fs::minor(id.0);
        let mut worker = Worker { lane: Some(id), progress: Arc::clone(&progress), ..worker };
        std::thread::Builder::new().name(format!("files-{minor}")).spawn(move || worker.run(&inbox))?;
        Ok(Lane { id, requests, progress })
    }

    /// Sends a request. Each is answered once.
    pub fn ask(&self, request: Request) {
        if let Request::FindRest { set, .. } = &request
            && !self.progress.begin_finding(*set)
        {
            return;
        }
        self.progress.waits(request.stream());
        // The thread ends only with its last sender.
        let _ = self.requests.send(request);
    }
}

/// Carries out requests, on whichever thread it is.
pub struct Worker {
    pub(super) inotify: Option<Arc<Claimed<OwnedFd>>>,
    pub(super) sets: Arc<Vec<FileSet>>,
    pub(super) own: Arc<Own>,
    pub(super) claims: Claims,
    pub(super) answers: Answers,
    pub(super) progress: Arc<Progress>,
    pub(super) lane: Option<LaneId>,
    pub(super) open: BTreeMap<FileNo, OpenHere>,
    /// Openings that wait for a descriptor.
    pub(super) waiting: Waiting,
    /// Not used on a lane: changes by another host may not show in a directory's times.
    pub(super) listings: Listings,
    // After the files, because fields are dropped in this order.
    pub(super) alive: Alive,
}

/// A file that a lane has open.
pub(super) enum OpenHere {
    /// An uncompressed file.
    File(Claimed<OwnedFd>),
    /// The content of an archive.
    Archive(Box<Unpacker>),
}

impl Worker {
    fn run(&mut self, inbox: &Receiver<Request>) {
        while let Some(request) = self.next(inbox) {
            #[cfg(feature = "test-faults")]
            crate::faults::here();
            let stream = request.stream();
            self.carry_out(request);
            self.progress.waits_no_more(stream);
        }
    }

    /// The next request. Meanwhile openings that wait for a descriptor are tried again. `None` = the end.
    pub(super) fn next(&mut self, inbox: &Receiver<Request>) -> Option<Request> {
        loop {
            self.try_waiting();
            let forget_at = (!self.listings.is_empty()).then(|| Instant::now() + LISTINGS_KEPT);
            let Some(at) = self.waiting.next_try().into_iter().chain(forget_at).min() else {
                return inbox.recv().ok();
            };
            match inbox.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(request) => return Some(request),
                Err(RecvTimeoutError::Timeout) if forget_at.is_some_and(|at| at <= Instant::now()) => {
                    self.listings.forget();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    fn try_waiting(&mut self) {
        let is_room = self.waiting.next_try().is_some() && descriptors::is_room();
        let mut due = self.waiting.take_due(is_room).into_iter();
        while let Some(request) = due.next() {
            let before = self.waiting.len();
            self.carry_out(request);
            if is_room && self.waiting.len() > before {
                // There is no more room: the rest stay in line, in their order.
                self.waiting.put_back(due.collect());
                break;
            }
        }
        self.progress.state().without_room = self.waiting.len();
    }

    fn open(&mut self, request: Request) -> Option<FilesAnswer> {
        let Request::Open { stream, file, directory, found, expected, owner } = request else { return None };
        let beat = || self.progress.beat();
        let result = look::open(&directory, &found, &expected, &self.claims, &beat);
        if let Err(FileError::NoDescriptor { len, .. }) = result {
            self.waiting.push(Request::Open { stream, file, directory, found, expected, owner });
            self.progress.state().without_room = self.waiting.len();
            return Some(FilesAnswer::Waits { stream, file, len });
        }
        let result = result.map(|(descriptor, mut opened)| {
            opened.lane = self.lane;
            if self.lane.is_none() {
                return (OpenFile::Here(descriptor), opened);
            }
            let descriptor = self.claims.hold(descriptor, owner);
            let number = descriptor.as_fd().as_raw_fd();
            let open = match found.compressed {
                true => OpenHere::Archive(Box::new(Unpacker::new(descriptor, opened.len))),
                false => OpenHere::File(descriptor),
            };
            self.open.insert(file, open);
            (OpenFile::OnLane(number), opened)
        });
        Some(FilesAnswer::Opened { stream, file, lane: self.lane, result })
    }

    pub(super) fn carry_out(&mut self, request: Request) {
        self.progress.begin(request.describe());
        let answer = match request {
            Request::Scan { stream, directory, live_name, still: Some(still), .. }
                if let Some(found) = look::still_live(&directory, &live_name, still) =>
            {
                Some(FilesAnswer::StillLive { stream, found })
            }
            Request::Scan { stream, directory, live_name, wanted, apart, olddirs, before, still: _ } => {
                // First the watch, then the list: what happens between them is seen twice, not missed.
                let watch = self.watch(Path::new(&name_of(&directory)));
                let (directory, live_name) = (&*directory, live_name.as_str());
                let (wanted, apart, olddirs) = (&wanted[..], &apart[..], &olddirs[..]);
                let before = before.as_str();
                let chain = look::Chain { directory, live_name, wanted, apart, olddirs, before };
                let mut own = Listings::default();
                let listings = if self.lane.is_none() { &mut self.listings } else { &mut own };
                let (mut result, beside) = look::scan(chain, listings);
                if let Ok(found) = &mut result {
                    found.append(&mut led::in_other_directories(chain, found));
                    self.own.leave_out(directory, found);
                }
                Some(FilesAnswer::Scanned { stream, watch, result, beside })
            }
            Request::Open { .. } => self.open(request),
            Request::Read { stream, file, offset, mut buffer, .. } => {
                let result = self.read(file, offset, &mut buffer);
                let (mut file_len, mut data_at) = (None, None);
                match (&result, self.open.get(&file)) {
                    (Ok(count), Some(OpenHere::File(file))) => {
                        file_len = (*count < buffer.capacity()).then(|| look::length(file)).flatten();
                        data_at = look::data_behind(file, offset, &buffer);
                    }
                    (Ok(count), Some(OpenHere::Archive(archive))) if *count < buffer.capacity() => {
                        file_len = Some(archive.len());
                    }
                    _ => {}
                }
                Some(FilesAnswer::Read { stream, file, result, buffer, file_len, data_at })
            }
            Request::LookForRoom { directory } => {
                let none_left = disk_room::none_left(Path::new(&name_of(&directory)));
                Some(FilesAnswer::Room { directory, none_left })
            }
            Request::Close { file } => {
                drop(self.open.remove(&file));
                Some(FilesAnswer::Closed { file })
            }
            Request::FindRest { set, starts } => self.find_rest(set, starts),
            Request::FindPaths { .. } => None,
        };
        self.progress.end();
        if let Some(answer) = answer {
            (self.answers)(answer);
        }
    }

    fn read(&mut self, file: FileNo, offset: u64, buffer: &mut Vec<u8>) -> Result<usize, FileError> {
        let read = match self.open.get_mut(&file) {
            None => return Err(FileError::Changed(format!("file {}", file.0))),
            Some(OpenHere::File(descriptor)) => {
                let room = rustix::buffer::spare_capacity(buffer);
                rustix::io::pread(descriptor, room, offset).map_err(io::Error::from)
            }
            Some(OpenHere::Archive(archive)) => archive.read(offset, buffer, &|| self.progress.beat()),
        };
        read.map_err(|cause| FileError::Other {
            what: "reading a log file".to_owned(),
            cause: look::cause_of(&cause),
        })
    }

    /// `None` if the file system can't be looked at: what was found there before remains valid.
    fn find_rest(&self, set: usize, starts: Vec<Start>) -> Option<FilesAnswer> {
        let (found, Watching { watches, directories, .. }) = self.walk(set, starts, &|_| None);
        self.progress.state().finding.remove(&set);
        if !found.failing.is_empty() {
            return None;
        }
        let paths = found.paths();
        let (lane, lanes, links) = (self.lane, Vec::new(), found.links);
        Some(FilesAnswer::PathsFound { set, lane, lanes, watches, directories, links, paths })
    }

    /// Walks the patterns of an entry, watches directories where files may appear, and notes what to report.
    pub(super) fn walk(
        &self,
        set: usize,
        starts: Vec<Start>,
        lane_of: &dyn Fn(&Path) -> Option<LaneId>,
    ) -> (patterns::Found, Watching) {
        let mut watching = Watching::default();
        let mut watch =
            |directory: &Path, interest: Interest| self.watch_for(directory, interest, &mut watching);
        let takes = |path: &str| self.sets.iter().any(|set| set.takes(path));
        let (set_here, own) = (&self.sets[set], &self.own);
        let with = patterns::With { set: set_here, takes: &takes, own, lane_of, watch: &mut watch };
        let found = patterns::walk(with, starts);
        let walked = Walked {
            reports: found.reports.clone(),
            unlistable: found.unlistable.clone(),
            failing: found.failing.clone(),
            unwatched: watching.unwatched.iter().map(|path| hash_of_directory(&text_of_path(path))).collect(),
        };
        self.progress.set_walked(set, walked);
        (found, watching)
    }

    fn watch_for(&self, directory: &Path, interest: Interest, watching: &mut Watching) {
        match self.add_watch(directory, NAMES) {
            Ok(watch) => {
                watching.watches.push((watch, interest));
                watching.directories.push((watch, hash_of_directory(&text_of_path(directory))));
            }
            // It is gone, which the watch on its parent reports, or it is unreadable, which its listing reports.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
            Err(_) => drop(watching.unwatched.insert(directory.to_owned())),
        }
    }

    fn watch(&self, directory: &Path) -> Result<i32, Unwatched> {
        let watch = self.add_watch(directory, NAMES | WatchFlags::MODIFY | WatchFlags::ATTRIB);
        watch.map_err(|errno| match errno {
            Errno::ACCESS => Unwatched::Denied,
            _ => Unwatched::Other(hash_of_directory(&text_of_path(directory))),
        })
    }

    /// Flags that others need stay set.
    fn add_watch(&self, directory: &Path, flags: WatchFlags) -> rustix::io::Result<i32> {
        let inotify = self.inotify.as_ref().ok_or(Errno::NOSPC)?;
        add_watch(inotify, directory, flags | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD)
    }
}

/// Changes of names in a directory, and a rename of the directory itself.
const NAMES: WatchFlags = WatchFlags::MOVE_SELF
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);
