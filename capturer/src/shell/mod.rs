//! The shell: carries out the core's actions and turns their results into events. It decides nothing.
//!
//! Every operation is one future in one set ([`Shell::next`] waits for the first that ends); there is no task per
//! stream and none per read. A connection is in the set while it is opened, read or closed, and in a table in between.

pub(crate) mod checkpoint;
mod claimed_io;
mod connections;
pub(crate) mod descriptors;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod privilege;
pub(crate) mod ring;
pub(crate) mod watches;
mod watching;
mod winding_up;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use crate::capture::io::{
    Action, Beside, BodyOutcome, ConnId, Event, FileError, FileNo, FoundFile, HttpAnswer, RequestError,
    RequestId,
};
use crate::ledger::Owner;
use crate::ledger::claims::{Claimed, Claims};
use crate::limits::{ANSWER_TIMEOUTS_MAX, ANSWERS_LARGE_MAX};
use crate::model::delivery::ToSink;
use crate::model::packed::Pack;
use crate::model::record::{Outlet, SinkId, Source, StreamId, StreamKey};
use crate::shell::files::{Files, Hung, Lane, OpenFile, Unwatched, Walked};
use crate::shell::http::{Cancel, Connection};
use crate::shell::ring::ReadOutcome;
use crate::shell::watches::{Pace, Watches};
use connections::{Opening, Slot};
pub use winding_up::Rest;

/// Everything that the shell works with.
pub struct Shell {
    socket_path: PathBuf,
    read_timeout: Duration,
    files: Files,
    inotify: Option<Arc<Claimed<OwnedFd>>>,
    inotify_ring: Option<Rc<Claimed<OwnedFd>>>,
    inotify_pace: Pace,
    began: Instant,
    claims: Claims,
    /// The owner of the descriptors of each attached stream.
    keys: BTreeMap<StreamId, StreamKey>,
    sinks: Vec<Sender<ToSink>>,
    give_up_sinks_after: Duration,
    connections: BTreeMap<ConnId, Slot>,
    requests: BTreeMap<RequestId, Rc<Cancel>>,
    large_answers: Rc<Semaphore>,
    open_files: BTreeMap<FileNo, Opened>,
    watches: Watches,
    /// The directory of Docker's logs and how much is free, if nothing can be written there.
    docker_disk: Option<(Arc<str>, String)>,
    /// Streams whose directory inotify does not watch.
    unwatched: BTreeMap<StreamId, Unwatched>,
    in_flight: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    /// No more reads are armed.
    stopped: bool,
    /// Descriptors that lanes had open when the shutdown began.
    on_lanes: BTreeSet<RawFd>,
    /// Set by [`Action::Finished`].
    pub finished: Option<Vec<String>>,
}

/// An open file.
enum Opened {
    /// A local file, read through the ring.
    Here(Rc<Claimed<OwnedFd>>),
    /// On a file system that may hang: its thread holds it under this number, and reads and closes it.
    OnLane(Lane, RawFd),
}

/// An operation that ended.
enum Done {
    Event(Event),
    Answered(RequestId, HttpAnswer),
    Opened(ConnId, Opening),
    Read(ConnId, Box<Connection>, BodyOutcome, Vec<u8>),
    Closed(ConnId),
    /// The flag says whether events were there at once.
    Inotify(ReadOutcome, Vec<u8>, bool),
}

impl Pack for Shell {
    fn pack(&mut self) {
        self.keys.pack();
        self.open_files.pack();
        self.watches.pack();
    }
}

impl Shell {
    /// `inotify` twice: the ring reads it, and the threads for files add watches.
    pub fn new(
        socket_path: &Path,
        read_timeout: Duration,
        files: Files,
        inotify: Option<Arc<Claimed<OwnedFd>>>,
        sinks: Vec<Sender<ToSink>>,
        give_up_sinks_after: Duration,
        claims: Claims,
    ) -> std::io::Result<Shell> {
        let hold = |fd| Rc::new(claims.hold(fd, Owner::Discovery));
        let inotify_ring = inotify.as_ref().map(|fd| fd.try_clone().map(hold)).transpose()?;
        let mut shell = Shell {
            socket_path: socket_path.to_owned(),
            read_timeout,
            files,
            inotify,
            inotify_ring,
            inotify_pace: Pace::default(),
            began: Instant::now(),
            claims,
            keys: BTreeMap::new(),
            sinks,
            give_up_sinks_after,
            connections: BTreeMap::new(),
            requests: BTreeMap::new(),
            large_answers: Rc::new(Semaphore::new(ANSWERS_LARGE_MAX)),
            open_files: BTreeMap::new(),
            watches: Watches::default(),
            docker_disk: None,
            unwatched: BTreeMap::new(),
            in_flight: FuturesUnordered::new(),
            stopped: false,
            on_lanes: BTreeSet::new(),
            finished: None,
        };
        shell.read_inotify(Duration::ZERO);
        Ok(shell)
    }

    /// Operations under way.
    pub fn operations(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether inotify works; without it files have to be polled.
    pub fn has_inotify(&self) -> bool {
        self.inotify.is_some()
    }

    /// Waits for the next operation to end. Never ends while nothing is under way.
    pub async fn next(&mut self) -> Vec<Event> {
        match self.in_flight.next().await {
            Some(done) => self.on_done(done),
            None => std::future::pending().await,
        }
    }

    fn run(&mut self, operation: impl Future<Output = Done> + 'static) {
        self.in_flight.push(Box::pin(operation));
    }

    /// Carries out one action.
    pub fn start(&mut self, action: Action) {
        match action {
            Action::Get { request, path } => self.get(request, path),
            Action::OpenConn { conn, stream, path } => self.open(conn, stream, path),
            Action::ReadConn { conn, buffer } => self.read(conn, buffer),
            Action::CloseConn { conn } => self.close(conn),
            Action::Scan { stream, directory, live_name, wanted, apart, olddirs, before, still } => {
                self.watches.expect(stream, &live_name);
                self.watches.begin_listing();
                // Only a listing tries again to have its directory watched.
                let still = still.filter(|_| !self.unwatched.contains_key(&stream));
                let scan = files::Request::Scan {
                    stream,
                    directory,
                    live_name,
                    wanted,
                    apart,
                    olddirs,
                    before,
                    still,
                };
                self.files.ask(scan);
            }
            Action::Unwatch { stream } => self.unwatch(stream),
            Action::OpenFile { stream, file, directory, found, expected } => {
                let owner = self.owner(Some(stream));
                self.files.ask(files::Request::Open { stream, file, directory, found, expected, owner });
            }
            Action::ReadFile { stream, file, offset, buffer } => self.read_file(stream, file, offset, buffer),
            Action::CloseFile { file } => {
                if let Some(Opened::OnLane(lane, _)) = self.open_files.get(&file) {
                    // It leaves the table once it is closed, which may take as long as the file system hangs.
                    lane.ask(files::Request::Close { file });
                } else {
                    self.open_files.remove(&file);
                }
            }
            Action::FindPaths { set } => {
                self.watches.begin_listing();
                self.files.ask(files::Request::FindPaths { set });
            }
            Action::Attach(source) => {
                self.keys.insert(source.id, ledger_key(&source));
                self.to_outlet(source.outlet, || ToSink::Attach(Arc::clone(&source)));
            }
            Action::Send(batch) => {
                self.to_outlet(batch.source.outlet, || ToSink::Batch(Arc::clone(&batch)));
            }
            Action::Detach(stream) => {
                if let Some(key) = self.keys.remove(&stream) {
                    self.claims.with(|ledger| ledger.stream_ended(&key));
                }
                self.to_sinks(|| ToSink::Detach(stream));
            }
            Action::Withdraw(stream) => self.to_sinks(|| ToSink::Withdraw(stream)),
            Action::Saved(marks) => self.to_sinks(|| ToSink::Saved(Arc::clone(&marks))),
            Action::StopSinks => {
                let give_up_at = Instant::now() + self.give_up_sinks_after;
                self.to_sinks(|| ToSink::Stop { give_up_at });
            }
            Action::SaveCheckpoint { seq, checkpoint } => self.files.save(seq, checkpoint),
            Action::Finished { left } => self.finished = Some(left),
        }
    }

    fn to_sinks(&self, message: impl Fn() -> ToSink) {
        self.to_outlet(Outlet::default(), message);
    }

    fn to_outlet(&self, outlet: Outlet, message: impl Fn() -> ToSink) {
        let sinks = self.sinks.iter().enumerate().filter(|(index, _)| outlet.contains(SinkId(*index as u8)));
        for (_, sink) in sinks {
            // A sink that has ended has reported it, and needs no message.
            let _ = sink.send(message());
        }
    }

    fn owner(&self, stream: Option<StreamId>) -> Owner {
        let key = stream.and_then(|stream| self.keys.get(&stream));
        key.map_or(Owner::Discovery, |key| Owner::Stream(key.clone()))
    }

    /// Descriptors of streams in these tables. If a stream has others, they were forgotten.
    pub fn reachable(&self) -> BTreeSet<RawFd> {
        let of_slot = |slot: &Slot| match slot {
            Slot::Resting(_, cancel) | Slot::Busy { cancel, .. } => cancel.descriptor(),
        };
        let connections = self.connections.values().filter_map(of_slot);
        let of_file = |file: &Opened| match file {
            Opened::Here(descriptor) => descriptor.as_fd().as_raw_fd(),
            Opened::OnLane(_, number) => *number,
        };
        connections.chain(self.open_files.values().map(of_file)).collect()
    }

    /// How many sinks there are.
    pub fn sink_count(&self) -> usize {
        self.sinks.len()
    }

    /// How many things may have operations in the kernel: futures under way and idle connections.
    pub fn operations_base(&self) -> usize {
        self.in_flight.len() + self.connections.len()
    }

    fn read_file(&mut self, stream: StreamId, file: FileNo, offset: u64, buffer: Vec<u8>) {
        let descriptor = match self.open_files.get(&file) {
            Some(Opened::Here(descriptor)) => Some(Rc::clone(descriptor)),
            Some(Opened::OnLane(lane, _)) => {
                return lane.ask(files::Request::Read { stream, file, offset, buffer });
            }
            None => None,
        };
        let Some(descriptor) = descriptor else {
            let error = FileError::Changed(format!("file {}", file.0));
            let event =
                Event::FileRead { stream, file, result: Err(error), buffer, file_len: None, data_at: None };
            return self.run(async move { Done::Event(event) });
        };
        self.run(async move {
            let room = buffer.capacity() - buffer.len();
            let (result, buffer) = ring::file_read(&descriptor, buffer, offset).await;
            let file_len =
                if result.is_ok_and(|count| count < room) { files::length(descriptor.as_fd()) } else { None };
            let data_at = files::data_behind(descriptor.as_fd(), offset, &buffer);
            let result = result.map_err(|error| FileError::Other {
                what: "reading a log file".to_owned(),
                cause: files::cause_of(&std::io::Error::from_raw_os_error(error.0)),
            });
            Done::Event(Event::FileRead { stream, file, result, buffer, file_len, data_at })
        });
    }

    /// The present length of an open local file.
    pub fn length(&self, file: FileNo) -> Option<u64> {
        match self.open_files.get(&file)? {
            Opened::Here(descriptor) => files::length(descriptor.as_fd()),
            Opened::OnLane(..) => None,
        }
    }

    /// File operations that take longer than they should.
    pub fn hung(&self) -> Vec<Hung> {
        self.files.hung()
    }

    /// What the last walks of the patterns reported, by entry of file_monitor.
    pub fn walks(&self) -> BTreeMap<usize, Vec<Arc<Walked>>> {
        self.files.walks()
    }

    /// Has the disk looked at that has this directory of Docker's logs.
    pub fn look_for_room(&self, directory: Arc<str>) {
        self.files.ask(files::Request::LookForRoom { directory });
    }

    /// The directory of Docker's logs and how much is free, if nothing could be written there at the last look.
    pub fn full_docker_disk(&self) -> Option<&(Arc<str>, String)> {
        self.docker_disk.as_ref()
    }

    /// How many files wait to be opened, for lack of a descriptor.
    pub fn files_waiting(&self) -> usize {
        self.files.without_room()
    }

    /// Handles an answer of the threads for files.
    pub fn on_files(&mut self, answer: files::FilesAnswer) -> Vec<Event> {
        match answer {
            files::FilesAnswer::Scanned { stream, watch, result, beside } => {
                self.on_scanned(stream, watch, result, beside)
            }
            files::FilesAnswer::StillLive { stream, found } => {
                self.watches.end_listing();
                vec![Event::StillLive { stream, found }]
            }
            files::FilesAnswer::PathsFound { set, lane, lanes, watches, directories, links, paths } => {
                let is_news = self.watches.set_of_patterns(set, lane, watches);
                let vanished = self.watches.saw_paths(&directories, &links, &paths);
                let links = paths.iter().filter(|found| found.target.is_some());
                self.watches.saw_links(links.map(|found| &*found.path));
                if lane.is_none() {
                    self.watches.end_listing();
                }
                self.drop_unused_watches();
                let again = is_news.then_some(Event::PathsChanged { set });
                let found = Event::PathsFound { set, lane, lanes, paths };
                let vanished = vanished.into_iter();
                let vanished = vanished.map(|(set, name, path)| Event::FileVanished { set, name, path });
                std::iter::once(found).chain(again).chain(vanished).collect()
            }
            files::FilesAnswer::Opened { stream, file, lane, result } => {
                let result = result.map(|(open, opened)| {
                    let open = match open {
                        OpenFile::Here(descriptor) => {
                            let owner = self.owner(Some(stream));
                            Some(Opened::Here(Rc::new(self.claims.hold(descriptor, owner))))
                        }
                        OpenFile::OnLane(number) => lane
                            .and_then(|lane| self.files.lane(lane))
                            .map(|lane| Opened::OnLane(lane, number)),
                    };
                    self.open_files.extend(open.map(|open| (file, open)));
                    opened
                });
                vec![Event::FileOpened { stream, file, result }]
            }
            files::FilesAnswer::Waits { stream, file, len } => vec![Event::FileWaits { stream, file, len }],
            files::FilesAnswer::Room { directory, none_left } => {
                self.docker_disk = none_left.map(|free| (directory, free));
                vec![Event::Tick]
            }
            files::FilesAnswer::Closed { file } => {
                self.open_files.remove(&file);
                vec![Event::Tick]
            }
            files::FilesAnswer::Read { stream, file, result, buffer, file_len, data_at } => {
                vec![Event::FileRead { stream, file, result, buffer, file_len, data_at }]
            }
            files::FilesAnswer::Saved { seq, result } => vec![Event::CheckpointSaved { seq, result }],
        }
    }

    fn on_scanned(
        &mut self,
        stream: StreamId,
        watch: Result<i32, Unwatched>,
        result: Result<Vec<FoundFile>, FileError>,
        beside: Beside,
    ) -> Vec<Event> {
        let mut is_news = false;
        match watch {
            Ok(watch) => {
                self.unwatched.remove(&stream);
                is_news = self.watches.set(stream, watch);
                if let Ok(found) = &result {
                    // Rights are told by name.
                    let denied = beside.denied.iter().map(|denied| &denied.found);
                    let names = found.iter().chain(denied).map(|file| file.name.as_str());
                    self.watches.set_rotated(stream, names);
                }
            }
            // If the directory is gone there is nothing to watch.
            Err(why) if result.is_ok() => drop(self.unwatched.insert(stream, why)),
            Err(_) => {}
        }
        self.watches.end_listing();
        self.drop_unused_watches();
        let mut events = vec![Event::Scanned { stream, result, beside }];
        if is_news {
            events.extend([Event::ChainChanged { stream }, Event::FileGrew { stream }]);
        }
        events
    }

    fn on_done(&mut self, done: Done) -> Vec<Event> {
        match done {
            Done::Event(event) => vec![event],
            Done::Answered(request, result) => {
                self.requests.remove(&request);
                vec![Event::Answered { request, result }]
            }
            Done::Opened(conn, result) => self.on_opened(conn, result),
            Done::Read(conn, connection, outcome, buffer) => match self.connections.remove(&conn) {
                Some(Slot::Busy { cancel, closing: false }) => {
                    self.connections.insert(conn, Slot::Resting(connection, cancel));
                    vec![Event::ConnRead { conn, outcome, buffer }]
                }
                _ => {
                    self.run(close(conn, connection));
                    Vec::new()
                }
            },
            Done::Closed(conn) => vec![Event::ConnClosed { conn }],
            Done::Inotify(outcome, buffer, at_once) => self.on_inotify(outcome, &buffer, at_once),
        }
    }
}

async fn close(conn: ConnId, connection: Box<Connection>) -> Done {
    #[cfg(feature = "test-faults")]
    crate::faults::closing().await;
    connection.close().await;
    Done::Closed(conn)
}

/// A stream's name in the ledger: the stream of each outlet has descriptors of its own.
fn ledger_key(source: &Source) -> StreamKey {
    match source.outlet.index {
        0 => source.key.clone(),
        outlet => StreamKey(format!("{}#{outlet}", source.key.0).into()),
    }
}

/// Bounds the total time, where `timeout` only bounds the time between bytes. At the deadline the socket is shut down,
/// which ends whatever waits on it; dropping the future would leave an operation behind.
async fn in_time<T>(
    asking: impl Future<Output = Result<T, RequestError>>,
    path: &str,
    timeout: Duration,
    cancel: &Cancel,
) -> Result<T, RequestError> {
    let patience = timeout * ANSWER_TIMEOUTS_MAX;
    let mut asking = pin!(asking);
    tokio::select! {
        result = &mut asking => return result,
        () = tokio::time::sleep(patience) => cancel.cancel(),
    }
    // It may have ended at that very moment.
    let late = RequestError::NoAnswer { path: path.to_owned(), timeout_s: patience.as_secs() };
    asking.await.map_err(|_| late)
}
