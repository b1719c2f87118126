//! What container runtimes write for Kubernetes (containerd, CRI-O): a head, then the bytes as they were printed.
//!
//! ```text
//! 2026-11-25T10:00:00.123456789Z stdout F text            a line
//! 2026-11-25T10:00:00.123456789Z stdout P text            a part of one, of any length; the next of its channel goes on
//! ```
//! Source of the format: kubernetes, design-proposals-archive, kubelet-cri-logging.md. The tag may have more behind a
//! colon (`F:…`), of which nothing is defined. Each part has a time of its own, so that only the tag says what belongs
//! together: the assembler has to be told ([`super::assemble::Assembler::joins_by_tag`]).
//!
//! Damage costs only itself: NUL holes are skipped, and of a torn head with a good record glued behind it the good one is
//! found again. Glued behind a torn message it can't be told from the message.

use super::{DecodeError, Piece, Step, timestamp};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{MessageForm, StdType};

/// Longest tag that is believed.
const TAG_BYTES_MAX: usize = 64;

/// The first record of `bytes`, newline included in what it takes.
pub fn next_record(bytes: &[u8]) -> Step<Piece> {
    match memchr::memchr(b'\n', bytes) {
        Some(end) => {
            let holes = bytes.iter().take_while(|byte| **byte == 0).count();
            if holes > 0 {
                return Step::Reject(DecodeError::NulHole, holes);
            }
            let line = &bytes[..end];
            match parse(line) {
                Some(piece) => Step::Item(piece, end + 1),
                None => Step::Reject(DecodeError::TornRecord, good_record_behind(line).unwrap_or(end + 1)),
            }
        }
        // The hole may be longer than any buffer: take it as it comes.
        None if bytes.first() == Some(&0) => {
            Step::Reject(DecodeError::NulHole, bytes.iter().take_while(|byte| **byte == 0).count())
        }
        None if bytes.len() >= RECORD_BYTES_MAX => Step::Reject(DecodeError::RecordTooLong, bytes.len()),
        None => Step::NeedMore,
    }
}

/// A quick look whether a first line is such a record (`format: auto`).
pub fn looks_like_record(line: &[u8]) -> bool {
    parse(line.strip_suffix(b"\n").unwrap_or(line)).is_some()
}

fn parse(line: &[u8]) -> Option<Piece> {
    let mut blanks = memchr::memchr_iter(b' ', line);
    let (time_end, stream_end) = (blanks.next()?, blanks.next()?);
    // An empty text may lack its blank.
    let tag_end = blanks.next().unwrap_or(line.len());
    timestamp::parse(&line[..time_end])?;
    let std_type = match &line[time_end + 1..stream_end] {
        b"stdout" => StdType::Stdout,
        b"stderr" => StdType::Stderr,
        _ => return None,
    };
    let complete = match &line[stream_end + 1..tag_end] {
        [b'F'] | [b'F', b':', ..] => true,
        [b'P'] | [b'P', b':', ..] => false,
        _ => return None,
    };
    let text = (tag_end + 1).min(line.len())..line.len();
    (tag_end - stream_end <= TAG_BYTES_MAX).then(|| Piece {
        decoded_len: text.len(),
        text,
        time: 0..time_end,
        form: MessageForm::Raw,
        std_type,
        complete,
    })
}

/// Where in a damaged line something begins that is worth a look: a time before the first channel, else a hole.
fn good_record_behind(line: &[u8]) -> Option<usize> {
    let channels = [&b" stdout "[..], b" stderr "];
    let time_end =
        channels.iter().filter_map(|channel| memchr::memmem::find(line, channel)).min().unwrap_or(0);
    let begins = time_end.saturating_sub(timestamp::TIME_BYTES_MAX).max(1)..time_end;
    begins.into_iter().find(|begin| parse(&line[*begin..]).is_some()).or_else(|| {
        let hole = memchr::memchr(0, line)?;
        (hole > 0).then_some(hole)
    })
}

#[cfg(test)]
#[path = "cri_tests.rs"]
mod tests;
