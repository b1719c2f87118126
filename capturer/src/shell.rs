//! The shell: carries the core's actions out and turns what comes of them back into events. It decides nothing.
//!
//! Every operation is one future in one set ([`Shell::next`] waits for the first that ends); there is no task per
//! stream and none per read. A connection is in the set while it is opened, read or closed, and rests in a table
//! between.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::capture::io::{Action, Answer, BodyOutcome, ConnId, Event, FileError, FileNo, RequestId};
use crate::decode::inotify;
use crate::files::{self, Files};
use crate::http::{Cancel, Connection};
use crate::limits::{ANSWER_BYTES_MAX, API_GATHER_BYTES};
use crate::record::StreamId;
use crate::ring::{self, ReadOutcome};
use crate::sink::ToSink;
use crate::watches::Watches;

/// Bytes of one read of inotify: some 2,000 events.
const INOTIFY_BYTES: usize = 64 * 1024;
/// After inotify told something, its next read waits so long. A container that prints a line at a time then costs one
/// look per pause, not one per line.
const INOTIFY_PAUSE: Duration = Duration::from_millis(10);
/// Bytes of an error answer that are kept.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What the shell acts on.
pub struct Shell {
    socket_path: PathBuf,
    read_timeout: Duration,
    files: Files,
    inotify: Option<Arc<OwnedFd>>,
    inotify_ring: Option<Rc<OwnedFd>>,
    sinks: Vec<Sender<ToSink>>,
    give_up_sinks_after: Duration,
    connections: BTreeMap<ConnId, Slot>,
    requests: BTreeMap<RequestId, Rc<Cancel>>,
    open_files: BTreeMap<FileNo, Rc<OwnedFd>>,
    watches: Watches,
    in_flight: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    /// No read is armed any more.
    stopped: bool,
    /// Set by [`Action::Finished`].
    pub finished: Option<Vec<String>>,
}

enum Slot {
    /// Nothing of it is under way.
    Resting(Box<Connection>, Rc<Cancel>),
    /// A future has it.
    Busy { cancel: Rc<Cancel>, closing: bool },
}

/// An operation that ended.
enum Done {
    Event(Event),
    Answered(RequestId, Answer),
    Opened(ConnId, Result<Box<Connection>, Answer>),
    Read(ConnId, Box<Connection>, BodyOutcome, Vec<u8>),
    Closed(ConnId),
    Inotify(ReadOutcome, Vec<u8>),
}

impl Shell {
    /// `inotify` twice: the ring reads it, the files thread adds watches.
    pub fn new(
        socket_path: &Path,
        read_timeout: Duration,
        files: Files,
        inotify: Option<Arc<OwnedFd>>,
        sinks: Vec<Sender<ToSink>>,
        give_up_sinks_after: Duration,
    ) -> std::io::Result<Shell> {
        let inotify_ring = inotify.as_ref().map(|fd| fd.try_clone().map(Rc::new)).transpose()?;
        let mut shell = Shell {
            socket_path: socket_path.to_owned(),
            read_timeout,
            files,
            inotify,
            inotify_ring,
            sinks,
            give_up_sinks_after,
            connections: BTreeMap::new(),
            requests: BTreeMap::new(),
            open_files: BTreeMap::new(),
            watches: Watches::default(),
            in_flight: FuturesUnordered::new(),
            stopped: false,
            finished: None,
        };
        shell.read_inotify(Duration::ZERO);
        Ok(shell)
    }

    /// Operations under way.
    pub fn operations(&self) -> usize {
        self.in_flight.len()
    }

    /// Without inotify files have to be looked at from time to time.
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
            Action::OpenConn { conn, path } => self.open(conn, path),
            Action::ReadConn { conn, buffer } => self.read(conn, buffer),
            Action::CloseConn { conn } => self.close(conn),
            Action::Scan { stream, directory, live_name } => {
                self.watches.expect(stream, &live_name);
                self.files.ask(files::Request::Scan { stream, directory, live_name });
            }
            Action::Unwatch { stream } => self.unwatch(stream),
            Action::OpenFile { stream, file, directory, found } => {
                self.files.ask(files::Request::Open { stream, file, directory, found });
            }
            Action::ReadFile { stream, file, offset, buffer } => self.read_file(stream, file, offset, buffer),
            Action::CloseFile { file } => drop(self.open_files.remove(&file)),
            Action::FindPaths { set } => self.files.ask(files::Request::FindPaths { set }),
            Action::Attach(source) => self.to_sinks(|| ToSink::Attach(Arc::clone(&source))),
            Action::Send(batch) => self.to_sinks(|| ToSink::Batch(Arc::clone(&batch))),
            Action::Detach(stream) => self.to_sinks(|| ToSink::Detach(stream)),
            Action::StopSinks => {
                let give_up_at = Instant::now() + self.give_up_sinks_after;
                self.to_sinks(|| ToSink::Stop { give_up_at });
            }
            Action::SaveCheckpoint { seq, checkpoint } => {
                self.files.ask(files::Request::Save { seq, checkpoint });
            }
            Action::Finished { left } => self.finished = Some(left),
        }
    }

    fn to_sinks(&self, message: impl Fn() -> ToSink) {
        for sink in &self.sinks {
            // A sink that has ended has told so; what it is sent is lost to it alone.
            let _ = sink.send(message());
        }
    }

    // ---- connections

    fn get(&mut self, request: RequestId, path: String) {
        let (socket_path, timeout) = (self.socket_path.clone(), self.read_timeout);
        let cancel = Rc::<Cancel>::default();
        self.requests.insert(request, Rc::clone(&cancel));
        self.run(async move {
            let result = whole_answer(&socket_path, &path, timeout, &cancel, ANSWER_BYTES_MAX).await;
            Done::Answered(request, result)
        });
    }

    fn open(&mut self, conn: ConnId, path: String) {
        let (socket_path, timeout) = (self.socket_path.clone(), self.read_timeout);
        let cancel = Rc::<Cancel>::default();
        self.connections.insert(conn, Slot::Busy { cancel: Rc::clone(&cancel), closing: false });
        self.run(async move {
            let result = match Connection::get(&socket_path, &path, timeout, &cancel).await {
                Ok((200, connection)) => Ok(Box::new(connection)),
                Ok((status, mut connection)) => {
                    let body = connection.whole_body(REFUSAL_BYTES_MAX).await;
                    connection.close().await;
                    Err(body.map(|body| (status, body)))
                }
                Err(error) => Err(Err(error)),
            };
            Done::Opened(conn, result)
        });
    }

    fn read(&mut self, conn: ConnId, mut buffer: Vec<u8>) {
        match self.connections.remove(&conn) {
            Some(Slot::Resting(mut connection, cancel)) => {
                self.connections.insert(conn, Slot::Busy { cancel, closing: false });
                self.run(async move {
                    let outcome = connection.read(&mut buffer, API_GATHER_BYTES).await;
                    Done::Read(conn, connection, outcome, buffer)
                });
            }
            Some(busy) => {
                debug_assert!(false, "a read of a busy connection");
                self.connections.insert(conn, busy);
            }
            None => {}
        }
    }

    fn close(&mut self, conn: ConnId) {
        match self.connections.remove(&conn) {
            Some(Slot::Resting(connection, _)) => self.run(close(conn, connection)),
            Some(Slot::Busy { cancel, .. }) => {
                cancel.cancel();
                self.connections.insert(conn, Slot::Busy { cancel, closing: true });
            }
            None => self.run(async move { Done::Closed(conn) }),
        }
    }

    // ---- files

    fn read_file(&mut self, stream: StreamId, file: FileNo, offset: u64, buffer: Vec<u8>) {
        let Some(descriptor) = self.open_files.get(&file).map(Rc::clone) else {
            let error = FileError::Changed(format!("file {}", file.0));
            let event = Event::FileRead { stream, file, result: Err(error), buffer, file_len: None };
            return self.run(async move { Done::Event(event) });
        };
        self.run(async move {
            let room = buffer.capacity() - buffer.len();
            let (result, buffer) = ring::file_read(&descriptor, buffer, offset).await;
            let file_len =
                if result.is_ok_and(|count| count < room) { files::length(descriptor.as_fd()) } else { None };
            let result = result.map_err(|error| FileError::Other {
                what: "reading a log file".to_owned(),
                cause: error.to_string(),
            });
            Done::Event(Event::FileRead { stream, file, result, buffer, file_len })
        });
    }

    fn unwatch(&mut self, stream: StreamId) {
        if let (Some(watch), Some(inotify)) = (self.watches.remove(stream), &self.inotify) {
            let _ = rustix::fs::inotify::remove_watch(inotify, watch);
        }
    }

    /// An answer of the files thread.
    pub fn on_files(&mut self, answer: files::Answer) -> Event {
        match answer {
            files::Answer::Scanned { stream, watch, result } => {
                if let Some(watch) = watch {
                    self.watches.set(stream, watch);
                }
                Event::Scanned { stream, result }
            }
            files::Answer::Opened { stream, file, result } => {
                let result = result.map(|(descriptor, opened)| {
                    self.open_files.insert(file, Rc::new(descriptor));
                    opened
                });
                Event::FileOpened { stream, file, result }
            }
            files::Answer::PathsFound { set, watches, paths } => {
                self.watches.set_of_patterns(set, &watches);
                Event::PathsFound { set, paths }
            }
            files::Answer::Saved { seq, result } => Event::CheckpointSaved { seq, result },
        }
    }

    fn read_inotify(&mut self, pause: Duration) {
        let Some(inotify) = self.inotify_ring.as_ref().map(Rc::clone).filter(|_| !self.stopped) else {
            return;
        };
        let timeout = self.read_timeout;
        self.run(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let (outcome, buffer) =
                ring::timed_read(&inotify, Vec::with_capacity(INOTIFY_BYTES), timeout).await;
            Done::Inotify(outcome, buffer)
        });
    }

    fn on_inotify(&mut self, outcome: ReadOutcome, buffer: &[u8]) -> Vec<Event> {
        match outcome {
            ReadOutcome::Bytes(_) => self.read_inotify(INOTIFY_PAUSE),
            ReadOutcome::TimedOut => self.read_inotify(Duration::ZERO),
            ReadOutcome::End | ReadOutcome::Failed(_) => {
                tracing::error!("inotify failed; files are looked at from time to time instead");
                self.inotify = None;
                self.inotify_ring = None;
                return vec![Event::WatchOverflow];
            }
        }
        let (mut grew, mut changed, mut sets) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut events = Vec::new();
        for event in inotify::events(buffer) {
            if event.mask & inotify::OVERFLOW != 0 {
                events.push(Event::WatchOverflow);
            }
            self.watches.on_event(&event, &mut grew, &mut changed, &mut sets);
        }
        events.extend(changed.into_iter().map(|stream| Event::ChainChanged { stream }));
        events.extend(grew.into_iter().map(|stream| Event::FileGrew { stream }));
        events.extend(sets.into_iter().map(|set| Event::PathsChanged { set }));
        events
    }

    // ---- what ended

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
            Done::Inotify(outcome, buffer) => self.on_inotify(outcome, &buffer),
        }
    }

    fn on_opened(&mut self, conn: ConnId, result: Result<Box<Connection>, Answer>) -> Vec<Event> {
        let slot = self.connections.remove(&conn);
        match (slot, result) {
            (Some(Slot::Busy { cancel, closing: false }), Ok(connection)) => {
                self.connections.insert(conn, Slot::Resting(connection, cancel));
                vec![Event::ConnOpened { conn, result: Ok((200, Vec::new())) }]
            }
            (Some(Slot::Busy { closing: false, .. }), Err(result)) => {
                vec![Event::ConnOpened { conn, result }]
            }
            (_, Ok(connection)) => {
                self.run(close(conn, connection));
                Vec::new()
            }
            (_, Err(_)) => vec![Event::ConnClosed { conn }],
        }
    }

    /// Ends all that is under way and waits for it, at most `patience`. Returns the operations left.
    pub async fn wind_up(&mut self, patience: Duration) -> u64 {
        self.stopped = true;
        for cancel in self.requests.values() {
            cancel.cancel();
        }
        let connections: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in connections {
            self.close(conn);
        }
        if let Some(inotify) = &self.inotify {
            // A watch that goes is an event, which ends the read of inotify at once. The root directory never hangs.
            let watch =
                rustix::fs::inotify::add_watch(inotify, "/", rustix::fs::inotify::WatchFlags::DELETE_SELF);
            let _ = watch.and_then(|watch| rustix::fs::inotify::remove_watch(inotify, watch));
        }
        let deadline = tokio::time::Instant::now() + patience;
        while !self.in_flight.is_empty() {
            if tokio::time::timeout_at(deadline, self.next()).await.is_err() {
                break;
            }
        }
        ring::operations_in_flight()
    }
}

async fn close(conn: ConnId, connection: Box<Connection>) -> Done {
    connection.close().await;
    Done::Closed(conn)
}

async fn whole_answer(
    socket_path: &Path,
    path: &str,
    timeout: Duration,
    cancel: &Cancel,
    max: usize,
) -> Answer {
    let (status, mut connection) = Connection::get(socket_path, path, timeout, cancel).await?;
    let body = connection.whole_body(max).await;
    connection.close().await;
    Ok((status, body?))
}
