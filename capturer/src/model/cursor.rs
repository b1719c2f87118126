//! Where to resume a stream. A cursor is plain data: it is saved in the checkpoint, compared, and handed
//! back to the stream after a restart.
//!
//! Both channels share one source but not one position: a long line may be open on stdout (its first pieces
//! read, its end not yet) while complete stderr lines behind it were delivered. So the position is where the
//! older channel must resume, and `skip` says how far the other one is already done.

use std::sync::Arc;

use rustix::fs::{Statx, StatxFlags};
use serde::{Deserialize, Serialize};

use crate::limits::TAIL_BYTES;
use crate::model::rare::{Begins, Rare};
use crate::model::record::StdType;

/// Resume position of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Cursor {
    /// Nothing was read yet: begin at the oldest record.
    Beginning,
    /// A position in a file. Shared: a stream, the tracker and the row that is shown mostly have the same one.
    File(Arc<FileCursor>),
    /// A position in what the Engine's API returns. Boxed, so that a place for a position is small.
    Api(Box<ApiCursor>),
}

impl Cursor {
    /// Takes the files that were read to their end. Copies the position only if there are any.
    pub fn take_done(&mut self) -> Vec<FilePlace> {
        match self {
            Cursor::File(cursor) if !cursor.done.is_empty() => Arc::make_mut(cursor).done.take(),
            _ => Vec::new(),
        }
    }
}

/// Identity of a file that survives renames and tells a reused inode number from the file it belonged to.
/// (Docker's rotation returned 70 of 73 inode numbers within three rotations.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Device number of its file system.
    pub device: u64,
    /// Inode number on that device.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970; 0 where the file system does not tell (statx without STATX_BTIME).
    #[serde(default)]
    pub birth_ns: i64,
}

impl FileId {
    /// What to ask statx for.
    pub const ASKED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    /// From statx's answer.
    pub fn of(stat: &Statx) -> FileId {
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let birth = stat.stx_btime;
        let birth_ns = if has_birth { birth.tv_sec * 1_000_000_000 + i64::from(birth.tv_nsec) } else { 0 };
        // A file system without a disk of its own gets another number (major 0) each time it is mounted: no identity.
        let of_disk = stat.stx_dev_major != 0;
        let device = if of_disk { rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor) } else { 0 };
        FileId { device, inode: stat.stx_ino, birth_ns }
    }

    /// When the file's content last changed, nanoseconds since 1970.
    pub fn modified_ns(stat: &Statx) -> i64 {
        let at = stat.stx_mtime;
        at.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(at.tv_nsec))
    }

    /// Nothing that is known of the two says that they are different files.
    pub fn can_be(self, other: FileId) -> bool {
        let births_differ = self.birth_ns != other.birth_ns && self.birth_ns != 0 && other.birth_ns != 0;
        (self.device, self.inode) == (other.device, other.inode) && !births_differ
    }
}

/// CRC-32 of a file's first bytes. Recognizes a file whose inode changed: Docker's `compress` writes `.1.gz` anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadPrint {
    /// How many first bytes, at most [`crate::limits::HEAD_BYTES`].
    pub len_bytes: u32,
    /// CRC-32 (IEEE) of them.
    pub crc32: u32,
}

/// CRC-32 of the bytes that end where a file was read to. Together with the head it tells a file that grew from one that
/// was rewritten, and a copy from another file that begins alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailPrint {
    /// Byte offset behind the last of them.
    pub end: u64,
    /// How many, at most [`crate::limits::TAIL_BYTES`]; 0 = nothing is known.
    pub len_bytes: u32,
    /// CRC-32 (IEEE) of them.
    pub crc32: u32,
}

impl TailPrint {
    /// Of the bytes before `end`; `bytes` are the last that were read.
    pub fn of(bytes: &[u8], end: u64) -> TailPrint {
        let tail = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        TailPrint { end, len_bytes: tail.len() as u32, crc32: crc32fast::hash(tail) }
    }

    /// Where the bytes begin.
    pub fn begin(&self) -> u64 {
        self.end.saturating_sub(u64::from(self.len_bytes))
    }

    /// Nothing is known.
    pub fn is_none(&self) -> bool {
        self.len_bytes == 0
    }

    /// Whether these are the bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len_bytes as usize && crc32fast::hash(bytes) == self.crc32
    }
}

/// There is one for each followed file, and tens of thousands of those: what few need is boxed.
const _: () = assert!(size_of::<FileCursor>() <= 144);

/// Resume position in a chain of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCursor {
    /// The file to resume in.
    pub file: FileId,
    /// What its head looks like.
    pub head: HeadPrint,
    /// What stands before where it was read to.
    #[serde(default, skip_serializing_if = "TailPrint::is_none")]
    pub tail: TailPrint,
    /// Byte offset in it; for a compressed file, in its decompressed content.
    pub offset: u64,
    /// The longest length of it that was seen; 0 = not known.
    #[serde(default)]
    pub len: u64,
    /// Its lines were written to another file, of which this is a copy: it may be younger than they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_copy: bool,
    /// It was removed, and had been read to its end: what becomes of its name later takes nothing away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// Per channel: records starting within this many bytes after `offset` (counted on through newer files) were
    /// delivered already. Zero but while a long line is open on the other channel.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: [u64; 2],
    /// If a line is open that began in `file` and reading went on in others: where to go on in each of those, oldest first,
    /// should those before be gone at the next start. At most [`crate::limits::PLACES_MAX`], the newest.
    #[serde(default, skip_serializing_if = "has_none", deserialize_with = "one_or_many")]
    pub reached: Rare<Vec<FilePlace>>,
    /// The same position by times; only of Docker's logs. By it the stream goes on over the API, should it be read from
    /// there next.
    #[serde(default, skip_serializing_if = "ApiCursor::is_none")]
    pub lines: Rare<ApiCursor>,
    /// Per channel: the stream came here from the API, and lines up to this one, `count` of them with its very time, are
    /// still to be passed over. Time 0 = none.
    #[serde(default, skip_serializing_if = "nothing_to_pass")]
    pub passing: Rare<[ChannelMark; 2]>,
    /// A line of `file` is, or was, delivered up to here though its end had not come; 0 = none is. Read again, it is split
    /// at the same byte.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub split: u64,
    /// Path of the file, where the stream is named by a link: that may lead elsewhere at the next start.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub at: Box<str>,
    /// Files that were read to their present end since the position before, and where that is. Only on the way from a
    /// stream to the tracker, which keeps them in a table of their own.
    #[serde(skip)]
    pub done: Rare<Vec<FilePlace>>,
}

impl FileCursor {
    /// Nothing was read, and the number of the file it began with may have come back with another file since.
    pub fn says_nothing(&self) -> bool {
        let is_number_alone = self.file.birth_ns == 0 && self.head.len_bytes == 0;
        let passes_nothing = self.lines.is_none() && nothing_to_pass(&self.passing);
        is_number_alone && self.offset == 0 && self.reached.is_empty() && passes_nothing
    }

    /// At a place of which nothing more is known.
    pub fn at(place: FilePlace) -> FileCursor {
        let FilePlace { file, head, tail, offset, skip } = place;
        FileCursor {
            file,
            head,
            tail,
            offset,
            len: 0,
            is_copy: false,
            ended: false,
            skip,
            reached: Rare::default(),
            lines: Rare::default(),
            passing: Rare::default(),
            split: 0,
            at: Box::default(),
            done: Rare::default(),
        }
    }

    /// The place itself.
    pub fn place(&self) -> FilePlace {
        FilePlace { file: self.file, head: self.head, tail: self.tail, offset: self.offset, skip: self.skip }
    }
}

/// Checkpoints once had one place or none.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Rare<Vec<FilePlace>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Places {
        One(FilePlace),
        Many(Vec<FilePlace>),
    }
    Ok(match Option::<Places>::deserialize(deserializer)? {
        Some(Places::One(place)) => vec![place].into(),
        Some(Places::Many(places)) => places.into(),
        None => Rare::default(),
    })
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlace {
    /// The file that is read.
    pub file: FileId,
    /// What its head looks like.
    pub head: HeadPrint,
    /// What stands before where it was read to.
    #[serde(default, skip_serializing_if = "TailPrint::is_none")]
    pub tail: TailPrint,
    /// Byte offset in it.
    pub offset: u64,
    /// As in [`FileCursor`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: [u64; 2],
}

fn nothing_to_pass(passing: &[ChannelMark; 2]) -> bool {
    passing.iter().all(|mark| mark.time_ns == 0)
}

fn has_none(places: &[FilePlace]) -> bool {
    places.is_empty()
}

fn is_nothing(split: &u64) -> bool {
    *split == 0
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

fn is_zero(skip: &[u64; 2]) -> bool {
    *skip == [0, 0]
}

/// Resume position over the API: per channel the newest line delivered. Within one channel the Engine's times
/// never go back; the two channels are not ordered against each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCursor {
    /// By [`StdType::index`].
    pub channels: [ChannelMark; 2],
    /// By [`StdType::index`]: time of the first piece of the line still open, 0 = none. It must be asked for again.
    #[serde(default)]
    pub open_ns: [i64; 2],
    /// Time of the line delivered last on either channel; 0 = none. Not the greatest: a clock may be set back.
    #[serde(default)]
    pub last_ns: i64,
    /// Time of a delivered line older than the last; 0 = there is none. Asked for again, it shows that an answer cut
    /// to the newest lines (`tail`) reaches back far enough.
    #[serde(default)]
    pub older_ns: i64,
}

impl Begins for ApiCursor {
    const BEGINNING: &'static ApiCursor =
        &ApiCursor { channels: *<[ChannelMark; 2]>::BEGINNING, open_ns: [0; 2], last_ns: 0, older_ns: 0 };
}

impl Begins for [ChannelMark; 2] {
    const BEGINNING: &'static [ChannelMark; 2] = &[ChannelMark { time_ns: 0, count: 0 }; 2];
}

impl ApiCursor {
    /// The mark of one channel.
    pub fn channel(&self, std_type: StdType) -> &ChannelMark {
        &self.channels[std_type.index()]
    }

    /// Time of the oldest line still open.
    pub fn open_since_ns(&self) -> Option<i64> {
        self.open_ns.into_iter().filter(|open| *open > 0).min()
    }

    /// It says nothing at all.
    pub fn is_none(&self) -> bool {
        *self == ApiCursor::default()
    }

    /// The position of a stream that begins with what comes after this time.
    pub fn after(unix_ns: i64) -> ApiCursor {
        let mark = ChannelMark { time_ns: unix_ns, count: 0 };
        ApiCursor { channels: [mark; 2], last_ns: unix_ns, ..ApiCursor::default() }
    }

    /// A line was really delivered: not so at the beginning, and not where a stream was begun at its end.
    pub fn has_lines(&self) -> bool {
        self.channels.iter().any(|mark| mark.count > 0)
    }

    /// Nothing was delivered yet.
    pub fn is_beginning(&self) -> bool {
        self.last_ns == 0
    }
}

/// How far one channel was delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMark {
    /// Time of the newest line delivered, nanoseconds since 1970; 0 = none.
    pub time_ns: i64,
    /// How many lines with exactly that time were delivered.
    pub count: u32,
}

impl ChannelMark {
    /// One more line was delivered.
    pub fn count_in(&mut self, time_ns: i64) {
        let count = if self.time_ns == time_ns { self.count + 1 } else { 1 };
        *self = ChannelMark { time_ns, count };
    }
}
