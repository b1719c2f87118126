//! Sinks: where records go. Each sink has its own thread and queue, so that a slow one holds nobody else back; it
//! answers each batch with an [`Ack`](crate::model::record::Ack), in order.
//!
//! ```text
//! capture ── ToSink ─▶ runtime.rs (thread: retries, health, counts) ── deliver ─▶ local_file/, stdout.rs, loki/
//!    ▲                       │                                                       │                     │
//!    └────── FromSink ◀──────┘                           ndjson.rs, outbox.rs (encode, go on)   spool/ ─▶ network
//! ```
//! The queue can't overflow: `capture` counts what it has sent and what was acknowledged, and stops reading at
//! [`crate::limits::SINK_BATCHES_MAX`]. The log file on disk is the real queue.
//!
//! Not here: checkpoints. A sink only says what it has taken and, for files, how long its output is.

pub(crate) mod apart;
mod backoff;
pub(crate) mod dead_letters;
pub(crate) mod file_name;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod held;
mod label_value;
pub(crate) mod local_file;
pub(crate) mod loki;
pub(crate) mod ndjson;
mod outbox;
mod plain;
mod runtime;
pub(crate) mod spool;
pub(crate) mod stdout;
mod steps;
mod tap;
#[cfg(test)]
pub(crate) mod testing;
mod troubles;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::cause::Cause;
use crate::telemetry::fault::Fault;

use crate::model::record::{Batch, OutputMark, SavedMarks, Source, StreamId};
use crate::text::disk_room;

pub use plain::show_line;
pub use runtime::{SinkHandle, spawn};

/// A place where records go. Called by one thread; may block, but each call ends within seconds.
pub trait Sink: Send {
    /// The name in checkpoint, metrics and health: `local_file`.
    fn name(&self) -> &str;

    /// The output of a stream, or the one that it will have after an attach, if each output fails for itself: then
    /// records that one can't take are held back alone. `None` = there is a single output.
    fn output_of(&self, _source: &Source, _after_attach: bool) -> Option<Arc<str>> {
        None
    }

    /// Makes the output of a stream ready. Called again for the same stream when its facts change.
    fn attach(&mut self, source: &Arc<Source>) -> Result<Option<OutputMark>, SinkError>;

    /// Takes all of a batch, or fails; the same batch is delivered again until it is taken. A sink that wrote a part
    /// continues after it: nothing torn, nothing twice.
    fn deliver(&mut self, batch: &Batch) -> Result<Delivered, SinkError>;

    /// Makes delivered batches safe, for sinks that do so for several at once ([`Sink::gathers`]).
    fn commit(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// How many of the batches that wait for a commit, from the first on, are safe though the last commit failed. They
    /// are acknowledged, and not counted again by the next call.
    fn take_safe(&mut self) -> usize {
        0
    }

    /// How long delivered batches may wait for others before [`Sink::commit`] and their acknowledgement.
    fn gathers(&self) -> Option<Duration> {
        None
    }

    /// Whether a delivered batch is only queued: whether the server accepts it shows later.
    fn is_network(&self) -> bool {
        false
    }

    /// The stream is over.
    fn detach(&mut self, stream: StreamId);

    /// The stream has no records for now. If its output was made and is empty, it is removed until a record arrives.
    fn withdraw(&mut self, _stream: StreamId) {}

    /// A checkpoint with these marks is on disk, and the one before it: files that neither names may be changed.
    /// Returns whether only the earlier one still names some.
    fn saved(&mut self, _marks: &SavedMarks) -> bool {
        false
    }

    /// Makes delivered batches safe against a power cut, and removes a batch of which only a part was written. The last
    /// call.
    fn flush(&mut self) -> Result<(), SinkError>;
}

/// The result of delivering a batch.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Mark of the output after it.
    pub mark: Option<OutputMark>,
    /// What was written.
    pub counts: Counts,
}

/// The result for some records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of records.
    pub records: u64,
    /// Bytes of output.
    pub bytes: u64,
    /// How many U+FFFD replaced bytes that are not UTF-8.
    pub invalid_utf8: u64,
    /// Records that had been cut at `line_bytes_max`.
    pub truncated: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.invalid_utf8 += other.invalid_utf8;
        self.truncated += other.truncated;
    }
}

/// What can be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkErrorKind {
    /// Trying again may help: it is tried for ever. Reading waits meanwhile, nothing is dropped.
    Retry,
    /// The same, and the failure keeps all outputs waiting, whichever it was for.
    RetryAll,
    /// The reader of the output has gone and does not come back: the sink ends.
    Closed,
}

/// A sink could not do what it was asked.
#[derive(Debug)]
pub struct SinkError {
    /// What can be done.
    pub kind: SinkErrorKind,
    /// What was tried: "writing".
    pub what: String,
    /// The file on which it was tried, if there is one.
    pub path: Option<PathBuf>,
    /// The key of the config that says where such files are.
    pub key: &'static str,
    /// The disk, or this user's share of it, has no room.
    pub is_disk_full: bool,
    /// What is wrong, where the system's answer does not tell it.
    pub known: Option<Fault>,
    /// The system's answer.
    pub source: io::Error,
}

impl SinkError {
    /// A failure that is tried again.
    pub fn retry(what: impl Into<String>, source: impl Into<io::Error>) -> SinkError {
        let (kind, what, source) = (SinkErrorKind::Retry, what.into(), source.into());
        let is_disk_full = spool::is_disk_full(&source);
        SinkError { kind, what, path: None, key: "", is_disk_full, known: None, source }
    }

    /// The same for a file; `key` = the key of the config that says where such files are.
    pub fn of_file(what: &str, path: PathBuf, key: &'static str, source: io::Error) -> SinkError {
        SinkError { path: Some(path), key, ..SinkError::retry(what, source) }
    }

    /// A failure that is tried again, and concerns all outputs.
    pub fn retry_all(what: impl Into<String>, source: impl Into<io::Error>) -> SinkError {
        SinkError { kind: SinkErrorKind::RetryAll, ..SinkError::retry(what, source) }
    }

    /// What is wrong as a kind.
    pub fn fault(&self) -> Fault {
        if let Some(known) = self.known {
            return known;
        }
        match self.cause() {
            Some(Cause::NoRoom) => Fault::NoRoom,
            Some(Cause::QuotaUsed) => Fault::QuotaUsed,
            Some(Cause::ReadOnly) => Fault::ReadOnly,
            Some(Cause::NoPermission(_)) => Fault::Denied,
            Some(Cause::Directory | Cause::NoDocker | Cause::NoAnswer { .. }) | None => {
                match self.source.kind() {
                    io::ErrorKind::PermissionDenied => Fault::Denied,
                    io::ErrorKind::WouldBlock => Fault::Silent,
                    _ => Fault::Usual,
                }
            }
        }
    }

    /// Why, where a row has a short word for it.
    pub fn cause(&self) -> Option<Cause> {
        let cause = Cause::of(&self.source, self.path.as_deref());
        cause.or(self.is_disk_full.then_some(Cause::NoRoom))
    }

    /// What went wrong, in what, and where.
    fn tried(&self) -> String {
        let gap = if self.what.is_empty() { "" } else { " " };
        let path = self.path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default();
        format!("{}{gap}{}{path}", self.source, self.what)
    }

    /// The file's directory.
    fn directory(&self) -> Option<&Path> {
        self.path.as_deref()?.parent()
    }

    /// With how much room there is, if a full disk is the trouble. Only for health, as this changes by itself.
    fn with_room(&self) -> String {
        let directory = self.directory().filter(|_| self.is_disk_full);
        let room = directory.and_then(|directory| Some((disk_room::room(directory)?, directory.display())));
        match room {
            Some((room, directory)) => format!("{self}; {room} in {directory}"),
            None => self.to_string(),
        }
    }

    /// The cure, where it is known.
    fn cure(&self) -> Option<String> {
        let errno = rustix::io::Errno::from_io_error(&self.source);
        let cure = match (self.kind, self.source.kind()) {
            (SinkErrorKind::Closed, _) => return None,
            _ if self.is_disk_full => return Some(self.cure_of_full_disk()),
            // Rights end in EACCES; this is what the kernel answers even to root.
            _ if errno == Some(rustix::io::Errno::PERM) => {
                "lsattr shows what forbids it; chattr -i -a ends that"
            }
            (_, io::ErrorKind::PermissionDenied) => "give the agent the right to write there",
            (_, io::ErrorKind::ReadOnlyFilesystem) => "mount it writable or choose another directory",
            (_, io::ErrorKind::FileTooLarge) => "raise the file size limit or move the file away",
            // Making a directory where a file is ends in EEXIST.
            (
                _,
                io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory,
            ) => "move away what stands there",
            _ if errno == Some(rustix::io::Errno::LOOP) => "links are not followed there, move it away",
            // A socket; and what local_file/beneath.rs refuses, as a FIFO.
            _ if errno == Some(rustix::io::Errno::NXIO) => "no regular file stands there, move it away",
            (_, io::ErrorKind::InvalidInput) if errno.is_none() => "move it away",
            _ => return None,
        };
        Some(cure.to_owned())
    }

    fn cure_of_full_disk(&self) -> String {
        let quota =
            if self.source.kind() == io::ErrorKind::QuotaExceeded { "raise the quota, or " } else { "" };
        match self.directory() {
            Some(directory) => format!("{quota}{}", disk_room::cure(directory, self.key)),
            None => format!("{quota}free some room there"),
        }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cure() {
            Some(cure) => write!(f, "{}: {cure}", self.tried()),
            None => f.write_str(&self.tried()),
        }
    }
}

// The cause is part of the message, hence no `source`: it would be said twice.
impl std::error::Error for SinkError {}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// Each needs another hand: no right helps against an attribute.
    #[test]
    fn what_stops_an_output_has_its_cure() {
        let no_file = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        for (source, cure) in [
            (Errno::ACCESS.into(), "give the agent the right"),
            (Errno::PERM.into(), "chattr -i -a"),
            (Errno::ROFS.into(), "mount it writable"),
            (Errno::ISDIR.into(), "move away"),
            (Errno::EXIST.into(), "move away"),
            (Errno::LOOP.into(), "move it away"),
            (Errno::NXIO.into(), "move it away"),
            (no_file, "move it away"),
        ] {
            let text = SinkError::retry("opening x".to_owned(), source).to_string();
            assert!(text.contains(cure), "{text}");
        }
    }
}
