//! What goes into the core and what comes out. Events are facts, actions are orders; both are plain data, so that the
//! same core runs on the real ring and in the simulation.

use std::fmt;
use std::sync::Arc;

use crate::capture::checkpoint::Checkpoint;
use crate::model::cause::Cause;
use crate::model::cursor::{FileId, HeadPrint, TailPrint};
use crate::model::delivery::FromSink;
use crate::model::docker::{EngineFault, EngineTrouble};
use crate::model::record::{Batch, SavedMarks, Source, StreamId};

/// In [`Event::FileRead`]: a hole reaches from the bytes read to the file's end.
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

/// A file system that may hang (its device number). One thread does everything there, one step after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(pub u64);

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No connection: dockerd does not run, or the socket may not be used.
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
        /// Path of the request.
        path: String,
        /// How long the agent waited.
        timeout_s: u64,
    },
    /// The connection ended or was not HTTP.
    #[error("GET {path}: {cause}")]
    Broken {
        /// Path of the request.
        path: String,
        /// The reason that hyper gives.
        cause: String,
    },
    /// The body is larger than the limit.
    #[error("the answer to GET {path} is larger than {max} bytes")]
    TooLarge {
        /// Path of the request.
        path: String,
        /// The most that is accepted.
        max: usize,
    },
}

impl RequestError {
    /// In few words, where there are some.
    pub fn cause(&self) -> Option<Cause> {
        match (self.trouble().fault, self) {
            (EngineFault::Denied, RequestError::Connect { socket, .. }) => {
                Some(Cause::NoPermission(socket.clone()))
            }
            (EngineFault::Away, _) => Some(Cause::NoDocker),
            (_, RequestError::NoAnswer { timeout_s, .. }) => Some(Cause::NoAnswer { waited_s: *timeout_s }),
            _ => None,
        }
    }

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
    /// Nothing came within the read's time-out; the connection remains open.
    TimedOut,
    /// The connection ended without a last chunk, or failed.
    Broken(String),
}

/// Status and body of an answer, or why there is none.
pub type HttpAnswer = Result<(u16, Vec<u8>), RequestError>;

/// A fact for the core.
#[derive(Debug)]
pub enum Event {
    /// The loop begins.
    Started,
    /// A deadline came ([`crate::capture::core::Capture::next_deadline_ms`]); harmless at any other time.
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
        /// Status; any but 200 comes with the beginning of the body, and the connection is closed.
        result: HttpAnswer,
    },
    /// A read of a connection ended.
    ConnRead {
        /// Number of the connection.
        conn: ConnId,
        /// How the read of the body ended.
        outcome: BodyOutcome,
        /// The buffer with what came appended.
        buffer: Vec<u8>,
    },
    /// A connection is closed: no operation on it is in flight.
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
        /// What else the listing showed.
        beside: Beside,
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
        /// Its present length and head.
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
        /// The buffer with what came appended.
        buffer: Vec<u8>,
        /// Length of the file afterwards, if fewer bytes came than there was room for: that may be the end of the file,
        /// or a read that the kernel cut short.
        file_len: Option<u64>,
        /// Where the file's data continues, if only NULs came and a hole follows; [`NO_DATA`] = nowhere.
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
        /// How many times since the last look. It may be the same file that got its name back.
        files: u32,
    },
    /// Nobody knows what changed, because inotify lost events or is not available: every file is looked at. The shell
    /// reports why; without inotify this comes every few seconds.
    LookAtAll,
    /// Files wait for a descriptor.
    DescriptorsRanOut {
        /// How many, at least 1.
        files: usize,
    },
    /// Opening a file waits until a descriptor is free; repeated while it waits.
    FileWaits {
        /// The stream that this concerns.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Its length, if it is known.
        len: Option<u64>,
    },
    /// A file operation of a stream has taken longer than it should; repeated while that is so.
    FileHung {
        /// The stream that this concerns.
        stream: StreamId,
        /// The file system, for people.
        place: String,
        /// The operation that hangs there, of this stream or of another.
        operation: String,
    },
    /// The files that match a file_monitor entry now, on local file systems or on one that may hang.
    PathsFound {
        /// Index in `file_monitor.files`.
        set: usize,
        /// The file system that may hang; `None` = the local ones.
        lane: Option<LaneId>,
        /// With the local part: all file systems that may hang and that the patterns lead into; each sends its own
        /// answer.
        lanes: Vec<LaneId>,
        /// What was found.
        paths: Vec<FoundPath>,
    },
    /// Something appeared in a directory named by a file_monitor entry's patterns.
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
        /// The path that a listing found for it all the same.
        path: Option<Arc<str>>,
    },
    /// From a sink.
    Sink(FromSink),
    /// A checkpoint was saved, or could not be.
    CheckpointSaved {
        /// Number of the tracker's state in it.
        seq: u64,
        /// Why it failed, if it did.
        result: Result<(), String>,
    },
    /// Drain, flush, save a checkpoint, end.
    Stop,
}

/// One file of a chain, as a scan saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Name within the directory; for a directory below it (logrotate's `olddir`), the path from it.
    pub name: String,
    /// 0 = the live file, n = `.n`, `RANK_UNKNOWN` = a name that has no number, as with dates.
    pub rank: u32,
    /// Whether it is compressed (`.gz`).
    pub compressed: bool,
    /// Identity of the file.
    pub id: FileId,
    /// Length in bytes on disk.
    pub len: u64,
    /// First bytes (decompressed), at most [`crate::limits::HEAD_BYTES`].
    pub head: Vec<u8>,
    /// For an archive: the length of its content according to its trailer (modulo 2³²).
    pub unpacked_len: Option<u32>,
    /// When its content last changed, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// What a scan saw and can't be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// The newest archive of the log in another format than gzip: lost lines may be in it.
    pub archive: Option<String>,
    /// Rotated files that the agent may not read, or that the disk refuses, in no particular order.
    pub denied: Vec<DeniedFile>,
    /// Wanted files under names that show no place among the others, and when something other than their content changed
    /// last, such as their name, nanoseconds since 1970.
    pub renamed: Vec<(FileId, i64)>,
}

/// A rotated file that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedFile {
    /// What its name shows; it has no head.
    pub found: FoundFile,
    /// Why it can't be read.
    pub error: FileError,
}

/// A path that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundPath {
    /// The absolute path, shared with all that keep it.
    pub path: Arc<str>,
    /// The file at this path.
    pub id: FileId,
    /// The file's path without links, if it differs.
    pub target: Option<String>,
    /// Its length in bytes.
    pub len: u64,
    /// When its content last changed, nanoseconds since 1970.
    pub modified_ns: i64,
}

impl FoundFile {
    /// Rank of a file whose name does not show its place among the others.
    pub const RANK_UNKNOWN: u32 = u32::MAX;
    /// Rank of a file rotated to a name as unknown as that of the file before it. Its birth time shows its place.
    pub const RANK_BY_BIRTH: u32 = u32::MAX - 1;
    /// Rank of a file that may have lines of the log or be another log. It is not read.
    pub const RANK_STRANGE: u32 = u32::MAX - 2;

    /// Whether it is in a directory below that of its log (logrotate's `olddir`).
    pub fn is_beneath(&self) -> bool {
        self.name.contains('/')
    }

    /// Whether the file begins with the bytes of the print.
    pub fn has_head(&self, print: &HeadPrint) -> bool {
        let len = print.len_bytes as usize;
        self.head.len() >= len && crc32fast::hash(&self.head[..len]) == print.crc32
    }

    /// The print of its head.
    pub fn print(&self) -> HeadPrint {
        HeadPrint { len_bytes: self.head.len() as u32, crc32: crc32fast::hash(&self.head) }
    }
}

/// A file that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedFile {
    /// Length in bytes; for a compressed file, of its content.
    pub len: u64,
    /// A compressed file that can't be decompressed to its end: its content is as long as could be read.
    pub damaged: bool,
    /// The file system it is on, if that one may hang.
    pub lane: Option<LaneId>,
    /// The bytes before the position are as expected.
    pub as_expected: bool,
    /// Its first bytes, at most [`HEAD_BYTES`](crate::limits::HEAD_BYTES); empty for a file that has a birth time, which shows
    /// better what it is.
    pub head: Vec<u8>,
}

impl OpenedFile {
    /// A file as most are: not compressed, on a local disk, as expected, with a birth time.
    pub fn plain(len: u64) -> OpenedFile {
        OpenedFile { len, damaged: false, lane: None, as_expected: true, head: Vec::new() }
    }
}

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It does not exist, or is another file now: list again.
    #[error("{0} is gone or was replaced")]
    Changed(String),
    /// Not a regular file, or reached through a link.
    #[error("{0} is {1}, not a regular file")]
    NotRegular(String, NoFile),
    /// The agent has no permission.
    #[error("no permission to read {0}")]
    Denied(String),
    /// The directory does not exist, or part of its path is no directory.
    #[error("there is no directory {0}")]
    NoDirectory(String),
    /// It could be opened, but would take a descriptor from the reserve.
    #[error("opening {what}: {NO_ROOM}")]
    NoDescriptor {
        /// Path of the file.
        what: String,
        /// Its length, if it is known.
        len: Option<u64>,
    },
    /// Any other error of the operating system.
    #[error("{what}: {cause}")]
    Other {
        /// What was tried.
        what: String,
        /// Why it failed.
        cause: String,
    },
}

/// What is where a regular file should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoFile {
    /// A directory.
    Directory,
    /// A symbolic link, or something behind one.
    Link,
    /// In an `olddir`: on another file system.
    OtherFileSystem,
    /// Anything else.
    Special,
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoFile::Directory => "a directory",
            NoFile::Link => "a symbolic link or behind one",
            NoFile::OtherFileSystem => "on another file system",
            NoFile::Special => "a named pipe, a socket or a device",
        })
    }
}

/// Why something can't be opened at present.
pub const NO_ROOM: &str = "too few file descriptors";

/// An order that the core gives to the shell.
#[derive(Debug)]
pub enum Action {
    /// Send a GET and answer with [`Event::Answered`].
    Get {
        /// Number of the request.
        request: RequestId,
        /// Path and query.
        path: String,
    },
    /// Send a GET and answer with [`Event::ConnOpened`]; the body is read piece by piece.
    OpenConn {
        /// Number of the connection.
        conn: ConnId,
        /// The stream it belongs to; `None` = discovery.
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
    /// Close, even during a read (whose event then does not come), and answer [`Event::ConnClosed`].
    CloseConn {
        /// Number of the connection.
        conn: ConnId,
    },
    /// Watch the directory, list the stream's files, answer [`Event::Scanned`] or [`Event::StillLive`].
    Scan {
        /// The stream that this concerns.
        stream: StreamId,
        /// Its absolute path. Shared, because it may contain tens of thousands of files.
        directory: Arc<str>,
        /// Name of the live file; model/rotated_name.rs knows the names of its rotated files.
        live_name: String,
        /// Files to find whatever their names in the directory are now.
        wanted: Vec<FileId>,
        /// Names that are logs of their own, whatever they look like.
        apart: Vec<String>,
        /// Directories below it with rotated files of the log (logrotate's `olddir`), as paths from it.
        olddirs: Vec<String>,
        /// Where links led to before, if a link has just been changed; else empty.
        before: String,
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
        /// As the scan found it.
        found: FoundFile,
        /// Print of the bytes that should be before the position.
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
        /// Buffer to append to; its spare capacity is how much to read.
        buffer: Vec<u8>,
    },
    /// Close a file; no operation on it is in flight.
    CloseFile {
        /// Number of the file.
        file: FileNo,
    },
    /// List the files that match a file_monitor entry, watch its directories, and answer [`Event::PathsFound`].
    FindPaths {
        /// Index in `file_monitor.files`.
        set: usize,
    },
    /// To every sink: a stream will send batches.
    Attach(Arc<Source>),
    /// To every sink: a batch.
    Send(Arc<Batch>),
    /// To every sink: the stream has ended.
    Detach(StreamId),
    /// To every sink: nothing of the stream is delivered for now, for example because its file is not text. Its output
    /// may be removed if it is empty.
    Withdraw(StreamId),
    /// To every sink: a checkpoint with these marks is on disk.
    Saved(Arc<SavedMarks>),
    /// To every sink: flush and end.
    StopSinks,
    /// Save and answer [`Event::CheckpointSaved`].
    SaveCheckpoint {
        /// Number of the tracker's state in it.
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
