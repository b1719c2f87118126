//! What files of records (json-file, CRI) have in common: a record fills a line, and damage costs only itself. Holes of
//! NULs are skipped, and a good record glued behind a torn one is found again.
//!
//! The work for a line is a small multiple of its length, whatever it contains: `next_record` rejects all of the damage
//! in one step, so that bytes are not looked at again for each byte that is skipped.

use super::{DecodeError, Piece, Step, work};
use crate::limits::RECORD_BYTES_MAX;

/// This many NULs in a row within a line are a hole and end the line. A program may have printed fewer.
pub const HOLE_BYTES_MIN: usize = 64;

/// The first record of `bytes`; what it takes includes its newline. `parse` parses a whole line. `behind` says where in
/// a damaged line a good record begins that reaches to the line's end.
pub(super) fn next_record(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Option<Piece>,
    behind: impl Fn(&[u8]) -> Option<usize>,
) -> Step<Piece> {
    let holes = leading_nuls(bytes);
    if holes > 0 {
        // A hole may be longer than any buffer: skip it as it comes.
        return Step::Reject(DecodeError::NulHole, holes);
    }
    let Some(end) = newline(bytes) else {
        return if bytes.len() >= RECORD_BYTES_MAX {
            Step::Reject(DecodeError::RecordTooLong, bytes.len())
        } else {
            Step::NeedMore
        };
    };
    let line = &bytes[..end];
    match parse(line) {
        Some(piece) => Step::Item(piece, end + 1),
        None => Step::Reject(DecodeError::TornRecord, behind(line).unwrap_or(end + 1)),
    }
}

/// Where the first newline is.
pub(super) fn newline(bytes: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'\n', bytes);
    work::add(end.unwrap_or(bytes.len()));
    end
}

/// The first bytes of a file without the NULs at their end, which are room that its writer will fill, or a hole.
/// (UTF-16 text has NULs in other places, too.) Empty if the hole at the beginning is longer than `first`.
pub fn without_room(first: &[u8]) -> &[u8] {
    let end = first.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let is_room = first.len() - end >= HOLE_BYTES_MIN || !first[..end].contains(&0);
    if is_room { &first[..end] } else { first }
}

/// How many NULs `bytes` begins with.
pub fn leading_nuls(bytes: &[u8]) -> usize {
    const BLOCK: usize = 64;
    if bytes.first() != Some(&0) {
        return 0;
    }
    let blocks =
        bytes.chunks_exact(BLOCK).take_while(|block| block.iter().fold(0, |all, byte| all | byte) == 0);
    let at = blocks.count() * BLOCK;
    let nuls = at + bytes[at..].iter().take_while(|byte| **byte == 0).count();
    work::add(nuls);
    nuls
}

/// Where the last run of at least [`HOLE_BYTES_MIN`] NULs ends.
pub(super) fn last_hole_end(line: &[u8]) -> Option<usize> {
    let mut end = line.len();
    while let Some(last) = memchr::memrchr(0, &line[..end]) {
        let nuls = line[..=last].iter().rev().take_while(|byte| **byte == 0).count();
        work::add(end - last + nuls);
        if nuls >= HOLE_BYTES_MIN {
            return Some(last + 1);
        }
        end = last + 1 - nuls;
    }
    work::add(end);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_whatever_their_length() {
        for len in [0, 1, 63, 64, 65, 127, 128, 4096, 4097] {
            let mut bytes = vec![0; len];
            assert_eq!(leading_nuls(&bytes), len);
            bytes.push(b'x');
            bytes.extend([0; 100]);
            assert_eq!(leading_nuls(&bytes), len);
            let line = [b"torn", &vec![0; len][..], b"next\0\0x"].concat();
            assert_eq!(last_hole_end(&line), (len >= HOLE_BYTES_MIN).then_some(4 + len), "{len} from behind");
        }
    }
}
