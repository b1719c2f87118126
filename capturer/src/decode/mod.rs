//! Decoders: bytes in, items out. They read nothing, know no clock, write no log, and allocate nothing by a length that
//! somebody else declared. Each does one step:
//!
//! ```text
//! file, docker  bytes ─▶ json_line ─▶ piece ┐
//! file, cri     bytes ─▶ cri ──────▶ piece ┤
//! file, raw     bytes ─▶ line ─────▶ piece ─┼─▶ assemble (pieces of long lines, cutting; multiline) ─▶ records of a batch
//! api           bytes ─▶ stdcopy ─▶ stamped ─▶ piece ┘        (a TTY container has no frames: tty)
//! ```
//!
//! All of them look at one contiguous buffer and return offsets into it ([`Step`]). The caller keeps incomplete bytes
//! and reads on (from a socket) or reads again (from a file). So no decoder holds bytes.

pub(crate) mod assemble;
pub(crate) mod binary;
pub(crate) mod cri;
pub(crate) mod damage;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
pub(crate) mod inotify;
pub(crate) mod json_line;
pub(crate) mod line;
mod lines;
pub(crate) mod multiline;
pub(crate) mod stdcopy;
pub(crate) mod text;
pub(crate) mod timestamp;
pub(crate) mod tty;
pub(crate) mod utf8;
pub(crate) mod work;

use std::ops::Range;

use crate::model::record::{MessageForm, StdType};

/// What a decoder found at the start of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// An item, and how many bytes it took.
    Item(T, usize),
    /// The item is not complete yet. Not an error.
    NeedMore,
    /// These bytes are not valid: skip this many (at least one) and go on.
    Reject(DecodeError, usize),
}

/// Why bytes were rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A line in a file of records that is not exactly one record: torn, or two glued together.
    #[error("not a whole record")]
    TornRecord,
    /// NUL bytes where a record should be: the hole that a truncate from outside leaves.
    #[error("a hole of NUL bytes")]
    NulHole,
    /// Longer than [`crate::limits::RECORD_BYTES_MAX`].
    #[error("a record longer than the limit")]
    RecordTooLong,
    /// A frame header with an unknown type, or a size that no Engine sends.
    #[error("not a stdcopy frame")]
    FrameInvalid,
    /// A message that does not begin with a readable time.
    #[error("no time before the message")]
    NoTime,
}

/// A line, or a piece of a long one, as offsets into the caller's buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The message bytes, without the final newline.
    pub text: Range<usize>,
    /// The RFC 3339 time; empty if the source has none.
    pub time: Range<usize>,
    /// How to read the message.
    pub form: MessageForm,
    /// Message bytes after unescaping.
    pub decoded_len: usize,
    /// Whether it was written to stdout or stderr.
    pub std_type: StdType,
    /// The line ends with this piece, by a newline or a tag. Otherwise more of the line may follow.
    pub complete: bool,
}
