//! Raw lines: every newline ends a message. One longer than the program's bound comes in pieces, which are joined like
//! Docker's up to `line_bytes_max` and passed over beyond it.

use super::{Piece, Step};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{MessageForm, StdType};

/// The first line of `bytes`, newline included in what it takes.
pub fn next_line(bytes: &[u8]) -> Step<Piece> {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => Step::Item(piece(end, true), end + 1),
        None if bytes.len() >= RECORD_BYTES_MAX => Step::Item(piece(bytes.len(), false), bytes.len()),
        None => Step::NeedMore,
    }
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
