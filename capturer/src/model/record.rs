//! The nouns every step shares: who said a line ([`Source`]), the line itself ([`Record`]), and the
//! [`Batch`] it travels in.
//!
//! A batch is laid out for speed: it owns the buffer that the kernel filled and its records are offsets
//! into it, so a line that needs no change is never copied between the read and the sink. Only joined or
//! repaired lines live in a second buffer, [`Batch::made`].
//!
//! Deliberately not here: where a record goes (sink/), how it was found (stream/, decode/).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::cursor::{Cursor, FileId, HeadPrint};
use crate::model::fields::{Changes, Extra};
use crate::model::rare::Rare;
use crate::settings::Pipeline;

/// Which of a container's two outputs a line came from. The word is moby's: `stream` already means a
/// captured source here, and a label set in Loki.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum StdType {
    /// File descriptor 1 of the container, everything a TTY prints, and every line of a plain file.
    Stdout = 0,
    /// File descriptor 2 of the container.
    Stderr = 1,
}

impl StdType {
    /// Both, in index order.
    pub const ALL: [StdType; 2] = [StdType::Stdout, StdType::Stderr];

    /// The name used in records, as Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            StdType::Stdout => "stdout",
            StdType::Stderr => "stderr",
        }
    }

    /// 0 or 1, for two-element tables.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Number of a stream in this process; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a stream is called across restarts: its key in the checkpoint. Shared, because many tables hold it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamKey(pub Arc<str>);

impl StreamKey {
    /// The key of a container: `container:<id>`.
    pub fn container(id: &str) -> StreamKey {
        StreamKey(format!("container:{id}").into())
    }

    /// The key of a followed path: `file:<path>`.
    pub fn file(path: &str) -> StreamKey {
        StreamKey(format!("file:{path}").into())
    }
}

/// What is known of a container and goes into its records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ContainerMeta {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without Docker's leading slash. The container's owner chooses it: up to 60,004 bytes.
    pub name: String,
    /// Image reference as given at creation.
    pub image: String,
    /// The labels the config selected, not all that the container has.
    pub labels: BTreeMap<String, String>,
}

/// The unchanging facts of a stream, shared by all its batches. A rename makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Number in this process.
    pub id: StreamId,
    /// Name across restarts.
    pub key: StreamKey,
    /// Set for containers. Boxed, because there may be tens of thousands of paths.
    pub container: Option<Box<ContainerMeta>>,
    /// Set for followed paths (file_monitor).
    pub path: Option<Arc<str>>,
    /// Sources of the last run that stopped exactly where this one begins.
    pub continues: Rare<Vec<Continued>>,
    /// Labels of the file_monitor entry; a container's are in `container`.
    pub labels: Rare<BTreeMap<String, String>>,
    /// The sinks that get its batches.
    pub outlet: Outlet,
    /// The pipeline its lines pass; `None` = they are delivered as they are.
    pub pipeline: Option<Arc<Pipeline>>,
    /// The container's labels that the pipeline puts into records, whether or not `container` has them.
    pub pipeline_labels: Rare<BTreeMap<String, String>>,
}

/// An earlier source that this one continues, or its earlier name. After a crash an output may have lines of it from
/// behind its saved position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continued {
    /// The earlier path; `None` = records name it as they do now.
    pub path: Option<Arc<str>>,
    /// The output it had.
    pub output: Option<Arc<str>>,
}

impl Source {
    /// A source with nothing but a key. Callers set the rest, so that a new fact needs no change here but a default.
    pub fn new(id: StreamId, key: StreamKey) -> Source {
        Source {
            id,
            key,
            container: None,
            path: None,
            continues: Rare::default(),
            labels: Rare::default(),
            outlet: Outlet::default(),
            pipeline: None,
            pipeline_labels: Rare::default(),
        }
    }
}

/// How the bytes of a message are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageForm {
    /// The bytes as the process wrote them; may be invalid UTF-8.
    Raw,
    /// The inside of a valid JSON string (between its quotes), valid UTF-8. Kept as it stood on disk, so that
    /// json-file to NDJSON needs no unescape and escape.
    JsonEscaped,
}

/// Which of a batch's buffers holds a record's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferKind {
    /// The message is in [`Batch::read`].
    Read,
    /// The message is in [`Batch::made`].
    Made,
    /// The message is in [`Changes::bytes`].
    Changed,
}

/// One line with its metadata: offsets into its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Start of the message within its buffer.
    pub message_start: u32,
    /// Length of the message in its buffer in bytes, without the newline: with its escapes where `form` has some.
    pub message_len: u32,
    /// Start of the RFC 3339 time within the same buffer.
    pub time_start: u32,
    /// Length of the time in bytes; 0 = the source has none, use [`Batch::read_time`].
    pub time_len: u8,
    /// Which output it came from.
    pub std_type: StdType,
    /// How to read the message.
    pub form: MessageForm,
    /// Which buffer message and time are in.
    pub place: BufferKind,
    /// The line was longer than `line_bytes_max` and was cut there.
    pub truncated: bool,
    /// The line had no end yet when it was delivered. Its rest, if any comes, is the next record of its source.
    pub partial: bool,
    /// The rest of a line of which a part was delivered before.
    pub continued: bool,
}

impl Record {
    /// The record is cut, partial or a continuation: not one whole line as it was written.
    pub fn is_marked(&self) -> bool {
        self.truncated || self.partial || self.continued
    }
}

/// Records of one stream, in order, with what they point into and where to resume after them.
#[derive(Debug)]
pub struct Batch {
    /// The stream that the records belong to.
    pub source: Arc<Source>,
    /// Number among the stream's batches in this run, from 1 on without gaps.
    pub seq: u64,
    /// The buffer as read from the kernel.
    pub read: Vec<u8>,
    /// Bytes the decoder had to make: joined pieces, repaired text.
    pub made: Vec<u8>,
    /// The records, in the order they are to be delivered.
    pub records: Vec<Record>,
    /// RFC 3339 time at which the batch was read, for records without a time of their own.
    pub read_time: String,
    /// Where to resume once this batch is acknowledged.
    pub end: Cursor,
    /// Bytes of the source that this batch accounts for (records, framing, skipped bytes).
    pub source_bytes: u64,
    /// The stream's last batch in this run: lines that a pipeline's steps hold back are delivered with it.
    pub last: bool,
    /// What a pipeline made of the batch; `None` = it is as captured. If set, `read` and `made` are empty and the
    /// original batch has them.
    pub changes: Option<Box<Changes>>,
}

impl Batch {
    /// The buffer that holds a record's bytes.
    pub fn buffer(&self, record: &Record) -> &[u8] {
        let changes = self.changes.as_deref();
        match record.place {
            BufferKind::Read => changes.map_or(&self.read, |changes| &changes.original.read),
            BufferKind::Made => changes.map_or(&self.made, |changes| &changes.original.made),
            BufferKind::Changed => changes.map_or(&[], |changes| &changes.bytes),
        }
    }

    /// A record's message as it stands in the buffer, to be read by [`Record::form`].
    pub fn message(&self, record: &Record) -> &[u8] {
        let start = record.message_start as usize;
        &self.buffer(record)[start..start + record.message_len as usize]
    }

    /// What a pipeline added to the record with this index.
    pub fn extra(&self, index: usize) -> Option<&Extra> {
        self.changes.as_deref()?.extras.get(index).filter(|extra| !extra.is_empty())
    }

    /// The record's time, RFC 3339.
    pub fn time(&self, record: &Record) -> &[u8] {
        if record.time_len == 0 {
            return self.read_time.as_bytes();
        }
        let start = record.time_start as usize;
        &self.buffer(record)[start..start + record.time_len as usize]
    }
}

/// A sink's receipt: everything up to and including this batch is safe with it.
#[derive(Debug)]
pub struct Ack {
    /// Number of the sink.
    pub sink: SinkId,
    /// The batch, returned so that its buffers can be used again.
    pub batch: Arc<Batch>,
    /// The state of the output, which the checkpoint must save together with the batch's cursor.
    pub mark: Option<OutputMark>,
    /// What was delivered of a batch that a pipeline changed; `None` = all of it, as captured.
    pub delivered: Option<Amount>,
}

/// Lines, and the bytes of their messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of lines.
    pub lines: u64,
    /// Number of bytes.
    pub bytes: u64,
}

impl Amount {
    /// The lines and bytes of a batch.
    pub fn of(batch: &Batch) -> Amount {
        let bytes = batch.records.iter().map(|record| u64::from(record.message_len)).sum();
        Amount { lines: batch.records.len() as u64, bytes }
    }
}

/// Index of a sink among those configured, fixed for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SinkId(pub u8);

/// A group of sinks that read together: each gets every batch of a stream, and reading waits for the slowest of the
/// group but for no sink outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// Number of the group.
    pub index: u8,
    /// One bit per sink.
    sinks: u64,
}

impl Outlet {
    /// A group of these sinks.
    pub fn new(index: u8, sinks: impl Iterator<Item = SinkId>) -> Outlet {
        Outlet { index, sinks: sinks.fold(0, |bits, sink| bits | 1 << sink.0) }
    }

    /// The sink with the lowest number.
    pub fn first(self) -> SinkId {
        SinkId(self.sinks.trailing_zeros() as u8)
    }

    /// Whether a sink belongs to the group.
    pub fn contains(self, sink: SinkId) -> bool {
        self.sinks & 1 << sink.0 != 0
    }
}

impl Default for Outlet {
    /// The only group, of all sinks.
    fn default() -> Outlet {
        Outlet { index: 0, sinks: u64::MAX }
    }
}

/// The state of one output file after a batch was written. A restart looks at what the file has behind it: those
/// records were written after the checkpoint and are not written again when their source is read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputMark {
    /// Path relative to the sink's directory.
    pub path: Arc<str>,
    /// Identifies the file. Checkpoints of early versions had no birth time here.
    #[serde(flatten)]
    pub file: FileId,
    /// Length in bytes that the acknowledged records fill.
    pub len_bytes: u64,
    /// Prints of the first and last of those bytes. They tell a file that grew from one that was emptied and filled
    /// again, and recognize a file whose inode number changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub print: Option<OutputPrint>,
    /// Records within `len_bytes` that their source's position does not cover yet: they were behind the mark when this
    /// run began, and their source has not been read that far again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncovered: Vec<Uncovered>,
}

impl OutputMark {
    /// Whether a restart would need this file unchanged.
    pub fn names(&self, file: FileId) -> bool {
        self.file.can_be(file) || self.uncovered.iter().any(|part| part.file.can_be(file))
    }
}

/// Prints of an output at both ends of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPrint {
    /// Of the first bytes of the file.
    pub head: HeadPrint,
    /// Of the last bytes before the end of the mark.
    pub tail: HeadPrint,
}

/// Records of one source in part of an output, see [`OutputMark::uncovered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovered {
    /// Hash of the source's name in the records, or of the output's path if they name none.
    pub source: u64,
    /// The file they are in.
    #[serde(flatten)]
    pub file: FileId,
    /// Offset of the first of them.
    pub from: u64,
    /// Upper bound of the end of the last of them.
    pub to: u64,
    /// When a restart first found them, in seconds since 1970.
    pub since_s: u64,
}

/// What a saved checkpoint holds of all outputs: per sink, per path.
pub type OutputMarks = BTreeMap<String, BTreeMap<Arc<str>, OutputMark>>;

/// What a saved checkpoint says of outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedMarks {
    /// All outputs, or those that changed since the save before.
    pub outputs: OutputMarks,
    /// Outputs that the checkpoint no longer has; `None` = `outputs` has all.
    pub gone: Option<BTreeMap<String, BTreeSet<String>>>,
}

impl SavedMarks {
    /// The mark of a sink's output: outer `None` = unchanged since the save before, inner `None` = the checkpoint has
    /// no mark of it.
    pub fn of(&self, sink: &str, path: &str) -> Option<Option<&OutputMark>> {
        let mark = self.outputs.get(sink).and_then(|outputs| outputs.get(path));
        let is_told = match &self.gone {
            None => true,
            Some(gone) => mark.is_some() || gone.get(sink).is_some_and(|paths| paths.contains(path)),
        };
        is_told.then_some(mark)
    }
}
