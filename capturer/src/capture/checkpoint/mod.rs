//! The checkpoint: for every stream where each sink is, and for every output file how long it was then.
//!
//! ```text
//! sinks ── Ack(seq, cursor, mark) ─▶ tracker.rs ── Checkpoint ─▶ encode ─▶ store.rs ─▶ data_dir/checkpoint.json
//!                                        ▲                                                      │
//!                                        └──────────── Checkpoint ◀──── decode ◀────────────────┘
//! ```
//! The file is one header line and a JSON body with one stream a line, so that a person can read it and `grep` finds
//! a container:
//! ```text
//! capturer-checkpoint v2 crc32=0f1e2d3c bytes=449
//! {"seq":4711,"clean":false,"saved_s":1795305168,"streams":{
//! "container:4f5…":{"local_file":{"rank":0,"cursor":{"kind":"file",…},"output":"web-1.ndjson"}}
//! },"outputs":{
//! "local_file":{
//! "web-1.ndjson":{"path":"web-1.ndjson","device":2049,"inode":77,"birth_ns":1795305168162820305,"len_bytes":1048576}
//! }
//! }}
//! ```
//! The sum covers the version and the length too, so a flipped bit anywhere is damage, never another version.
//!
//! Cursors and marks are saved together on purpose: a restart reads on from the cursors and passes over what stands in
//! the outputs behind their marks, so nothing is repeated. Any older checkpoint is as consistent as the newest, only
//! longer ago.
//!
//! Beside it stands what changed since it was saved, if there are many streams (changes.rs), and what is remembered of files
//! that nobody reads now (memory.rs, journal.rs).
//!
//! Not here: what happens to the file on disk (store.rs, and saver.rs for one after the other), and when it is saved
//! (capture).

mod by_sink;
pub(crate) mod changes;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
pub(crate) mod journal;
mod lines;
pub(crate) mod memory;
pub(crate) mod tracker;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::CHECKPOINT_BYTES_MAX;
use crate::model::cursor::Cursor;
use crate::model::record::{OutputMarks, StreamKey};
use crate::settings::Remember;

pub use by_sink::BySink;
pub use changes::Removed;

const MAGIC: &str = "capturer-checkpoint";
const VERSION: u32 = 2;
/// Before it there was no table of files read, and no print of what stands before a position. What it says is taken over.
const VERSION_BEFORE: u32 = 1;
/// The longest header: name, version, sum and length in full.
const HEADER_BYTES: usize = MAGIC.len() + 64;

/// All that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Number of the save.
    #[serde(default)]
    pub seq: u64,
    /// It was saved at the end of a run: nothing was delivered after it.
    #[serde(default)]
    pub clean: bool,
    /// When it was saved, seconds since 1970; 0 = nobody knows.
    #[serde(default)]
    pub saved_s: u64,
    /// Every stream that is not finished for good.
    pub streams: BTreeMap<StreamKey, StreamEntry>,
    /// Sink name → path → state of the output at the time of these cursors.
    pub outputs: OutputMarks,
    /// What is remembered of files and of logs that nobody reads: all of it when loaded, what changed when saved.
    #[serde(skip)]
    pub memory: memory::Logs,
    /// How much of it is kept.
    #[serde(skip)]
    pub remember: Remember,
    /// It holds only what changed since the save before, but for these, which went; `None` = it is whole.
    #[serde(skip)]
    pub changes: Option<Removed>,
    /// It is whole, and the saves after it may be of what changed.
    #[serde(skip)]
    pub changes_follow: bool,
}

impl Checkpoint {
    /// Whether a sink has a position behind the beginning of some source.
    pub(crate) fn has_lines_for(&self, sink: &str) -> bool {
        let begins = |cursor: &Cursor| match cursor {
            Cursor::Beginning => true,
            Cursor::File(cursor) => cursor.offset == 0,
            Cursor::Api(_) => false,
        };
        let mut of_sink = self.streams.values().filter_map(|entry| entry.sinks.get(sink));
        of_sink.any(|of_sink| !begins(&of_sink.cursor))
    }

    /// What stood behind the positions may have been delivered after this was saved: if it is gone, nobody knows whether it
    /// is lost.
    pub(crate) fn forget_lengths(&mut self) {
        for sink in self.streams.values_mut().flat_map(|entry| entry.sinks.values_mut()) {
            if let Cursor::File(cursor) = &mut sink.cursor {
                Arc::make_mut(cursor).len = 0;
            }
        }
    }
}

/// One stream: where each sink is, by the sink's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamEntry {
    /// Sink name → position.
    pub sinks: BySink<SinkCursor>,
}

/// Where one sink is within one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkCursor {
    /// Order among the sinks of this stream: 0 = furthest behind, equal = equally far. Cursors themselves can't be
    /// compared (which of two files is older?), the order of acknowledgements can.
    pub rank: u32,
    /// Where this sink wants to go on.
    pub cursor: Cursor,
    /// The output the stream's records go to, if the sink has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<str>>,
    /// When the log was looked at last, seconds since 1970, if the run that saved this has not come to it yet; `None` = that
    /// run looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_s: Option<u64>,
}

impl StreamEntry {
    /// The position furthest behind, from which every sink gets all it lacks.
    pub fn lowest(&self) -> Option<&SinkCursor> {
        self.sinks.values().min_by_key(|sink| sink.rank)
    }
}

/// Why bytes are not a checkpoint that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The first line is not ours.
    #[error("not a checkpoint: it does not begin with \"{MAGIC} v…\"")]
    NotACheckpoint,
    /// Intact, but of a version this program can't read.
    #[error("written in format v{0}, this program reads v{VERSION}: a newer capturer made it")]
    Version(u32),
    /// Fewer bytes than the header says.
    #[error("cut short: {found} of {expected} bytes")]
    Truncated {
        /// Bytes of body the header promises.
        expected: u64,
        /// Bytes of body there are.
        found: u64,
    },
    /// More bytes than the header says, or more than is ever written.
    #[error("too long: {found} bytes where {expected} are right")]
    TooLong {
        /// Bytes of body the header promises, or the limit.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The sum does not match.
    #[error("damaged: the checksum is {found:08x}, the header says {expected:08x}")]
    Checksum {
        /// As in the header.
        expected: u32,
        /// The sum computed from what is in the file.
        found: u32,
    },
    /// The sum matches but the content does not make sense.
    #[error("not understood")]
    Json(#[source] serde_json::Error),
}

/// The bytes to save. Streams and outputs stand a line each.
pub fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    // Of tens of thousands of streams it takes megabytes: there is one copy, behind room for the header.
    let mut body = Vec::with_capacity(HEADER_BYTES + 512 * (checkpoint.streams.len() + 1));
    body.resize(HEADER_BYTES, b' ');
    body.extend_from_slice(b"{\"seq\":");
    json(&mut body, &checkpoint.seq);
    body.extend_from_slice(b",\"clean\":");
    json(&mut body, &checkpoint.clean);
    body.extend_from_slice(b",\"saved_s\":");
    json(&mut body, &checkpoint.saved_s);
    body.extend_from_slice(b",\"streams\":{");
    entries(&mut body, &checkpoint.streams, json);
    body.extend_from_slice(b"},\"outputs\":{");
    entries(&mut body, &checkpoint.outputs, |body, marks| {
        body.push(b'{');
        entries(body, marks, json);
        body.push(b'}');
    });
    body.extend_from_slice(b"}}\n");

    let text = &body[HEADER_BYTES..];
    let header = header(VERSION, checksum(VERSION, text), text.len() as u64);
    let begin = HEADER_BYTES - header.len();
    body[begin..HEADER_BYTES].copy_from_slice(&header);
    body.drain(..begin);
    body
}

fn entries<K: Serialize, V>(body: &mut Vec<u8>, map: &BTreeMap<K, V>, value: impl Fn(&mut Vec<u8>, &V)) {
    for (index, (key, entry)) in map.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"\n" } else { b",\n" });
        json(body, key);
        body.push(b':');
        value(body, entry);
    }
    if !map.is_empty() {
        body.push(b'\n');
    }
}

fn json<T: Serialize>(body: &mut Vec<u8>, value: &T) {
    // Plain structs of strings and integers into memory: there is nothing that could fail.
    serde_json::to_writer(body, value).expect("a checkpoint entry is plain data");
}

/// The checkpoint in `bytes`, which must be exactly what [`encode`] gave.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    if bytes.len() > CHECKPOINT_BYTES_MAX {
        return Err(CheckpointError::TooLong {
            expected: CHECKPOINT_BYTES_MAX as u64,
            found: bytes.len() as u64,
        });
    }
    let (version, expected_sum, expected_len, body) =
        read_header(bytes).ok_or(CheckpointError::NotACheckpoint)?;
    let found_len = body.len() as u64;
    if found_len < expected_len {
        return Err(CheckpointError::Truncated { expected: expected_len, found: found_len });
    }
    if found_len > expected_len {
        return Err(CheckpointError::TooLong { expected: expected_len, found: found_len });
    }
    let found_sum = checksum(version, body);
    if found_sum != expected_sum {
        return Err(CheckpointError::Checksum { expected: expected_sum, found: found_sum });
    }
    if version != VERSION && version != VERSION_BEFORE {
        return Err(CheckpointError::Version(version));
    }
    serde_json::from_slice(body).map_err(CheckpointError::Json)
}

pub(crate) fn header(version: u32, sum: u32, len: u64) -> Vec<u8> {
    let mut line = Vec::with_capacity(80);
    writeln!(line, "{MAGIC} v{version} crc32={sum:08x} bytes={len}").expect("a Vec takes every write");
    line
}

/// Version, sum, length, body. Strict: the line must be the very one [`header`] makes of its values, so that no two
/// spellings mean the same.
fn read_header(bytes: &[u8]) -> Option<(u32, u32, u64, &[u8])> {
    let head = &bytes[..bytes.len().min(128)];
    let end = head.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&head[..end]).ok()?;
    let mut words = line.strip_prefix(MAGIC)?.strip_prefix(" v")?.split(' ');
    let version = words.next()?.parse().ok()?;
    let sum = u32::from_str_radix(words.next()?.strip_prefix("crc32=")?, 16).ok()?;
    let len = words.next()?.strip_prefix("bytes=")?.parse().ok()?;
    let (line, body) = bytes.split_at(end + 1);
    (line == header(version, sum, len)).then_some((version, sum, len, body))
}

pub(crate) fn checksum(version: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(format!("v{version} bytes={}\n", body.len()).as_bytes());
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::cursor::{ApiCursor, ChannelMark, FileCursor, FileId, FilePlace, HeadPrint, TailPrint};
    use crate::model::record::OutputMark;

    pub(crate) fn file_cursor(offset: u64) -> Cursor {
        Cursor::File(Arc::new(FileCursor {
            len: offset,
            lines: ApiCursor { last_ns: offset as i64, ..ApiCursor::default() }.into(),
            skip_delivered: [ChannelMark { time_ns: 3, count: 1 }, ChannelMark::default()].into(),
            ..FileCursor::at(FilePlace {
                file: FileId { device: 2049, inode: 77, birth_ns: 1_700_000_000_123_456_789 },
                head: HeadPrint { len_bytes: 1024, crc32: 0xdead_beef },
                tail: TailPrint { end: offset, len_bytes: 100, crc32: 0xcafe },
                offset,
                skip: [0, 0],
            })
        }))
    }

    pub(crate) fn mark(path: &str, len_bytes: u64) -> OutputMark {
        let file = FileId { device: 1, inode: 2, birth_ns: 3 };
        OutputMark { path: path.into(), file, len_bytes, ..OutputMark::default() }
    }

    pub(crate) fn sample() -> Checkpoint {
        let sink = |rank, cursor, output: Option<&str>| SinkCursor {
            rank,
            cursor,
            output: output.map(Into::into),
            looked_s: (rank == 1).then_some(1_795_300_000),
        };
        let mut checkpoint =
            Checkpoint { seq: 4711, clean: true, saved_s: 1_795_305_168, ..Checkpoint::default() };
        checkpoint.streams.insert(
            StreamKey::container("4f5"),
            StreamEntry {
                sinks: BySink::from_iter([
                    ("local_file".into(), sink(0, file_cursor(4096), Some("web.ndjson"))),
                    ("stdout".into(), sink(1, file_cursor(8192), None)),
                ]),
            },
        );
        checkpoint.streams.insert(
            StreamKey::file("/var/log/a \"b\"\n.log"),
            StreamEntry {
                sinks: BySink::from_iter([
                    ("local_file".into(), sink(0, Cursor::Api(Box::default()), None)),
                    ("stdout".into(), sink(0, Cursor::Beginning, None)),
                ]),
            },
        );
        checkpoint.outputs.insert(
            "local_file".to_owned(),
            BTreeMap::from([("web.ndjson".into(), mark("web.ndjson", 1 << 40))]),
        );
        checkpoint
    }

    /// Encoding names the fields one by one. One that it left out was never saved, and nobody noticed.
    #[test]
    fn what_is_encoded_is_decoded_and_can_be_read() {
        let none = Checkpoint::default();
        let Checkpoint { seq, clean, saved_s, streams, outputs, .. } = sample();
        let Checkpoint { memory: _, remember: _, changes: _, changes_follow: _, .. } = &none;
        let differs = [seq != none.seq, clean != none.clean, saved_s != none.saved_s];
        assert_eq!(differs, [true; 3]);
        assert!(streams != none.streams && outputs != none.outputs);
        for checkpoint in [Checkpoint::default(), sample()] {
            let bytes = encode(&checkpoint);
            assert_eq!(decode(&bytes).unwrap(), checkpoint);
        }
        let text = String::from_utf8(encode(&sample())).unwrap();
        // One line for the header, each stream and each output can be found by its line.
        assert!(text.starts_with("capturer-checkpoint v2 crc32="));
        assert_eq!(text.lines().filter(|line| line.starts_with("\"container:4f5\":{")).count(), 1);
        assert_eq!(text.lines().count(), 9, "{text}");
    }

    /// A field that gets another name here must keep its name there: who upgrades must not get everything again.
    #[test]
    fn fields_of_a_position_keep_their_names_on_disk() {
        let Cursor::File(cursor) = file_cursor(4096) else { panic!("another kind") };
        let FileCursor { file, head, tail, offset, .. } = *cursor;
        let full = FileCursor {
            is_copy: true,
            ended: true,
            skip: [1, 0],
            reached: vec![FilePlace { file, head, tail, offset, skip: [0, 0] }].into(),
            split: 1,
            at: "/var/log/a".to_owned().into(),
            ..(*cursor).clone()
        };
        let json = serde_json::to_value(Cursor::File(Arc::new(full))).unwrap();
        let mut names: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        let of_old = "at ended file head is_copy kind len lines offset passing reached skip split tail";
        assert_eq!(names.join(" "), of_old);
    }

    /// As commit 9935078 wrote it: who upgrades must not get everything again.
    #[test]
    fn a_checkpoint_of_the_version_before_is_taken_over() {
        let body = concat!(
            r#"{"streams":{"file:/a.log":{"local_file":{"rank":0,"cursor":{"kind":"file","#,
            r#""file":{"device":2049,"inode":77,"birth_ns":5},"head":{"len_bytes":9,"crc32":1},"offset":42,"#,
            r#""reached":{"file":{"device":2049,"inode":78},"head":{"len_bytes":9,"crc32":1},"offset":7}},"#,
            r#""output":"a.ndjson"}}},"outputs":{}}"#
        );
        let bytes =
            [header(1, checksum(1, body.as_bytes()), body.len() as u64), body.as_bytes().to_vec()].concat();
        let checkpoint = decode(&bytes).unwrap();
        let Cursor::File(cursor) = &checkpoint.streams[&StreamKey::file("/a.log")].lowest().unwrap().cursor
        else {
            panic!("it is a file's")
        };
        assert_eq!((cursor.offset, cursor.reached[0].offset, cursor.tail), (42, 7, TailPrint::default()));
        assert_eq!(checkpoint.seq, 0);
    }

    #[test]
    fn the_stream_resumes_from_the_sink_furthest_behind() {
        let sample = sample();
        let entry = &sample.streams[&StreamKey::container("4f5")];
        assert_eq!(entry.lowest().unwrap().cursor, file_cursor(4096));
        assert_eq!(StreamEntry::default().lowest(), None);
    }

    /// Without this a damaged checkpoint could be believed, and lines skipped.
    #[test]
    fn no_cut_and_no_flipped_bit_is_believed() {
        let bytes = encode(&sample());
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[index] ^= 1 << bit;
                let error = decode(&flipped).expect_err(&format!("byte {index} bit {bit}"));
                assert!(!matches!(error, CheckpointError::Version(_)), "byte {index} bit {bit}: {error}");
            }
        }
        let mut longer = bytes.clone();
        longer.push(b'\n');
        assert!(matches!(decode(&longer), Err(CheckpointError::TooLong { .. })));
        assert!(matches!(decode(&vec![0; bytes.len()]), Err(CheckpointError::NotACheckpoint)));
        assert!(matches!(decode(b""), Err(CheckpointError::NotACheckpoint)));
    }

    #[test]
    fn each_fault_has_its_name() {
        let bytes = encode(&sample());
        assert!(matches!(decode(&bytes[..bytes.len() - 1]), Err(CheckpointError::Truncated { .. })));
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() = b' ';
        assert!(matches!(decode(&damaged), Err(CheckpointError::Checksum { .. })));
        let newer = [header(7, checksum(7, b"xyz"), 3), b"xyz".to_vec()].concat();
        assert!(matches!(decode(&newer), Err(CheckpointError::Version(7))));
        let odd = [header(2, checksum(2, b"[]"), 2), b"[]".to_vec()].concat();
        assert!(matches!(decode(&odd), Err(CheckpointError::Json(_))));
        let upper = String::from_utf8(bytes).unwrap().replacen("crc32=", "crc32=0", 1);
        assert!(matches!(decode(upper.as_bytes()), Err(CheckpointError::NotACheckpoint)));
    }
}
