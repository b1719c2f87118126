//! Raw lines: every newline ends a message. A long line comes in pieces, which are joined up to `line_bytes_max`; the
//! rest is skipped.
//!
//! A hole of NULs, left by a truncate from outside or by a power cut, is not part of a line: at a line's beginning it
//! is skipped, and within a line a long hole ends the line.

use super::damage::{self, HOLE_BYTES_MIN};
use super::{DecodeError, Piece, Step, work};
use crate::limits::LINE_PIECE_BYTES;
use crate::model::record::{MessageForm, StdType};

/// What is known of the bytes in which a line is searched for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// The buffer that holds the bytes has NULs.
    pub nuls: bool,
    /// The bytes continue a line.
    pub within: bool,
}

/// The first line of `bytes`; what it takes includes its newline.
pub fn next_line(bytes: &[u8], known: Known) -> Step<Piece> {
    next_line_up_to(bytes, known, LINE_PIECE_BYTES)
}

/// As [`next_line`], in pieces of at most `piece_bytes`.
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

/// The bytes that decide where a piece ends, so that no byte is looked at again for each piece before it.
fn near(bytes: &[u8], piece_bytes: usize) -> &[u8] {
    &bytes[..bytes.len().min(piece_bytes + HOLE_BYTES_MIN)]
}

/// Searches in one pass for a newline or a hole, so that many holes in a line cost no more than one.
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

/// The piece of a line that does not end within it. The piece is the same however many bytes there are, so that where a
/// line is cut does not depend on how its bytes arrive. `no_hole`: the piece is known not to end within a hole.
fn part(bytes: &[u8], piece_bytes: usize, no_hole: bool) -> Step<Piece> {
    if !no_hole && bytes.len() < piece_bytes + HOLE_BYTES_MIN {
        return Step::NeedMore;
    }
    // A run of NULs is judged as a whole.
    let nuls = bytes[..piece_bytes].iter().rev().take_while(|byte| **byte == 0).count();
    let end = piece_bytes - nuls.min(piece_bytes - 1);
    Step::Item(piece(end, false), end)
}

/// The rest of a file that will not grow: a last line without newline.
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
