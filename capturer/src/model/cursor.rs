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
    /// A position in a file. Shared, since a stream, the tracker and the row shown mostly hold the same one.
    File(Arc<FileCursor>),
    /// A position in what the Engine's API returns. Boxed, so that `Cursor` is small.
    Api(Box<ApiCursor>),
}

impl Cursor {
    /// Takes `done` out of the position, and copies the position only if `done` has files.
    pub fn take_done(&mut self) -> Vec<FilePlace> {
        match self {
            Cursor::File(cursor) if !cursor.done.is_empty() => Arc::make_mut(cursor).done.take(),
            _ => Vec::new(),
        }
    }
}

/// Identity of a file: it survives renames, and its birth time tells a reused inode number from the file that had it
/// before. (After three of Docker's rotations 70 of 73 inode numbers had been used again.)
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
    /// The fields that `of` needs from statx.
    pub const ASKED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    /// From statx's answer.
    pub fn of(stat: &Statx) -> FileId {
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let birth = stat.stx_btime;
        let birth_ns = if has_birth { birth.tv_sec * 1_000_000_000 + i64::from(birth.tv_nsec) } else { 0 };
        // Without a disk (major 0) the device number changes at each mount, so it is no part of the identity.
        let of_disk = stat.stx_dev_major != 0;
        let device = if of_disk { rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor) } else { 0 };
        FileId { device, inode: stat.stx_ino, birth_ns }
    }

    /// When the file's content last changed, nanoseconds since 1970.
    pub fn modified_ns(stat: &Statx) -> i64 {
        let at = stat.stx_mtime;
        at.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(at.tv_nsec))
    }

    /// True unless something known of the two shows that they are different files.
    pub fn can_be(self, other: FileId) -> bool {
        let births_differ = self.birth_ns != other.birth_ns && self.birth_ns != 0 && other.birth_ns != 0;
        (self.device, self.inode) == (other.device, other.inode) && !births_differ
    }
}

/// CRC-32 of a file's first bytes. It recognizes a file whose inode changed: Docker's `compress` writes `.1.gz` as a
/// new file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadPrint {
    /// How many bytes it covers, at most [`crate::limits::HEAD_BYTES`].
    pub len_bytes: u32,
    /// CRC-32 (IEEE) of them.
    pub crc32: u32,
}

/// CRC-32 of the bytes before the end of what was read. Together with the head it tells a file that grew from one that
/// was rewritten, and a copy from another file with the same beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailPrint {
    /// Byte offset of their end.
    pub end: u64,
    /// How many bytes it covers, at most [`crate::limits::TAIL_BYTES`]; 0 = nothing is known.
    pub len_bytes: u32,
    /// CRC-32 (IEEE) of them.
    pub crc32: u32,
}

impl TailPrint {
    /// `bytes` are the last that were read, and end at `end`.
    pub fn of(bytes: &[u8], end: u64) -> TailPrint {
        let tail = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        TailPrint { end, len_bytes: tail.len() as u32, crc32: crc32fast::hash(tail) }
    }

    /// Byte offset of their beginning.
    pub fn begin(&self) -> u64 {
        self.end.saturating_sub(u64::from(self.len_bytes))
    }

    /// Nothing is known of the bytes.
    pub fn is_none(&self) -> bool {
        self.len_bytes == 0
    }

    /// Whether it was made from exactly these bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len_bytes as usize && crc32fast::hash(bytes) == self.crc32
    }
}

/// Each followed file has one, and there may be tens of thousands: what few need is boxed.
const _: () = assert!(size_of::<FileCursor>() <= 144);

/// Resume position in a chain of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCursor {
    /// The file to resume in.
    pub file: FileId,
    /// Print of the file's first bytes.
    pub head: HeadPrint,
    /// Print of the bytes before `offset`.
    #[serde(default, skip_serializing_if = "TailPrint::is_none")]
    pub tail: TailPrint,
    /// Byte offset in `file`; for a compressed file, in its decompressed content.
    pub offset: u64,
    /// The greatest length of `file` that was seen; 0 = not known.
    #[serde(default)]
    pub len: u64,
    /// `file` is a copy of the file to which its lines were written, and may be younger than they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_copy: bool,
    /// The file was read to its end and then removed: whatever happens to its name later loses nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
    /// Per channel: records that start within this many bytes after `offset` (counted on through newer files) were
    /// already delivered. Zero unless a long line is open on the other channel.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: [u64; 2],
    /// Where to resume in the newer files that were read while a line that began in `file` is still open, oldest first.
    /// Used if the older files are gone at the next start. At most [`crate::limits::PLACES_MAX`], the newest.
    #[serde(default, skip_serializing_if = "has_none", deserialize_with = "one_or_many")]
    pub reached: Rare<Vec<FilePlace>>,
    /// The same position as times; only for Docker's logs. The stream continues from it if it is read over the API
    /// next.
    #[serde(default, skip_serializing_if = "ApiCursor::is_none")]
    pub lines: Rare<ApiCursor>,
    /// Per channel: the stream was read over the API before. Lines up to this time, and `count` lines with exactly this
    /// time, are to be skipped. Time 0 = none.
    #[serde(rename = "passing", default, skip_serializing_if = "nothing_to_skip")]
    pub skip_delivered: Rare<[ChannelMark; 2]>,
    /// A line of `file` was delivered, or is being delivered, up to this offset before it ended; 0 = none. When it is
    /// read again it is split at the same byte.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub split: u64,
    /// Path of the file if a link names the stream: the link may lead elsewhere at the next start.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub at: Rare<String>,
    /// Files that could not be read, and what is known of them. At most [`crate::limits::DENIED_MAX`], the newest.
    #[serde(default, skip_serializing_if = "has_no_denied")]
    pub denied: Rare<Vec<DeniedPlace>>,
    /// Files read to their present end since the previous position, and where that end is. Only on the way from a
    /// stream to the tracker, which keeps them in a table of their own.
    #[serde(skip)]
    pub done: Rare<Vec<FilePlace>>,
}

impl FileCursor {
    /// Nothing was read, and only an inode number names the file, which may belong to another file by now.
    pub fn says_nothing(&self) -> bool {
        let is_number_alone = self.file.birth_ns == 0 && self.head.len_bytes == 0;
        let skips_nothing = self.lines.is_none() && nothing_to_skip(&self.skip_delivered);
        is_number_alone && self.offset == 0 && self.reached.is_empty() && skips_nothing
    }

    /// A cursor at a place, with nothing else known.
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
            skip_delivered: Rare::default(),
            split: 0,
            at: Rare::default(),
            denied: Rare::default(),
            done: Rare::default(),
        }
    }

    /// The cursor's own place.
    pub fn place(&self) -> FilePlace {
        FilePlace { file: self.file, head: self.head, tail: self.tail, offset: self.offset, skip: self.skip }
    }
}

/// Early checkpoints had one place or none.
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
    /// The file that was read.
    pub file: FileId,
    /// Print of the file's first bytes.
    pub head: HeadPrint,
    /// Print of the bytes before `offset`.
    #[serde(default, skip_serializing_if = "TailPrint::is_none")]
    pub tail: TailPrint,
    /// Byte offset in `file`.
    pub offset: u64,
    /// As in [`FileCursor`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: [u64; 2],
}

/// A file that could not be read when it was listed last, with bytes behind its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedPlace {
    /// Where it was left.
    pub place: FilePlace,
    /// Its last known name.
    pub name: String,
    /// Its length; of an archive, packed.
    pub len: u64,
}

fn nothing_to_skip(marks: &[ChannelMark; 2]) -> bool {
    marks.iter().all(|mark| mark.time_ns == 0)
}

fn has_no_denied(denied: &[DeniedPlace]) -> bool {
    denied.is_empty()
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

/// Resume position over the API: per channel the newest line delivered. Within a channel the Engine's times never
/// decrease; between the two channels there is no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCursor {
    /// By [`StdType::index`].
    pub channels: [ChannelMark; 2],
    /// By [`StdType::index`]: time of the first piece of a line that is still open, 0 = none. That line must be
    /// requested again.
    #[serde(default)]
    pub open_ns: [i64; 2],
    /// Time of the last line delivered on either channel; 0 = none. Not the greatest: a clock may be set back.
    #[serde(default)]
    pub last_ns: i64,
    /// Time of a delivered line older than the last; 0 = none. If it is in an answer cut to the newest lines (`tail`),
    /// the answer reaches back far enough.
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

    /// The position has no information.
    pub fn is_none(&self) -> bool {
        *self == ApiCursor::default()
    }

    /// The position of a stream that begins with lines newer than this.
    pub fn after(unix_ns: i64) -> ApiCursor {
        let mark = ChannelMark { time_ns: unix_ns, count: 0 };
        ApiCursor { channels: [mark; 2], last_ns: unix_ns, ..ApiCursor::default() }
    }

    /// A line was delivered: false at the beginning, and where a stream was begun at its end.
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
    /// Counts one more delivered line.
    pub fn count_in(&mut self, time_ns: i64) {
        let count = if self.time_ns == time_ns { self.count + 1 } else { 1 };
        *self = ChannelMark { time_ns, count };
    }
}
