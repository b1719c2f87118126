//! What goes into the core and what comes out of it. Events are facts, actions are orders; both are plain data, so
//! that the same core runs on the real ring and in the simulation.

use std::sync::Arc;

use crate::capture::checkpoint::Checkpoint;
use crate::model::cursor::{FileId, HeadPrint, TailPrint};
use crate::model::delivery::FromSink;
use crate::model::docker::{EngineFault, EngineTrouble};
use crate::model::record::{Batch, SavedMarks, Source, StreamId};

/// In [`Event::FileRead`]: a hole reaches from what was read to the file's end.
pub const NO_DATA: u64 = u64::MAX;

/// Number of a one-answer request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Number of a connection that follows (container logs, or the Engine's events).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Number of an open file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileNo(pub u64);

/// A file system that may hang (its device number). Everything done there is done by one thread, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(pub u64);

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection: dockerd is not there, or the socket may not be used.
    #[error("connecting to {socket}: {cause}")]
    Connect {
        /// The socket's path.
        socket: String,
        /// The operating system's reason.
        cause: String,
        /// The error number of the system.
        errno: i32,
    },
    /// Connected, but no answer came within the time-out.
    #[error("no answer to GET {path} within {timeout_s} s")]
    NoAnswer {
        /// What was asked.
        path: String,
        /// How long was waited.
        timeout_s: u64,
    },
    /// The connection ended or was not HTTP.
    #[error("GET {path}: {cause}")]
    Broken {
        /// What was asked.
        path: String,
        /// The reason that hyper gives.
        cause: String,
    },
    /// The body is larger than the limit.
    #[error("the answer to GET {path} is larger than {max} bytes")]
    TooLarge {
        /// What was asked.
        path: String,
        /// The most that is accepted.
        max: usize,
    },
}

impl RequestError {
    /// What kind of trouble with the Engine it is.
    pub fn trouble(&self) -> EngineTrouble {
        let fault = match self {
            RequestError::Connect { errno, .. } => {
                EngineFault::of_system(std::io::Error::from_raw_os_error(*errno).kind())
            }
            RequestError::NoAnswer { timeout_s, .. } => EngineFault::Silent { waited_s: *timeout_s },
            RequestError::Broken { .. } | RequestError::TooLarge { .. } => EngineFault::Other,
        };
        EngineTrouble { fault, text: self.to_string() }
    }
}

/// How one read of a body ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyOutcome {
    /// At least one byte was added to the buffer.
    Bytes,
    /// The last chunk came: a clean end.
    End,
    /// Nothing came within the read's time-out; the connection stands.
    TimedOut,
    /// The connection ended without a last chunk, or failed.
    Broken(String),
}

/// Status and body of an answer, or why there is none.
pub type HttpAnswer = Result<(u16, Vec<u8>), RequestError>;

/// A fact that the core is told.
#[derive(Debug)]
pub enum Event {
    /// The loop begins.
    Started,
    /// A deadline came ([`crate::capture::core::Capture::next_deadline_ms`]), or nothing: harmless at any time.
    Tick,
    /// A request ended.
    Answered {
        /// Number of the request.
        request: RequestId,
        /// Status and body.
        result: HttpAnswer,
    },
    /// A connection's head came, or it failed; a failed one is closed.
    ConnOpened {
        /// Number of the connection.
        conn: ConnId,
        /// Status; any but 200 comes with the body's beginning, and the connection is closed.
        result: HttpAnswer,
    },
    /// A read of a connection ended.
    ConnRead {
        /// Number of the connection.
        conn: ConnId,
        /// How the read of the body ended.
        outcome: BodyOutcome,
        /// What came, appended to what was given.
        buffer: Vec<u8>,
    },
    /// A connection is closed: nothing of it is in flight.
    ConnClosed {
        /// Number of the connection.
        conn: ConnId,
    },
    /// The files of a stream were listed and their directory is watched.
    Scanned {
        /// The stream that this concerns.
        stream: StreamId,
        /// In no particular order.
        result: Result<Vec<FoundFile>, FileError>,
        /// The newest archive of the log that can't be read: if anything was lost, it may be there.
        archive: Option<String>,
    },
    /// The live file is still the one that was asked about ([`Action::Scan`]); nothing else was looked at.
    StillLive {
        /// The stream that this concerns.
        stream: StreamId,
        /// As it is now.
        found: FoundFile,
    },
    /// A file was opened, or not.
    FileOpened {
        /// The stream that this concerns.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Its length and head now.
        result: Result<OpenedFile, FileError>,
    },
    /// A read of a file ended.
    FileRead {
        /// The stream that this concerns.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Bytes that came.
        result: Result<usize, FileError>,
        /// What came, appended to what was given.
        buffer: Vec<u8>,
        /// Length of the file afterwards, asked for when fewer bytes came than there was room for: that may be the end
        /// of the file, or a read that the kernel cut short.
        file_len: Option<u64>,
        /// Where the file goes on with data, if nothing came but NULs and a hole follows; [`NO_DATA`] = nowhere.
        data_at: Option<u64>,
    },
    /// The live file of a stream was written to.
    FileGrew {
        /// The stream that this concerns.
        stream: StreamId,
    },
    /// A file of a stream that is no longer its live one was written to.
    RotatedGrew {
        /// The stream that this concerns.
        stream: StreamId,
    },
    /// Rights, owner or times of a file of a stream changed.
    RightsChanged {
        /// The stream that this concerns.
        stream: StreamId,
    },
    /// Files of a stream were made, renamed or removed.
    ChainChanged {
        /// The stream that this concerns.
        stream: StreamId,
    },
    /// Another file got the name of a stream's live one. [`Event::ChainChanged`] comes next.
    LiveMade {
        /// The stream that this concerns.
        stream: StreamId,
        /// So often since the last look. It may be the same file that got its name back.
        files: u32,
    },
    /// Nobody can say what changed, for inotify lost events or is not there: every file is looked at. Why it is so is for the
    /// shell to say; without inotify this comes every few seconds.
    LookAtAll,
    /// So many files wait for a descriptor.
    DescriptorsRanOut {
        /// At least 1.
        files: usize,
    },
    /// The opening of a file waits until a descriptor is free; told again while it does.
    FileWaits {
        /// The stream that this concerns.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// How long it is, if it was seen.
        len: Option<u64>,
    },
    /// A file operation of a stream has had no answer for longer than it may take; told again while that is so.
    FileHung {
        /// The stream that this concerns.
        stream: StreamId,
        /// The file system, for people.
        place: String,
        /// What hangs there: an operation of this stream or of another.
        operation: String,
    },
    /// What matches a file_monitor entry now, on local file systems or on one that may hang.
    PathsFound {
        /// Index in `file_monitor.files`.
        set: usize,
        /// The one that may hang; `None` = what is local.
        lane: Option<LaneId>,
        /// With the local part: all those that the patterns lead to; each answers for itself.
        lanes: Vec<LaneId>,
        /// What was found.
        paths: Vec<FoundPath>,
    },
    /// Something appeared in a directory that a file_monitor entry's patterns name.
    PathsChanged {
        /// Index in `file_monitor.files`.
        set: usize,
    },
    /// A file that a file_monitor entry's patterns match was made and removed before anybody could look.
    FileVanished {
        /// Index in `file_monitor.files`.
        set: usize,
        /// Its name, without its directory.
        name: String,
    },
    /// From a sink.
    Sink(FromSink),
    /// A checkpoint was saved, or not.
    CheckpointSaved {
        /// The tracker's state it held.
        seq: u64,
        /// Why it failed, if it did.
        result: Result<(), String>,
    },
    /// Drain, flush, checkpoint, end.
    Stop,
}

/// One file of a chain, as a scan saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Name within the directory. In a directory beneath it (logrotate's `olddir`): the path from it.
    pub name: String,
    /// 0 = the live file, n = `.n`, `RANK_UNKNOWN` = a name that has no number, as with dates.
    pub rank: u32,
    /// Whether it is compressed (`.gz`).
    pub compressed: bool,
    /// What identifies the file.
    pub id: FileId,
    /// Length in bytes on disk.
    pub len: u64,
    /// First bytes (decompressed), at most [`crate::limits::HEAD_BYTES`].
    pub head: Vec<u8>,
    /// Of an archive: the length of its content, as its trailer gives it (modulo 2³²).
    pub unpacked_len: Option<u32>,
    /// When its content last changed, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// A path that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundPath {
    /// The absolute path. Shared with all that keep it.
    pub path: Arc<str>,
    /// The file that stands there.
    pub id: FileId,
    /// The file's path without links, if it is another.
    pub target: Option<String>,
    /// Its length in bytes.
    pub len: u64,
    /// When its content last changed, nanoseconds since 1970.
    pub modified_ns: i64,
}

impl FoundFile {
    /// The rank of a file whose name does not tell its place among the others.
    pub const RANK_UNKNOWN: u32 = u32::MAX;
    /// The rank of a file that was rotated to a name as unknown as that of the file before it. Its birth tells its place.
    pub const RANK_BY_BIRTH: u32 = u32::MAX - 1;
    /// The rank of a file that may hold lines of the log, or be another log. It is not read.
    pub const RANK_STRANGE: u32 = u32::MAX - 2;

    /// Whether it is in a directory beneath that of its log (logrotate's `olddir`).
    pub fn is_beneath(&self) -> bool {
        self.name.contains('/')
    }

    /// Whether the file begins as the print says.
    pub fn has_head(&self, print: &HeadPrint) -> bool {
        let len = print.len_bytes as usize;
        self.head.len() >= len && crc32fast::hash(&self.head[..len]) == print.crc32
    }

    /// The print of what was seen.
    pub fn print(&self) -> HeadPrint {
        HeadPrint { len_bytes: self.head.len() as u32, crc32: crc32fast::hash(&self.head) }
    }
}

/// A file that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedFile {
    /// Length in bytes; of a compressed file, of its content.
    pub len: u64,
    /// A compressed file that can't be unpacked to its end: its content is as long as could be read.
    pub damaged: bool,
    /// The file system it is on, if that may hang.
    pub lane: Option<LaneId>,
    /// What was expected before the position stands there.
    pub as_expected: bool,
}

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not there, or not the file it was: list again.
    #[error("{0} is gone or was replaced")]
    Changed(String),
    /// Not a regular file, or reached through a link.
    #[error("{0} is not a regular file")]
    NotRegular(String),
    /// The agent has no permission.
    #[error("no permission to read {0}")]
    Denied(String),
    /// The directory is not there.
    #[error("{0} does not exist")]
    NoDirectory(String),
    /// It could be opened, but would take a descriptor of the reserve.
    #[error("opening {what}: {NO_ROOM}")]
    NoDescriptor {
        /// Which file.
        what: String,
        /// How long it is, if it was seen.
        len: Option<u64>,
    },
    /// Anything else the operating system said.
    #[error("{what}: {cause}")]
    Other {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: String,
    },
}

/// Why something can't be opened for now.
pub const NO_ROOM: &str = "too few file descriptors";

/// An order that the core gives to the shell.
#[derive(Debug)]
pub enum Action {
    /// GET and answer with [`Event::Answered`].
    Get {
        /// Number of the request.
        request: RequestId,
        /// Path and query.
        path: String,
    },
    /// GET and answer with [`Event::ConnOpened`]; the body is read piece by piece.
    OpenConn {
        /// Number of the connection.
        conn: ConnId,
        /// The stream it belongs to; none = finding containers.
        stream: Option<StreamId>,
        /// Path and query.
        path: String,
    },
    /// Read on, appending to the buffer.
    ReadConn {
        /// Number of the connection.
        conn: ConnId,
        /// The buffer to append to.
        buffer: Vec<u8>,
    },
    /// Close, also in the middle of a read (whose event then does not come), and answer [`Event::ConnClosed`].
    CloseConn {
        /// Number of the connection.
        conn: ConnId,
    },
    /// Watch the directory, list the stream's files, answer [`Event::Scanned`] or [`Event::StillLive`].
    Scan {
        /// The stream that this concerns.
        stream: StreamId,
        /// Its absolute path. Shared, for there may be tens of thousands of files in it.
        directory: Arc<str>,
        /// Name of the live file; model/rotated_name.rs says how its rotated files may be called.
        live_name: String,
        /// Files to be found under whatever name they have in the directory now.
        wanted: Vec<FileId>,
        /// Names that are logs of their own, whatever they look like.
        apart: Vec<String>,
        /// Directories beneath it with rotated files of the log (logrotate's `olddir`), as paths from it.
        olddirs: Vec<String>,
        /// If this file, whose birth time is known, still has the live name, it is all that need be looked at.
        still: Option<FileId>,
    },
    /// The directory need not be watched for this stream any more.
    Unwatch {
        /// The stream that this concerns.
        stream: StreamId,
    },
    /// Open and answer [`Event::FileOpened`].
    OpenFile {
        /// The stream that this concerns.
        stream: StreamId,
        /// Its number from now on.
        file: FileNo,
        /// Absolute path of the directory.
        directory: Arc<str>,
        /// As found by the scan.
        found: FoundFile,
        /// What should stand before the position.
        expected: TailPrint,
    },
    /// Read and answer [`Event::FileRead`].
    ReadFile {
        /// The stream that this concerns.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Offset in the file to read from.
        offset: u64,
        /// Where to: its spare capacity is asked for.
        buffer: Vec<u8>,
    },
    /// Close; nothing of it is in flight.
    CloseFile {
        /// Number of the file.
        file: FileNo,
    },
    /// List what matches a file_monitor entry and watch its directories; answer [`Event::PathsFound`].
    FindPaths {
        /// Index in `file_monitor.files`.
        set: usize,
    },
    /// To every sink: a stream will send.
    Attach(Arc<Source>),
    /// To every sink: records.
    Send(Arc<Batch>),
    /// To every sink: the stream has ended.
    Detach(StreamId),
    /// To every sink: nothing of the stream is delivered for now, as of a file that is no text. An output that was made for it
    /// and is empty need not be there.
    Withdraw(StreamId),
    /// To every sink: a checkpoint with these marks is on disk.
    Saved(Arc<SavedMarks>),
    /// To every sink: flush and end.
    StopSinks,
    /// Save and answer [`Event::CheckpointSaved`].
    SaveCheckpoint {
        /// The tracker's state it holds.
        seq: u64,
        /// What to save.
        checkpoint: Checkpoint,
    },
    /// The last action: everything is drained, or the time for it is over.
    Finished {
        /// What was not finished in time; empty = clean.
        left: Vec<String>,
    },
}
