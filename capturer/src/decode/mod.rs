//! Decoders: bytes in, items out. They read nothing, know no clock, write no log, and allocate nothing by a length
//! that somebody else declared. Each does one step:
//!
//! ```text
//! file, docker  bytes ─▶ json_line ─▶ piece ┐
//! file, cri     bytes ─▶ cri ──────▶ piece ┤
//! file, raw     bytes ─▶ line ─────▶ piece ─┼─▶ assemble (pieces of long lines, cutting; multiline) ─▶ records of a batch
//! api           bytes ─▶ stdcopy ─▶ stamped ─▶ piece ┘        (a TTY container has no frames: tty)
//! ```
//!
//! All of them look at one contiguous buffer and answer with offsets into it ([`Step`]); what is incomplete stays
//! with the caller, who reads on (from a socket) or reads again (from a file). So no decoder holds bytes.

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

/// What a decoder found at the start of the bytes it was given.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// An item; it took this many bytes.
    Item(T, usize),
    /// Not yet whole. Not an error.
    NeedMore,
    /// Not what it should be: skip this many bytes (at least one) and go on.
    Reject(DecodeError, usize),
}

/// Why bytes were rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A line of a file of records that is not one whole record: torn, or two glued together.
    #[error("not a whole record")]
    TornRecord,
    /// NUL bytes where a record should be: the hole that an outside truncate leaves.
    #[error("a hole of NUL bytes")]
    NulHole,
    /// Longer than [`crate::limits::RECORD_BYTES_MAX`].
    #[error("a record longer than the limit")]
    RecordTooLong,
    /// A frame header of an unknown type, or of a size nobody sends.
    #[error("not a stdcopy frame")]
    FrameInvalid,
    /// A message without a readable time in front.
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
    /// A newline, or its tag, ended it. If not, more of the line may follow.
    pub complete: bool,
}
