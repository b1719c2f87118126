//! Raw lines: every newline ends a message. A long one comes in pieces, which are joined up to `line_bytes_max` and passed
//! over beyond it.
//!
//! A hole of NULs, which an outside truncate or a power cut leaves, is no part of a line: it is skipped at a line's
//! beginning, and a long one ends the line it stands in.

use super::damage::{self, HOLE_BYTES_MIN};
use super::{DecodeError, Piece, Step, work};
use crate::limits::LINE_PIECE_BYTES;
use crate::model::record::{MessageForm, StdType};

/// What is known of the bytes that a line is looked for in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// A buffer that holds them has NULs.
    pub nuls: bool,
    /// They go on within a line.
    pub within: bool,
}

/// The first line of `bytes`, newline included in what it takes.
pub fn next_line(bytes: &[u8], known: Known) -> Step<Piece> {
    next_line_up_to(bytes, known, LINE_PIECE_BYTES)
}

/// As [`next_line`], in pieces of this size.
pub fn next_line_up_to(bytes: &[u8], known: Known, piece_bytes: usize) -> Step<Piece> {
    if known.nuls {
        let nuls = damage::leading_nuls(bytes);
        if nuls > 0 && (!known.within || nuls >= HOLE_BYTES_MIN) {
            return Step::Reject(DecodeError::NulHole, nuls);
        }
        return next_among_holes(near(bytes, piece_bytes), nuls, piece_bytes);
    }
    match damage::newline(near(bytes, piece_bytes)) {
        Some(end) if end <= piece_bytes => Step::Item(piece(end, true), end + 1),
        end => part(near(bytes, piece_bytes), piece_bytes, end.is_some()),
    }
}

/// As much as says where a piece ends, so that no byte is looked at for each piece before it.
fn near(bytes: &[u8], piece_bytes: usize) -> &[u8] {
    &bytes[..bytes.len().min(piece_bytes + HOLE_BYTES_MIN)]
}

/// One pass up to a newline or a hole, so that many holes in a line cost no more than one.
fn next_among_holes(bytes: &[u8], mut at: usize, piece_bytes: usize) -> Step<Piece> {
    while let Some(run) = memchr::memchr2(b'\n', 0, &bytes[at..]) {
        let end = at + run;
        work::add(run);
        if end > piece_bytes {
            return part(bytes, piece_bytes, true);
        }
        let nuls = damage::leading_nuls(&bytes[end..]);
        if nuls == 0 {
            return Step::Item(piece(end, true), end + 1);
        }
        if nuls >= HOLE_BYTES_MIN {
            return Step::Item(piece(end, true), end);
        }
        at = end + nuls;
    }
    work::add(bytes.len() - at);
    part(bytes, piece_bytes, false)
}

/// The line does not end within a piece. It is the same piece however much is there, so that where a line is cut does not
/// depend on how its bytes come. `no_hole`: the piece is known not to end within a hole.
fn part(bytes: &[u8], piece_bytes: usize, no_hole: bool) -> Step<Piece> {
    if !no_hole && bytes.len() < piece_bytes + HOLE_BYTES_MIN {
        return Step::NeedMore;
    }
    // A run of NULs is judged as one.
    let nuls = bytes[..piece_bytes].iter().rev().take_while(|byte| **byte == 0).count();
    let end = piece_bytes - nuls.min(piece_bytes - 1);
    Step::Item(piece(end, false), end)
}

/// What is left at the end of a file that will not grow: a last line without newline.
pub fn last_line(bytes: &[u8]) -> Option<Piece> {
    (!bytes.is_empty()).then(|| piece(bytes.len(), true))
}

pub(super) fn piece(len: usize, complete: bool) -> Piece {
    Piece {
        text: 0..len,
        time: 0..0,
        form: MessageForm::Raw,
        decoded_len: len,
        std_type: StdType::Stdout,
        complete,
    }
}
