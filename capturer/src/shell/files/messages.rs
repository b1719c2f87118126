//! Requests to the threads for files, and their answers.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use super::patterns::Start;
use crate::capture::io::{Beside, FileError, FileNo, FoundFile, FoundPath, LaneId, OpenedFile};
use crate::ledger::Owner;
use crate::model::cursor::{FileId, TailPrint};
use crate::model::record::StreamId;
use crate::shell::watches::Interest;
use crate::text::path_text::name_of;

/// A request to the threads.
#[derive(Debug)]
pub enum Request {
    /// Watch the directory and list a chain.
    Scan {
        /// The stream that sends it.
        stream: StreamId,
        /// Its absolute path.
        directory: Arc<str>,
        /// Name of the live file.
        live_name: String,
        /// Files that belong to the chain whatever their names are now.
        wanted: Vec<FileId>,
        /// Names that are logs of their own.
        apart: Vec<String>,
        /// Directories beneath it that may have rotated files of the log, as paths from it.
        olddirs: Vec<String>,
        /// Where links led to before, if a link has just been changed; else empty.
        before: String,
        /// If this is still the live file, nothing else need be looked at.
        still: Option<FileId>,
    },
    /// Open a file of a chain.
    Open {
        /// The stream that sends it.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Absolute path of its directory.
        directory: Arc<str>,
        /// As the scan found it.
        found: FoundFile,
        /// Print of the bytes that should be before the position.
        expected: TailPrint,
        /// The owner of the descriptor from then on.
        owner: Owner,
    },
    /// Read a file that a lane opened.
    Read {
        /// The stream that sends it.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Offset in the file to read from.
        offset: u64,
        /// Buffer to append to; its spare capacity is how much to read.
        buffer: Vec<u8>,
    },
    /// See whether the disk of this directory has room.
    LookForRoom {
        /// Its absolute path.
        directory: Arc<str>,
    },
    /// Close a file that a lane opened.
    Close {
        /// Number of the file.
        file: FileNo,
    },
    /// Match the patterns of an entry and watch the directories they name.
    FindPaths {
        /// Index of the entry.
        set: usize,
    },
    /// Continue a walk where a lane's file system begins.
    FindRest {
        /// Index of the entry.
        set: usize,
        /// Where the walk begins.
        starts: Vec<Start>,
    },
}

impl Request {
    pub(super) fn stream(&self) -> Option<StreamId> {
        match self {
            Request::Scan { stream, .. } | Request::Open { stream, .. } | Request::Read { stream, .. } => {
                Some(*stream)
            }
            Request::LookForRoom { .. }
            | Request::Close { .. }
            | Request::FindPaths { .. }
            | Request::FindRest { .. } => None,
        }
    }

    pub(super) fn directory(&self) -> Option<Cow<'_, OsStr>> {
        match self {
            Request::Scan { directory, .. }
            | Request::Open { directory, .. }
            | Request::LookForRoom { directory } => Some(name_of(directory)),
            _ => None,
        }
    }

    pub(super) fn is_of_archive(&self) -> bool {
        matches!(self, Request::Open { found, .. } if found.compressed)
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Request::Scan { directory, .. } => format!("listing {directory}"),
            Request::Open { directory, found, .. } => format!("opening {directory}/{}", found.name),
            Request::Read { .. } => "reading a file".to_owned(),
            Request::LookForRoom { directory } => format!("asking how much room {directory} has"),
            Request::Close { .. } => "closing a file".to_owned(),
            Request::FindPaths { set } | Request::FindRest { set, .. } => {
                format!("matching the patterns of file_monitor.files[{set}]")
            }
        }
    }
}

/// An opened file.
#[derive(Debug)]
pub enum OpenFile {
    /// On a local file system: the ring reads it.
    Here(OwnedFd),
    /// The lane keeps, reads and closes it under this number.
    OnLane(RawFd),
}

/// Why inotify does not watch a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// This user may not list it, which a watch requires, too.
    Denied,
    /// inotify is at its limit, or the directory does not exist. Which directory, by `hash_of_directory`.
    Other(u64),
}

/// An answer of the threads.
#[derive(Debug)]
pub enum FilesAnswer {
    /// The answer to [`Request::Scan`].
    Scanned {
        /// The stream that sent the request.
        stream: StreamId,
        /// The directory and its watch, or why it has none.
        watch: Result<i32, Unwatched>,
        /// The files of the chain.
        result: Result<Vec<FoundFile>, FileError>,
        /// What else was seen.
        beside: Beside,
    },
    /// The other answer to [`Request::Scan`].
    StillLive {
        /// The stream that asks.
        stream: StreamId,
        /// The live file, which is the one that was named.
        found: FoundFile,
    },
    /// The answer to [`Request::Open`].
    Opened {
        /// The stream that sent the request.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// The lane that has it, if it may hang.
        lane: Option<LaneId>,
        /// The file that was opened.
        result: Result<(OpenFile, OpenedFile), FileError>,
    },
    /// The [`Request::Open`] waits for a descriptor; its answer comes later.
    Waits {
        /// The stream that sent the request.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// Its length, if it is known.
        len: Option<u64>,
    },
    /// The answer to [`Request::Read`].
    Read {
        /// The stream that sent the request.
        stream: StreamId,
        /// Number of the file.
        file: FileNo,
        /// How many bytes were read.
        result: Result<usize, FileError>,
        /// The request's buffer with these bytes appended.
        buffer: Vec<u8>,
        /// The file's length, if fewer bytes came than there was room for.
        file_len: Option<u64>,
        /// Where the file's data continues, if only NULs came and a hole follows.
        data_at: Option<u64>,
    },
    /// The answer to [`Request::LookForRoom`].
    Room {
        /// That directory.
        directory: Arc<str>,
        /// How much is free, if nothing can be written there.
        none_left: Option<String>,
    },
    /// The answer to [`Request::Close`].
    Closed {
        /// Number of the file.
        file: FileNo,
    },
    /// The answer to [`Request::FindPaths`], from the local part and from each lane for its part.
    PathsFound {
        /// Index of the entry.
        set: usize,
        /// The lane whose part this is; `None` = the local part.
        lane: Option<LaneId>,
        /// With the local part: all lanes that the patterns lead into.
        lanes: Vec<LaneId>,
        /// Watches of directories, with the names that matter there.
        watches: Vec<(i32, Interest)>,
        /// Which directory each watches, as a hash.
        directories: Vec<(i32, u64)>,
        /// Links that other links led over.
        links: Vec<String>,
        /// The paths that match.
        paths: Vec<FoundPath>,
    },
    /// The answer to [`Files::save`](super::Files::save).
    Saved {
        /// Number of the save.
        seq: u64,
        /// Why it failed, if it did.
        result: Result<(), String>,
    },
}
