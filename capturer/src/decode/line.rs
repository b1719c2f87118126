//! Raw lines: every newline ends a message. One longer than the program's bound comes in pieces, which are joined like
//! Docker's up to `line_bytes_max` and passed over beyond it.
//!
//! A hole of NULs, which an outside truncate or a power cut leaves, is no part of a line: it is skipped at a line's
//! beginning, and a long one ends the line it stands in.

use super::damage::{self, HOLE_BYTES_MIN};
use super::{DecodeError, Piece, Step, work};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{MessageForm, StdType};

/// The first line of `bytes`, newline included in what it takes. `nuls`: a buffer that holds `bytes` has some.
pub fn next_line(bytes: &[u8], nuls: bool) -> Step<Piece> {
    if nuls {
        return next_among_holes(bytes);
    }
    match damage::newline(bytes) {
        Some(end) => Step::Item(piece(end, true), end + 1),
        None => part(bytes),
    }
}

/// One pass up to a newline or a hole, so that many holes in a line cost no more than one.
fn next_among_holes(bytes: &[u8]) -> Step<Piece> {
    let nuls = damage::leading_nuls(bytes);
    if nuls > 0 {
        return Step::Reject(DecodeError::NulHole, nuls);
    }
    let mut at = 0;
    while let Some(run) = memchr::memchr2(b'\n', 0, &bytes[at..]) {
        let end = at + run;
        work::add(run);
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
    part(bytes)
}

/// There is no end yet.
fn part(bytes: &[u8]) -> Step<Piece> {
    if bytes.len() < RECORD_BYTES_MAX {
        return Step::NeedMore;
    }
    // The same piece however much is there, so that where it is cut does not depend on how the bytes come.
    Step::Item(piece(RECORD_BYTES_MAX, false), RECORD_BYTES_MAX)
}

/// What is left at the end of a file that will not grow: a last line without newline.
pub fn last_line(bytes: &[u8]) -> Option<Piece> {
    (!bytes.is_empty()).then(|| piece(bytes.len(), true))
}

fn piece(len: usize, complete: bool) -> Piece {
    Piece {
        text: 0..len,
        time: 0..0,
        form: MessageForm::Raw,
        decoded_len: len,
        std_type: StdType::Stdout,
        complete,
    }
}
